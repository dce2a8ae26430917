"""UCF-101 is converted from all its layouts to the rows of the training recipe."""

import os
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import pytest

from convkit.convert.error_budget import Budget, Policy
from convkit.convert.run import convert
from convkit.converters.ucf101 import UCF101, UCF101Options
from tests.convert.helpers import quarantined, rows, run, tree
from tests.fixtures.make_clips import CLASSES, write_clip

PROMPT = "Classify the video into one of the following classes: MoveDown, MoveLeft, MoveRight, MoveUp."


def _clips(source: Path, label: str, groups: int, clips: int = 1) -> None:
    """Copy one clip to several names of one class, without splits, which is faster than encoding each."""
    write_clip(source.parent / "one.avi", 4)
    for group in range(1, groups + 1):
        for clip in range(1, clips + 1):
            path = source / label / f"v_{label}_g{group:02d}_c{clip:02d}.avi"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source.parent / "one.avi", path)


def _groups(out_dir: Path, split: str) -> set[str]:
    return {row["group"] for row in rows(out_dir, split)}


def _labels(found: list[dict[str, Any]]) -> Counter[str]:
    return Counter(row["conversations"][0]["assistant"] for row in found)


def test_rows_match_the_training_recipe(clips: Path, tmp_path: Path) -> None:
    run("ucf101", clips, tmp_path / "out")
    assert rows(tmp_path / "out", "val")[1] == {
        "id": "val-0000000013",
        "source": "ucf101",
        "conversations": [
            {
                "images": [f"val/MoveLeft/v_MoveLeft_g04_c01.{k}.jpg" for k in range(8)],
                "user": PROMPT,
                "assistant": "MoveLeft",
            }
        ],
        "group": "MoveLeft_g04",
    }


def test_ids_are_numbered_across_all_splits(clips: Path, tmp_path: Path) -> None:
    run("ucf101", clips, tmp_path / "out")
    assert {path.name for path in tmp_path.glob("out/*.jsonl")} == {
        f"ucf101_{s}.jsonl" for s in ("train", "val", "test")
    }
    ids = [row["id"] for split in ("train", "val", "test") for row in rows(tmp_path / "out", split)]
    expected = ["train"] * 12 + ["val"] * 4 + ["test"] * 4
    assert ids == [f"{split}-{number:010d}" for number, split in enumerate(expected)]


def test_stored_frames_show_the_clip(clips: Path, tmp_path: Path) -> None:
    run("ucf101", clips, tmp_path / "out", limit=1)
    left = [cv2.imread(str(tmp_path / f"out/images/test/MoveLeft/v_MoveLeft_g05_c01.{k}.jpg")) for k in (0, 7)]
    assert {picture.shape for picture in left if picture is not None} == {(120, 160, 3)}
    columns = [int(picture[:, :, 1].mean(axis=0).argmax()) for picture in left if picture is not None]
    assert columns[0] > 130 > 30 > columns[1], "the square of MoveLeft moves to the left"


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_official_lists_give_the_splits_of_each_fold(fold: int, official: Path, tmp_path: Path) -> None:
    manifest = run("ucf101", official, tmp_path / "out", fold=fold, val_fraction=0)
    assert _groups(tmp_path / "out", "test") == {f"{label}_g0{fold}" for label in CLASSES}
    train = {f"{label}_g0{group}" for label in CLASSES for group in {1, 2, 3, 5} - {fold}}
    assert _groups(tmp_path / "out", "train") == train
    assert list(manifest.splits) == ["train", "test"]
    assert manifest.accounting.excluded[f"not in the lists of fold {fold}"] == 4


def test_lists_passed_as_an_option_take_precedence_over_split_folders(
    clips: Path, official: Path, tmp_path: Path
) -> None:
    run("ucf101", clips, tmp_path / "out", splits=official / "ucfTrainTestlist", fold=3, val_fraction=0)
    assert _groups(tmp_path / "out", "test") == {f"{label}_g03" for label in CLASSES}


def test_lists_beside_the_source_are_found(official: Path, tmp_path: Path) -> None:
    run("ucf101", official, tmp_path / "above")
    run("ucf101", official / "UCF-101", tmp_path / "beside")
    assert rows(tmp_path / "above") == rows(tmp_path / "beside")


def test_val_is_split_off_by_whole_groups_of_each_class(tmp_path: Path) -> None:
    for label, groups in (("Alpha", 10), ("Beta", 4), ("Gamma", 1)):
        _clips(tmp_path / "source", label, groups, clips=2)
    run("video-folder", tmp_path / "source", tmp_path / "single", val_fraction=0.2)
    assert _labels(rows(tmp_path / "single", "val")) == {"Alpha": 4, "Beta": 2, "Gamma": 1}
    shutil.move(tmp_path / "source", tmp_path / "train")
    (tmp_path / "source").mkdir()
    shutil.move(tmp_path / "train", tmp_path / "source/train")
    run("ucf101", tmp_path / "source", tmp_path / "out", val_fraction=0.2)
    val, train = _groups(tmp_path / "out", "val"), _groups(tmp_path / "out", "train")
    assert not val & train
    assert Counter(group.split("_")[0] for group in val) == {"Alpha": 2, "Beta": 1}
    assert Counter(group.split("_")[0] for group in train) == {"Alpha": 8, "Beta": 3, "Gamma": 1}


def test_val_depends_on_the_seed_alone(tmp_path: Path) -> None:
    _clips(tmp_path / "source/train", "Alpha", 10)
    drawn = {}
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        run("ucf101", tmp_path / "source", tmp_path / name, val_fraction=0.3, seed=seed, num_frames=1)
        drawn[name] = _groups(tmp_path / name, "val")
    assert drawn["first"] == drawn["again"] != drawn["other"]
    # Another class has no effect on this one.
    _clips(tmp_path / "source/train", "Beta", 3)
    run("ucf101", tmp_path / "source", tmp_path / "more", val_fraction=0.3, num_frames=1)
    assert {group for group in _groups(tmp_path / "more", "val") if group.startswith("Alpha")} == drawn["first"]


def test_an_existing_val_split_is_kept(clips: Path, tmp_path: Path) -> None:
    run("ucf101", clips, tmp_path / "out", val_fraction=0.5)
    assert _groups(tmp_path / "out", "val") == {f"{label}_g04" for label in CLASSES}


def test_val_fraction_zero_makes_no_val_split(tmp_path: Path) -> None:
    _clips(tmp_path / "source/train", "Alpha", 5)
    assert list(run("ucf101", tmp_path / "source", tmp_path / "out", val_fraction=0).splits) == ["train"]


def test_the_class_is_the_folder_name(tmp_path: Path) -> None:
    _clips(tmp_path / "source/train", "HandStandPushups", 2)
    (tmp_path / "source/train/HandStandPushups").rename(tmp_path / "source/train/HandstandPushups")
    run("ucf101", tmp_path / "source", tmp_path / "out", val_fraction=0)
    row = rows(tmp_path / "out")[0]
    assert row["conversations"][0]["assistant"] == "HandstandPushups"
    assert row["conversations"][0]["images"][0] == "train/HandstandPushups/v_HandStandPushups_g01_c01.0.jpg"
    assert row["group"] == "HandstandPushups_g01"


def test_the_limit_counts_per_class_and_split(clips: Path, tmp_path: Path) -> None:
    manifest = run("ucf101", clips, tmp_path / "out", limit=2)
    assert {name: split.rows for name, split in manifest.splits.items()} == {"train": 8, "val": 4, "test": 4}
    assert manifest.accounting.excluded == {"beyond --limit": 4}


def test_only_selected_classes_are_converted(clips: Path, tmp_path: Path) -> None:
    manifest = run("ucf101", clips, tmp_path / "out", classes="MoveUp, MoveLeft")
    assert _labels(rows(tmp_path / "out")) == {"MoveUp": 5, "MoveLeft": 5}
    assert manifest.accounting.excluded == {"class not in --classes": 10}
    user = rows(tmp_path / "out")[0]["conversations"][0]["user"]
    assert user == "Classify the video into one of the following classes: MoveLeft, MoveUp."


def test_a_custom_prompt_is_used(clips: Path, tmp_path: Path) -> None:
    run("ucf101", clips, tmp_path / "out", limit=1, classes="MoveUp", prompt="{classes}?")
    assert {row["conversations"][0]["user"] for row in rows(tmp_path / "out")} == {"MoveUp?"}


@pytest.mark.parametrize(("side", "shape"), [(80, (60, 80, 3)), (16, (12, 16, 3)), (4000, (120, 160, 3))])
def test_max_side_scales_frames_down(side: int, shape: tuple[int, int, int], clips: Path, tmp_path: Path) -> None:
    run("ucf101", clips, tmp_path / "out", limit=1, classes="MoveUp", max_side=side)
    pictures = [cv2.imread(str(path)) for path in (tmp_path / "out/images").rglob("*.jpg")]
    assert {picture.shape for picture in pictures if picture is not None} == {shape}


def test_jpeg_quality_changes_the_file_size(clips: Path, tmp_path: Path) -> None:
    sizes = []
    for quality in (30, 90):
        done = run("ucf101", clips, tmp_path / str(quality), limit=1, classes="MoveUp", jpeg_quality=quality).accounting
        sizes.append(done.media_bytes)
    assert sizes[0] < 0.7 * sizes[1]


def test_short_clips_repeat_frames(tmp_path: Path) -> None:
    _clips(tmp_path / "source/train", "Alpha", 1)
    run("ucf101", tmp_path / "source", tmp_path / "out", num_frames=12)
    images = rows(tmp_path / "out")[0]["conversations"][0]["images"]
    assert len(images) == 12
    digests = [tree(tmp_path / "out/images")[image] for image in images]
    assert [digests.index(digest) for digest in digests] == [0, 0, 0, 3, 3, 3, 6, 6, 6, 9, 9, 9]


def test_a_truncated_clip_is_used_on_request(tmp_path: Path) -> None:
    write_clip(tmp_path / "source/train/Run/cut.avi", 40)
    os.truncate(tmp_path / "source/train/Run/cut.avi", 40_000)
    manifest = run("ucf101", tmp_path / "source", tmp_path / "out", allow_truncated=True)
    assert manifest.accounting.written == 1


@pytest.mark.parametrize("kind", ["tar", "gztar", "zip"])
@pytest.mark.parametrize("layout", ["folders", "official"])
def test_archives_and_folders_give_identical_output(
    kind: str, layout: str, clips: Path, official: Path, tmp_path: Path
) -> None:
    source = {"folders": clips, "official": official}[layout]
    archive = shutil.make_archive(str(tmp_path / "archive"), kind, source.parent, source.name)
    run("ucf101", source, tmp_path / "from-folder", num_frames=2)
    manifest = run("ucf101", archive, tmp_path / "from-archive", num_frames=2)
    assert rows(tmp_path / "from-archive") == rows(tmp_path / "from-folder")
    assert tree(tmp_path / "from-archive/images") == tree(tmp_path / "from-folder/images")
    assert manifest.source.bytes == Path(archive).stat().st_size
    assert not (tmp_path / "from-archive/.partial").exists()


def test_the_official_lists_account_for_every_clip(shared_data: Path, tmp_path: Path) -> None:
    options = UCF101Options.model_validate({"splits": shared_data / "data/ucf101/ucfTrainTestlist"})
    source = str(shared_data / "data/ucf101/videos")
    policy = Policy(budget=Budget(share=1.0))
    manifest = convert(UCF101, source, options, tmp_path / "out", workers=0, policy=policy)
    assert (manifest.accounting.read, manifest.accounting.written) == (13_320, 1)
    found = quarantined(tmp_path / "out")
    assert len(found) == manifest.accounting.quarantined == 13_319
    assert {rule for rule, _ in found.values()} == {"missing-clip"}
    assert Counter(address.split(":")[0] for address in found) == {"trainlist01.txt": 9_537, "testlist01.txt": 3_782}
    assert "the list names HandstandPushups/v_HandStandPushups_g01_c01.avi, which" in found["testlist01.txt:1376"][1]
    (row,) = rows(tmp_path / "out", "test")
    assert row["group"] == "ApplyEyeMakeup_g01"
    assert re.fullmatch(r"test-\d{10}", row["id"])
