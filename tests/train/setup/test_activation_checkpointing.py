"""Automatic gradient checkpointing: as many layers as fit keep their activations."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convkit.errors import ConvkitError
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.setup import activation_checkpointing, compilation, trainable
from convkit.train.setup.compilation import compile_layers
from tests.train.helpers import runs


def test_as_many_layers_keep_their_activations_as_fit() -> None:
    order = [("large", 5), ("large", 5), ("small", 2), ("small", 2)]
    for room, expected in ((0, 0), (4, 0), (5, 1), (11, 2), (12, 3), (100, 4)):
        assert len(activation_checkpointing._layers_that_fit(order, room)) == expected


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("method", [{}, {"use_lora": True}])
def test_checkpointed_layers_are_grouped_by_class(
    dataset: Path, family: Phi3VFamily, method: dict[str, Any], frozen: bool
) -> None:
    options = {**method, "gradient_checkpointing": "all", "freeze_vision_model": frozen}
    model = trainable.load_for_training(family, runs.config(dataset, family.directory, dataset, **options))
    kinds = {kind.__name__: len(layers) for kind, layers in activation_checkpointing._layers_by_class(model).items()}
    assert kinds == {"Phi3VDecoderLayer": 2, **({} if frozen else {"CLIPEncoderLayer": 3})}  # the fourth is never used


def _bytes_of_one_layer(layers: list[Any], forward: Any, base: int) -> int:
    layers[-2].gradient_checkpointing = False
    kept = activation_checkpointing._activation_bytes(forward, torch.device("cpu")) - base
    layers[-2].gradient_checkpointing = True
    return kept


def _measure_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure saved tensors on the CPU; checkpointed layers hide theirs."""

    def kept(forward: Any, device: torch.device) -> int:
        sizes: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            graph = forward()
        del graph
        return sum(sizes.values())

    monkeypatch.setattr(activation_checkpointing, "_activation_bytes", kept)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=0))
    for name in ("reset_peak_memory_stats", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device: 0)


@pytest.mark.parametrize("method", [{}, {"use_lora": True, "full_vision_model": True}])
def test_layers_keep_as_many_bytes_as_measured(
    dataset: Path, family: Phi3VFamily, monkeypatch: pytest.MonkeyPatch, method: dict[str, Any]
) -> None:
    trainer, packs = runs.parts(
        runs.config(dataset, family.directory, dataset, gradient_checkpointing="all", **method), family
    )
    batch, model, device = packs.batch((0, 1, 3)), trainer.sharding.model, torch.device("cpu")
    all_supervised = batch | {"logits_to_keep": torch.arange(batch["labels"].shape[1] - 1)}
    _measure_on_cpu(monkeypatch)

    def forward() -> Tensor:
        return trainer.forward(batch, 1)

    def forward_all_supervised() -> Tensor:
        """Run a pack with only supervised tokens, where the last layer keeps as much as the others."""
        return trainer.forward(all_supervised, 1)

    base, base_all_supervised = (
        activation_checkpointing._activation_bytes(each, device) for each in (forward, forward_all_supervised)
    )
    layers = activation_checkpointing._layers_by_class(model)
    measured = {kind.__name__: _bytes_of_one_layer(layers[kind], forward, base) for kind in layers}
    assert all(each > 0 for each in measured.values())
    # Memory for the layers of the language model and for one CLIP layer.
    room = 2 * measured["Phi3VDecoderLayer"] + measured["CLIPEncoderLayer"] * 1.1
    message = activation_checkpointing.fit_to_memory(model, device, room / 2**30, forward, step=lambda: None)
    assert message == "gradient checkpointing in 2 of 5 layers"
    assert activation_checkpointing._activation_bytes(forward, device) - base < 0.9 * room
    assert activation_checkpointing._activation_bytes(
        forward_all_supervised, device
    ) - base_all_supervised == pytest.approx(room, rel=0.05)


def test_a_memory_limit_that_cannot_be_met_is_reported(
    dataset: Path, family: Phi3VFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trainable.load_for_training(
        family, runs.config(dataset, family.directory, dataset, gradient_checkpointing="all")
    )
    _measure_on_cpu(monkeypatch)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2**30)
    message = activation_checkpointing.fit_to_memory(
        model, torch.device("cpu"), 0.5, lambda: torch.zeros(()), lambda: None
    )
    assert message == "gradient checkpointing in 5 of 5 layers; memory still exceeds --memory_limit 0.5"


@pytest.mark.parametrize(
    "other", [{"gradient_checkpointing": "all"}, {"gradient_checkpointing": "none"}, {"fsdp": True}]
)
def test_a_memory_limit_needs_automatic_checkpointing(dataset: Path, other: dict[str, Any]) -> None:
    with pytest.raises(
        ConvkitError, match=r"--memory_limit cannot be combined with --(gradient_checkpointing (all|none)|fsdp): "
    ):
        runs.config(dataset, dataset, dataset, **{"gradient_checkpointing": "auto", "memory_limit": 9, **other})


def test_more_layers_are_checkpointed_until_a_step_fits(
    dataset: Path, family: Phi3VFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trainable.load_for_training(
        family, runs.config(dataset, family.directory, dataset, gradient_checkpointing="all")
    )
    _measure_on_cpu(monkeypatch)
    layers = [layer for kind in activation_checkpointing._layers_by_class(model).values() for layer in kind]

    def step(most: int) -> None:
        if sum(not layer.gradient_checkpointing for layer in layers) > most:
            raise torch.OutOfMemoryError

    def fit(most: int) -> str:
        return activation_checkpointing.fit_to_memory(
            model, torch.device("cpu"), 1.0, lambda: torch.zeros(()), lambda: step(most)
        )

    assert fit(2) == "gradient checkpointing in 3 of 5 layers"
    for layer in layers:
        layer.gradient_checkpointing = True
    with pytest.raises(torch.OutOfMemoryError):
        fit(-1)
    assert (
        activation_checkpointing.fit_to_memory(nn.Linear(1, 1), torch.device("cpu"), 1.0, lambda: 0, lambda: None) == ""
    )


@pytest.mark.usefixtures("activation_budget")
@pytest.mark.parametrize(
    ("limit", "fits", "agreed", "message", "share"),
    [
        (9, 5, True, "gradient checkpointing in 0 of 5 layers", compilation.ALL),
        (
            8,
            5,
            True,
            "gradient checkpointing in 0 of 5 layers, selective recomputation in the others",
            compilation.EXPENSIVE,
        ),
        (
            9,
            4,
            True,
            "gradient checkpointing in 2 of 5 layers, selective recomputation in the others",
            compilation.EXPENSIVE,
        ),
        (
            9,
            5,
            False,
            "gradient checkpointing in 0 of 5 layers, selective recomputation in the others",
            compilation.EXPENSIVE,
        ),
        (
            4,
            5,
            True,
            "gradient checkpointing in 1 of 5 layers, selective recomputation in the others",
            compilation.EXPENSIVE,
        ),
    ],
    ids=["all fit", "one does not fit", "the step does not fit", "another rank does not fit", "few fit"],
)
def test_compiled_layers_use_selective_recomputation_if_not_nearly_all_fit(
    dataset: Path,
    family: Phi3VFamily,
    monkeypatch: pytest.MonkeyPatch,
    limit: float,
    fits: int,
    agreed: bool,
    message: str,
    share: float,
) -> None:
    """Each of five layers keeps 1.75 GiB, or 1 GiB with selective recomputation."""
    model = trainable.load_for_training(
        family, runs.config(dataset, family.directory, dataset, gradient_checkpointing="all")
    )
    _measure_on_cpu(monkeypatch)
    layers = [layer for kind in activation_checkpointing._layers_by_class(model).values() for layer in kind]
    now = torch._functorch.config

    def keeping() -> int:
        return sum(not layer.gradient_checkpointing for layer in layers)

    def kept(*_: Any) -> int:
        return int(keeping() * (1.75 if now.activation_memory_budget == compilation.ALL else 1) * 2**30)

    def step() -> None:
        if keeping() > fits:
            raise torch.OutOfMemoryError

    monkeypatch.setattr(activation_checkpointing, "_activation_bytes", kept)
    compilation.set_activation_budget(compilation.EXPENSIVE)
    compile_layers(model, family.compiled_layers, backend="eager")
    found = activation_checkpointing.fit_to_memory(
        model, torch.device("cpu"), limit, lambda: None, step, lambda here: here and agreed
    )
    assert (found, now.activation_memory_budget) == (message, share)


@pytest.mark.usefixtures("activation_budget")
@pytest.mark.parametrize("use_lora", [False, True])
def test_running_out_of_memory_in_the_first_attempt_is_not_fatal(
    dataset: Path, family: Phi3VFamily, monkeypatch: pytest.MonkeyPatch, use_lora: bool
) -> None:
    """A checkpointed layer temporarily needs the memory of its activations too."""
    options: dict[str, Any] = {"gradient_checkpointing": "all", "use_lora": use_lora}
    model = trainable.load_for_training(family, runs.config(dataset, family.directory, dataset, **options))
    _measure_on_cpu(monkeypatch)
    now = torch._functorch.config

    def step() -> None:
        if now.activation_memory_budget == compilation.ALL:
            raise torch.OutOfMemoryError

    compile_layers(model, family.compiled_layers, backend="eager")
    message = activation_checkpointing.fit_to_memory(model, torch.device("cpu"), 1.0, lambda: torch.zeros(()), step)
    assert message == "gradient checkpointing in 0 of 5 layers, selective recomputation in the others"
