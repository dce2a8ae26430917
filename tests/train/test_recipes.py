"""The four recipes at toy size, from the published source to scores: one command converts, one trains."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convkit.cli import main
from convkit.train.models import tiny
from tests.converters import test_docvqa as docvqa
from tests.converters import test_hateful_memes as hateful_memes
from tests.converters import test_nlvr2 as nlvr2
from tests.fixtures.make_clips import CLASSES, write_clip
from tests.train.conftest import TEXTS

TOY = {
    "num_crops": 1,
    "batch_size": 4,
    "num_train_epochs": 1,
    "eval_batch_size": 2,
    "eval_max_new_tokens": 3,
    "max_tokens": 4096,
    "dataloader_num_workers": 0,
}


def _ucf101(root: Path) -> None:
    for group, (split, label) in enumerate((split, label) for split in ("train", "val") for label in CLASSES):
        write_clip(root / split / label / f"v_{label}_g{group:02d}_c01.avi", 8, CLASSES[label], group)


def _docvqa(root: Path) -> None:
    (root / "documents").mkdir(parents=True)
    for page in range(4):
        Image.effect_noise((90, 120), 20 + 10 * page).convert("RGB").save(root / f"documents/page_{page}.png")
    for split, pages in (("train", (0, 1)), ("val", (2, 3))):
        data = [docvqa.datum(10 + page, f"page_{page}", [f"{page}", "a cup"]) for page in pages]
        docvqa.write(root / f"qas/{split}_v1.0_withQT.json", *data)


def _nlvr2(root: Path) -> None:
    for split, folder, sets in (("train", "images/train/7", (1, 2)), ("dev", "dev", (3, 4))):
        lines = [
            nlvr2.annotation(f"{split}-{number}-0-{k}", label=label, directory=7)
            for number in sets
            for k, label in enumerate(("True", "False"))
        ]
        nlvr2.write_lines(
            root / f"data/{split}.json", *({**line, "sentence": f"{line['identifier'][-1]} dogs."} for line in lines)
        )
        for number in sets:
            nlvr2.draw_pair(root / folder, f"{split}-{number}-0", 10 * number)


def _hateful_memes(root: Path) -> None:
    for split, numbers in (("train", (1, 2, 3, 4)), ("dev", (5, 6))):
        hateful_memes.write(root / f"data/{split}.jsonl", *(hateful_memes.meme(n, n % 2) for n in numbers))
        hateful_memes.draw(root / "data/img", *numbers)


RECIPES: dict[str, tuple[Callable[[Path], None], dict[str, Any], float, int, set[str]]] = {
    # converter: (source, method, the recipe's learning rate for it, rows trained on, what is scored)
    "ucf101": (_ucf101, {"use_lora": True}, 4e-5, 4, {"accuracy"}),
    "docvqa": (_docvqa, {}, 5e-6, 2, {"anls", "accuracy"}),
    "nlvr2": (_nlvr2, {"freeze_vision_model": True}, 2e-5, 4, {"accuracy", "consistency"}),
    "hateful-memes": (_hateful_memes, {"use_lora": True}, 2e-4, 4, {"accuracy", "auroc"}),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a tiny model whose first tokens distinguish the two answers of Hateful Memes."""
    directory = tmp_path_factory.mktemp("phi3_v")
    tiny.phi3_v(directory, [*TEXTS, *["Yes. No. Yes No"] * 8])
    return directory


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_from_the_source_to_scores(
    name: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def convkit(*arguments: str | Path) -> None:
        monkeypatch.setattr(sys, "argv", ["convkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0, capsys.readouterr()

    write, method, rate, rows, metrics = RECIPES[name]
    write(tmp_path / "source")
    data, out = tmp_path / "data", tmp_path / "run"
    convkit("convert", name, "--source", tmp_path / "source", "--out_dir", data)
    chosen = [part for key, value in TOY.items() for part in (f"--{key}", str(value))] + [f"--{key}" for key in method]
    paths = ("--data_dir", data, "--model", model, "--output_dir", out)
    convkit("train", *paths, "--recipe", name, "--validate", "--eval_split", "val", *chosen)

    recorded = json.loads((out / "config.json").read_bytes())
    assert (recorded["learning_rate"], recorded["eval_split"]) == (rate, "val")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_bytes().splitlines()]
    assert sum(line["rows"] for line in lines) == rows
    for step in (0, len(lines)):
        scores = json.loads((out / f"evaluations/step-{step:08}/scores.json").read_bytes())
        (source,) = scores["sources"]
        assert (source["source"], scores["complete"]) == (name, True)
        values = {metric["name"]: metric["value"] for metric in source["metrics"]}
        assert values.keys() == metrics
        assert all(value is not None and 0 <= value <= 1 for value in values.values()), source
    assert capsys.readouterr().out.endswith(f"report: {out / 'run.html'}\n")
    page = (out / "run.html").read_text()
    assert f"Finished after step {len(lines)} of {len(lines)}." in page
    assert "data:image/jpeg;base64," in page
    assert page.count("<figure>") == 6
