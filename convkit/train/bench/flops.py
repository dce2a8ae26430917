"""The arithmetic that training cannot do without, counted exactly; what is computed twice counts once.

Two operations for each weight and token forward; backward two for the gradient of what goes in, where anything before
it is trained, and two for that of the weight, where it is. Scores and sums of attention likewise, causal ones by half.
The head, and what follows the attention of the last language layer, count where there is something to learn. Norms,
activations and the loss are left out: they are no products.

Shape letters: T tokens of a row, L of them that are learnt, I of them that are images, K crops of its images.
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
class Shape:
    """A row in numbers."""

    tokens: int
    trained: int
    image_tokens: int
    crops: int


def shape(index: Index, number: int, images: Path, num_crops: int) -> Shape:
    """Of a row, from the headers of its images."""
    laid = [hd_size(*size, num_crops) for size in row_images.sizes(index.row(number), images)]
    crops = sum(1 + size.padded[0] // TILE * (size.padded[1] // TILE) for size in laid)
    return Shape(index.tokens[number], index.supervised[number], sum(size.tokens for size in laid), crops)


_BESIDE = ("vision_embed_tokens", "q_proj", "k_proj", "v_proj")
"""Modules that do not read what the one before them gives, but what their parent reads."""
_LAST = ("o_proj", "out_proj")
"""Modules that come last in their parent, wherever it names them."""
_Times = Callable[[Shape], int]


@dataclass(frozen=True)
class _Product:
    """A product of a row's tokens with a weight, or of its queries with its keys."""

    part: str
    each: int
    """Operations forward, for each time."""
    times: _Times
    backward: int
    """How often as much again backward: 0, 1 or 2."""


class Flops:
    """Counts the work of rows in a model.

    Args:
        model: Phi-3.5-vision of any size, with or without adapters; what of it is trained is marked.
    """

    def __init__(self, model: nn.Module) -> None:
        self._products: list[_Product] = []
        base: Any = getattr(model, "get_base_model", lambda: model)()
        self._config = base.config
        self._patches = (self._config.vision_config.image_size // self._config.vision_config.patch_size) ** 2
        self._unused = f"encoder.layers.{self._config.vision_config.num_hidden_layers - 1}"
        self._last = f"model.layers.{self._config.num_hidden_layers - 1}.mlp."
        self._walk("", base, False)

    def row(self, shape: Shape) -> dict[str, int]:
        """Operations of forward and backward, by parts of the model."""
        found: dict[str, int] = defaultdict(int)
        for product in self._products:
            found[product.part] += product.each * product.times(shape) * (1 + product.backward)
        return dict(found)

    def _walk(self, name: str, module: nn.Module, live: bool) -> bool:
        """Take a module and all in it.

        Args:
            live: whether what goes in has a gradient.

        Returns:
            Whether what comes out has one.
        """
        if name.endswith(self._unused):
            return live
        if isinstance(module, nn.Linear | nn.Conv2d):
            return self._weight(name, module, live)
        after = live
        for child, part in sorted(module.named_children(), key=lambda named: named[0] in _LAST):
            beside = child in _BESIDE
            after = self._walk(f"{name}.{child}".strip("."), part, live if beside else after) or after
            if child in ("qkv_proj", "v_proj"):
                self._attention(name, after)
        return after or any(p.requires_grad for p in module.parameters(recurse=False))

    def _weight(self, name: str, module: nn.Linear | nn.Conv2d, live: bool) -> bool:
        trained = module.weight.requires_grad
        if isinstance(module, nn.Linear):
            inside, outside = module.in_features, module.out_features
        else:
            inside, outside = module.weight[0].numel(), module.out_channels
        part, times = self._place(name, module)
        self._products.append(_Product(part, 2 * inside * outside, times, live + trained))
        return live or trained

    def _place(self, name: str, module: nn.Module) -> tuple[str, _Times]:
        """The part that a weight belongs to, and how often it is used."""
        name, patches = unwrapped_name(name), self._patches
        if "img_projection" in name:
            return "vision", lambda shape: shape.image_tokens
        if "vision_model" in name:
            each = patches + (not isinstance(module, nn.Conv2d))
            return "vision", lambda shape: shape.crops * each
        if name.startswith("lm_head"):
            return "head", lambda shape: shape.trained
        if name.startswith(self._last):
            return "language", lambda shape: shape.trained
        return "language", lambda shape: shape.tokens

    def _attention(self, name: str, live: bool) -> None:
        """Every query with every key, and every weight with every value: of crops all, of text those before it."""
        if "vision_model" in name:
            tokens = self._patches + 1
            each = 4 * tokens**2 * self._config.vision_config.hidden_size
            self._products.append(_Product("vision", each, lambda shape: shape.crops, 2 * live))
        else:
            each = 2 * self._config.hidden_size
            self._products.append(_Product("language", each, lambda shape: shape.tokens**2, 2 * live))
