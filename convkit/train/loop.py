"""One step of training: the packs of a global batch forward and backward, and the update.

Losses are divided by the trained tokens of the whole global batch before they are added up: what comes out does not
depend on how its rows were packed, nor on how many processes shared them.
"""

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from xxhash import xxh3_64_intdigest

from convkit.errors import ConvkitError
from convkit.train.config import Config
from convkit.train.data import Batch
from convkit.train.distributed import World
from convkit.train.index import Index
from convkit.train.optimizer import learning_rate
from convkit.train.plan import Pack, Plan
from convkit.train.precision import LossScale, dtype

_SHOWN = 8


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

    def __init__(
        self, model: Any, optimizer: torch.optim.Optimizer, plan: Plan, index: Index, config: Config, world: World
    ) -> None:
        self.model, self.optimizer, self.plan, self.index = model, optimizer, plan, index
        self.config, self.world = config, world
        self.scale = LossScale(config, world.device)
        self.parameters = [p for p in model.parameters() if p.requires_grad]

    def step(self, step: int, batches: Iterator[Batch], asked_to_stop: Callable[[], bool] = bool) -> Outcome:
        """Train on one global batch.

        Args:
            batches: those of this process's packs, in the order of the plan.
            asked_to_stop: whether this process should end after the step.

        Raises:
            ConvkitError: the loss or the gradient is not a number; the message names rows, nothing was updated.
        """
        packs = self.plan.packs(step, self.world.rank, self.world.size)
        losses = self.backward(step, packs, batches)
        rows = sum(map(len, packs))
        loss, stops, rows = self.world.sum(losses.new_tensor([losses.sum(), asked_to_stop(), rows])).tolist()
        if not math.isfinite(loss):
            raise self._not_finite("loss", step, packs, losses.tolist())
        norm = self.clip()
        if not math.isfinite(norm) and not self.scale.used:
            raise self._not_finite("gradient", step, packs, [])
        rate = learning_rate(step, self.plan.steps, self.config)
        skipped = self.update(rate)
        self.optimizer.zero_grad(set_to_none=True)
        return Outcome(loss, norm, rate, int(rows), stops > 0, skipped)

    def clip(self) -> float:
        """Scale the gradients down to the highest norm; returns the norm before that."""
        self.scale.unscale(self.optimizer)
        return float(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm))

    def update(self, rate: float) -> bool:
        """The optimizer's step with a learning rate, after `clip`; returns whether it was skipped."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return self.scale.step(self.optimizer)

    def backward(self, step: int, packs: Sequence[Pack], batches: Iterator[Batch]) -> Tensor:
        """Gradients of the global batch, added up over all processes.

        Returns:
            (packs of this process), float32: what each adds to the global batch's loss.
        """
        trained = sum(self.index.trained[row] for row in self.plan.batch(step))
        losses = torch.zeros(len(packs), device=self.world.device)
        for number in range(len(packs)):
            batch = next(batches)
            # Dropout depends on the place in the plan alone, so that there is no state of it to keep.
            place = struct.pack("<QQQ", step, self.world.rank, number)
            torch.manual_seed(xxh3_64_intdigest(place, self.config.seed) >> 1)
            losses[number] = self.forward_backward(batch, trained)
        self.world.sum_gradients(self.parameters)
        return losses

    def forward_backward(self, batch: Batch, trained: int) -> Tensor:
        """Add a batch's gradient; returns the sum of its tokens' losses over `trained`."""
        device = self.world.device
        on_device = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
        # Without the cache no copies of all weights in bfloat16 are kept.
        computed = dtype(self.config)
        with torch.autocast(device.type, computed, enabled=computed is not torch.float32, cache_enabled=False):
            loss: Tensor = self.model(**on_device, num_items_in_batch=trained, use_cache=False).loss
        self.scale.backward(loss)
        return loss.detach()

    def _not_finite(self, what: str, step: int, packs: Sequence[Pack], losses: Sequence[float]) -> ConvkitError:
        guilty = [pack for pack, loss in zip(packs, losses, strict=False) if not math.isfinite(loss)]
        rows = [row for pack in guilty for row in pack] or list(self.plan.batch(step))
        names = [repr(self.index.row(row).id) for row in rows[:_SHOWN]]
        if len(rows) > _SHOWN:
            names.append(f"and {len(rows) - _SHOWN} more")
        return ConvkitError(
            f"The {what} of step {step + 1:,} is not a number; its rows: {', '.join(names)}. Nothing was updated or "
            "saved. Look at these rows; if there is nothing wrong with them, lower --learning_rate and start again "
            "with --resume auto, or in another --output_dir."
        )
