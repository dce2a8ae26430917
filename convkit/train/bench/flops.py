"""Count the FLOPs that training a row needs (model FLOPs). Recomputed activations count once.

Forward: 2 FLOPs per weight and token. Backward: 2 more for the input's gradient if anything before it is trained, and 2
more for the weight's gradient if the weight is trained. Attention scores and sums are counted the same way, causal
attention at half. The head, and the MLP of the last language layer, count at supervised tokens only. Norms, activation
functions and the loss are not matrix products and are left out.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from convkit.profiles.phi3 import TILE
from convkit.train.data.index import Index
from convkit.train.models import row_images
from convkit.train.models.phi3_v.image_processing import hd_size
from convkit.train.setup.trainable import unwrapped_name

PARTS = ("vision", "language", "head")


@dataclass(frozen=True)
class RowSize:
    """The sizes of a row that its FLOPs depend on."""

    tokens: int
    supervised: int
    image_tokens: int
    crops: int


def row_size(index: Index, number: int, images: Path, num_crops: int) -> RowSize:
    """Return the sizes of a row, from its index entry and the headers of its images."""
    laid = [hd_size(*size, num_crops) for size in row_images.sizes(index.row(number), images)]
    crops = sum(1 + size.padded[0] // TILE * (size.padded[1] // TILE) for size in laid)
    return RowSize(index.tokens[number], index.supervised[number], sum(size.tokens for size in laid), crops)


_READ_PARENT_INPUT = ("vision_embed_tokens", "q_proj", "k_proj", "v_proj")
"""Modules whose input is their parent's input, not the output of the module before them."""
_RUN_LAST = ("o_proj", "out_proj")
"""Modules that run last in their parent, whatever their position in it."""
_Count = Callable[[RowSize], int]


@dataclass(frozen=True)
class _MatMul:
    """A product of a row's tokens with a weight, or of its queries with its keys."""

    part: str
    flops: int
    """Forward FLOPs of one unit, such as a token."""
    count: _Count
    """The number of units in a row."""
    backward: int
    """Backward FLOPs as a multiple of forward FLOPs: 0, 1 or 2."""


class ModelFlops:
    """Counts the model FLOPs of rows.

    Args:
        model: Phi-3.5-vision of any size, with or without adapters. `requires_grad` marks the trained weights.
    """

    def __init__(self, model: nn.Module) -> None:
        self._products: list[_MatMul] = []
        base: Any = getattr(model, "get_base_model", lambda: model)()
        self._config = base.config
        self._patches = (self._config.vision_config.image_size // self._config.vision_config.patch_size) ** 2
        self._unused = f"encoder.layers.{self._config.vision_config.num_hidden_layers - 1}"
        self._last = f"model.layers.{self._config.num_hidden_layers - 1}.mlp."
        self._walk("", base, False)

    def row(self, size: RowSize) -> dict[str, int]:
        """Return the FLOPs of a row's forward and backward passes, by part of the model."""
        found: dict[str, int] = defaultdict(int)
        for product in self._products:
            found[product.part] += product.flops * product.count(size) * (1 + product.backward)
        return dict(found)

    def _walk(self, name: str, module: nn.Module, input_grad: bool) -> bool:
        """Add the products of a module and its children.

        Args:
            input_grad: whether the module's input needs a gradient.

        Returns:
            Whether the module's output needs a gradient.
        """
        if name.endswith(self._unused):
            return input_grad
        if isinstance(module, nn.Linear | nn.Conv2d):
            return self._weight(name, module, input_grad)
        after = input_grad
        for child, part in sorted(module.named_children(), key=lambda named: named[0] in _RUN_LAST):
            before = input_grad if child in _READ_PARENT_INPUT else after
            after = self._walk(f"{name}.{child}".strip("."), part, before) or after
            if child in ("qkv_proj", "v_proj"):
                self._attention(name, after)
        return after or any(p.requires_grad for p in module.parameters(recurse=False))

    def _weight(self, name: str, module: nn.Linear | nn.Conv2d, input_grad: bool) -> bool:
        trained = module.weight.requires_grad
        if isinstance(module, nn.Linear):
            inside, outside = module.in_features, module.out_features
        else:
            inside, outside = module.weight[0].numel(), module.out_channels
        part, count = self._usage(name, module)
        self._products.append(_MatMul(part, 2 * inside * outside, count, input_grad + trained))
        return input_grad or trained

    def _usage(self, name: str, module: nn.Module) -> tuple[str, _Count]:
        """Return the part of the model that a weight belongs to, and how often a row uses it."""
        name, patches = unwrapped_name(name), self._patches
        if "img_projection" in name:
            return "vision", lambda size: size.image_tokens
        if "vision_model" in name:
            each = patches + (not isinstance(module, nn.Conv2d))
            return "vision", lambda size: size.crops * each
        if name.startswith("lm_head"):
            return "head", lambda size: size.supervised
        if name.startswith(self._last):
            return "language", lambda size: size.supervised
        return "language", lambda size: size.tokens

    def _attention(self, name: str, input_grad: bool) -> None:
        """Add scores and weighted sums of attention: bidirectional within a crop, causal in the language model."""
        if "vision_model" in name:
            tokens = self._patches + 1
            each = 4 * tokens**2 * self._config.vision_config.hidden_size
            self._products.append(_MatMul("vision", each, lambda size: size.crops, 2 * input_grad))
        else:
            each = 2 * self._config.hidden_size
            self._products.append(_MatMul("language", each, lambda size: size.tokens**2, 2 * input_grad))
