"""`convkit merge`: the merged model computes what model and adapter compute; what does not fit is refused."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from convkit.cli import main
from convkit.errors import ConvkitError
from convkit.train import run
from convkit.train.models import tiny
from convkit.train.models.merge import merge_adapter
from convkit.train.models.phi3_v.family import Phi3VFamily
from tests.train.conftest import TEXTS
from tests.train.helpers import runs

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, family: Phi3VFamily) -> Path:
    folder = tmp_path_factory.mktemp("merge")
    data = runs.write_dataset(folder / "pets")
    chosen = runs.config(data, family.directory, folder / "run", use_lora=True, learning_rate=0.01)
    run.train(chosen, family, runs.ONE, log=lambda text: None)
    return folder


def logits(model: torch.nn.Module, family: Phi3VFamily, folder: Path) -> Tensor:
    config = runs.config(folder / "pets", family.directory, folder)
    trainer, packs = runs.parts(config, family)
    with torch.no_grad():
        batch = packs.batch(trainer.schedule.micro_batches(0)[0])
        del batch["logits_to_keep"]  # compute all logits
        outcome: Tensor = model.eval()(**batch, use_cache=False).logits
    return outcome


def test_the_merged_model_computes_the_same_logits(
    trained: Path,
    family: Phi3VFamily,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from peft import PeftModel

    lora, out = trained / "run/final/adapter", tmp_path / "merged"
    options = ["--model", family.directory, "--adapter", lora, "--out", out, "--num_crops", "1"]
    monkeypatch.setattr(sys, "argv", ["convkit", "merge", *map(str, options)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert "in float32" in capsys.readouterr().out
    expected = logits(PeftModel.from_pretrained(family.load(torch.float32), lora), family, trained)
    base = logits(family.load(torch.float32), family, trained)
    merged = Phi3VFamily(out)
    ours = logits(merged.load(torch.float32), family, trained)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    assert (base - expected).abs().max() > 1e-3
    assert merged.num_crops == 1
    assert {path.name for path in out.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}


def test_checkpoint_files_have_the_permissions_of_new_files(trained: Path) -> None:
    new = trained / "new"
    new.touch()
    files = [
        path
        for path in (trained / "run").rglob("*.safetensors")
        if "checkpoints" in path.parts or "final" in path.parts
    ]
    assert {path.stat().st_mode for path in files} == {new.stat().st_mode}


def test_the_dtype_of_merged_weights_can_be_chosen(trained: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    out.mkdir()
    assert merge_adapter(family, family.directory, trained / "run/final/adapter", out, "bfloat16") == "bfloat16"
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((out / "config.json").read_bytes())["dtype"] == "bfloat16"


def _other(trained: Path, family: Phi3VFamily, scratch: Path) -> Path:
    tiny.phi3_v(scratch / "other", TEXTS, seed=1)
    return scratch / "other"


def _wider(trained: Path, family: Phi3VFamily, scratch: Path) -> Path:
    """Make an adapter without a recorded base model, for a model with other shapes."""
    lora = trained / "run/final/adapter"
    (lora / "base.json").unlink()
    tensors = load_file(lora / "adapter_model.safetensors")
    save_file({name: t.repeat(2, 2) for name, t in tensors.items()}, lora / "adapter_model.safetensors")
    return family.directory


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_other, r"was trained on BASE, but .*/other is a different checkpoint.*Pass the original one"),
        (_wider, r"does not fit the model: .*size mismatch.*Pass the checkpoint"),
    ],
)
def test_an_adapter_of_another_model_is_rejected(
    trained: Path, family: Phi3VFamily, tmp_path: Path, make: Callable[..., Path], message: str
) -> None:
    copy = shutil.copytree(trained, tmp_path / "trained")
    model = make(copy, family, tmp_path)
    with pytest.raises(ConvkitError, match=message.replace("BASE", re.escape(str(family.directory)))):
        merge_adapter(Phi3VFamily(model), model, copy / "run/final/adapter", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_non_empty_output_and_a_missing_adapter_are_rejected(
    trained: Path, family: Phi3VFamily, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes").write_text("mine")
    lora = trained / "run/final/adapter"
    with pytest.raises(ConvkitError, match=r"out already exists and is not empty\. Choose another --out"):
        merge_adapter(family, family.directory, lora, tmp_path / "out")
    with pytest.raises(ConvkitError, match=r"run has no adapter_model\.safetensors"):
        merge_adapter(family, family.directory, trained / "run", tmp_path / "new")


def test_an_adapter_of_tied_embeddings_is_rejected(
    trained: Path, family: Phi3VFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = family.load(torch.float32)
    model.lm_head.weight = model.get_input_embeddings().weight
    monkeypatch.setattr(Phi3VFamily, "load", lambda *_: model)
    with pytest.raises(ConvkitError, match="with tied embeddings"):
        merge_adapter(family, family.directory, trained / "run/final/adapter", tmp_path / "out")
