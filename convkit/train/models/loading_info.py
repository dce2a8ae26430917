"""Check that a checkpoint has exactly the tensors of its model."""

from typing import Any

from convkit.errors import ConvkitError

_PROBLEMS = {
    "missing_keys": "missing",
    "unexpected_keys": "not part of this model",
    "mismatched_keys": "with a different shape",
}
_MAX_NAMES = 5


def check_loading_info(name: Any, info: dict[str, Any]) -> None:
    """Raise if loading left parameters at random values or tensors unused.

    Args:
        name: the checkpoint, for the message.
        info: transformers' loading info. It has mismatched shapes only if loading used `ignore_mismatched_sizes`.

    Raises:
        ConvkitError: names the tensors.
    """
    problems = [f"{len(info[key])} {what}: {_names(info[key])}" for key, what in _PROBLEMS.items() if info.get(key)]
    if problems:
        raise ConvkitError(
            f"{name} is not a complete checkpoint of its model. Tensors: {'; '.join(problems)}. Download it again, "
            "or pass the checkpoint that it was made from."
        )


def _names(tensors: Any) -> str:
    names = sorted(str(tensor[0] if isinstance(tensor, tuple) else tensor) for tensor in tensors)
    return ", ".join(
        names if len(names) <= _MAX_NAMES else [*names[:_MAX_NAMES], f"and {len(names) - _MAX_NAMES} more"]
    )
