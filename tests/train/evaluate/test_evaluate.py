"""Evaluation: the same predictions whatever the batches, processes and interruptions, and every turn in them."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import Any

import PIL.Image
import pytest
import torch
from torch.utils.data import Dataset

from convkit.cli import main
from convkit.errors import ConvkitError
from convkit.metrics.predictions import read_predictions
from convkit.schema import Row
from convkit.train.data.loader import batches
from convkit.train.evaluate import run
from convkit.train.evaluate.generate import Generator
from convkit.train.evaluate.questions import Question, questions, two_answers
from convkit.train.evaluate.run import Options
from convkit.train.models import model_family, tiny
from tests.fixtures.make_datasets import manifest
from tests.train.conftest import TEXTS
from tests.train.helpers import runs

ROWS = 5
TURNS = 8


def _rows(labelled: bool = True) -> list[dict[str, Any]]:
    """Every other row has a second turn, without an image of its own."""
    found = []
    for number in range(ROWS):
        turns: list[dict[str, Any]] = [
            {"images": [f"{number}.png"], "user": "Is it true?", "assistant": ["Yes", "No"][number % 2]}
        ]
        if number % 2 == 0:
            turns.append({"images": [], "user": f"What of {number}?", "assistant": ["No", "Yes"][number // 2 % 2]})
        if not labelled:
            turns = [{**turns[0], "assistant": None}]
        found.append(
            {
                "id": f"r{number}",
                "source": "pets",
                "conversations": [{k: v for k, v in turn.items() if v is not None} for turn in turns],
            }
        )
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("smolvlm")
    tiny.smolvlm(directory, [*TEXTS, "Yes No"] * 4)
    return directory


def _dataset(directory: Path, model: Path, content: list[dict[str, Any]]) -> Path:
    runs.write_dataset(directory, content, validated=False)
    for path in (directory / "images").iterdir():
        PIL.Image.effect_noise((40, 30), sum(path.name.encode())).save(path)
    runs.receipt(directory, model_family(model).profile)
    return directory


@pytest.fixture(scope="module")
def dataset(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _dataset(tmp_path_factory.mktemp("data") / "pets", model, _rows())


@pytest.fixture
def options(dataset: Path, model: Path, tmp_path: Path) -> Options:
    return Options(
        data_dir=dataset,
        model=model,
        output_dir=tmp_path / "out",
        split="train",
        batch_size=2,
        max_new_tokens=6,
        dataloader_num_workers=0,
    )


def _run(options: Options) -> bytes:
    return run.evaluate(options, runs.ONE).read_bytes()


def test_every_turn_is_answered_in_order(options: Options) -> None:
    _run(options)
    found = read_predictions(options.output_dir / run.PREDICTIONS)
    assert [(p.id, p.turn) for p in found] == [(f"r{n}", t) for n in range(ROWS) for t in range(2 - n % 2)]
    assert [p.gold for p in found] == [t["assistant"] for row in _rows() for t in row["conversations"]]


@pytest.mark.parametrize("change", [{"batch_size": 1}, {"batch_size": 8}, {"dataloader_num_workers": 1}])
def test_answers_do_not_depend_on_batches(options: Options, tmp_path: Path, change: dict[str, int]) -> None:
    first = [json.loads(line) for line in _run(options).splitlines()]
    other = [json.loads(line) for line in _run(replace(options, output_dir=tmp_path / "b", **change)).splitlines()]  # type: ignore[arg-type]
    assert [{**p, "score": 0} for p in first] == [{**p, "score": 0} for p in other]
    assert [p["score"] for p in first] == pytest.approx([p["score"] for p in other], abs=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.77, 1.0])
def test_killed_anywhere_it_ends_in_the_same_file(
    options: Options, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _run(options)
    cut = whole[: int(len(whole) * share)]
    (options.output_dir / run.PREDICTIONS).unlink()
    (options.output_dir / "predictions.part.jsonl").write_bytes(cut)
    calls = []
    answer = Generator.__call__

    def counted(self: Generator, batch: dict[str, Any]) -> Any:
        calls.append(1)
        return answer(self, batch)

    monkeypatch.setattr(Generator, "__call__", counted)
    assert _run(options) == whole
    assert len(calls) == TURNS // 2 - cut.count(b"\n") // 2


def test_a_finished_one_is_not_repeated(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _run(options)
    monkeypatch.setattr(Generator, "__call__", None)
    assert _run(options) == whole


@pytest.mark.parametrize(
    ("change", "named"), [({"history": "none"}, "--history"), ({"max_new_tokens": 5}, "--max_new_tokens")]
)
def test_another_evaluation_in_the_folder_is_refused(options: Options, change: dict[str, Any], named: str) -> None:
    _run(options)
    with pytest.raises(ConvkitError, match=f"another evaluation: {named}"):
        _run(replace(options, **change))


def test_before_its_first_answer_an_evaluation_binds_nobody(options: Options, tmp_path: Path) -> None:
    with pytest.raises(ConvkitError, match=r"holds no adapter_model\.safetensors"):
        _run(replace(options, adapter=tmp_path))
    with pytest.raises(ConvkitError, match="Raise --max_tokens"):
        _run(replace(options, max_tokens=3))
    found = _run(options)
    written = json.loads((options.output_dir / run.EVALUATION).read_bytes())
    assert (written["--model"], written["adapter"]) == (str(options.model), None)
    assert _run(replace(options, max_tokens=4096)) == found  # it refuses prompts, and changes none


def test_a_training_run_is_not_written_over(options: Options) -> None:
    options.output_dir.mkdir()
    for name in ("config.json", "run.json"):
        (options.output_dir / name).write_text("{}")
    with pytest.raises(ConvkitError, match=r"holds config\.json, of a training run"):
        _run(options)
    assert (options.output_dir / "run.json").read_text() == "{}"


def test_predictions_of_elsewhere_are_not_gone_on_with(options: Options) -> None:
    options.output_dir.mkdir()
    (options.output_dir / run.PREDICTIONS).write_text("{}\n")
    with pytest.raises(ConvkitError, match=r"evaluation\.json cannot be read"):
        _run(options)


def test_two_processes_write_the_same_file(options: Options, tmp_path: Path) -> None:
    whole = _run(options)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "convkit", "evaluate"]
    done = subprocess.run(
        [sys.executable, *launcher, *_arguments(options, tmp_path / "two")], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "two" / run.PREDICTIONS).read_bytes() == whole


def _arguments(options: Options, output: Path) -> list[str]:
    return [
        *("--data_dir", str(options.data_dir), "--split", "train", "--model", str(options.model)),
        *("--output_dir", str(output), "--batch_size", "2", "--max_new_tokens", "6", "--dataloader_num_workers", "0"),
    ]


def test_metrics_are_looked_at_before_anything_is_asked(
    options: Options, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main_code(monkeypatch, ["evaluate", *_arguments(options, tmp_path / "c"), "--metrics", "f1"]) == 2
    assert "There is no metric 'f1'" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_the_command_scores(
    options: Options, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not main_code(monkeypatch, ["evaluate", *_arguments(options, tmp_path / "c")])
    out = capsys.readouterr().out
    assert "accuracy" in out
    assert out.endswith(f"report: {tmp_path / 'c' / 'run.html'}\n")
    scores = json.loads((tmp_path / "c" / "scores.json").read_text())
    assert scores["sources"][0]["turns"] == TURNS
    page = (tmp_path / "c" / "run.html").read_text()
    assert "Evaluation. Finished." in page
    assert "data:image/jpeg;base64," in page
    (tmp_path / "c" / "run.json").write_text("{}")
    assert not main_code(monkeypatch, ["evaluate", *_arguments(options, tmp_path / "c")])
    assert "no report was written: " in capsys.readouterr().err


def test_a_split_without_labels_is_answered(
    model: Path,
    options: Options,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = tmp_path / "unlabelled"
    runs.write_dataset(data, _rows(labelled=False), validated=False)
    files = {"pets_test.jsonl": (data / "pets_train.jsonl").read_bytes()}
    (data / "pets_train.jsonl").rename(data / "pets_test.jsonl")
    (data / "dataset.json").write_bytes(manifest(files, test="pets_test.jsonl"))
    for path in (data / "images").iterdir():
        PIL.Image.effect_noise((40, 30), sum(path.name.encode())).save(path)
    runs.receipt(data, model_family(model).profile)
    arguments = _arguments(replace(options, data_dir=data), tmp_path / "c")
    assert not main_code(monkeypatch, ["evaluate", *arguments, "--split", "test"])
    assert len(read_predictions(tmp_path / "c" / run.PREDICTIONS)) == ROWS
    assert "no turn has a gold answer" in capsys.readouterr().out


def main_code(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> Any:
    monkeypatch.setattr(sys, "argv", ["convkit", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_an_answer_that_is_too_long_to_be_scored_is_named(options: Options, tmp_path: Path) -> None:
    rows = _rows()
    rows[1]["conversations"][0]["assistant"] = "x" * 100_001
    data = _dataset(tmp_path / "long", options.model, rows)
    with pytest.raises(ConvkitError, match=r"Turn 0 of row 'r1' cannot be scored: gold: .* 100000 characters"):
        _run(replace(options, data_dir=data))


def test_the_score_is_what_the_model_holds_of_the_first_token(options: Options) -> None:
    _run(options)
    family = model_family(options.model)
    row = Row.model_validate(_rows()[2])
    batch = family.collate([family.encode_prompt(row, options.data_dir / "images")], packed=False)
    del batch["labels"]
    with torch.inference_mode():
        logits = family.load(torch.float32, "sdpa").eval()(**batch).logits[0, -1].log_softmax(-1)
    ids = [family.tokenizer(word, add_special_tokens=False).input_ids for word in (" Yes", " No")]
    found = {(p.id, p.turn): p.score for p in read_predictions(options.output_dir / run.PREDICTIONS)}
    assert found["r2", 1] == pytest.approx(float(logits[ids[0][0]] - logits[ids[1][0]]), abs=1e-4)


def test_answers_that_begin_alike_are_compared_whole(options: Options, tmp_path: Path) -> None:
    rows = json.loads(json.dumps(_rows()).replace('"No"', '"Yes not"'))
    data = _dataset(tmp_path / "alike", options.model, rows)
    _run(replace(options, data_dir=data))
    family = model_family(options.model)
    model = family.load(torch.float32, "sdpa").eval()

    def likelihood(answer: str) -> float:
        prompt = family.encode_prompt(Row.model_validate(rows[2]), data / "images")
        ids = family.tokenizer(f" {answer}<end_of_utterance>", add_special_tokens=False).input_ids
        whole = torch.cat([prompt.input_ids, torch.tensor(ids)])[None]
        with torch.inference_mode():
            logits = model(input_ids=whole, **prompt.image_inputs).logits[0].log_softmax(-1)
        return sum(float(logits[len(prompt.input_ids) - 1 + place, id]) for place, id in enumerate(ids))

    found = {(p.id, p.turn): p.score for p in read_predictions(options.output_dir / run.PREDICTIONS)}
    assert found["r2", 1] == pytest.approx(likelihood("Yes") - likelihood("Yes not"), abs=1e-4)


def test_adapters_are_added(options: Options, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    with pytest.raises(ConvkitError, match=r"holds no adapter_model\.safetensors"):
        _run(replace(options, adapter=tmp_path))
    loaded = model_family(options.model).load(torch.float32, "sdpa")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        adapted = get_peft_model(loaded, LoraConfig(target_modules=["q_proj", "down_proj"], init_lora_weights=False))
        adapted.save_pretrained(tmp_path / "adapter")
    scores = []
    for name, adapter in {"without": None, "with": tmp_path / "adapter"}.items():
        _run(replace(options, output_dir=tmp_path / name, adapter=adapter))
        scores.append([p.score for p in read_predictions(tmp_path / name / run.PREDICTIONS)])
    assert scores[0] != pytest.approx(scores[1], abs=1e-2)


def test_history() -> None:
    turns = [
        {"images": ["a.png"], "user": "One?", "assistant": "Yes"},
        {"images": ["b.png"], "user": "And <image>?", "assistant": "No"},
    ]
    row = Row.model_validate({"id": "r", "source": "s", "conversations": turns})
    first, second = questions([row])
    assert first.asked("none") == first.asked("gold")
    assert len(first.asked("gold").conversations) == 1
    assert second.asked("gold") == row
    (alone,) = second.asked("none").conversations
    assert (alone.images, alone.user) == (("a.png", "b.png"), "<image>And <image>?")


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        (["no", "Yes.", "no"], {"s": ("Yes.", "no")}),
        (["a", "b"], {}),
        (["yes", "true"], {}),
        (["yes", "no", "perhaps"], {}),
        (["yes"], {}),
        ([None], {}),
    ],
)
def test_the_two_answers(answers: list[str | None], found: dict[str, tuple[str, str]]) -> None:
    asked = []
    for answer in answers:
        turn = {"images": [], "user": "?", **({} if answer is None else {"assistant": answer})}
        asked.append(Question(Row.model_validate({"id": "r", "source": "s", "conversations": [turn]}), 0))
    assert two_answers(asked, ("yes", "true")) == found


class _Numbers(Dataset[Any]):
    def __getitem__(self, pack: tuple[int, ...]) -> dict[str, Any]:
        return {"pack": pack}


def test_workers_outlive_a_schedulers_signal() -> None:
    order: Queue[tuple[int, ...] | None] = Queue()
    for number in range(20):
        order.put((number,))
    stream = batches(_Numbers(), iter(order.get, None), 1)
    assert next(stream) == {"pack": (0,)}
    for worker in multiprocessing.active_children():
        os.kill(worker.pid or 0, signal.SIGTERM)
    for number in range(20, 40):
        order.put((number,))
    order.put(None)
    assert [batch["pack"][0] for batch in stream] == list(range(1, 40))


def test_embeddings_of_images_have_the_type_of_those_of_text(options: Options) -> None:
    family = model_family(options.model)
    loaded = family.load(torch.float32, "sdpa")
    seen = []
    loaded.model.connector.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    batch = family.collate([family.encode(Row.model_validate(_rows()[1]), options.data_dir / "images")], False)
    with torch.autocast("cpu", torch.bfloat16):
        loaded(**batch)
    assert seen == [torch.float32]
