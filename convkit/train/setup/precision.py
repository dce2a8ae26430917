"""Mixed precision: compute dtype, casting of frozen weights, and float16 loss scaling."""

from typing import Any

import torch
from torch import Tensor, nn

from convkit.errors import ConvkitError
from convkit.train.config import Config

_MIN_SCALE = 1.0
"""Gradients that overflow at this scale overflow without loss scaling too."""


def compute_dtype(config: Config) -> torch.dtype:
    """Return the dtype of forward and backward computations."""
    chosen: torch.dtype = getattr(torch, config.precision)
    return chosen


def cast_weights(
    model: nn.Module, to: torch.dtype, trained: bool = False, linear_only: bool = False, leave: str = ""
) -> None:
    """Cast frozen weights to the compute dtype; buffers, such as rotary frequencies, are not cast.

    Args:
        trained: also cast trainable weights.
        linear_only: cast only linear layers, which autocast would cast in every step. The residual stream then stays in
            float32, like the embeddings. It may exceed the range of float16, and models write image features into text
            embeddings, which are float32 if they are trained.
        leave: do not cast parameters whose module name contains this text.
    """
    for name, module in model.named_modules():
        if (linear_only and not isinstance(module, nn.Linear)) or (leave and leave in f".{name}."):
            continue
        for parameter in module.parameters(recurse=False):
            if (trained or not parameter.requires_grad) and parameter.is_floating_point():
                parameter.data = parameter.data.to(to)


class LossScaler:
    """Dynamic loss scaling against float16 underflow; does nothing in other dtypes.

    A step whose gradients overflow is skipped, and the scale halved. After 2,000 steps without overflow it is doubled.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        self._scaler = torch.amp.GradScaler(device.type, enabled=compute_dtype(config) is torch.float16)
        self.skipped = 0
        """Number of skipped steps of the run."""

    @property
    def enabled(self) -> bool:
        """Return whether losses are scaled, that is, in float16."""
        return self._scaler.is_enabled()

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of the scaled loss."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale; call it once per step."""
        if self.enabled:
            self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Run the optimizer's step, unless gradients overflowed.

        Returns:
            Whether the step was skipped.

        Raises:
            ConvkitError: the gradients overflow float16 even without loss scaling.
        """
        before = self._scaler.get_scale()
        self._scaler.step(optimizer)
        self._scaler.update()
        skipped = self._scaler.get_scale() < before
        if skipped and before <= _MIN_SCALE:
            raise ConvkitError(
                "Gradients do not fit float16 at any scale. Nothing was updated. Train in bfloat16 with --bf16, or in "
                "float32 without --fp16."
            )
        self.skipped += skipped
        return skipped

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {**self._scaler.state_dict(), "skipped": self.skipped} if self.enabled else {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the result of `state`.

        Raises:
            ConvkitError: the state is damaged.
        """
        if not self.enabled:
            return
        try:
            self.skipped = int(state["skipped"])
            self._scaler.load_state_dict({name: value for name, value in state.items() if name != "skipped"})
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ConvkitError(
                f"The checkpoint's loss_scale in state.json is damaged ({error!r}). Remove it."
            ) from None
