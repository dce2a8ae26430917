"""Build tiny checkpoints with random weights, for tests, demos and documentation."""

from collections.abc import Callable
from typing import Any

from convkit.train.models.tiny import families
from convkit.train.models.tiny.idefics3 import idefics3, smolvlm
from convkit.train.models.tiny.phi3_v import phi3_v

__all__ = ["BUILDERS", "idefics3", "phi3_v", "smolvlm"]

BUILDERS: dict[str, Callable[..., Any]] = {
    "phi3_v": phi3_v,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    **families.BUILDERS,
}
"""The builder of each model family; it takes an output directory and texts to train the tokenizer on."""
