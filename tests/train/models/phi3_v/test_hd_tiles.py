"""Test the pixels of the HD transform against a literal port of the official code."""

from random import Random

import numpy as np
import PIL.Image
import pytest
import torch

from convkit.train.models.phi3_v.image_processing import ImageRatioError, hd_size, to_tiles

TRANSPOSE, BILINEAR = PIL.Image.Transpose.TRANSPOSE, PIL.Image.Resampling.BILINEAR


def official_tiles(image: PIL.Image.Image, num_crops: int) -> torch.Tensor:
    """Transpose a portrait image, resize it, pad it, transpose it back, and cut it into tiles."""
    portrait = image.width < image.height
    landscape = image.convert("RGB")
    if portrait:
        landscape = landscape.transpose(TRANSPOSE)
    size = hd_size(landscape.width, landscape.height, num_crops)
    canvas = PIL.Image.new("RGB", size.padded[::-1], "white")
    canvas.paste(landscape.resize(size.resized[::-1], BILINEAR), (0, (size.padded[0] - size.resized[0]) // 2))
    if portrait:
        canvas = canvas.transpose(TRANSPOSE)
    boxes = [
        (left, top, left + 336, top + 336)
        for top in range(0, canvas.height, 336)
        for left in range(0, canvas.width, 336)
    ]
    return torch.stack([torch.from_numpy(np.array(canvas.crop(box))).permute(2, 0, 1) for box in boxes])


@pytest.mark.parametrize("num_crops", [1, 4, 16])
def test_tiles_equal_the_official_ones_exactly(num_crops: int) -> None:
    random = Random(num_crops)
    sizes = [(340, 440), (440, 340), (337, 336), (336, 337), (5, 9), (9, 5), (64, 64)]
    sizes += [(random.randint(20, 700), random.randint(20, 700)) for _ in range(8)]
    for width, height in sizes:
        image = PIL.Image.frombytes("RGB", (width, height), random.randbytes(3 * width * height))
        assert torch.equal(to_tiles(image, num_crops), official_tiles(image, num_crops)), (width, height)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_other_image_modes_are_converted_to_rgb_first(mode: str) -> None:
    image = PIL.Image.frombytes("RGB", (40, 50), Random(0).randbytes(6000)).convert(mode)
    assert torch.equal(to_tiles(image, 4), official_tiles(image, 4))


def test_the_input_image_is_not_modified() -> None:
    image = PIL.Image.frombytes("RGB", (30, 40), Random(0).randbytes(3600))
    before = image.tobytes()
    to_tiles(image, 4)
    assert (image.size, image.tobytes()) == ((30, 40), before)


def test_an_extreme_aspect_ratio_is_rejected() -> None:
    with pytest.raises(ImageRatioError):
        to_tiles(PIL.Image.new("RGB", (4000, 1)), 4)
