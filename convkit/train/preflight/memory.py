"""Before the first step: the heaviest pack goes through, and everything that is to be trained gets a gradient."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from torch import Tensor

from convkit.errors import ConvkitError
from convkit.train.checkpoint.shapes import numel
from convkit.train.data.loader import Packs
from convkit.train.data.schedule import Pack
from convkit.train.metrics.throughput import GIB, peak_memory
from convkit.train.models.family import ModelFamily
from convkit.train.setup import activation_checkpointing
from convkit.train.setup.trainable import is_replaced, own_name
from convkit.train.trainer import Trainer


@dataclass
class Tower:
    """A part of the model, in numbers."""

    parameters: int = 0
    trained: int = 0
    tensors: int = 0
    """Those that are trained."""
    reached: int = 0
    """Those of them that got a gradient which is not zero throughout."""
    unconnected: int = 0
    """Those of them that got none at all: the model does not use them."""


@dataclass(frozen=True)
class Preflight:
    """What was seen."""

    rows: int
    tokens: int
    """Of the heaviest pack."""
    peak_bytes: int
    """On the GPU; without one, of the whole process."""
    towers: dict[str, Tower]
    seconds: float
    """What the whole run would take at the speed of this pack, without checkpoints."""
    checkpointing: str = ""
    """What was found out about memory, in words; empty where that was not asked."""

    @property
    def flops_per_token(self) -> int:
        """What a token costs in the language model and its head, roughly.

        Two operations for each weight forward, two for the gradient of what goes in, and two for that of each weight
        that is trained, as if something were learnt from each token. Attention, images and what is computed twice are
        left out.
        """
        parts = [tower for name, tower in self.towers.items() if name != "vision"]
        return sum(4 * tower.parameters + 2 * tower.trained for tower in parts)


def preflight(trainer: Trainer, packs: Packs, family: ModelFamily) -> Preflight:
    """Forward, backward and optimizer step on the heaviest pack; the model is afterwards as it was before.

    Raises:
        ConvkitError: it does not fit into memory, its loss is not a number, or a part that should be trained gets no
            gradient.
    """
    pack = trainer.plan.heaviest(trainer.world.size)
    try:
        told = _fit(trainer, packs, pack)
        with _watched(trainer) as reached:
            _update(trainer, packs, pack)
            seconds = _update(trainer, packs, pack)  # warm, and with all that the optimizer keeps
    except torch.OutOfMemoryError as error:
        raise trainer.out_of_memory("The heaviest pack", pack, error) from None
    peak = peak_memory(trainer.world.device)
    towers = _towers(trainer.sharding.model, family, reached)
    # With a learning rate of 0 weights stayed as they are; moments did not.
    trainer.sharding.forget()
    trainer.sharding.scale.skipped = 0
    _refuse_unreached(towers, trainer.index.shortest_with_images is not None)
    tokens = trainer.plan.tokens(pack)
    total = sum(trainer.plan.lengths) * trainer.config.num_train_epochs / trainer.world.size
    return Preflight(len(pack), tokens, peak, towers, seconds / tokens * total, told)


def _fit(trainer: Trainer, packs: Packs, pack: Pack) -> str:
    """Let layers keep activations, where memory can be measured and is this process's own; in words."""
    config, device = trainer.config, trainer.world.device
    if config.gradient_checkpointing != "auto" or device.type != "cuda" or trainer.sharding.in_step:
        return ""
    batch = packs.batch(pack)
    told = activation_checkpointing.fit(
        trainer.sharding.model,
        device,
        config.memory_limit,
        forward=lambda: trainer.forward(batch, 1),
        step=lambda: _update(trainer, packs, pack),
        agreed=lambda here: not trainer.world.any(not here),
    )
    torch.cuda.reset_peak_memory_stats(device)
    return told


def _update(trainer: Trainer, packs: Packs, pack: Pack) -> float:
    """Steps until the scale of float16 is low enough for an update; returns the seconds of the last one."""
    skipped = True
    while skipped:
        skipped, seconds = _step(trainer, packs, pack)
    return seconds


def _step(trainer: Trainer, packs: Packs, pack: Pack) -> tuple[bool, float]:
    """Returns whether the update was skipped, and the seconds of forward and backward."""
    trained, batch = sum(trainer.index.trained[row] for row in pack), packs.batch(pack)
    with_images, images = trainer.index.shortest_with_images, trainer.index.images
    more = [(with_images,)] if with_images is not None and not any(images[row] for row in pack) else []
    _wait(trainer.world.device)
    began = time.monotonic()
    losses = [trainer.forward_backward(batch, trained, last=not more)]
    _wait(trainer.world.device)
    seconds = time.monotonic() - began
    losses += [trainer.forward_backward(packs.batch(other), trained, last=True) for other in more]
    if not all(torch.isfinite(loss) for loss in losses):
        ids = ", ".join(repr(trainer.index.row(row).id) for row in pack)
        raise ConvkitError(f"The loss is not a number before any training, on rows {ids}. Check the checkpoint.")
    trainer.sharding.clip(trainer.config.max_grad_norm)
    return trainer.sharding.update(0.0), seconds


def _wait(device: torch.device) -> None:
    """Until the GPU has done what it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _watched(trainer: Trainer) -> Iterator[dict[str, bool]]:
    """Names of the parameters that get a gradient, on any process, and whether it is not zero throughout."""
    seen: dict[str, bool] = {}
    named = {name: p for name, p in trainer.sharding.model.named_parameters() if p.requires_grad}

    def note(name: str, gradient: Tensor) -> None:
        seen[name] = seen.get(name, False) or bool(gradient.any())

    hooks = [trainer.sharding.watch(parameter, partial(note, name)) for name, parameter in named.items()]
    yield seen
    for hook in hooks:
        hook.remove()
    flags = torch.tensor([[name in seen, seen.get(name, False)] for name in named], device=trainer.world.device).int()
    together = trainer.world.sum(flags).bool().tolist()
    seen.clear()
    seen.update({name: reached for name, (connected, reached) in zip(named, together, strict=True) if connected})


def _towers(model: Any, family: ModelFamily, reached: dict[str, bool]) -> dict[str, Tower]:
    towers: dict[str, Tower] = defaultdict(Tower)
    for name, parameter in model.named_parameters():
        if is_replaced(name):
            continue
        tower = towers[tower_of(own_name(name), family)]
        tower.parameters += numel(parameter)
        if parameter.requires_grad:
            tower.trained += numel(parameter)
            tower.tensors += 1
            tower.unconnected += name not in reached
            tower.reached += reached.get(name, False)
    return dict(towers)


def tower_of(name: str, family: ModelFamily) -> str:
    """The part of the model that a parameter belongs to."""
    if name.startswith(family.vision_modules):
        return "vision"
    return "head" if name.startswith("lm_head") else "language"


def _refuse_unreached(towers: dict[str, Tower], images: bool) -> None:
    """Single zeros may be right: of an adapter's two matrices the first has none until the second is not zero."""
    for name, tower in towers.items():
        unreached = tower.tensors and not tower.reached and (images or name != "vision")
        if tower.unconnected or unreached:
            raise ConvkitError(
                f"{tower.unconnected or tower.tensors} of {tower.tensors} tensors of the {name} part that should be "
                "trained got no gradient. This is a fault of the model or of its adapter; please report it with the "
                "model's config.json."
            )


def lines(seen: Preflight) -> Iterator[str]:
    """What was seen, for people."""
    yield f"heaviest pack: {seen.rows:,} rows, {seen.tokens:,} tokens; {seen.peak_bytes / GIB:.2f} GiB at most"
    if seen.checkpointing:
        yield seen.checkpointing
    for name, tower in seen.towers.items():
        yield (
            f"{name}: {tower.parameters:,} parameters, {tower.trained:,} trained; "
            f"{tower.reached} of {tower.tensors} tensors got a gradient"
        )
    yield f"estimated time of the whole run: {timedelta(seconds=round(seen.seconds))}"
