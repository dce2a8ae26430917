"""What a checkpoint may hold beside the model, and what it may not lack."""

from typing import Any

from convkit.errors import ConvkitError

DROPPED = [r"(^|\.)wte\.weight$", r"(^|\.)position_ids$"]
"""Copies of the token embedding, and numbers that count up, which re-saved checkpoints hold."""
_SHOWN = 5


def refuse_gaps(name: str, info: dict[str, Any]) -> None:
    """Raise where a load left parameters at random values, or tensors unused.

    Args:
        name: of the checkpoint, for the message.
        info: transformers' loading info.

    Raises:
        ConvkitError: names the tensors.
    """
    problems = [
        f"{len(tensors)} {what}: {', '.join(_names(tensors))}"
        for what, tensors in (
            ("missing", info.get("missing_keys") or ()),
            ("not of this model", info.get("unexpected_keys") or ()),
            ("of another shape", info.get("mismatched_keys") or ()),
        )
        if tensors
    ]
    if problems:
        raise ConvkitError(
            f"The checkpoint {name} is not a whole Phi-3-vision checkpoint. Tensors {'; tensors '.join(problems)}. "
            "Download it again, or name the checkpoint that it was made from."
        )


def _names(tensors: Any) -> list[str]:
    names = sorted(str(tensor[0] if isinstance(tensor, tuple) else tensor) for tensor in tensors)
    return names if len(names) <= _SHOWN else [*names[:_SHOWN], f"and {len(names) - _SHOWN} more"]
