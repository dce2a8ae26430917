"""Compiled layers: the same gradients, no compilation during generation, and smaller activation budgets."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor, nn

from convkit.train.evaluate.generate import Generator
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.setup import compilation
from convkit.train.setup.compilation import compile_layers
from tests.train.helpers import runs
from tests.train.helpers.gradients import assert_same_gradients, saved_tensors


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch.compile reads it
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch.compile does so itself
@pytest.mark.parametrize(
    ("method", "share"),
    [
        pytest.param({}, compilation.ALL, marks=pytest.mark.slow),
        ({"use_lora": True, "gradient_checkpointing": "all"}, compilation.EXPENSIVE),
        pytest.param({"use_lora": True, "bf16": True, "fp8": True}, compilation.ALL, marks=pytest.mark.slow),
    ],
)
def test_compiled_layers_compute_the_same_gradients(
    dataset: Path, family: Phi3VFamily, method: dict[str, Any], share: float
) -> None:
    trainer, packs = runs.parts(runs.config(dataset, family.directory, dataset, **method), family)
    runs.stir(trainer.sharding.model)
    batches = [packs.batch(pack) for pack in ((0, 1), (3, 2, 4))]
    nothing = {
        "labels": torch.full_like(batches[0]["labels"], -100),
        "logits_to_keep": torch.zeros(0, dtype=torch.long),
    }
    batches.append(batches[0] | nothing)
    plain = [runs.gradients(trainer, batch) for batch in batches]
    compile_layers(trainer.sharding.model, family.compiled_layers, backend="aot_eager")
    compilation.set_activation_budget(share)
    torch._dynamo.utils.clear_compilation_metrics()
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as seen:
            for batch, expected in zip(batches, plain, strict=True):
                assert_same_gradients(runs.gradients(trainer, batch), expected)
        if (
            "gradient_checkpointing" not in method
        ):  # checkpointing of CPU attention breaks the graph, so that less is compiled
            assert "convkit::swiglu_backward" in {event.key for event in seen.key_averages()}
        restarts = [metrics.restart_reasons for metrics in torch._dynamo.utils.get_compilation_metrics()]
        assert not [reason for reasons in restarts for reason in reasons or () if "Scalar" in reason]
    finally:
        compilation.set_activation_budget(compilation.ALL)


def test_generation_does_not_compile_layers(dataset: Path, family: Phi3VFamily) -> None:
    """Padded prompts of many lengths would cause recompilations."""
    trainer, _ = runs.parts(runs.config(dataset, family.directory, dataset), family)
    model = trainer.sharding.model
    samples = [family.encode(trainer.index.row(number), dataset / "images") for number in (1, 2)]
    compile_layers(model, family.compiled_layers, backend="aot_eager")
    torch._dynamo.utils.counters.clear()
    try:
        generator = Generator(model, family, max_new_tokens=2)
        generator(family.collate(samples, packed=False))
        generator.log_likelihoods(family.collate(samples, packed=False))
        assert not torch._dynamo.utils.counters["stats"]["unique_graphs"]
    finally:
        torch._dynamo.reset()


class GeluLayers(nn.Module):
    """Two matrix products with cheap operations after each."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 64), nn.Linear(64, 16)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = F.gelu(self.second(F.gelu(self.first(x))))
        return result


@pytest.mark.usefixtures("activation_budget")
def test_a_lower_activation_budget_recompiles_and_keeps_fewer_bytes() -> None:
    module, x = GeluLayers(), torch.randn(32, 16)

    def kept() -> int:
        return sum(tensor.nbytes for tensor in saved_tensors(lambda: module(x)))

    compile_layers(module, {"GeluLayers"}, backend="aot_eager")
    everything = kept()
    compilation.set_activation_budget(compilation.EXPENSIVE)
    assert kept() < everything
