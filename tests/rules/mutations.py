"""Ways to break a clean dataset, and the rules that find them: the table of docs/mutations.md and its test.

`make generate` writes the page.
"""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image

from tests.fixtures.builders import line, lines, manifest, photo, png, png_of, row, turn

MANIFEST = "dataset.json"
NOT_APPLICABLE = "not applicable"
VALID = "valid"
SPLITS = {"train": 8, "val": 4, "test": 4}
TRAIN, VAL, TEST = (f"pets_{split}.jsonl" for split in SPLITS)
IMAGE, JPEG = "images/train/1.png", "images/train/3.jpg"


def clean(directory: Path, *, with_manifest: bool) -> Path:
    """Write 16 rows in three splits, with two classes and a group per two rows, with or without a manifest."""
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
            answered = turn("<image>\nWhich pet?", images=[name], assistant="cat" if number % 2 else "dog")
            rows.append(row(f"pet-{number}", conversations=[answered], group=f"owner-{number // 2}"))
            number += 1
        files[f"pets_{split}.jsonl"] = lines(*rows)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    if with_manifest:
        splits = {split: f"pets_{split}.jsonl" for split in SPLITS}
        (directory / "dataset.json").write_bytes(manifest(files, **splits))
    return directory


def jpeg() -> bytes:
    """Encode a JPEG image, which has no checksum."""
    file = io.BytesIO()
    PIL.Image.linear_gradient("L").resize((64, 48)).rotate(30).save(file, "JPEG", quality=95)
    return file.getvalue()


@dataclass(frozen=True)
class Mutation:
    """One change of the dataset, with the rules that must report it."""

    change: str
    apply: Callable[[Path], object]
    with_manifest: str
    """Codes that are found at least; empty if the changed dataset is valid."""
    without_manifest: str
    """The same for row files and images without a manifest."""


def edit(name: str, change: Callable[[list[Any]], object]) -> Callable[[Path], object]:
    """Return a mutation of the parsed rows of a file."""

    def apply(directory: Path) -> None:
        path = directory / name
        rows = [json.loads(raw) for raw in path.read_bytes().splitlines()]
        change(rows)
        path.write_bytes(lines(*rows))

    return apply


def edit_turn(name: str, number: int, **values: Any) -> Callable[[Path], object]:
    """Return a mutation of the first turn of a row."""
    return edit(name, lambda rows: rows[number]["conversations"][0].update(values))


def edit_bytes(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Return a mutation of the bytes of a file."""
    return lambda directory: (directory / name).write_bytes(change((directory / name).read_bytes()))


def edit_manifest(**values: Any) -> Callable[[Path], object]:
    """Return a mutation of the manifest's entry for the training split."""

    def apply(directory: Path) -> None:
        content = json.loads((directory / MANIFEST).read_bytes())
        content["splits"]["train"].update(values)
        (directory / MANIFEST).write_text(json.dumps(content))

    return apply


def flipped(content: bytes, index: int) -> bytes:
    """Return the content with all bits of one byte flipped."""
    return content[:index] + bytes([content[index] ^ 0xFF]) + content[index + 1 :]


def swap_files(directory: Path) -> None:
    """Swap two image files of one split."""
    one, other = directory / "images/train/1.png", directory / "images/train/2.png"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def move_row(directory: Path) -> None:
    """Move the last row of train to val, without moving its image."""
    train = (directory / TRAIN).read_bytes().splitlines(keepends=True)
    (directory / TRAIN).write_bytes(b"".join(train[:-1]))
    with (directory / VAL).open("ab") as file:
        file.write(train[-1])


def flip_jpeg(directory: Path) -> None:
    """Flip a byte within the pixel data of a JPEG."""
    edit_bytes(JPEG, lambda content: flipped(content, len(content) - 100))(directory)


def copy_within_split(directory: Path) -> None:
    """Replace a training image with one of the other class."""
    shutil.copy(directory / "images/train/1.png", directory / "images/train/2.png")


def copy_image(directory: Path) -> None:
    """Replace a validation image with a training image."""
    shutil.copy(directory / "images/train/1.png", directory / "images/val/9.png")


def mark_system(rows: list[Any]) -> None:
    """Add a system text with an image marker to a row."""
    rows[2]["system"] = "Look at <image>."


def rename_class(rows: list[Any]) -> None:
    """Change the spelling of one class."""
    for edited in rows:
        answered = edited["conversations"][0]
        answered["assistant"] = answered["assistant"].replace("cat", "Cat")


MUTATIONS = (
    Mutation("delete an image", lambda directory: (directory / IMAGE).unlink(), "CK201", "CK201"),
    Mutation("empty an image", edit_bytes(IMAGE, lambda content: b""), "CK206", "CK206"),
    Mutation("truncate an image (PNG)", edit_bytes(IMAGE, lambda content: content[:200]), "CK204", "CK204"),
    Mutation("truncate an image (JPEG)", edit_bytes(JPEG, lambda content: content[:-20]), "CK204", "CK204"),
    Mutation("flip a byte of an image's pixels (PNG)", edit_bytes(IMAGE, lambda c: flipped(c, 60)), "CK204", "CK204"),
    Mutation("flip a byte of an image's pixels (JPEG)", flip_jpeg, "", ""),
    Mutation("replace an image with text", edit_bytes(IMAGE, lambda content: b"404"), "CK204", "CK204"),
    Mutation(
        "replace an image with a blank one", edit_bytes(IMAGE, lambda c: png_of([bytes(16)] * 16, 16)), "CK218", "CK218"
    ),
    Mutation(
        "add an image that no row uses",
        lambda directory: (directory / "images/train/100.png").write_bytes(png(value=100)),
        "CK303",
        "CK303",
    ),
    Mutation("swap two images of a split", swap_files, "", ""),
    Mutation("replace an image with one of the other class", copy_within_split, "CK306", "CK306"),
    Mutation("replace a val image with a train image", copy_image, "CK307", "CK307"),
    Mutation("use a train image in test", edit_turn(TEST, 0, images=["train/1.png"]), "CK307", "CK307"),
    Mutation(
        "replace a val image with a slightly brighter train image",
        lambda directory: (directory / "images/val/9.png").write_bytes(photo(shift=1)),
        "CK309",
        "CK309",
    ),
    Mutation("flip a byte of a row", edit_bytes(TRAIN, lambda c: flipped(c, 3)), "CK302 CK001", "CK001"),
    Mutation("truncate the last line", edit_bytes(TRAIN, lambda c: c[:-40]), "CK302 CK009", "CK009"),
    Mutation("split a line in the middle", edit_bytes(VAL, lambda c: c.replace(b"cat", b'"\n', 1)), "CK302", "CK002"),
    Mutation("remove the last newline", edit_bytes(TRAIN, lambda c: c[:-1]), "CK302 CK010", "CK010"),
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
        "change an answer, but not the accepted answers",
        edit_turn(TRAIN, 0, assistant="cat", answers=["dog"]),
        "CK302 CK112",
        "CK112",
    ),
    Mutation("change a word of a question", edit_turn(TRAIN, 0, user="<image>\nWhose pet?"), "CK302", ""),
    Mutation("rename a class in one split", edit(VAL, rename_class), "CK302 CK312", "CK312"),
    Mutation("rename a class in training", edit(TRAIN, rename_class), "CK302 CK312", "CK312"),
    Mutation("empty an answer", edit_turn(TRAIN, 2, assistant=""), "CK302 CK104", "CK104"),
    Mutation("make an answer invisible", edit_turn(TRAIN, 2, assistant="\u200b"), "CK302 CK104", "CK104"),
    Mutation("remove one answer", edit(TRAIN, lambda r: r[2]["conversations"][0].pop("assistant")), "CK302", "CK108"),
    Mutation("misspell a key", edit_turn(TRAIN, 2, asistant="dog"), "CK302 CK101", "CK101"),
    Mutation("add an image marker", edit_turn(TRAIN, 2, user="<image><image>"), "CK302 CK102", "CK102"),
    Mutation("add an image marker to the system text", edit(TRAIN, mark_system), "CK302 CK102", "CK102"),
    Mutation("prefix a path with images/", edit_turn(TRAIN, 2, images=["images/train/2.png"]), "CK302 CK201", "CK201"),
    Mutation("use a path outside of images/", edit_turn(TRAIN, 2, images=["../../etc/passwd"]), "CK302 CK202", "CK202"),
    Mutation("change a count of the manifest", edit_manifest(rows=7), "CK302", NOT_APPLICABLE),
    Mutation("change a digest of the manifest", edit_manifest(sha256="0" * 64), "CK302", NOT_APPLICABLE),
)


def page() -> str:
    """Render docs/mutations.md as Markdown text."""
    with_manifest = [mutation.with_manifest for mutation in MUTATIONS]
    without_manifest = [m.without_manifest for m in MUTATIONS if m.without_manifest != NOT_APPLICABLE]
    rates = [f"{sum(map(bool, codes))} of {len(codes)}" for codes in (with_manifest, without_manifest)]
    table = "\n".join(f"| {m.change} | {m.with_manifest or VALID} | {m.without_manifest or VALID} |" for m in MUTATIONS)
    return f"""# Mutation tests of the rules

Each change below is made to a small clean dataset: 16 rows in three splits, with two classes and a group per two rows.
A test makes every change and checks that validation reports at least the listed codes. This page is generated from
`tests/rules/mutations.py`.

Changes that a rule finds: {rates[0]} with a manifest, {rates[1]} without one. The other changes, *{VALID}* in the
table, result in another valid dataset, so no rule can find them.

- The manifest contains the SHA-256 of each row file, so every change of a row is found. Without a manifest, a swapped
  label or a changed question is just another valid row. It is found only if another row has the same prompt (CK306).
  Convert the dataset to get a manifest, or keep the files under version control.
- The manifest does not contain digests of images. If two images are swapped, the validation receipt detects it through
  the digest of all media: training refuses the dataset, and `convkit validate` prints a note.
- PNG has checksums. JPEG, GIF, BMP and TIFF have none: a flipped byte usually decodes without an error to a different
  image. The receipt detects such a change, too. A truncated file is found by CK204.

| change | with a manifest | row files and images alone |
|---|---|---|
{table}
"""
