"""One training step: forward and backward of a global batch's micro-batches, then the optimizer update.

Losses are divided by the supervised tokens of the whole global batch before they are summed. The result therefore does
not depend on how rows are packed into micro-batches or on the number of ranks.
"""

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from xxhash import xxh3_64_intdigest

from convkit.errors import ConvkitError
from convkit.train.config import Config
from convkit.train.data.index import Index
from convkit.train.data.loader import Batch
from convkit.train.data.schedule import BatchSchedule, MicroBatch
from convkit.train.distributed.world import World
from convkit.train.optim.adamw import learning_rate
from convkit.train.optim.sharding.base import Sharding
from convkit.train.setup.precision import compute_dtype

_MAX_NAMED = 8
"""Rows that an error message names."""


class Stopped(Exception):
    """The run stopped on request; it can be resumed."""


@dataclass(frozen=True)
class StepResult:
    """The results of a step, over all ranks."""

    loss: float
    """Mean over the supervised tokens of the global batch."""
    grad_norm: float
    """Gradient norm before clipping."""
    learning_rate: float
    rows: int
    """Rows that went through forward and backward."""
    stopped: bool
    """True if any rank was asked to stop."""
    skipped: bool = False
    """True if the update was skipped because the gradients overflowed float16."""


class Trainer:
    """Runs training steps of a sharded model over a batch schedule."""

    def __init__(self, sharding: Sharding, schedule: BatchSchedule, index: Index, config: Config, world: World) -> None:
        self.sharding, self.schedule, self.index = sharding, schedule, index
        self.config, self.world = config, world

    def micro_batches(self, step: int) -> tuple[MicroBatch, ...]:
        """Return this rank's micro-batches of a step, padded with empty ones where ranks must run in lockstep."""
        ours = self.schedule.micro_batches(step, self.world.rank, self.world.size)
        if not self.sharding.requires_lockstep:
            return ours
        return ours + ((),) * (self.schedule.rounds(step, self.world.size) - len(ours))

    def step(self, step: int, batches: Iterator[Batch], stop_requested: Callable[[], bool] = bool) -> StepResult:
        """Train on one global batch.

        Args:
            batches: the batches of this rank's micro-batches, in the order of the schedule.
            stop_requested: returns whether this rank should stop after the step.

        Raises:
            ConvkitError: the loss or the gradient is not finite. The message names the rows; nothing was updated.
        """
        micro_batches = self.micro_batches(step)
        losses = self.backward(step, micro_batches, batches)
        rows = sum(map(len, micro_batches))
        loss, stops, rows = self.world.sum(losses.new_tensor([losses.sum(), stop_requested(), rows])).tolist()
        if not math.isfinite(loss):
            raise self._not_finite("loss", step, micro_batches, losses.tolist())
        norm = self.sharding.clip(self.config.max_grad_norm)
        if not math.isfinite(norm) and not self.sharding.scale.enabled:
            raise self._not_finite("gradient", step, micro_batches, [])
        rate = learning_rate(step, self.schedule.steps, self.config)
        skipped = self.sharding.update(rate)
        return StepResult(loss, norm, rate, int(rows), stops > 0, skipped)

    def backward(self, step: int, micro_batches: Sequence[MicroBatch], batches: Iterator[Batch]) -> Tensor:
        """Accumulate the gradients of this rank's part of the global batch.

        Returns:
            (number of micro-batches), float32: the share of each in the global batch's loss.
        """
        supervised = sum(self.index.supervised[row] for row in self.schedule.batch(step))
        losses = torch.zeros(len(micro_batches), device=self.world.device)
        for number, micro_batch in enumerate(micro_batches):
            batch = next(batches)
            # Dropout is seeded by the position in the schedule alone, so no random state has to be saved.
            position = struct.pack("<QQQ", step, self.world.rank, number)
            torch.manual_seed(xxh3_64_intdigest(position, self.config.seed) >> 1)
            try:
                losses[number] = self.forward_backward(batch, supervised, last=number == len(micro_batches) - 1)
            except torch.OutOfMemoryError as error:
                name = f"Micro-batch {number + 1} of step {step + 1:,}"
                raise self.out_of_memory(name, micro_batch, error) from None
        return losses

    def forward_backward(self, batch: Batch, supervised: int, last: bool) -> Tensor:
        """Accumulate a batch's gradients; return the sum of its tokens' losses divided by `supervised`.

        Args:
            supervised: supervised tokens of the global batch.
            last: whether this is the rank's last micro-batch of the step.
        """
        loss = self.forward(batch, supervised)
        self.sharding.backward(loss, last)
        return loss.detach()

    def forward(self, batch: Batch, supervised: int) -> Tensor:
        """Return the sum of a batch's token losses divided by `supervised`."""
        device, computed = self.world.device, compute_dtype(self.config)
        on_device = {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in batch.items()
        }
        # Autocast's cache would keep a bfloat16 copy of every weight.
        autocast = computed is not torch.float32 and self.config.optim == "adamw"
        with torch.autocast(device.type, computed, enabled=autocast, cache_enabled=False):
            loss: Tensor = self.sharding.forward(**on_device, num_items_in_batch=supervised, use_cache=False).loss
        return loss

    def out_of_memory(self, name: str, micro_batch: MicroBatch, error: torch.OutOfMemoryError) -> ConvkitError:
        """Return the error for a micro-batch that does not fit into memory, with its rows and remedies."""
        tokens, rows = self.schedule.tokens(micro_batch), self._ids(micro_batch)
        return ConvkitError(
            f"{name}, of {tokens:,} tokens (rows {rows}), does not fit into memory: {str(error).splitlines()[0]} "
            f"{_remedies(self.config)}."
        )

    def _ids(self, rows: Sequence[int]) -> str:
        ids = [repr(self.index.row(row).id) for row in rows[:_MAX_NAMED]]
        return ", ".join(ids + ([f"and {len(rows) - _MAX_NAMED} more"] if len(rows) > _MAX_NAMED else []))

    def _not_finite(
        self, what: str, step: int, micro_batches: Sequence[MicroBatch], losses: Sequence[float]
    ) -> ConvkitError:
        """Return the error for a loss or gradient that is not finite; all ranks call it and name the same rows."""
        affected = {
            row
            for micro_batch, loss in zip(micro_batches, losses, strict=False)
            if not math.isfinite(loss)
            for row in micro_batch
        }
        batch = self.schedule.batch(step)
        flags = torch.tensor([row in affected for row in batch], device=self.world.device).int()
        anywhere = self.world.sum(flags).tolist()
        rows = [row for row, is_affected in zip(batch, anywhere, strict=True) if is_affected] or batch
        return ConvkitError(
            f"The {what} of step {step + 1:,} is not a number; its rows: {self._ids(rows)}. Nothing was updated or "
            "saved. Check these rows. If they are correct, lower --learning_rate and start again with --resume auto, "
            "or in another --output_dir."
        )


def _remedies(config: Config) -> str:
    """Return the options that would save memory and are not in use yet."""
    found = ["Lower --max_tokens or --num_crops"]
    if config.gradient_checkpointing == "none":
        found.append("recompute activations with --gradient_checkpointing auto")
    elif config.gradient_checkpointing == "auto":
        found.append("keep no activations with --gradient_checkpointing all")
    if not config.use_lora:
        if config.optim == "adamw" and not config.sharding:
            found.append("keep smaller optimizer states with --bf16 --optim adamw_bf16")
        if not config.sharding:
            found.append("shard the model with --deepspeed zero2 or --fsdp")
        found.append("train LoRA adapters with --use_lora")
    elif not config.use_qlora:
        found.append("keep frozen weights in 4 bits with --use_qlora" + " and without --fp8" * config.fp8)
    return f"{', '.join(found[:-1])}, or {found[-1]}" if len(found) > 1 else found[0]
