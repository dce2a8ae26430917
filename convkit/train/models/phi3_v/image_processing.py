"""Cut PIL images into tiles on the CPU, and normalise them on the model's device.

Shape letters: N images, T tiles of all images, H and W pixels, h and w tiles down and across.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from convkit.errors import ConvkitError
from convkit.profiles import UnsupportedShape, phi3
from convkit.profiles.phi3 import TILE, HdSize

_WHITE = 255
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_MAX_CROPS = 910
"""With more tiles, a single image would exceed all 131,072 positions."""


class ImageRatioError(ConvkitError):
    """An image has such an extreme aspect ratio that its short side would shrink to nothing."""


def check_num_crops(num_crops: Any) -> int:
    """Return `num_crops` if it is valid; raise ConvkitError otherwise."""
    if isinstance(num_crops, bool) or not isinstance(num_crops, int) or not 1 <= num_crops <= _MAX_CROPS:
        raise ConvkitError(
            f"num_crops must be an integer from 1 to {_MAX_CROPS}, not {num_crops!r}. Pass another --num_crops, "
            "or fix it in preprocessor_config.json."
        )
    return num_crops


def hd_size(width: int, height: int, num_crops: int) -> HdSize:
    """Return the tile layout of an image with at most `num_crops` tiles, see `convkit.profiles.phi3.hd_size`.

    Raises:
        ImageRatioError: the short side would be less than one pixel.
    """
    try:
        return phi3.hd_size(width, height, num_crops)
    except UnsupportedShape:
        raise ImageRatioError(
            f"An image of {width:,} x {height:,} pixels is too long and thin for this model: its short side would "
            "shrink to nothing. Crop it, leave it out, or raise num_crops."
        ) from None


def to_tiles(image: PIL.Image.Image, num_crops: int) -> Tensor:
    """Return an image's tiles in row-major order, (h * w, 3, 336, 336) uint8."""
    size = hd_size(image.width, image.height, num_crops)
    return cut_tiles(resize(image, size), size)


def cut_tiles(resized: PIL.Image.Image, size: HdSize) -> Tensor:
    """Cut a resized image into tiles, (h * w, 3, 336, 336) uint8; padding is white."""
    height, width = size.padded
    top, left = (height - resized.height) // 2, (width - resized.width) // 2
    channels = np.full((3, height, width), _WHITE, np.uint8)
    for channel, part in zip(channels, resized.split(), strict=True):
        channel[top : top + resized.height, left : left + resized.width] = np.asarray(part)
    tiles = channels.reshape(3, height // TILE, TILE, width // TILE, TILE).transpose(1, 3, 0, 2, 4)
    return torch.from_numpy(np.ascontiguousarray(tiles)).view(-1, 3, TILE, TILE)


def resize(image: PIL.Image.Image, size: HdSize) -> PIL.Image.Image:
    """Convert an image to RGB and resize it for its tile layout, without padding.

    The official code transposes a portrait image, resizes it, and transposes it back. Pillow resizes horizontally first
    and rounds in between. Resizing vertically first gives identical pixels without transposing.
    """
    height, width = size.resized
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if rgb.width < rgb.height:
        rgb = rgb.resize((rgb.width, height), PIL.Image.Resampling.BILINEAR)
    return rgb.resize((width, height), PIL.Image.Resampling.BILINEAR)


def normalised_crops(tiles: Tensor, height: int, width: int) -> Tensor:
    """Return the normalised global view and tiles of one image, on the tiles' device.

    Args:
        tiles: (h * w, 3, 336, 336) uint8 in row-major order.
        height: the height of all tiles together, in pixels.
        width: the width of all tiles together, in pixels.

    Returns:
        (1 + h * w, 3, 336, 336) float32, the global view first.
    """
    mean, std = _statistics(tiles.device)
    pixels = (tiles.float() / 255 - mean) / std
    h, w = height // TILE, width // TILE
    whole = pixels.reshape(h, w, 3, TILE, TILE).permute(2, 0, 3, 1, 4).reshape(1, 3, height, width)
    view = F.interpolate(whole, size=(TILE, TILE), mode="bicubic", align_corners=False)
    return torch.cat((view, pixels))


@cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return CLIP's mean and standard deviation, (3, 1, 1) each."""
    mean, std = (torch.tensor(numbers, device=device).view(3, 1, 1) for numbers in (_MEAN, _STD))
    return mean, std


Sizes = Tensor | Sequence[tuple[int, int]]
"""The height and width of each image's tiles together, in pixels: (N, 2); or pairs, to avoid a GPU synchronization."""


def size_pairs(image_sizes: Sizes) -> list[tuple[int, int]]:
    """Convert sizes to a list of (height, width) pairs."""
    rows = image_sizes.tolist() if isinstance(image_sizes, Tensor) else image_sizes
    return [(int(height), int(width)) for height, width in rows]


def split_tiles(tiles: Tensor, image_sizes: Sizes) -> list[tuple[Tensor, int, int]]:
    """Split the tiles (T, 3, 336, 336) by image; return each image's tiles with their total height and width."""
    sizes = size_pairs(image_sizes)
    counts = [(height // TILE) * (width // TILE) for height, width in sizes]
    if sum(counts) != len(tiles):
        raise ValueError(f"image_sizes need {sum(counts)} tiles, but pixel_values has {len(tiles)}")
    return [(part, *size) for part, size in zip(torch.split(tiles, counts), sizes, strict=True)]


class Phi3VImageProcessor(BaseImageProcessor):  # type: ignore[misc]
    """Convert images to uint8 tiles, which the model normalises, or to the official padded and normalised layout."""

    model_input_names = ("pixel_values", "image_sizes")

    def __init__(
        self,
        num_crops: int = 4,
        num_img_tokens: int = 144,
        image_mean: Sequence[float] = _MEAN,
        image_std: Sequence[float] = _STD,
        do_convert_rgb: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (tuple(image_mean), tuple(image_std), num_img_tokens, do_convert_rgb) != (_MEAN, _STD, 144, True):
            raise ConvkitError(
                "preprocessor_config.json does not fit Phi-3-vision: image_mean and image_std must be CLIP's, "
                "num_img_tokens must be 144, do_convert_rgb true. Take the file from the official checkpoint."
            )
        self.num_crops = check_num_crops(num_crops)
        self.num_img_tokens = num_img_tokens
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.do_convert_rgb = do_convert_rgb

    def preprocess(
        self,
        images: PIL.Image.Image | Sequence[PIL.Image.Image],
        num_crops: int | None = None,
        official_layout: bool = False,
        **_: Any,
    ) -> BatchFeature:
        """Convert N images to model inputs.

        Args:
            images: one image, or several in the order of their tags.
            num_crops: maximum number of tiles per image. Default: the checkpoint's value.
            official_layout: pad each image to num_crops + 1 normalised crops, as the official code does.

        Returns:
            `pixel_values`: (T, 3, 336, 336) uint8; official layout (N, num_crops + 1, 3, 336, 336) float32.
            `image_sizes`: (N, 2), height and width of each image's tiles together, in pixels.
            `num_img_tokens`: the number of tokens of each image.

        Raises:
            ConvkitError: num_crops is out of range.
            ImageRatioError: an image is too long and thin.
        """
        crops = self.num_crops if num_crops is None else check_num_crops(num_crops)
        pictures = [images] if isinstance(images, PIL.Image.Image) else list(images)
        sizes = [hd_size(image.width, image.height, crops) for image in pictures]
        tiles = [to_tiles(image, crops) for image in pictures]
        if official_layout:
            pixels = torch.zeros(len(tiles), crops + 1, 3, TILE, TILE)
            for row, part, size in zip(pixels, tiles, sizes, strict=True):
                row[: 1 + len(part)] = normalised_crops(part, *size.padded)
        else:
            pixels = torch.cat(tiles) if tiles else torch.empty(0, 3, TILE, TILE, dtype=torch.uint8)
        return BatchFeature(
            {
                "pixel_values": pixels,
                "image_sizes": torch.tensor([size.padded for size in sizes], dtype=torch.long).view(-1, 2),
                "num_img_tokens": [size.tokens for size in sizes],
            }
        )
