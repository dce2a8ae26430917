"""Conversations in Parquet files, written as the hub's own library writes them, through to the data set."""

import io
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convkit.convert.error_budget import Policy
from convkit.convert.run import convert
from convkit.converters.base import Exclude
from convkit.converters.cauldron import Cauldron, CauldronOptions
from convkit.converters.parquet import split_name
from convkit.errors import ConvkitError, SourceError
from convkit.schema import Manifest
from convkit.validate.run import validate
from tests.convert.helpers import quarantined, rows, tree

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
    """Rows of no image to two, one turn to three; every tenth shares its image with the one before."""
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
    """Write as The Cauldron is written: images and texts as the hub's library stores them."""
    text = {name: datasets.Value("string") for name in ("user", "assistant", "source")}
    features = datasets.Features({"images": datasets.List(datasets.Image()), "texts": datasets.List(text)})
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(made, features=features).to_parquet(path, batch_size=batch)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files, four row groups or more each."""
    folder = tmp_path_factory.mktemp("cauldron") / "textvqa"
    write(folder / "train-00000-of-00002.parquet", cauldron_rows(ROWS // 2))
    write(folder / "train-00001-of-00002.parquet", cauldron_rows(ROWS // 2, ROWS // 2))
    return folder


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out_dir = tmp_path_factory.mktemp("made") / "out"
    run(source, out_dir)
    return out_dir


def test_every_row_reads_back_as_it_was(made: Path) -> None:
    found = {row["id"].split("-", 1)[1]: row for row in rows(made)}
    assert len(found) == ROWS
    for number, row in enumerate(cauldron_rows(ROWS)):
        stored = found[f"train-{number // 30:05d}-of-00002-{number % 30}"]
        turns = stored["conversations"]
        assert [(t["user"], t["assistant"]) for t in turns] == [(t["user"], t["assistant"]) for t in row["texts"]]
        assert [(made / "images" / path).read_bytes() for path in turns[0]["images"]] == [
            image["bytes"] for image in row["images"]
        ]
        assert not any(turn["images"] for turn in turns[1:])
        assert stored["metadata"] == {"source": "TextVQA"}
        assert stored["source"] == "cauldron"


def test_names_tell_where_a_row_comes_from(made: Path) -> None:
    row = rows(made, "train")[1]
    number = int(row["id"].rsplit("-", 1)[1])
    assert row["id"] == f"train-train-00000-of-00002-{number}"
    shown = [path for row in rows(made, "train") for turn in row["conversations"] for path in turn["images"]]
    assert shown[0].startswith("train/train-00000-of-00002-00000")
    assert shown[0].endswith("-0.png")


def test_accounting_is_exact(source: Path, tmp_path: Path) -> None:
    manifest = run(source, tmp_path / "out", limit=25)
    done = manifest.accounting
    assert (done.read, done.written, done.quarantined, done.excluded) == (ROWS, 25, 0, {"beyond --limit": 35})
    assert done.unit == "row"
    files = [path for path in (tmp_path / "out/images").rglob("*") if path.is_file()]
    assert (done.media_files, done.media_bytes) == (len(files), sum(path.stat().st_size for path in files))


def test_there_are_several_row_groups_and_their_digest_is_the_sources(source: Path) -> None:
    items = list(Cauldron(source, options()).items())
    assert len(items) == 6
    assert sum(item.units for item in items) == ROWS
    assert Exclude not in map(type, items)
    assert f"size={(source / 'train-00000-of-00002.parquet').stat().st_size}" in repr(items[0])


def test_equal_images_never_cross_splits(made: Path) -> None:
    splits: dict[str, set[str]] = {}
    group_of: dict[bytes, str] = {}
    for split in ("train", "val"):
        for row in rows(made, split):
            for path in row["conversations"][0]["images"][:1]:
                image = (made / "images" / path).read_bytes()
                assert group_of.setdefault(image, row["group"]) == row["group"]
            splits.setdefault(row["group"], set()).add(split)
    assert all(len(found) == 1 for found in splits.values())
    assert len(set(group_of.values())) == len(group_of)
    assert any(group.startswith("text-") for group in splits)


def chained(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows of no image to three, drawn from few: most rows are bound to others by an image that is not their first."""
    draw = random.Random(seed)
    text = {"user": "Which?", "assistant": "This.", "source": "NLVR2"}
    made = []
    for number in range(count):
        shades = draw.sample(range(3 * count), draw.choice([0, 1, 2, 2, 3]))
        images = [{"bytes": png(shade), "path": None} for shade in shades]
        made.append({"images": images, "texts": [{**text, "user": f"Which, {number}?"}]})
    return made


@pytest.mark.parametrize("seed", range(4))
def test_no_image_crosses_splits_wherever_it_stands_in_its_row(tmp_path: Path, seed: int) -> None:
    made = chained(60, seed)
    write(tmp_path / "source/train-00000-of-00002.parquet", made[:30], batch=7)
    write(tmp_path / "source/train-00001-of-00002.parquet", made[30:], batch=7)
    run(tmp_path / "source", tmp_path / "out", val_fraction=0.3, test_fraction=0.2, seed=seed)
    groups: dict[bytes, set[str]] = {}
    splits: dict[str, set[str]] = {}
    for split in ("train", "val", "test"):
        for row in rows(tmp_path / "out", split):
            splits.setdefault(row["group"], set()).add(split)
            for path in row["conversations"][0]["images"]:
                groups.setdefault((tmp_path / "out/images" / path).read_bytes(), set()).add(row["group"])
    assert [group for group, found in splits.items() if len(found) > 1] == []
    assert all(len(found) == 1 for found in groups.values())
    assert len(splits) > 10, "all is one group: nothing was tried"


def test_images_are_read_ahead_only_where_a_row_has_several(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    single = [row for row in cauldron_rows(30) if len(row["images"]) < 2]
    write(tmp_path / "single/train.parquet", single)
    read: list[Any] = []

    def digests(self: Cauldron, group: Any) -> Any:
        read.append(group)
        return iter(())

    monkeypatch.setattr(Cauldron, "_digests", digests)
    assert sum(item.units for item in Cauldron(tmp_path / "single", options()).items()) == len(single)
    assert read == []
    list(Cauldron(source, options()).items())
    assert len(read) == 6


def test_shares_are_about_as_asked_and_not_the_first_rows(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "a", val_fraction=0.3, test_fraction=0.3)
    counts = {split: len(rows(tmp_path / "a", split)) for split in ("train", "val", "test")}
    assert all(8 <= count <= 36 for count in counts.values()), counts
    numbers = [int(row["id"].rsplit("-", 1)[1]) for row in rows(tmp_path / "a", "val")]
    assert numbers[:5] != [0, 1, 2, 3, 4]
    run(source, tmp_path / "b", val_fraction=0.3, test_fraction=0.3, seed=1)
    assert _ids(tmp_path / "a", "val") != _ids(tmp_path / "b", "val")


def _ids(out_dir: Path, split: str) -> set[str]:
    return {row["id"] for row in rows(out_dir, split)}


def test_shares_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="leaves nothing for train"):
        options(val_fraction=0.5, test_fraction=0.5)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_number_of_workers_does_not_change_a_byte(source: Path, made: Path, workers: int, tmp_path: Path) -> None:
    run(source, tmp_path / "out", workers=workers)
    assert tree(tmp_path / "out") == tree(made)


def test_an_interrupted_run_goes_on(source: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    original = Cauldron.convert

    def interrupted(self: Cauldron, item: Any) -> Any:
        calls.append(item.address)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(self, item)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Cauldron, "convert", interrupted)
        run(source, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(Cauldron, "convert", interrupted)
        run(source, tmp_path / "out")
    assert len(calls) == 4 + 3, "three of six were not done again"
    assert tree(tmp_path / "out") == tree(made)


def test_validate_finds_nothing(source: Path, made: Path, tmp_path: Path) -> None:
    for out_dir in (made, tmp_path / "out"):
        if out_dir != made:
            run(source, out_dir, image_names="content", val_fraction=0.4)
        result = validate([out_dir], workers=0)
        assert list(result.report.findings) == []
        for receipt in result.receipts:
            receipt.unlink()


def test_images_named_by_content_are_stored_once(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out", image_names="content")
    files = [path.read_bytes() for path in (tmp_path / "out/images").rglob("*.png")]
    assert len(files) == len(set(files))


def test_splits_of_the_source_are_taken(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    for k, name in enumerate(("train-00000-of-00001", "test-00000-of-00001", "validation-00000-of-00001")):
        write(folder / f"{name}.parquet", cauldron_rows(20, 20 * k))
    run(folder, tmp_path / "out", val_fraction=0.5, test_fraction=0.4)
    assert Counter(row["id"].split("-")[0] for row in rows(tmp_path / "out")) == {"train": 20, "test": 20, "val": 20}


def test_only_what_is_lacking_is_carved(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    write(folder / "train.parquet", cauldron_rows(40))
    write(folder / "test.parquet", cauldron_rows(10, 40))
    run(folder, tmp_path / "out", val_fraction=0.4, test_fraction=0.4)
    assert {row["id"].split("-")[1] for row in rows(tmp_path / "out", "test")} == {"test"}
    assert len(rows(tmp_path / "out", "test")) == 10
    assert rows(tmp_path / "out", "val")


@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("train-00000-of-00002-0c3df4a1.parquet", "train"),
        ("deep/validation-00000-of-00001.parquet", "val"),
        ("test_seen-00000-of-00001.parquet", "test_seen"),
        ("dev.parquet", "val"),
        ("train_data.parquet", "train"),
        ("training-00000-of-00001.parquet", "train"),
        ("docvqa-00000-of-00001.parquet", "train"),
        ("0000.parquet", "train"),
    ],
)
def test_the_split_by_a_files_name(file: str, split: str) -> None:
    assert split_name(file) == split


def test_one_file_alone(source: Path, tmp_path: Path) -> None:
    file = source / "train-00001-of-00002.parquet"
    manifest = run(file, tmp_path / "out", name="mine")
    assert manifest.source.bytes == file.stat().st_size
    assert manifest.accounting.written == ROWS // 2
    assert (tmp_path / "out/mine_train.jsonl").exists()
    assert run(file, tmp_path / "out", name="mine") == manifest


def test_files_of_one_name_in_two_folders(tmp_path: Path) -> None:
    write(tmp_path / "source/a/train.parquet", cauldron_rows(3))
    write(tmp_path / "source/b/train.parquet", cauldron_rows(3))
    write(tmp_path / "source/.cache/train.parquet", cauldron_rows(3))
    assert run(tmp_path / "source", tmp_path / "out").accounting.written == 6


def test_images_by_path(tmp_path: Path) -> None:
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


def write_by_path(path: Path, made: list[tuple[list[Any], list[dict[str, Any]]]]) -> None:
    images = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    texts = pa.list_(pa.struct([(name, pa.string()) for name in ("user", "assistant", "source")]))
    columns = {
        "images": pa.array([[{"bytes": None, "path": p} for p in paths] for paths, _ in made], images),
        "texts": pa.array([text for _, text in made], texts),
    }
    pq.write_table(pa.table(columns), path)


def test_a_hard_link_where_that_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a.png").write_bytes(png(1))
    write_by_path(tmp_path / "source/train.parquet", [(["a.png"], [{"user": "Q", "assistant": "A", "source": "s"}])])
    run(tmp_path / "source", tmp_path / "out", val_fraction=0, link=True)
    (image,) = (tmp_path / "out/images").rglob("*.png")
    assert image.stat().st_ino == (tmp_path / "source/a.png").stat().st_ino


def test_malformed_rows_are_named_and_cost_no_others(tmp_path: Path) -> None:
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


def test_damage_within_a_file_costs_what_cannot_be_read(source: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    content = bytearray((source / "train-00000-of-00002.parquet").read_bytes())
    content[4:200] = random.Random(0).randbytes(196)
    (tmp_path / "source/train.parquet").write_bytes(content)
    done = run(tmp_path / "source", tmp_path / "out").accounting
    assert (done.read, done.written) == (30, 20)
    assert [rule for rule, _ in quarantined(tmp_path / "out").values()] == ["damaged-parquet"]


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"PAR1" + bytes(90) + b"PAR1"]
)
def test_a_damaged_file_is_named(content: bytes, source: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/bad.parquet").write_bytes(content)
    write(tmp_path / "source/a.parquet", cauldron_rows(3))
    with pytest.raises(SourceError, match=r"bad\.parquet is no sound Parquet file: .* Download it again"):
        run(tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_columns_are_named(tmp_path: Path) -> None:
    datasets.Dataset.from_list([{"picture": "x", "caption": "y"}]).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(SourceError) as caught:
        run(tmp_path / "a.parquet", tmp_path / "out")
    assert "images, texts; images, messages. Found: picture, caption." in str(caught.value)


def test_a_folder_without_parquet(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a.txt").write_text("x")
    with pytest.raises(SourceError, match="contains no Parquet files"):
        run(tmp_path / "source", tmp_path / "out")


def test_the_hubs_sets() -> None:
    expected = "hub:HuggingFaceM4/the_cauldron/docvqa/*.parquet"
    assert Cauldron.default_source_for(options(config="docvqa")) == expected
    assert Cauldron(Path(), options(config="docvqa")).dataset_name == "docvqa"
    with pytest.raises(ConvkitError, match="--config NAME"):
        Cauldron.default_source_for(options())
    with pytest.raises(ValueError, match="config"):
        options(config="../docvqa")


def test_chats_as_trl_stores_them(tmp_path: Path) -> None:
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
