"""One step of training: the packs of a global batch forward and backward, and the update.

Losses are divided by the trained tokens of the whole global batch before they are added up: what comes out does not
depend on how its rows were packed, nor on how many processes shared them.
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
from convkit.train.data.schedule import Pack, Plan
from convkit.train.distributed.world import World
from convkit.train.optim.adamw import learning_rate
from convkit.train.optim.sharding.base import Sharding
from convkit.train.setup.precision import dtype

_SHOWN = 8


class Stopped(Exception):
    """The run was asked to stop, and can be gone on with."""


@dataclass(frozen=True)
class Outcome:
    """What a step came to, on all processes together."""

    loss: float
    """Mean over the trained tokens of the global batch."""
    grad_norm: float
    """Before it was scaled down."""
    learning_rate: float
    rows: int
    """That went through forward and backward."""
    stopped: bool
    """Whether a process was asked to stop."""
    skipped: bool = False
    """Whether nothing was updated, because the gradients exceeded float16."""


class Trainer:
    """Holds what a step needs."""

    def __init__(self, sharding: Sharding, plan: Plan, index: Index, config: Config, world: World) -> None:
        self.sharding, self.plan, self.index = sharding, plan, index
        self.config, self.world = config, world

    def packs(self, step: int) -> tuple[Pack, ...]:
        """What this process trains on in a step; with empty packs where it must keep in step with the others."""
        packs = self.plan.packs(step, self.world.rank, self.world.size)
        return packs + ((),) * (self.plan.rounds(step, self.world.size) - len(packs)) * self.sharding.in_step

    def step(self, step: int, batches: Iterator[Batch], asked_to_stop: Callable[[], bool] = bool) -> Outcome:
        """Train on one global batch.

        Args:
            batches: those of this process's packs, in the order of the plan.
            asked_to_stop: whether this process should end after the step.

        Raises:
            ConvkitError: the loss or the gradient is not a number; the message names rows, nothing was updated.
        """
        packs = self.packs(step)
        losses = self.backward(step, packs, batches)
        rows = sum(map(len, packs))
        loss, stops, rows = self.world.sum(losses.new_tensor([losses.sum(), asked_to_stop(), rows])).tolist()
        if not math.isfinite(loss):
            raise self._not_finite("loss", step, packs, losses.tolist())
        norm = self.sharding.clip(self.config.max_grad_norm)
        if not math.isfinite(norm) and not self.sharding.scale.used:
            raise self._not_finite("gradient", step, packs, [])
        rate = learning_rate(step, self.plan.steps, self.config)
        skipped = self.sharding.update(rate)
        return Outcome(loss, norm, rate, int(rows), stops > 0, skipped)

    def backward(self, step: int, packs: Sequence[Pack], batches: Iterator[Batch]) -> Tensor:
        """Gradients of this process's part of the global batch.

        Returns:
            (packs of this process), float32: what each adds to the global batch's loss.
        """
        trained = sum(self.index.trained[row] for row in self.plan.batch(step))
        losses = torch.zeros(len(packs), device=self.world.device)
        for number, pack in enumerate(packs):
            batch = next(batches)
            # Dropout depends on the place in the plan alone, so that there is no state of it to keep.
            place = struct.pack("<QQQ", step, self.world.rank, number)
            torch.manual_seed(xxh3_64_intdigest(place, self.config.seed) >> 1)
            try:
                losses[number] = self.forward_backward(batch, trained, last=number == len(packs) - 1)
            except torch.OutOfMemoryError as error:
                raise self.out_of_memory(f"Pack {number + 1} of step {step + 1:,}", pack, error) from None
        return losses

    def forward_backward(self, batch: Batch, trained: int, last: bool) -> Tensor:
        """Add a batch's gradient; returns the sum of its tokens' losses over `trained`."""
        loss = self.forward(batch, trained)
        self.sharding.backward(loss, last)
        return loss.detach()

    def forward(self, batch: Batch, trained: int) -> Tensor:
        """The sum of a batch's tokens' losses over `trained`."""
        device, computed = self.world.device, dtype(self.config)
        on_device = {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in batch.items()
        }
        # Without the cache no copies of all weights in bfloat16 are kept.
        wanted = computed is not torch.float32 and self.config.optim == "adamw"
        with torch.autocast(device.type, computed, enabled=wanted, cache_enabled=False):
            loss: Tensor = self.sharding.forward(**on_device, num_items_in_batch=trained, use_cache=False).loss
        return loss

    def out_of_memory(self, what: str, pack: Pack, error: torch.OutOfMemoryError) -> ConvkitError:
        """Names a pack's rows, and what can be done."""
        return ConvkitError(
            f"{what}, of {self.plan.tokens(pack):,} tokens (rows {self._names(pack)}), does not fit into memory: "
            f"{str(error).splitlines()[0]} {_remedies(self.config)}."
        )

    def _names(self, rows: Sequence[int]) -> str:
        names = [repr(self.index.row(row).id) for row in rows[:_SHOWN]]
        return ", ".join(names + ([f"and {len(rows) - _SHOWN} more"] if len(rows) > _SHOWN else []))

    def _not_finite(self, what: str, step: int, packs: Sequence[Pack], losses: Sequence[float]) -> ConvkitError:
        """All processes come here together, and name the same rows."""
        guilty = {row for pack, loss in zip(packs, losses, strict=False) if not math.isfinite(loss) for row in pack}
        batch = self.plan.batch(step)
        found = self.world.sum(torch.tensor([row in guilty for row in batch], device=self.world.device).int()).tolist()
        rows = [row for row, is_guilty in zip(batch, found, strict=True) if is_guilty] or batch
        return ConvkitError(
            f"The {what} of step {step + 1:,} is not a number; its rows: {self._names(rows)}. Nothing was updated or "
            "saved. Look at these rows; if there is nothing wrong with them, lower --learning_rate and start again "
            "with --resume auto, or in another --output_dir."
        )


def _remedies(config: Config) -> str:
    """What would need less memory, and is not done yet."""
    found = ["Lower --max_tokens or --num_crops"]
    if config.gradient_checkpointing == "none":
        found.append("let layers compute twice with --gradient_checkpointing auto")
    elif config.gradient_checkpointing == "auto":
        found.append("keep no activations with --gradient_checkpointing all")
    if not config.use_lora:
        if config.optim == "adamw" and not config.sharding:
            found.append("keep less of each weight with --bf16 --optim adamw_bf16")
        if not config.sharding:
            found.append("share the model out with --deepspeed zero2 or --fsdp")
        found.append("train adapters with --use_lora")
    elif not config.use_qlora:
        found.append("keep weights in 4 bits with --use_qlora" + " and without --fp8" * config.fp8)
    return f"{', '.join(found[:-1])}, or {found[-1]}" if len(found) > 1 else found[0]
