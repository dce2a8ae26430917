"""`Dataset.to_hf`: a `datasets.DatasetDict` with lazily decoded images and messages for chat templates."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

import convkit
from convkit.huggingface import messages
from convkit.schema import IMAGE_MARKER
from tests.api.conftest import ROWS, MakeChats

datasets = pytest.importorskip("datasets")


@pytest.fixture
def exported(make_chats: MakeChats, tmp_path: Path) -> Any:
    return make_chats().to_hf(tmp_path / "cache")


def test_each_split_has_all_rows_in_order(exported: Any) -> None:
    assert isinstance(exported, datasets.DatasetDict)
    assert {name: split["id"][:] for name, split in exported.items()} == {
        "train": [id for id, _, more in ROWS if "split" not in more],
        "val": ["val"],
    }
    assert [str(split.split) for split in exported.values()] == ["train", "val"]


def test_images_are_paths_that_decode_when_they_are_read(exported: Any, make_chats: MakeChats) -> None:
    dataset = make_chats()
    raw = exported["train"].cast_column("images", datasets.List(datasets.Image(decode=False)))
    for row, plain, decoded in zip(dataset["train"], raw, exported["train"], strict=True):
        paths = [str(dataset.images / path) for turn in row.conversations for path in turn.images]
        assert plain["images"] == [{"bytes": None, "path": path} for path in paths]
        for path, image in zip(paths, decoded["images"], strict=True):
            with PIL.Image.open(path) as expected:
                assert image.tobytes() == expected.tobytes()


def test_messages_have_images_at_their_markers(exported: Any) -> None:
    image = {"type": "image", "text": None}

    def text(text: str) -> dict[str, Any]:
        return {"type": "text", "text": text}

    before, marked, turns, plain = (row["messages"] for row in exported["train"])
    assert before == [
        {"role": "user", "content": [image, text("What is it?")]},
        {"role": "assistant", "content": [text("A cup of coffee.")]},
    ]
    assert marked[:2] == [
        {"role": "system", "content": [text("It is true.")]},
        {"role": "user", "content": [text("Is "), image, text(" true, or "), image, text("?")]},
    ]
    assert [message["role"] for message in turns] == ["user", "assistant"] * 3
    assert plain[0]["content"] == [text("Is the statement true?")]


def test_a_row_without_an_answer_ends_with_the_user() -> None:
    turn = {"images": ["a.png"], "user": "Is it a cup?"}
    row = convkit.Row.model_validate({"id": "a", "source": "s", "conversations": [turn]})
    assert [message["role"] for message in messages(row)] == ["user"]


def test_groups_answers_and_metadata_are_kept(exported: Any) -> None:
    train = exported["train"]
    assert train["group"][:] == ["cups", None, None, None]
    assert train["source"][:] == ["chats"] * 4
    assert train["answers"][:] == [[[]], [["False."]], [[], [], []], [[]]]
    metadata = [value and json.loads(value) for value in train["metadata"]]
    assert metadata == [None, None, {"page": 3, "título": None}, None]


def test_an_unchanged_dataset_is_read_from_the_cache(make_chats: MakeChats, tmp_path: Path) -> None:
    first, second = (make_chats().to_hf(tmp_path)["train"] for _ in range(2))
    assert first.cache_files == second.cache_files != []


@pytest.mark.parametrize("manifest", [True, False], ids=["converted-again", "edited"])
def test_a_changed_dataset_is_not_served_from_the_cache(tmp_path: Path, manifest: bool) -> None:
    def write(answer: str, folder: Path) -> convkit.Dataset:
        with convkit.DatasetWriter(folder, name="chats") as writer:
            writer.add("a", [{"user": "What?", "assistant": answer}])
        return writer.dataset

    dataset = write("A cup.", tmp_path / "data")
    assert dataset.to_hf(tmp_path / "cache")["train"]["messages"][0][1]["content"][0]["text"] == "A cup."
    changed = write("A mug.", tmp_path / "changed")
    for path in changed.directory.glob("*.json*" if manifest else "*.jsonl"):
        path.replace(dataset.directory / path.name)
    found = convkit.load_dataset(dataset.directory).to_hf(tmp_path / "cache")
    assert found["train"]["messages"][0][1]["content"][0]["text"] == "A mug."


def test_splits_keep_names_that_datasets_does_not_allow(tmp_path: Path) -> None:
    with convkit.DatasetWriter(tmp_path / "data", name="chats") as writer:
        writer.add("a", [{"user": "What?", "assistant": "A cup."}], split="test-std")
    exported = writer.dataset.to_hf(tmp_path / "cache")
    assert {name: str(split.split) for name, split in exported.items()} == {"test-std": "test_std"}


def test_it_needs_the_extra_hf(make_chats: MakeChats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(convkit.MissingExtra, match=r"pip install 'convkit-vlm\[hf\]'"):
        make_chats().to_hf()


@pytest.mark.parametrize("name", ["smolvlm", "qwen2_vl"])
def test_the_chat_template_gives_the_prompt_that_convkit_trains_on(
    exported: Any, make_chats: MakeChats, tiny_checkpoint: Callable[[str], Path], name: str
) -> None:
    from convkit.train.models import model_family
    from convkit.train.models.hf.family import HuggingFaceFamily

    dataset, family = make_chats(), model_family(tiny_checkpoint(name))
    assert isinstance(family, HuggingFaceFamily)
    for row, example in zip(dataset["train"], exported["train"], strict=True):
        text = family.processor.apply_chat_template(
            example["messages"], chat_template=family.processor.chat_template, tokenize=False
        )
        _, expanded = family.processor.process([image.convert("RGB") for image in example["images"]])
        parts = text.split(family.processor.image_token)
        text = "".join(part for pair in zip(parts, [*expanded, ""], strict=True) for part in pair)
        sample = family.encode(row, dataset.images)
        assert family.tokenizer.decode(sample.input_ids) == text
        assert family.tokenizer(text, add_special_tokens=False).input_ids == sample.input_ids.tolist()
        assert IMAGE_MARKER not in "".join(part["text"] or "" for m in example["messages"] for part in m["content"])
