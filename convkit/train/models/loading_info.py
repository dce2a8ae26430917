"""What a checkpoint's weights may not lack, and may not hold beside the model's."""

from typing import Any

from convkit.errors import ConvkitError

_AMISS = {
    "missing_keys": "missing",
    "unexpected_keys": "not of this model",
    "mismatched_keys": "of another shape",
}
_SHOWN = 5


def check_loading_info(name: Any, info: dict[str, Any]) -> None:
    """Raise where a load left parameters at random values, or tensors unused.

    Args:
        name: of the checkpoint, for the message.
        info: transformers' loading info; shapes are in it only where the load ignored mismatched sizes.

    Raises:
        ConvkitError: names the tensors.
    """
    problems = [f"{len(info[kind])} {what}: {_names(info[kind])}" for kind, what in _AMISS.items() if info.get(kind)]
    if problems:
        raise ConvkitError(
            f"{name} is not a whole checkpoint of its model. Tensors: {'; '.join(problems)}. Download it again, "
            "or name the checkpoint that it was made from."
        )


def _names(tensors: Any) -> str:
    names = sorted(str(tensor[0] if isinstance(tensor, tuple) else tensor) for tensor in tensors)
    return ", ".join(names if len(names) <= _SHOWN else [*names[:_SHOWN], f"and {len(names) - _SHOWN} more"])
