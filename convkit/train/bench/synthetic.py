"""Write synthetic rows and JPEG images for a workload."""

import itertools
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from convkit import layout
from convkit.profiles import ImageSize
from convkit.schema import Row, Turn
from convkit.train.bench.data import BenchData
from convkit.train.bench.workloads import RowShape, Workload
from convkit.train.data.index import Index
from convkit.train.models.family import ModelFamily

WORDS = ["the", "of", "and", "date", "total", "amount", "page", "report", "company", "number", "letter", "name"]
_FILES_PER_SIZE = 16
"""Distinct images of each size. Rows use them in turn, which keeps the time and space to write them small."""
_QUALITY = 85
_GRAIN = 4
"""Side of a grain of noise, in pixels."""
_LINE = 33
"""Line spacing of a page, in pixels: 66 lines on a page of 2,200 pixels."""


def write_dataset(workload: Workload, rows: int, family: ModelFamily, directory: Path, seed: int = 0) -> BenchData:
    """Write a row file and its images, and index them as a training run does."""
    random = Random(seed)
    images = directory / layout.IMAGES
    images.mkdir(parents=True)
    index, offset, numbers = Index(directory / "rows.jsonl"), 0, itertools.count()
    with index.path.open("wb") as file:
        for number in range(rows):
            row = _row(workload.draw(random), f"r{number}", images, random, numbers)
            line = row.model_dump_json(exclude_unset=True).encode() + b"\n"
            file.write(line)
            index.add(row, family.length(row, images), offset)
            offset += len(line)
    return BenchData(index, images)


def _row(shape: RowShape, name: str, images: Path, random: Random, numbers: Iterator[int]) -> Row:
    stems = [f"{shape.kind}-{size.width}x{size.height}" for size in shape.images]
    names = tuple(f"{stem}-{next(numbers) % _FILES_PER_SIZE}.jpg" for stem in stems)
    for file, size in zip(names, shape.images, strict=True):
        if not (images / file).exists():
            (images / file).write_bytes(jpeg(shape.kind, size, random))
    turn = Turn(images=names, user=words(random, shape.question_words), assistant=words(random, shape.answer_words))
    return Row(id=name, source="bench", conversations=(turn,))


def words(random: Random, count: int) -> str:
    """Return random words of one token each. The first word is always the same."""
    return " ".join([WORDS[0], *random.choices(WORDS, k=count - 1)])


def jpeg(kind: str, size: ImageSize, random: Random) -> bytes:
    """Return a random page of text or a noise image as a JPEG file."""
    content = BytesIO()
    (_page if kind == "page" else _noise)(size, random).save(content, "JPEG", quality=_QUALITY)
    return content.getvalue()


def _noise(size: ImageSize, random: Random) -> PIL.Image.Image:
    grains = (-(-size.width // _GRAIN), -(-size.height // _GRAIN))
    noise = PIL.Image.frombytes("RGB", grains, random.randbytes(3 * grains[0] * grains[1]))
    return noise.resize(size, PIL.Image.Resampling.BICUBIC)


def _page(size: ImageSize, random: Random) -> PIL.Image.Image:
    page = PIL.Image.new("RGB", size, "white")
    draw = PIL.ImageDraw.Draw(page)
    margin = size.width // 12
    for top in range(margin, size.height - margin, _LINE):
        line = words(random, 14)
        draw.text((margin, top), line, fill="black", font=_font())
    return page


@cache
def _font() -> PIL.ImageFont.FreeTypeFont | PIL.ImageFont.ImageFont:
    return PIL.ImageFont.load_default(_LINE * 2 / 3)
