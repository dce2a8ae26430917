"""Preflight: run the heaviest micro-batch once, and check that every trainable tensor gets a gradient."""

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
from convkit.train.data.loader import MicroBatches
from convkit.train.data.schedule import MicroBatch
from convkit.train.metrics.throughput import GIB, peak_memory
from convkit.train.models.family import ModelFamily
from convkit.train.setup import activation_checkpointing
from convkit.train.setup.trainable import has_trained_copy, unwrapped_name
from convkit.train.trainer import Trainer


@dataclass
class ModelPart:
    """Parameter and gradient counts of one part of the model."""

    parameters: int = 0
    trainable: int = 0
    """Parameters that are trained."""
    tensors: int = 0
    """Tensors that are trained."""
    with_gradient: int = 0
    """Trainable tensors whose gradient is not zero everywhere."""
    without_gradient: int = 0
    """Trainable tensors without any gradient: the model does not use them."""


@dataclass(frozen=True)
class Preflight:
    """The results of the preflight."""

    rows: int
    tokens: int
    """Tokens of the heaviest micro-batch."""
    peak_bytes: int
    """Peak memory of the GPU, or of the whole process without a GPU."""
    parts: dict[str, ModelPart]
    """The vision tower, the language model and its head, by name."""
    seconds: float
    """Estimated time of the whole run at the speed of this micro-batch, without checkpoints."""
    activation_checkpointing: str = ""
    """In how many layers activations are recomputed, as a message; empty if memory was not measured."""

    @property
    def flops_per_token(self) -> int:
        """Approximate FLOPs per token in the language model and its head.

        Two operations per weight in the forward pass, two for the gradient of its input, and two for the gradient of
        each trainable weight, as if every token were supervised. Attention, images and recomputation are left out.
        """
        parts = [part for name, part in self.parts.items() if name != "vision"]
        return sum(4 * part.parameters + 2 * part.trainable for part in parts)


def preflight(trainer: Trainer, micro_batches: MicroBatches, family: ModelFamily) -> Preflight:
    """Run forward, backward and optimizer step on the heaviest micro-batch; the model is unchanged afterwards.

    Raises:
        ConvkitError: it does not fit into memory, its loss is not finite, or a trainable part of the model gets no
            gradient.
    """
    heaviest = trainer.schedule.heaviest(trainer.world.size)
    try:
        memory = _fit_to_memory(trainer, micro_batches, heaviest)
        with _gradients_seen(trainer) as seen:
            _update(trainer, micro_batches, heaviest)
            seconds = _update(trainer, micro_batches, heaviest)  # warm, and with the optimizer's states in memory
    except torch.OutOfMemoryError as error:
        raise trainer.out_of_memory("The heaviest micro-batch", heaviest, error) from None
    peak = peak_memory(trainer.world.device)
    parts = _parts(trainer.sharding.model, family, seen)
    # The learning rate of 0 left the weights unchanged, but not the moments.
    trainer.sharding.reset_moments()
    trainer.sharding.scale.skipped = 0
    _require_gradients(parts, trainer.index.shortest_with_images is not None)
    tokens = trainer.schedule.tokens(heaviest)
    total = sum(trainer.schedule.lengths) * trainer.config.num_train_epochs / trainer.world.size
    return Preflight(len(heaviest), tokens, peak, parts, seconds / tokens * total, memory)


def _fit_to_memory(trainer: Trainer, micro_batches: MicroBatches, heaviest: MicroBatch) -> str:
    """Keep as many activations as fit in memory, and return a message about it.

    Memory is measured only on a GPU that does not depend on the shards of other ranks; otherwise the message is empty.
    """
    config, device = trainer.config, trainer.world.device
    if config.gradient_checkpointing != "auto" or device.type != "cuda" or trainer.sharding.requires_lockstep:
        return ""
    batch = micro_batches.batch(heaviest)
    described = activation_checkpointing.fit_to_memory(
        trainer.sharding.model,
        device,
        config.memory_limit,
        forward=lambda: trainer.forward(batch, 1),
        step=lambda: _update(trainer, micro_batches, heaviest),
        all_ranks=lambda here: not trainer.world.any(not here),
    )
    torch.cuda.reset_peak_memory_stats(device)
    return described


def _update(trainer: Trainer, micro_batches: MicroBatches, heaviest: MicroBatch) -> float:
    """Repeat the step until the float16 loss scale is low enough for an update; return the last step's seconds."""
    skipped = True
    while skipped:
        skipped, seconds = _step(trainer, micro_batches, heaviest)
    return seconds


def _step(trainer: Trainer, micro_batches: MicroBatches, heaviest: MicroBatch) -> tuple[bool, float]:
    """Return whether the update was skipped, and the seconds of forward and backward."""
    supervised = sum(trainer.index.supervised[row] for row in heaviest)
    batch = micro_batches.batch(heaviest)
    with_images, images = trainer.index.shortest_with_images, trainer.index.images
    more = [(with_images,)] if with_images is not None and not any(images[row] for row in heaviest) else []
    _synchronize(trainer.world.device)
    began = time.monotonic()
    losses = [trainer.forward_backward(batch, supervised, last=not more)]
    _synchronize(trainer.world.device)
    seconds = time.monotonic() - began
    losses += [trainer.forward_backward(micro_batches.batch(other), supervised, last=True) for other in more]
    if not all(torch.isfinite(loss) for loss in losses):
        ids = ", ".join(repr(trainer.index.row(row).id) for row in heaviest)
        raise ConvkitError(f"The loss is not a number before any training, on rows {ids}. Check the checkpoint.")
    trainer.sharding.clip(trainer.config.max_grad_norm)
    return trainer.sharding.update(0.0), seconds


def _synchronize(device: torch.device) -> None:
    """Wait until the GPU has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _gradients_seen(trainer: Trainer) -> Iterator[dict[str, bool]]:
    """Collect the parameters that get a gradient on any rank, and whether it is not zero everywhere."""
    seen: dict[str, bool] = {}
    named = {name: p for name, p in trainer.sharding.model.named_parameters() if p.requires_grad}

    def note(name: str, gradient: Tensor) -> None:
        seen[name] = seen.get(name, False) or bool(gradient.any())

    hooks = [trainer.sharding.hook_gradient(parameter, partial(note, name)) for name, parameter in named.items()]
    yield seen
    for hook in hooks:
        hook.remove()
    flags = torch.tensor([[name in seen, seen.get(name, False)] for name in named], device=trainer.world.device).int()
    anywhere = trainer.world.sum(flags).bool().tolist()
    seen.clear()
    seen.update({name: nonzero for name, (exists, nonzero) in zip(named, anywhere, strict=True) if exists})


def _parts(model: Any, family: ModelFamily, seen: dict[str, bool]) -> dict[str, ModelPart]:
    parts: dict[str, ModelPart] = defaultdict(ModelPart)
    for name, parameter in model.named_parameters():
        if has_trained_copy(name):
            continue
        part = parts[part_of(unwrapped_name(name), family)]
        part.parameters += numel(parameter)
        if parameter.requires_grad:
            part.trainable += numel(parameter)
            part.tensors += 1
            part.without_gradient += name not in seen
            part.with_gradient += seen.get(name, False)
    return dict(parts)


def part_of(name: str, family: ModelFamily) -> str:
    """Return the part of the model that a parameter belongs to: vision, language or head."""
    if name.startswith(family.vision_modules):
        return "vision"
    return "head" if name.startswith("lm_head") else "language"


def _require_gradients(parts: dict[str, ModelPart], images: bool) -> None:
    """Raise an error for a trainable part without gradients.

    Single zero gradients may be right: a LoRA adapter's first matrix has none until its second is not zero.
    """
    for name, part in parts.items():
        all_zero = part.tensors and not part.with_gradient and (images or name != "vision")
        if part.without_gradient or all_zero:
            raise ConvkitError(
                f"{part.without_gradient or part.tensors} of {part.tensors} trainable tensors of the {name} part got "
                "no gradient. This is a bug in the model or in its convkit family; please report it with the model's "
                "config.json."
            )


def lines(found: Preflight) -> Iterator[str]:
    """Yield the results as lines of text."""
    peak = found.peak_bytes / GIB
    yield f"heaviest micro-batch: {found.rows:,} rows, {found.tokens:,} tokens; peak memory {peak:.2f} GiB"
    if found.activation_checkpointing:
        yield found.activation_checkpointing
    for name, part in found.parts.items():
        yield (
            f"{name}: {part.parameters:,} parameters, {part.trainable:,} trainable; "
            f"{part.with_gradient} of {part.tensors} tensors got a gradient"
        )
    yield f"estimated time of the whole run: {timedelta(seconds=round(found.seconds))}"
