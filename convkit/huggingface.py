"""Export a dataset to Hugging Face `datasets`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.dataset import Dataset
from convkit.errors import MissingExtra
from convkit.media.cache import FileStamp
from convkit.schema import IMAGE_MARKER, Row, Turn

if TYPE_CHECKING:
    import datasets


def to_hf(dataset: Dataset, cache_dir: Path | None = None) -> "datasets.DatasetDict":
    """Convert a dataset to a `datasets.DatasetDict`; see `Dataset.to_hf`."""
    try:
        import datasets
    except ModuleNotFoundError:
        raise MissingExtra("datasets", "hf", "Dataset.to_hf") from None
    return datasets.DatasetDict(
        {
            split: datasets.Dataset.from_generator(
                _examples,
                features=_features(),
                cache_dir=None if cache_dir is None else str(cache_dir),
                gen_kwargs=_cache_key(dataset, split),
                split=datasets.NamedSplit(re.sub(r"\W", "_", split)),
            )
            for split in dataset.manifest.splits
        }
    )


def _cache_key(dataset: Dataset, split: str) -> dict[str, Any]:
    """Return the generator's arguments, by which `datasets` finds a cached copy: they change with the dataset."""
    return {
        "directory": str(dataset.directory.resolve()),
        "split": split,
        "manifest_sha256": dataset.manifest_sha256,
        "row_file": tuple(FileStamp.from_stat(dataset.path(split).stat())),
    }


def _features() -> "datasets.Features":
    from datasets import Features, Image, List, Value

    text = Value("string")
    return Features(
        {
            "id": text,
            "source": text,
            "group": text,
            "images": List(Image()),
            "messages": List({"role": text, "content": List({"type": text, "text": text})}),
            "answers": List(List(text)),
            "metadata": text,
        }
    )


def _examples(directory: str, split: str, manifest_sha256: str, row_file: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Yield the examples of a split; the last two arguments only identify the dataset's version."""
    dataset = Dataset.open(Path(directory))
    for row in dataset[split]:
        yield {
            "id": row.id,
            "source": row.source,
            "group": row.group,
            "images": [str(dataset.images / path) for turn in row.conversations for path in turn.images],
            "messages": messages(row),
            "answers": [list(turn.answers or ()) for turn in row.conversations],
            "metadata": None if row.metadata is None else json.dumps(row.metadata, ensure_ascii=False),
        }


def messages(row: Row) -> list[dict[str, Any]]:
    """Return the messages of a row in the conversational format that chat templates and TRL take."""
    found = [] if row.system is None else [_message("system", [_text(row.system)])]
    for turn in row.conversations:
        found.append(_message("user", _user_content(turn)))
        if turn.assistant is not None:
            found.append(_message("assistant", [_text(turn.assistant)]))
    return found


def _user_content(turn: Turn) -> list[dict[str, Any]]:
    """Return images and text in prompt order. Text parts may be empty, as in the prompts that convkit trains on."""
    first, *others = turn.user.split(IMAGE_MARKER)
    if not others:
        return [*[_IMAGE] * len(turn.images), _text(first)]
    return [_text(first), *(part for text in others for part in (_IMAGE, _text(text)))]


_IMAGE = {"type": "image", "text": None}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _message(role: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"role": role, "content": content}
