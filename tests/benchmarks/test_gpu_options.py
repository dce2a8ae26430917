"""Benchmarks that need a GPU, whose minutes are dear: that their options are those of the commands they call."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import typer

from benchmarks import layers_gpu, learns, train_gpu, train_speed
from convkit.cli import app

TRAIN = {
    **{name: [*train_gpu.COMMON, *own] for name, own in train_gpu.METHODS.items()},
    "learns": learns.options([]),
}
BENCH = {name: f"{train_speed.COMMON} {own}".split() for name, own in train_speed.RUNS.items()}


def parse(options: Sequence[str], *commands: str) -> None:
    """Raises what the command line says of options that it does not know."""
    command = typer.main.get_command(app)
    context = command.make_context("convkit", [*commands, *options], resilient_parsing=False)
    for name in commands:
        command = command.get_command(context, name)  # type: ignore[attr-defined]
    command.make_context(commands[-1], list(options))


@pytest.mark.parametrize("name", TRAIN)
def test_options_are_those_of_train(name: str) -> None:
    parse(TRAIN[name], "train")


@pytest.mark.parametrize("name", BENCH)
def test_options_are_those_of_bench_train(name: str) -> None:
    parse(BENCH[name], "bench", "train")


def test_names_of_groups_stand_for_their_runs(tmp_path: Path) -> None:
    told = train_speed.arguments(["--results", str(tmp_path / "new"), "memory", "video", "--", "--steps", "2"])
    assert told.names == ["lora_16", "qlora_10", "video"] and told.extra == ["--steps", "2"]
    assert "pages" not in train_speed.arguments(["--results", str(tmp_path)]).names


@pytest.mark.parametrize(
    ("given", "message"),
    [(["video", "vidoe"], "no run vidoe; there are: methods, "), (["disk"], "pages needs --pages")],
)
def test_runs_that_cannot_be_are_refused(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train_speed.arguments(given)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("way", ["lora, crops in two parts", "lora, peft's adapters", "full, documents end to end"])
def test_layers_run_alone(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers_gpu, "CROPS", 2)
    size = layers_gpu.Size("tiny", documents=2, tokens=30, times=1)
    found = layers_gpu.measure(size, torch.device("cpu"), **layers_gpu.WAYS[way])
    assert found["language"]["all"] > 0 and found["clip"]["all"] > 0


def test_kernels_are_told_by_their_names() -> None:
    kinds = {
        "triton_poi_fused__scaled_dot_product_cudnn_attention_backward_mm_3": "other",
        "cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16": "attention",
        "void pytorch_flash::flash_bwd_kernel": "attention",
        "nvjet_hsh_256x128_64x4_2x1_v_bz_coopA_TNT": "products",
        "void at::native::vectorized_elementwise_kernel<4, gemm>": "other",
        "Memcpy DtoD": "other",
    }
    assert {name: layers_gpu.kind(name) for name in kinds} == kinds
