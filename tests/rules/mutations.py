"""Ways to break a clean data set, and the rules that notice: the table behind docs/mutations.md and its test.

Run `python -m tests.validate.mutations` after a change; a test compares the page with what this file makes.
"""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image

from tests.fixtures.corpus_datasets import photo
from tests.fixtures.make_datasets import line, lines, manifest, png, png_of, row, turn

MANIFEST = "dataset.json"
NOT_THERE = "no manifest"
SOUND = "sound"
SPLITS = {"train": 8, "val": 4, "test": 4}
TRAIN, VAL, TEST = (f"pets_{split}.jsonl" for split in SPLITS)
IMAGE, JPEG = "images/train/1.png", "images/train/3.jpg"


def clean(directory: Path, *, described: bool) -> Path:
    """Write 16 rows in three splits, two classes, a group for each two rows; `described` by a manifest or not."""
    (directory / "images").mkdir(parents=True)
    files: dict[str, bytes] = {}
    number = 0
    for split, count in SPLITS.items():
        rows = []
        for _ in range(count):
            name = JPEG.removeprefix("images/") if number == 3 else f"{split}/{number}.png"
            (directory / "images" / split).mkdir(exist_ok=True)
            content = photo() if number == 0 else jpeg() if number == 3 else png(value=number)
            (directory / "images" / name).write_bytes(content)
            said = turn("<image>\nWhich pet?", images=[name], assistant="cat" if number % 2 else "dog")
            rows.append(row(f"pet-{number}", conversations=[said], group=f"owner-{number // 2}"))
            number += 1
        files[f"pets_{split}.jsonl"] = lines(*rows)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    if described:
        splits = {split: f"pets_{split}.jsonl" for split in SPLITS}
        (directory / "dataset.json").write_bytes(manifest(files, **splits))
    return directory


def jpeg() -> bytes:
    """A picture as cameras store it, without any check sum."""
    file = io.BytesIO()
    PIL.Image.linear_gradient("L").resize((64, 48)).rotate(30).save(file, "JPEG", quality=95)
    return file.getvalue()


@dataclass(frozen=True)
class Mutation:
    """One way to break the set, with the codes that must be found at least."""

    what: str
    apply: Callable[[Path], object]
    described: str
    """Where there is a manifest; empty if the set is sound as it was, and no rule can notice."""
    bare: str
    """Likewise, in row files and images alone."""


def edit(name: str, change: Callable[[list[Any]], object]) -> Callable[[Path], object]:
    """Change the rows of a file as data."""

    def apply(directory: Path) -> None:
        path = directory / name
        rows = [json.loads(raw) for raw in path.read_bytes().splitlines()]
        change(rows)
        path.write_bytes(lines(*rows))

    return apply


def edit_turn(name: str, number: int, **values: Any) -> Callable[[Path], object]:
    """Change the turn of a row."""
    return edit(name, lambda rows: rows[number]["conversations"][0].update(values))


def edit_bytes(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Change a file as bytes."""
    return lambda directory: (directory / name).write_bytes(change((directory / name).read_bytes()))


def edit_manifest(**values: Any) -> Callable[[Path], object]:
    """Change what the manifest says of train."""

    def apply(directory: Path) -> None:
        found = json.loads((directory / MANIFEST).read_bytes())
        found["splits"]["train"].update(values)
        (directory / MANIFEST).write_text(json.dumps(found))

    return apply


def flipped(content: bytes, place: int) -> bytes:
    """With all bits of a byte turned over."""
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def swap_files(directory: Path) -> None:
    """Exchange two images of one split."""
    one, other = directory / "images/train/1.png", directory / "images/train/2.png"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def move_row(directory: Path) -> None:
    """Take the last row of train into val, with its image's name as it is."""
    train = (directory / TRAIN).read_bytes().splitlines(keepends=True)
    (directory / TRAIN).write_bytes(b"".join(train[:-1]))
    with (directory / VAL).open("ab") as file:
        file.write(train[-1])


def flip_jpeg(directory: Path) -> None:
    """Change a byte in the middle of the pixels of a JPEG."""
    edit_bytes(JPEG, lambda content: flipped(content, len(content) - 100))(directory)


def copy_within_split(directory: Path) -> None:
    """Show one image of train in place of another, of the other class."""
    shutil.copy(directory / "images/train/1.png", directory / "images/train/2.png")


def copy_image(directory: Path) -> None:
    """Show an image of train in val."""
    shutil.copy(directory / "images/train/1.png", directory / "images/val/9.png")


def mark_system(rows: list[Any]) -> None:
    """Give a row a system text with a marker, which none of its images stands for."""
    rows[2]["system"] = "Look at <image>."


def rename_class(rows: list[Any]) -> None:
    """Spell one class otherwise."""
    for found in rows:
        said = found["conversations"][0]
        said["assistant"] = said["assistant"].replace("cat", "Cat")


MUTATIONS = (
    Mutation("delete an image", lambda directory: (directory / IMAGE).unlink(), "CK201", "CK201"),
    Mutation("empty an image", edit_bytes(IMAGE, lambda content: b""), "CK206", "CK206"),
    Mutation("cut an image", edit_bytes(IMAGE, lambda content: content[:200]), "CK204", "CK204"),
    Mutation("cut an image (JPEG)", edit_bytes(JPEG, lambda content: content[:-20]), "CK204", "CK204"),
    Mutation("flip a byte of an image's pixels (PNG)", edit_bytes(IMAGE, lambda c: flipped(c, 60)), "CK204", "CK204"),
    Mutation("flip a byte of an image's pixels (JPEG)", flip_jpeg, "", ""),
    Mutation("put text in the place of an image", edit_bytes(IMAGE, lambda content: b"404"), "CK204", "CK204"),
    Mutation("blank an image", edit_bytes(IMAGE, lambda c: png_of([bytes(16)] * 16, 16)), "CK218", "CK218"),
    Mutation(
        "put an image into images/ that no row names",
        lambda directory: (directory / "images/train/100.png").write_bytes(png(value=100)),
        "CK303",
        "CK303",
    ),
    Mutation("swap two images of a split", swap_files, "", ""),
    Mutation("copy an image over one of the other class", copy_within_split, "CK306", "CK306"),
    Mutation("copy an image of train over one of val", copy_image, "CK307", "CK307"),
    Mutation("name an image of train in test", edit_turn(TEST, 0, images=["train/1.png"]), "CK307", "CK307"),
    Mutation(
        "show an image of train in val, a little brighter",
        lambda directory: (directory / "images/val/9.png").write_bytes(photo(shift=1)),
        "CK309",
        "CK309",
    ),
    Mutation("flip a byte of a row", edit_bytes(TRAIN, lambda c: flipped(c, 3)), "CK302 CK001", "CK001"),
    Mutation("cut the last line", edit_bytes(TRAIN, lambda c: c[:-40]), "CK302 CK009", "CK009"),
    Mutation("cut a line in the middle", edit_bytes(VAL, lambda c: c.replace(b"cat", b'"\n', 1)), "CK302", "CK002"),
    Mutation("cut the last line's end", edit_bytes(TRAIN, lambda c: c[:-1]), "CK302 CK010", "CK010"),
    Mutation("add a blank line", edit_bytes(TEST, lambda c: c + b"\n"), "CK302 CK004", "CK004"),
    Mutation("add a byte order mark", edit_bytes(VAL, lambda c: b"\xef\xbb\xbf" + c), "CK302 CK006", "CK006"),
    Mutation("remove a row", edit(TRAIN, lambda rows: rows.pop()), "CK302 CK303", "CK303"),
    Mutation("remove a row file", lambda directory: (directory / TEST).unlink(), "CK302", "CK303"),
    Mutation("add a row file", lambda d: shutil.copy(d / VAL, d / "pets_old.jsonl"), "CK304", "CK301 CK308"),
    Mutation("duplicate an id", edit(TRAIN, lambda rows: rows[0].update(id="pet-1")), "CK302 CK301", "CK301"),
    Mutation(
        "duplicate a row under a new id",
        edit(TRAIN, lambda rows: rows.append({**rows[0], "id": "new"})),
        "CK302 CK305",
        "CK305",
    ),
    Mutation(
        "duplicate a row with another answer",
        edit(TRAIN, lambda r: r.append(json.loads(line({**r[0], "id": "new"}).replace(b"dog", b"cat")))),
        "CK302 CK306",
        "CK306",
    ),
    Mutation("move a row to another split", move_row, "CK302 CK310", "CK310"),
    Mutation("swap a label", edit_turn(TRAIN, 0, assistant="cat"), "CK302", ""),
    Mutation(
        "change an answer and not those that are accepted",
        edit_turn(TRAIN, 0, assistant="cat", answers=["dog"]),
        "CK302 CK112",
        "CK112",
    ),
    Mutation("change a word of a question", edit_turn(TRAIN, 0, user="<image>\nWhose pet?"), "CK302", ""),
    Mutation("rename a class in one split", edit(VAL, rename_class), "CK302 CK312", "CK312"),
    Mutation("rename a class in training", edit(TRAIN, rename_class), "CK302 CK312", "CK312"),
    Mutation("empty an answer", edit_turn(TRAIN, 2, assistant=""), "CK302 CK104", "CK104"),
    Mutation("make an answer invisible", edit_turn(TRAIN, 2, assistant="\u200b"), "CK302 CK104", "CK104"),
    Mutation("drop one answer", edit(TRAIN, lambda r: r[2]["conversations"][0].pop("assistant")), "CK302", "CK108"),
    Mutation("misspell a key", edit_turn(TRAIN, 2, asistant="dog"), "CK302 CK101", "CK101"),
    Mutation("add an image marker", edit_turn(TRAIN, 2, user="<image><image>"), "CK302 CK102", "CK102"),
    Mutation("add an image marker to the system text", edit(TRAIN, mark_system), "CK302 CK102", "CK102"),
    Mutation("write a path with images/", edit_turn(TRAIN, 2, images=["images/train/2.png"]), "CK302 CK201", "CK201"),
    Mutation("name a file outside", edit_turn(TRAIN, 2, images=["../../etc/passwd"]), "CK302 CK202", "CK202"),
    Mutation("change a count of the manifest", edit_manifest(rows=7), "CK302", NOT_THERE),
    Mutation("change a digest of the manifest", edit_manifest(sha256="0" * 64), "CK302", NOT_THERE),
)


def page() -> str:
    """The page of the documentation."""
    described = [mutation.described for mutation in MUTATIONS]
    bare = [mutation.bare for mutation in MUTATIONS if mutation.bare != NOT_THERE]
    rates = (f"{sum(map(bool, codes))} of {len(codes)}" for codes in (described, bare))
    table = "\n".join(f"| {m.what} | {m.described or SOUND} | {m.bare or SOUND} |" for m in MUTATIONS)
    return f"""# What breaks a data set, and what notices

Each of these changes is made to a small clean data set: 16 rows in three splits, two classes, a group for each two
rows. The codes are those that are found at least; a test makes every change and looks. This page is generated from
`tests/rules/mutations.py`.

Found by a rule: with a manifest {next(rates)}, without one {next(rates)}. That is every change that
breaks the set (100 %). The others, *{SOUND}* in the table, make another set of it, in which nothing is wrong: no rule
can tell by looking at it.

- A manifest binds the bytes of row files, so that no change of a row passes. Without one, a swapped label or a changed
  question is one sound row instead of another; it is found only where a second row asks the same (CK306). There is
  nothing to compare with: convert, or keep the files under version control.
- A manifest does not bind the bytes of images. Where two change places, what notices is the receipt of the last
  validation, whose digest of all media differs: training is refused, and `convkit validate` notes it.
- PNG has check sums. JPEG has none: a byte of its pixels that is flipped is mostly decoded without an error, to
  another picture, and so it is with GIF, BMP and TIFF. The receipt notices, as above. One that is cut is found.

| change | with a manifest | row files and images alone |
|---|---|---|
{table}
"""
