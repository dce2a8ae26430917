"""A converter that follows the instruction on each line of a text file: `ok`, `raise`, `die`, ...

This module does not import OpenCV, so that workers start quickly.
"""

import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from convkit.converters.base import Converter, Exclude, Item, Options, Record, Reject
from convkit.errors import ItemError
from convkit.schema import Row, Turn


class LinesOptions(Options):
    """Options of the converter `lines`."""

    shout: bool = False


@dataclass(frozen=True)
class Line(Item):
    """One line of the source."""

    number: int
    text: str

    @property
    def units(self) -> int:
        """Return the number of words of a batch, 1 for other lines."""
        return len(self.text.split()) - 1 if self.text.startswith("batch") else 1


class Lines(Converter[Line]):
    """Convert `lines.txt` into one row and one file per line."""

    name = "lines"
    unit = "line"
    version = 1
    Options = LinesOptions
    options: LinesOptions

    converted: ClassVar[list[int]] = []
    """The numbers of the lines converted in this process, in order."""

    def items(self) -> Iterator[Line | Reject | Exclude]:
        for number, text in enumerate((self.root / "lines.txt").read_text().splitlines()):
            if text == "exclude":
                yield Exclude("asked for")
            else:
                yield Line(f"lines.txt:{number + 1}", number, text)

    def convert(self, item: Line) -> Record | Iterable[Record | Reject]:
        self.converted.append(item.number)
        return self._batch(item) if item.text.startswith("batch") else self._record(item)

    def _batch(self, item: Line) -> Iterator[Record | Reject]:
        """Yield a part with its own number for each word."""
        for number, word in enumerate(item.text.split()[1:]):
            part = Line(f"{item.address}:{number + 1}", 100 * item.number + number, word)
            match word:
                case "reject":
                    yield Reject(part.address, "refused", "the word says so")
                case "nothing":
                    pass
                case "exclude":
                    yield Exclude("the word says so")  # type: ignore[misc]
                case "two":
                    yield replace(self._record(part), units=2)
                case _:
                    yield self._record(part)

    def _record(self, item: Line) -> Record:
        image = f"{item.number}.txt"
        row_id = f"line-{item.number}"
        match item.text:
            case "reject":
                raise ItemError("refused", "the line says so")
            case "raise":
                raise RuntimeError("the line says so")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "orphan":
                return Record("train", (self._row(row_id, image),), {image: b"", "orphan.txt": b""})
            case "first id":
                row_id = "line-0"
            case "one id twice":
                return Record("train", (self._row(row_id, image), self._row(row_id, image)), {image: b"twice"})
            case "first image":
                image = "0.txt"
            case "long":
                image = f"{'x' * 252}.txt"
        text = item.text.upper() if self.options.shout else item.text
        split = "val" if item.number % 3 == 2 else "train"
        return Record(split, (self._row(row_id, image),), {image: f"{item.number} {text}\n".encode() * 50})

    def _row(self, row_id: str, image: str) -> Row:
        turn = Turn(images=(image,), user="What does the line say?", assistant="See the picture.")
        return Row(id=row_id, source=self.name, conversations=(turn,), group=image)


def write_lines(folder: Path, *lines: str) -> Path:
    """Write a source for `Lines`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lines.txt").write_text("\n".join(lines) + "\n")
    return folder
