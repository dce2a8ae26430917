"""The pixels of the HD transform, against the way in which the model's training made them."""

from random import Random

import numpy as np
import PIL.Image
import pytest
import torch

from convkit.train.models.phi3_v.image_processing import ImageRatioError, hd_size, to_tiles

TRANSPOSE, BILINEAR = PIL.Image.Transpose.TRANSPOSE, PIL.Image.Resampling.BILINEAR


def literally(image: PIL.Image.Image, num_crops: int) -> torch.Tensor:
    """Mirror an upright image, scale it, pad it, mirror it back, cut it up."""
    upright = image.width < image.height
    lying = image.convert("RGB")
    if upright:
        lying = lying.transpose(TRANSPOSE)
    size = hd_size(lying.width, lying.height, num_crops)
    canvas = PIL.Image.new("RGB", size.padded[::-1], "white")
    canvas.paste(lying.resize(size.resized[::-1], BILINEAR), (0, (size.padded[0] - size.resized[0]) // 2))
    if upright:
        canvas = canvas.transpose(TRANSPOSE)
    boxes = [
        (left, top, left + 336, top + 336)
        for top in range(0, canvas.height, 336)
        for left in range(0, canvas.width, 336)
    ]
    return torch.stack([torch.from_numpy(np.array(canvas.crop(box))).permute(2, 0, 1) for box in boxes])


@pytest.mark.parametrize("num_crops", [1, 4, 16])
def test_tiles_are_to_the_bit_those_of_the_literal_way(num_crops: int) -> None:
    random = Random(num_crops)
    sizes = [(340, 440), (440, 340), (337, 336), (336, 337), (5, 9), (9, 5), (64, 64)]
    sizes += [(random.randint(20, 700), random.randint(20, 700)) for _ in range(8)]
    for width, height in sizes:
        image = PIL.Image.frombytes("RGB", (width, height), random.randbytes(3 * width * height))
        assert torch.equal(to_tiles(image, num_crops), literally(image, num_crops)), (width, height)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_other_kinds_of_pixels_are_converted_first(mode: str) -> None:
    image = PIL.Image.frombytes("RGB", (40, 50), Random(0).randbytes(6000)).convert(mode)
    assert torch.equal(to_tiles(image, 4), literally(image, 4))


def test_the_picture_itself_is_left_alone() -> None:
    image = PIL.Image.frombytes("RGB", (30, 40), Random(0).randbytes(3600))
    before = image.tobytes()
    to_tiles(image, 4)
    assert (image.size, image.tobytes()) == ((30, 40), before)


def test_nothing_can_be_made_of_a_line() -> None:
    with pytest.raises(ImageRatioError):
        to_tiles(PIL.Image.new("RGB", (4000, 1)), 4)
