"""A data set of a workload: rows and JPEG files with made-up content, in a folder that is thrown away afterwards."""

from functools import cache
from io import BytesIO
from itertools import count
from pathlib import Path
from random import Random

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from convkit import layout
from convkit.profiles import ImageSize
from convkit.schema import Row, Turn
from convkit.train.bench.data import Data
from convkit.train.bench.workloads import RowShape, Workload
from convkit.train.data.index import Index
from convkit.train.models.family import ModelFamily

WORDS = ["the", "of", "and", "date", "total", "amount", "page", "report", "company", "number", "letter", "name"]
_DIFFERENT = 16
"""Files of a size; rows take them in turn, so that neither making nor keeping them takes long."""
_QUALITY = 85
_GRAIN = 4
"""Pixels along each side of a grain of noise."""
_LINE = 33
"""Pixels from one line of a page to the next: 66 lines on a page of 2,200."""


def write(workload: Workload, rows: int, family: ModelFamily, directory: Path, seed: int = 0) -> Data:
    """Write a row file and its images, and index them as a run does."""
    random = Random(seed)
    images = directory / layout.IMAGES
    images.mkdir(parents=True)
    index, offset, numbers = Index(directory / "rows.jsonl"), 0, count()
    with index.path.open("wb") as file:
        for number in range(rows):
            row = _conversation(workload.row(random), f"r{number}", images, random, numbers)
            line = row.model_dump_json(exclude_unset=True).encode() + b"\n"
            file.write(line)
            index.add(row, family.length(row, images), offset)
            offset += len(line)
    return Data(index, images)


def _conversation(row: RowShape, name: str, images: Path, random: Random, numbers: "count[int]") -> Row:
    names = tuple(f"{row.kind}-{size.width}x{size.height}-{next(numbers) % _DIFFERENT}.jpg" for size in row.images)
    for file, size in zip(names, row.images, strict=True):
        if not (images / file).exists():
            (images / file).write_bytes(jpeg(row.kind, size, random))
    turn = Turn(images=names, user=words(random, row.question), assistant=words(random, row.answer))
    return Row(id=name, source="bench", conversations=(turn,))


def words(random: Random, many: int) -> str:
    """So many words, of one token each but for the first, which is always the same."""
    return " ".join([WORDS[0], *random.choices(WORDS, k=many - 1)])


def jpeg(kind: str, size: ImageSize, random: Random) -> bytes:
    """A made-up page or picture as a file."""
    content = BytesIO()
    (_page if kind == "page" else _picture)(size, random).save(content, "JPEG", quality=_QUALITY)
    return content.getvalue()


def _picture(size: ImageSize, random: Random) -> PIL.Image.Image:
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
