"""The type that is computed in; and what float16 needs beside it, whose numbers go neither far up nor far down."""

from typing import Any

import torch
from torch import Tensor, nn

from convkit.errors import ConvkitError
from convkit.train.config import Config

_LEAST = 1.0
"""Gradients that do not fit at this scale are too large by themselves."""


def dtype(config: Config) -> torch.dtype:
    """The type that is computed in."""
    chosen: torch.dtype = getattr(torch, config.precision)
    return chosen


def narrow(model: nn.Module, to: torch.dtype, trained: bool = False, matrices: bool = False, leave: str = "") -> None:
    """What is not trained, in the type that is computed in; buffers stay as they are, such as frequencies of positions.

    Args:
        trained: what is trained as well.
        matrices: those of linear layers alone, which autocast would narrow each time. What is added up between layers
            then stays in float32 like the tensors that it is made from: it may exceed float16's range, and models put
            what they see among embeddings of words, which are in float32 if they are trained.
        leave: what has this in its name stays as it is.
    """
    for name, module in model.named_modules():
        if (matrices and not isinstance(module, nn.Linear)) or (leave and leave in f".{name}."):
            continue
        for parameter in module.parameters(recurse=False):
            if (trained or not parameter.requires_grad) and parameter.is_floating_point():
                parameter.data = parameter.data.to(to)


class LossScale:
    """Scales losses up such that small gradients are not zero in float16; in other types it does nothing.

    A step whose gradients do not fit is skipped, and the scale halved; after 2,000 steps that fit it is doubled.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        self._scaler = torch.amp.GradScaler(device.type, enabled=dtype(config) is torch.float16)
        self.skipped = 0
        """Steps of the run so far."""

    @property
    def used(self) -> bool:
        """Whether it does anything."""
        return self._scaler.is_enabled()

    def backward(self, loss: Tensor) -> None:
        """Add the scaled gradient of a loss."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Make the gradients what they are without a scale; once a step."""
        if self.used:
            self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """The optimizer's step; returns whether it was skipped.

        Raises:
            ConvkitError: the gradients did not fit without any scale either.
        """
        before = self._scaler.get_scale()
        self._scaler.step(optimizer)
        self._scaler.update()
        skipped = self._scaler.get_scale() < before
        if skipped and before <= _LEAST:
            raise ConvkitError(
                "Gradients do not fit float16 at any scale. Nothing was updated. Train in bfloat16 with --bf16, or in "
                "float32 without --fp16."
            )
        self.skipped += skipped
        return skipped

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {**self._scaler.state_dict(), "skipped": self.skipped} if self.used else {}

    def load(self, state: dict[str, Any]) -> None:
        """Put back what `state` gave.

        Raises:
            ConvkitError: it is not that.
        """
        if not self.used:
            return
        try:
            self.skipped = int(state["skipped"])
            self._scaler.load_state_dict({name: value for name, value in state.items() if name != "skipped"})
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ConvkitError(
                f"The checkpoint's loss_scale in state.json is damaged ({error!r}). Remove it."
            ) from None
