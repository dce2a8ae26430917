"""Test training runs of the model families that transformers implements, with padded batches."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch

from convkit.cli import main
from convkit.dataset import Dataset
from convkit.errors import ConvkitError, DatasetError
from convkit.train.models import model_family
from convkit.train.models.family import ModelFamily
from convkit.train.models.hf.families import FAMILIES
from convkit.train.models.merge import merge_adapter
from convkit.train.run import train
from tests.train.helpers import runs

METHODS: dict[str, dict[str, Any]] = {
    "full": {},
    "frozen": {"freeze_vision_model": True},
    "lora": {"use_lora": True},
    "lora, full vision": {"use_lora": True, "full_vision_model": True, "bf16": True},
    "lora float8": {"use_lora": True, "bf16": True, "fp8": True},
}


@pytest.fixture(scope="module")
def smolvlm(tiny_checkpoint: Callable[[str], Path]) -> ModelFamily:
    return model_family(tiny_checkpoint("smolvlm"))


@pytest.fixture(scope="module")
def dataset(smolvlm: ModelFamily, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _dataset(tmp_path_factory.mktemp("data") / "pets", smolvlm.profile)


def _dataset(directory: Path, model: str | None) -> Path:
    runs.write_dataset(directory, validated=False)
    for path in (directory / "images").iterdir():
        PIL.Image.effect_noise((40, 30), sum(path.name.encode())).save(path)
    runs.receipt(directory, model)
    return directory


def _config(dataset: Path, family: Any, run: Path, **options: Any) -> Any:
    return runs.config(dataset, family.directory, run, num_crops=None, **options)


def _gradients(dataset: Path, family: ModelFamily, **options: Any) -> tuple[list[int], float, dict[str, torch.Tensor]]:
    trainer, packs = runs.parts(_config(dataset, family, dataset, **options), family)
    chosen = trainer.schedule.micro_batches(0)
    losses = trainer.backward(0, chosen, map(packs.batch, chosen))
    named = {name: p.grad for name, p in trainer.sharding.model.named_parameters() if p.grad is not None}
    return [len(pack) for pack in chosen], float(losses.sum()), named


@pytest.mark.parametrize("method", ["full", "lora"])
def test_gradients_do_not_depend_on_the_batch_layout(dataset: Path, smolvlm: ModelFamily, method: str) -> None:
    layouts: list[dict[str, Any]] = [
        {},
        {"max_tokens": 150},
        {"batch_size_per_gpu": 1},
        {"gradient_checkpointing": "all"},
    ]
    found = [_gradients(dataset, smolvlm, **layout, **METHODS[method]) for layout in layouts]
    assert [len(packs) for packs, _, _ in found] == [1, 2, 4, 1]
    _, loss, expected = found[0]
    for _, other_loss, other in found[1:]:
        assert other_loss == pytest.approx(loss, abs=1e-6)
        assert other.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(other[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_of_every_family_do_not_depend_on_the_micro_batch_size(
    dataset: Path, tiny_checkpoint: Callable[[str], Path], name: str
) -> None:
    family = model_family(tiny_checkpoint(name))
    (together, loss, expected), (alone, other_loss, other) = (
        _gradients(dataset, family, **layout) for layout in ({}, {"batch_size_per_gpu": 1})
    )
    assert (together, alone) == ([4], [1] * 4)
    assert other_loss == pytest.approx(loss, abs=1e-5)
    for name, gradient in expected.items():
        torch.testing.assert_close(other[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_trains_in_mixed_precision(
    dataset: Path, tiny_checkpoint: Callable[[str], Path], name: str
) -> None:
    """Modules with 16-bit and with float32 weights must work together in every model."""
    family = model_family(tiny_checkpoint(name))
    full_vision = {"use_lora": True, "full_vision_model": True}
    methods: list[dict[str, Any]] = [{}, {"freeze_vision_model": True}, full_vision]
    for options in [*({**method, "bf16": True} for method in methods), {"use_lora": True, "fp16": True}]:
        _, loss, gradients = _gradients(dataset, family, **options)
        assert loss == pytest.approx(5.8, abs=0.2), options  # the log of the vocabulary size, about 330
        assert all(gradient.dtype is torch.float32 for gradient in gradients.values()), options


@pytest.mark.parametrize("name", ["gemma3", "qwen2_5_vl"])
def test_preflight_finds_gradients_of_all_trainable_parameters(
    tiny_checkpoint: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    """The memory preflight runs before the first step of a run."""
    family, messages = model_family(tiny_checkpoint(name)), list[str]()
    data = _dataset(tmp_path / "pets", family.profile)
    train(_config(data, family, tmp_path / "run"), family, runs.ONE, log=messages.append)
    assert f"{runs.ROWS} rows planned = {runs.ROWS} trained" in messages[-1]


@pytest.mark.parametrize("method", METHODS)
def test_each_method_trains_its_parameters_and_saves_a_usable_model(
    dataset: Path, smolvlm: ModelFamily, tmp_path: Path, method: str
) -> None:
    messages: list[str] = []
    config = _config(dataset, smolvlm, tmp_path / "run", num_train_epochs=2, **METHODS[method])
    train(config, smolvlm, runs.ONE, log=messages.append)
    assert f"{2 * runs.ROWS} rows planned = {2 * runs.ROWS} trained" in messages[-1]
    result = tmp_path / "run/final/model"
    if "lora" in method:
        merge_adapter(smolvlm, config.model, tmp_path / "run/final/adapter", result)
    after = model_family(result)
    assert after.profile == smolvlm.profile
    before, trained = (dict(a.load(torch.float32, "sdpa").named_parameters()) for a in (smolvlm, after))
    changed = {name for name in before if not torch.equal(before[name], trained[name])}
    vision = {name for name in before if name.startswith(smolvlm.vision_modules)}
    assert bool(vision & changed) == (method != "frozen")
    assert (vision <= changed) == ("full" in method)
    assert any(name.startswith("model.text_model") for name in changed)


def test_rotary_frequencies_stay_float32_with_bfloat16_weights(dataset: Path, smolvlm: ModelFamily) -> None:
    trainer, packs = runs.parts(_config(dataset, smolvlm, dataset, bf16=True, optim="adamw_bf16"), smolvlm)
    model = trainer.sharding.model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for name, buffer in model.named_buffers() if "inv_freq" in name} == {torch.float32}
    ours = trainer.step(0, map(packs.batch, trainer.schedule.micro_batches(0)))
    plain, _ = runs.parts(_config(dataset, smolvlm, dataset), smolvlm)
    exact = plain.step(0, map(packs.batch, plain.schedule.micro_batches(0)))
    assert ours.loss == pytest.approx(exact.loss, rel=0.01)
    assert ours.grad_norm == pytest.approx(exact.grad_norm, rel=0.05)


def test_a_killed_and_resumed_run_ends_with_the_same_weights(
    dataset: Path, smolvlm: ModelFamily, tmp_path: Path
) -> None:
    finals = []
    for name, killed in (("whole", False), ("parts", True)):
        run = tmp_path / name
        config = _config(dataset, smolvlm, run, num_train_epochs=2, save_steps=1, resume="auto")
        train(config, smolvlm, runs.ONE)
        if killed:  # simulate a kill before the last checkpoint
            shutil.rmtree(run / "final")
            shutil.rmtree(max((run / "checkpoints").iterdir()))
            train(config, smolvlm, runs.ONE)
        finals.append((run / "final/model/model.safetensors").read_bytes())
    assert finals[0] == finals[1]


def test_the_receipt_must_match_the_token_profile(dataset: Path, smolvlm: ModelFamily, tmp_path: Path) -> None:
    other = _dataset(tmp_path / "pets", "smolvlm")
    with pytest.raises(DatasetError, match="not validated for smolvlm:longest_edge=64,max_image_size=64"):
        train(_config(other, smolvlm, tmp_path / "run"), smolvlm, runs.ONE)


def test_num_crops_is_rejected(smolvlm: Any) -> None:
    with pytest.raises(ConvkitError, match=r"--num_crops is an option of Phi-3-vision.* Leave it out.* --recipe"):
        model_family(smolvlm.directory, num_crops=2)


def test_the_train_command_trains_a_padded_family(
    dataset: Path, smolvlm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data_dir", dataset, "--model", smolvlm.directory, "--output_dir", tmp_path / "run", "--validate"]
    options += ["--dataloader_num_workers", "0", "--no_tqdm", "--batch_size", "4"]
    monkeypatch.setattr("sys.argv", ["convkit", "train", *map(str, options)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0, capsys.readouterr().err
    assert (tmp_path / "run/final/model/chat_template.jinja").is_file()


TRANSFORMERS_ONLY = """
import json, sys
import PIL.Image
from transformers import AutoModelForImageTextToText, AutoProcessor

directory, image, question = sys.argv[1:]
model, processor = AutoModelForImageTextToText.from_pretrained(directory), AutoProcessor.from_pretrained(directory)
content = [{"type": "image"}, {"type": "text", "text": question}]
text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
inputs = processor(text=text, images=[PIL.Image.open(image).convert("RGB")], return_tensors="pt")
answer = model.generate(**inputs, max_new_tokens=4, do_sample=False)
ours = [name for name in sys.modules if name.startswith("convkit")]
print(json.dumps([inputs["input_ids"].tolist(), answer.tolist(), ours]))
"""


def test_transformers_loads_a_trained_model_without_convkit(
    tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """LLaVA's processor needs Pillow only."""
    family = model_family(tiny_checkpoint("llava"))
    data, run = _dataset(tmp_path / "pets", family.profile), tmp_path / "run"
    train(_config(data, family, run), family, runs.ONE)
    trained = model_family(run / "final/model")
    row = next(row for _, row in Dataset.open(data).rows("train"))
    prompt = trained.collate([trained.encode_prompt(row, data / "images")], packed=False)
    model = trained.load(torch.float32, "sdpa").eval()
    del prompt["labels"]
    expected = model.generate(**prompt, max_new_tokens=4, do_sample=False)

    (turn,) = row.conversations
    command = [
        sys.executable,
        "-c",
        TRANSFORMERS_ONLY,
        run / "final/model",
        data / "images" / turn.images[0],
        turn.user,
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ids, answer, ours = json.loads(done.stdout.splitlines()[-1])
    assert ids == prompt["input_ids"].tolist()
    assert answer == expected.tolist()
    assert not ours
