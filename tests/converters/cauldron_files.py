"""Write Parquet files as the Hub's own library does, and convert them."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convkit.convert.error_budget import Policy
from convkit.convert.run import convert
from convkit.converters.cauldron import Cauldron, CauldronOptions
from convkit.schema import Manifest

datasets: Any = pytest.importorskip("datasets")
pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")


ROWS = 60


def options(**values: Any) -> CauldronOptions:
    return CauldronOptions.model_validate(values)


def run(source: Path, out_dir: Path, workers: int = 0, policy: Policy | None = None, **values: Any) -> Manifest:
    return convert(Cauldron, str(source), options(**values), out_dir, workers=workers, policy=policy or Policy())


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    picture = Image.new("RGB", (8, 8), (shade % 256, shade // 256, 7))
    picture.putpixel((0, 0), (255, 255, 255))
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def cauldron_rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Make rows with 0 to 2 images and 1 to 3 turns; every tenth row repeats the image of the row before."""
    made = []
    for number in range(first, first + count):
        shade = number - 1 if number % 10 == 9 else number
        images = [{"bytes": png(shade), "path": None}, {"bytes": png(1000 + number), "path": None}]
        texts = [
            {"user": f"Question {number}.{k}?", "assistant": f"Answer {number}.{k}.", "source": "TextVQA"}
            for k in range(1 + number % 3)
        ]
        made.append({"images": images[: (number + 1) % 3], "texts": texts})
    return made


def write(path: Path, made: list[dict[str, Any]], batch: int = 10) -> None:
    """Write a file as The Cauldron does, with images and texts as stored by the Hub's library."""
    text = {name: datasets.Value("string") for name in ("user", "assistant", "source")}
    features = datasets.Features({"images": datasets.List(datasets.Image()), "texts": datasets.List(text)})
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(made, features=features).to_parquet(path, batch_size=batch)


def write_by_path(path: Path, made: list[tuple[list[Any], list[dict[str, Any]]]]) -> None:
    images = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    texts = pa.list_(pa.struct([(name, pa.string()) for name in ("user", "assistant", "source")]))
    columns = {
        "images": pa.array([[{"bytes": None, "path": p} for p in paths] for paths, _ in made], images),
        "texts": pa.array([text for _, text in made], texts),
    }
    pq.write_table(pa.table(columns), path)
