"""The interface of a sharding for the trainer and for checkpoints."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from convkit.train.setup.precision import LossScaler

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""State tensors that AdamW keeps for each parameter."""
STATE_KINDS = ("weight", *MOMENTS)


class Sharding(Protocol):
    """A model in training with its optimizer; all ranks call the same methods in the same order."""

    model: Any
    """The model; its parameters have the names of the official checkpoint."""
    name: str
    """The command-line option; empty without sharding."""
    requires_lockstep: bool
    """True if all ranks must run the same number of passes, each through all trainable parameters."""
    scale: LossScaler
    """Loss scaling; enabled only in float16, which does not support sharding."""

    def forward(self, **batch: Any) -> Any:
        """Run the model and return its outputs."""

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradient of a loss.

        Args:
            last: whether this is the last micro-batch of the step.
        """

    def hook_gradient(self, parameter: nn.Parameter, note: Callable[[Tensor], None]) -> RemovableHandle:
        """Call `note` with each gradient of a parameter, or with this rank's shard of it."""

    def clip(self, max_norm: float) -> float:
        """Sum the gradients of all ranks and clip them to a norm; returns the norm before clipping."""

    def update(self, rate: float) -> bool:
        """Run the optimizer's step after `clip`, and clear the gradients.

        Args:
            rate: the learning rate.

        Returns:
            Whether the step was skipped because gradients overflowed float16.
        """

    def reset_moments(self) -> None:
        """Reset the optimizer's moments to zero; their memory stays allocated."""

    def parameter_states(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Yield name and full tensors by `STATE_KINDS` of each trainable parameter; valid on rank 0 only."""

    def load_parameter_states(self, read: Callable[[str, str], Tensor]) -> None:
        """Restore the tensors of `parameter_states`; call it after at least one update.

        Args:
            read: returns the full tensor for a kind and a parameter name.
        """

    def full_weights(self) -> dict[str, Tensor]:
        """Return the full state dict of the model on rank 0, and an empty one on the others."""
