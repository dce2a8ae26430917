"""What the loop and the checkpoints ask of a sharding."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from convkit.train.setup.precision import LossScale

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps of each parameter."""
KINDS = ("weight", *MOMENTS)


class Sharding(Protocol):
    """A model in training, and its optimizer. All processes call the same methods in the same order."""

    model: Any
    """What goes through forward; its parameters have the names of the official checkpoint."""
    name: str
    """The option that asked for it; empty where nothing is shared."""
    requires_lockstep: bool
    """Whether all processes must go through the model equally often, each time through all that is trained."""
    scale: LossScale
    """Of the losses; it does something in float16 alone, where nothing is shared out."""

    def forward(self, **batch: Any) -> Any:
        """The model's outputs."""

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradient of a loss.

        Args:
            last: whether no other loss of this step follows.
        """

    def watch(self, parameter: nn.Parameter, note: Callable[[Tensor], None]) -> RemovableHandle:
        """Tell `note` each gradient that a parameter gets, or this process's part of it."""

    def clip(self, max_norm: float) -> float:
        """Add up the gradients of all processes and scale them down to a norm; returns the norm before that."""

    def update(self, rate: float) -> bool:
        """One step of the optimizer, with a learning rate, after `clip`; the gradients are gone afterwards.

        Returns:
            Whether it was skipped, because the gradients exceeded float16.
        """

    def forget(self) -> None:
        """Make the optimizer's moments the zeros that they begin with; the room for them is kept."""

    def trained(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Name, and whole tensors by `KINDS`, of each trained parameter; on other processes than the first, any."""

    def restore(self, read: Callable[[str, str], Tensor]) -> None:
        """Put back what `trained` gave; after at least one update.

        Args:
            read: gives the whole tensor of a kind and a name.
        """

    def weights(self) -> dict[str, Tensor]:
        """The whole model's tensors, on the first process; on others, nothing."""
