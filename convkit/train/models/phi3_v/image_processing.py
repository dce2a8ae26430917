"""From PIL images to tiles: size and pixels on the CPU, normalisation on the device.

Shape letters: N images, T tiles of all images, H and W pixels, h and w tiles down and across.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F  # noqa: N812 (its name everywhere)
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from convkit.errors import ConvkitError
from convkit.profiles import UnsupportedShape, phi3
from convkit.profiles.phi3 import TILE, HdSize

_WHITE = 255
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


_MOST_CROPS = 910
"""Beyond, an image alone would fill all 131,072 positions."""


class ImageRatioError(ConvkitError):
    """An image is so long and thin that nothing of its short side would be left."""


def check_num_crops(num_crops: Any) -> int:
    """What may be a number of tiles; raises ConvkitError."""
    if isinstance(num_crops, bool) or not isinstance(num_crops, int) or not 1 <= num_crops <= _MOST_CROPS:
        raise ConvkitError(
            f"num_crops must be a whole number from 1 to {_MOST_CROPS}, not {num_crops!r}. Give another --num_crops, "
            "or mend it in the preprocessor_config.json."
        )
    return num_crops


def hd_size(width: int, height: int, num_crops: int) -> HdSize:
    """Lay an image on at most `num_crops` tiles, as `convkit.profiles.phi3.hd_size` does.

    Raises:
        ImageRatioError: the short side would be less than one pixel.
    """
    try:
        return phi3.hd_size(width, height, num_crops)
    except UnsupportedShape:
        raise ImageRatioError(
            f"An image of {width:,} x {height:,} pixels is too long and thin for this model: nothing is left of its "
            "short side. Crop it, leave it out, or raise num_crops."
        ) from None


def to_tiles(image: PIL.Image.Image, num_crops: int) -> Tensor:
    """An image's tiles row by row, (h * w, 3, 336, 336) uint8."""
    size = hd_size(image.width, image.height, num_crops)
    return cut_tiles(resize(image, size), size)


def cut_tiles(picture: PIL.Image.Image, size: HdSize) -> Tensor:
    """The tiles of a scaled image; what it does not cover is white."""
    height, width = size.padded
    top, left = (height - picture.height) // 2, (width - picture.width) // 2
    channels = np.full((3, height, width), _WHITE, np.uint8)
    for channel, part in zip(channels, picture.split(), strict=True):
        channel[top : top + picture.height, left : left + picture.width] = np.asarray(part)
    tiles = channels.reshape(3, height // TILE, TILE, width // TILE, TILE).transpose(1, 3, 0, 2, 4)
    return torch.from_numpy(np.ascontiguousarray(tiles)).view(-1, 3, TILE, TILE)


def resize(image: PIL.Image.Image, size: HdSize) -> PIL.Image.Image:
    """An image in RGB, as large as it is laid on tiles, not yet padded.

    In the model's training an upright image was mirrored on its diagonal, scaled, and mirrored back. Pillow scales rows
    before columns and rounds in between: columns first gives the very pixels of that, without mirroring anything.
    """
    height, width = size.resized
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if rgb.width < rgb.height:
        rgb = rgb.resize((rgb.width, height), PIL.Image.Resampling.BILINEAR)
    return rgb.resize((width, height), PIL.Image.Resampling.BILINEAR)


def normalised_crops(tiles: Tensor, height: int, width: int) -> Tensor:
    """The global view and the tiles of one image as CLIP sees them, on the tiles' device.

    Args:
        tiles: (h * w, 3, 336, 336) uint8, row by row.
        height: of all tiles together, in pixels.
        width: likewise.

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
    """CLIP's mean and deviation, (3, 1, 1) each."""
    mean, std = (torch.tensor(numbers, device=device).view(3, 1, 1) for numbers in (_MEAN, _STD))
    return mean, std


Sizes = Tensor | Sequence[tuple[int, int]]
"""Height and width of each image's tiles together, in pixels: (N, 2), or pairs, for which no GPU is waited for."""


def size_pairs(image_sizes: Sizes) -> list[tuple[int, int]]:
    """Sizes as numbers."""
    rows = image_sizes.tolist() if isinstance(image_sizes, Tensor) else image_sizes
    return [(int(height), int(width)) for height, width in rows]


def split_tiles(tiles: Tensor, image_sizes: Sizes) -> list[tuple[Tensor, int, int]]:
    """The tiles (T, 3, 336, 336) of each image, with the height and width that they make up."""
    sizes = size_pairs(image_sizes)
    counts = [(height // TILE) * (width // TILE) for height, width in sizes]
    if sum(counts) != len(tiles):
        raise ValueError(f"image_sizes ask for {sum(counts)} tiles, but pixel_values holds {len(tiles)}")
    return [(part, *size) for part, size in zip(torch.split(tiles, counts), sizes, strict=True)]


class Phi3VImageProcessor(BaseImageProcessor):  # type: ignore[misc]
    """Images to tiles (uint8, normalised by the model), or to the official padded and normalised layout."""

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
                "The preprocessor_config.json is not Phi-3-vision's: image_mean and image_std must be CLIP's, "
                "num_img_tokens 144, do_convert_rgb true. Take the file that came with the checkpoint."
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
        """Make model inputs of N images.

        Args:
            images: one or more, in the order of their tags.
            num_crops: at most so many tiles an image; the checkpoint's number if not given.
            official_layout: pad all images to num_crops + 1 normalised crops, as the official code does.

        Returns:
            `pixel_values`: (T, 3, 336, 336) uint8; official layout (N, num_crops + 1, 3, 336, 336) float32.
            `image_sizes`: (N, 2), height and width of each image's tiles together, in pixels.
            `num_img_tokens`: the tokens of each image.

        Raises:
            ConvkitError: num_crops is odd.
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
