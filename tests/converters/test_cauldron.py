"""Conversations in Parquet files of the Hub's own library are converted to rows and images."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from convkit.converters.base import Exclude
from convkit.converters.cauldron import Cauldron
from convkit.errors import ConvkitError, SourceError
from convkit.validate.run import validate
from tests.convert.helpers import quarantined, rows, tree
from tests.converters.cauldron_files import ROWS, cauldron_rows, options, png, run, write, write_by_path

datasets: Any = pytest.importorskip("datasets")
pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")


def test_every_row_has_the_texts_and_image_bytes_of_the_source(textvqa_dataset: Path) -> None:
    found = {row["id"].split("-", 1)[1]: row for row in rows(textvqa_dataset)}
    assert len(found) == ROWS
    for number, row in enumerate(cauldron_rows(ROWS)):
        stored = found[f"train-{number // 30:05d}-of-00002-{number % 30}"]
        turns = stored["conversations"]
        assert [(t["user"], t["assistant"]) for t in turns] == [(t["user"], t["assistant"]) for t in row["texts"]]
        assert [(textvqa_dataset / "images" / path).read_bytes() for path in turns[0]["images"]] == [
            image["bytes"] for image in row["images"]
        ]
        assert not any(turn["images"] for turn in turns[1:])
        assert stored["metadata"] == {"source": "TextVQA"}
        assert stored["source"] == "cauldron"


def test_ids_and_image_paths_contain_the_file_and_row_number(textvqa_dataset: Path) -> None:
    row = rows(textvqa_dataset, "train")[1]
    number = int(row["id"].rsplit("-", 1)[1])
    assert row["id"] == f"train-train-00000-of-00002-{number}"
    paths = [path for row in rows(textvqa_dataset, "train") for turn in row["conversations"] for path in turn["images"]]
    assert paths[0].startswith("train/train-00000-of-00002-00000")
    assert paths[0].endswith("-0.png")


def test_rows_and_media_are_counted_exactly(textvqa_source: Path, tmp_path: Path) -> None:
    manifest = run(textvqa_source, tmp_path / "out", limit=25)
    done = manifest.accounting
    assert (done.read, done.written, done.quarantined, done.excluded) == (ROWS, 25, 0, {"beyond --limit": 35})
    assert done.unit == "row"
    files = [path for path in (tmp_path / "out/images").rglob("*") if path.is_file()]
    assert (done.media_files, done.media_bytes) == (len(files), sum(path.stat().st_size for path in files))


def test_items_are_row_groups_and_contain_the_file_size(textvqa_source: Path) -> None:
    items = list(Cauldron(textvqa_source, options()).items())
    assert len(items) == 6
    assert sum(item.units for item in items) == ROWS
    assert Exclude not in map(type, items)
    assert f"size={(textvqa_source / 'train-00000-of-00002.parquet').stat().st_size}" in repr(items[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_output_is_identical_for_any_number_of_workers(
    textvqa_source: Path, textvqa_dataset: Path, workers: int, tmp_path: Path
) -> None:
    run(textvqa_source, tmp_path / "out", workers=workers)
    assert tree(tmp_path / "out") == tree(textvqa_dataset)


def test_an_interrupted_run_resumes_and_gives_identical_output(
    textvqa_source: Path, textvqa_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    original = Cauldron.convert

    def interrupted(self: Cauldron, item: Any) -> Any:
        calls.append(item.address)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(self, item)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Cauldron, "convert", interrupted)
        run(textvqa_source, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(Cauldron, "convert", interrupted)
        run(textvqa_source, tmp_path / "out")
    assert len(calls) == 4 + 3, "three of six were not done again"
    assert tree(tmp_path / "out") == tree(textvqa_dataset)


def test_validation_of_the_output_has_no_findings(textvqa_source: Path, textvqa_dataset: Path, tmp_path: Path) -> None:
    for out_dir in (textvqa_dataset, tmp_path / "out"):
        if out_dir != textvqa_dataset:
            run(textvqa_source, out_dir, image_names="content", val_fraction=0.4)
        result = validate([out_dir], workers=0)
        assert list(result.report.findings) == []
        for receipt in result.receipts:
            receipt.unlink()


def test_images_named_by_content_are_deduplicated(textvqa_source: Path, tmp_path: Path) -> None:
    run(textvqa_source, tmp_path / "out", image_names="content")
    files = [path.read_bytes() for path in (tmp_path / "out/images").rglob("*.png")]
    assert len(files) == len(set(files))


def test_a_single_file_is_a_source(textvqa_source: Path, tmp_path: Path) -> None:
    file = textvqa_source / "train-00001-of-00002.parquet"
    manifest = run(file, tmp_path / "out", name="mine")
    assert manifest.source.bytes == file.stat().st_size
    assert manifest.accounting.written == ROWS // 2
    assert (tmp_path / "out/mine_train.jsonl").exists()
    assert run(file, tmp_path / "out", name="mine") == manifest


def test_files_with_equal_names_in_two_folders_are_both_read(tmp_path: Path) -> None:
    write(tmp_path / "source/a/train.parquet", cauldron_rows(3))
    write(tmp_path / "source/b/train.parquet", cauldron_rows(3))
    write(tmp_path / "source/.cache/train.parquet", cauldron_rows(3))
    assert run(tmp_path / "source", tmp_path / "out").accounting.written == 6


def test_images_without_bytes_are_read_by_path_inside_the_source_only(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    (folder / "pictures").mkdir(parents=True)
    (folder / "pictures/a.png").write_bytes(png(1))
    (tmp_path / "secret.png").write_bytes(png(2))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    paths = ["pictures/a.png", "gone.png", "../secret.png", str(tmp_path / "secret.png"), "link.png", "a\\b.png", None]
    texts = [{"user": "Q?", "assistant": "A.", "source": None}]
    write_by_path(folder / "train.parquet", [([path], texts) for path in paths])
    run(folder, tmp_path / "out", val_fraction=0)
    (row,) = rows(tmp_path / "out")
    assert (tmp_path / "out/images" / row["conversations"][0]["images"][0]).read_bytes() == png(1)
    assert "metadata" not in row
    found = quarantined(tmp_path / "out")
    assert [found[f"train.parquet:{k}"][0] for k in range(1, 7)] == [
        "missing-image",
        "unsafe-path",
        "unsafe-path",
        "unsafe-path",
        "unsafe-path",
        "missing-image",
    ]
    assert "neither bytes nor a path" in found["train.parquet:6"][1]


def test_unchanged_images_are_hard_linked_on_request(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a.png").write_bytes(png(1))
    write_by_path(tmp_path / "source/train.parquet", [(["a.png"], [{"user": "Q", "assistant": "A", "source": "s"}])])
    run(tmp_path / "source", tmp_path / "out", val_fraction=0, link=True)
    (image,) = (tmp_path / "out/images").rglob("*.png")
    assert image.stat().st_ino == (tmp_path / "source/a.png").stat().st_ino


def test_malformed_rows_are_quarantined_without_affecting_others(tmp_path: Path) -> None:
    made = cauldron_rows(12)
    made[2]["texts"] = []
    made[3]["texts"][0]["user"] = None
    made[4]["texts"][0]["user"] = "<image> and <image> and <image>"
    made[6]["images"] = [{"bytes": b"this is no picture", "path": None}]
    write(tmp_path / "source/train.parquet", made, batch=5)
    done = run(tmp_path / "source", tmp_path / "out").accounting
    assert (done.read, done.written, done.quarantined) == (12, 8, 4)
    found = quarantined(tmp_path / "out")
    assert {address: rule for address, (rule, _) in found.items()} == {
        "train.parquet:2": "malformed-row",
        "train.parquet:3": "malformed-row",
        "train.parquet:4": "invalid-row",
        "train.parquet:6": "undecodable-image",
    }


def test_only_unreadable_rows_of_a_damaged_file_are_quarantined(textvqa_source: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    content = bytearray((textvqa_source / "train-00000-of-00002.parquet").read_bytes())
    content[4:200] = random.Random(0).randbytes(196)
    (tmp_path / "source/train.parquet").write_bytes(content)
    done = run(tmp_path / "source", tmp_path / "out").accounting
    assert (done.read, done.written) == (30, 20)
    assert [rule for rule, _ in quarantined(tmp_path / "out").values()] == ["damaged-parquet"]


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"PAR1" + bytes(90) + b"PAR1"]
)
def test_a_file_without_valid_metadata_is_refused_by_name(content: bytes, textvqa_source: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/bad.parquet").write_bytes(content)
    write(tmp_path / "source/a.parquet", cauldron_rows(3))
    with pytest.raises(SourceError, match=r"bad\.parquet is not a valid Parquet file: .* Download it again"):
        run(tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_error_lists_known_and_found_columns(tmp_path: Path) -> None:
    datasets.Dataset.from_list([{"picture": "x", "caption": "y"}]).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(SourceError) as caught:
        run(tmp_path / "a.parquet", tmp_path / "out")
    assert "images, texts; images, messages. Found: picture, caption." in str(caught.value)


def test_a_folder_without_parquet_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a.txt").write_text("x")
    with pytest.raises(SourceError, match="contains no Parquet files"):
        run(tmp_path / "source", tmp_path / "out")


def test_the_config_option_gives_the_hub_address_and_dataset_name() -> None:
    expected = "hub:HuggingFaceM4/the_cauldron/docvqa/*.parquet"
    assert Cauldron.default_source_for(options(config="docvqa")) == expected
    assert Cauldron(Path(), options(config="docvqa")).dataset_name == "docvqa"
    with pytest.raises(ConvkitError, match="--config NAME"):
        Cauldron.default_source_for(options())
    with pytest.raises(ValueError, match="config"):
        options(config="../docvqa")


def test_chats_in_the_format_of_trl_are_converted(tmp_path: Path) -> None:
    part = {"type": datasets.Value("string"), "text": datasets.Value("string")}
    message = {"role": datasets.Value("string"), "content": datasets.List(part)}
    features = datasets.Features({"messages": datasets.List(message), "images": datasets.List(datasets.Image())})
    image, dot = {"type": "image", "text": None}, {"bytes": png(1), "path": None}
    question, answer = {"type": "text", "text": "What?"}, {"type": "text", "text": "This."}
    chats = [
        {
            "images": [dot, {"bytes": png(2), "path": None}, {"bytes": png(3), "path": None}],
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
                {"role": "user", "content": [image, question]},
                {"role": "assistant", "content": [answer]},
                {"role": "user", "content": [question, image, {"type": "text", "text": " or "}, image]},
                {"role": "assistant", "content": [answer]},
            ],
        },
        {"images": [], "messages": [{"role": r, "content": [question]} for r in ("user", "assistant")]},
        {"images": [], "messages": [{"role": "user", "content": [question]}]},
    ]
    datasets.Dataset.from_list(chats, features=features).to_parquet(tmp_path / "chats.parquet")
    run(tmp_path / "chats.parquet", tmp_path / "out", val_fraction=0)
    first, second = rows(tmp_path / "out")
    assert first["system"] == "Be brief."
    assert [(turn["user"], len(turn["images"])) for turn in first["conversations"]] == [
        ("What?", 1),
        ("What?<image> or <image>", 2),
    ]
    assert json.dumps(second["conversations"]) == '[{"images": [], "user": "What?", "assistant": "What?"}]'
    assert quarantined(tmp_path / "out")["chats.parquet:2"][0] == "malformed-row"
