"""Small image sources for the tests of every converter, in their published layouts."""

import io
import json
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image


def png(shade: int) -> bytes:
    """Return an image of noise as PNG; equal shades give equal bytes."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", (8, 8), Random(shade).randbytes(8 * 8 * 3)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, content: bytes | str) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Write a file of JSON lines."""
    write(path, "".join(f"{json.dumps(line)}\n" for line in lines))


def docvqa_tree(folder: Path) -> None:
    """Write the release of DocVQA: questions out of order; one of train has no answer, one of val no page."""
    for page in range(5):
        write(folder / f"documents/p_{page}.png", png(page))
    files = {
        "train_v1.0_withQT": [datum(k, k % 3, ["a", "A", "A"]) for k in (5, 3, 4, 1)] + [datum(9, 0, None)],
        "val_v1.0_withQT": [datum(20, 3, ["b"]), datum(21, 99, ["b"])],
        "test_v1.0": [datum(30, 4, None), datum(31, 4, None)],
    }
    for name, data in files.items():
        write(folder / f"{name}.json", json.dumps({"dataset_name": "SP-DocVQA", "data": data}))


def datum(number: int, page: int, answers: list[str] | None) -> dict[str, Any]:
    """Return a question of DocVQA's release."""
    found = {"questionId": number, "question": f"Question {number}?", "image": f"documents/p_{page}.png", "docId": page}
    return found if answers is None else {**found, "answers": answers}


def docvqa_tables(folder: Path) -> None:
    """Write the files of the hub: eight rows of train in three row groups show five pages; one row has no answer."""
    made = [question(k, png(k % 5), [] if k == 4 else ["a", "A", "A"]) for k in range(8)]
    write_table(folder / "data/train-00000-of-00001-0123456789abcdef.parquet", made, 3)
    write_table(folder / "data/test-00000-of-00001.parquet", [question(k, png(20 + k), None) for k in range(3)], 2)


def question(number: int, page: bytes, answers: list[str] | None) -> dict[str, Any]:
    """Return a row of DocVQA on the hub."""
    return {
        "id": f"q_{number}",
        "image": {"bytes": page, "path": None},
        "query": {"de": f"Frage {number}?", "en": f"Question {number}?"},
        "answers": answers,
        "words": ["x"],
    }


def write_table(path: Path, made: list[dict[str, Any]], row_group_size: int) -> None:
    """Write rows to a Parquet file, with the types of the first rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(made), path, row_group_size=row_group_size)


def nlvr2_tree(folder: Path) -> None:
    """Write the release of NLVR2: two sentences of a pair, pairs with a missing image, and a split without labels."""
    dev = [{**pair(f"dev-{k}-0-0"), "label": "True"} for k in range(4)]
    write_lines(folder / "dev.json", [*dev, {**pair("dev-0-0-1"), "label": "False"}])
    write_lines(folder / "test1.json", [pair("test1-1-0-0")])
    names = [f"dev-{k}-0-img{side}" for k in range(3) for side in (0, 1)] + ["dev-3-0-img1"]
    for shade, name in enumerate([*names, "test1-1-0-img0", "test1-1-0-img1"]):
        write(folder / f"images/{name}.png", png(shade))


def pair(identifier: str) -> dict[str, Any]:
    """Return a row of NLVR2 without its label."""
    return {"identifier": identifier, "sentence": f"Sentence {identifier}.", "synset": "dog"}


def hateful_memes_tree(folder: Path) -> None:
    """Write the second-phase release of Hateful Memes; one meme of train is missing."""
    memes = [{"id": k, "img": f"img/{k:05d}.png", "label": k % 2, "text": f"text {k}"} for k in range(6)]
    for k in range(1, 6):
        write(folder / f"img/{k:05d}.png", png(k))
    write_lines(folder / "train.jsonl", memes[:3])
    write_lines(folder / "dev_seen.jsonl", [{**memes[3], "id": "00003"}])
    write_lines(folder / "test_unseen.jsonl", [{k: v for k, v in m.items() if k != "label"} for m in memes[4:]])


def cauldron_table(folder: Path) -> None:
    """Write forty rows of two images in four row groups; pairs of rows share an image, and the last row is broken."""
    made = [cauldron_row(k, [png(k), png(100 + k // 2)]) for k in range(39)]
    write_table(folder / "train-00000-of-00001.parquet", [*made, cauldron_row(39, [png(39), b"no picture"])], 10)


def cauldron_row(number: int, images: list[bytes]) -> dict[str, Any]:
    """Return a row of The Cauldron."""
    text = {"user": f"Question {number}?", "assistant": "Yes.", "source": "NLVR2"}
    return {"images": [{"bytes": image, "path": None} for image in images], "texts": [text]}


def image_tree(folder: Path) -> None:
    """Write images by class: some are equal, one is invalid, and one file is not an image."""
    for k in range(12):
        write(folder / f"{('cat', 'dog')[k % 2]}/{k:02d}.png", png(k - k % 3 // 2))
    write(folder / "cat/broken.png", b"no picture")
    write(folder / "cat/notes.txt", b"not a picture")
