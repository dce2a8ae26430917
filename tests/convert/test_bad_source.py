"""An unusable source is refused with a remedy, and split lists are checked."""

import os
import re
import shutil
from pathlib import Path

import pytest

from convkit.errors import SourceError
from tests.convert.helpers import SOUND_CLIP, assert_quarantined, assert_refused, run, run_lines, write_clip
from tests.convert.toy import write_lines


def test_missing_source(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere", "nowhere does not exist. Check the path given with --source")


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    assert_refused(tmp_path / "source", "source is empty. Pass the folder with the data")


def test_folder_without_class_folders(tmp_path: Path) -> None:
    write_clip(tmp_path / "source/clip.avi", 3)
    assert_refused(
        tmp_path / "source", "contains no videos in class folders. Looked for .*<Class>/<video>.*Point --source at"
    )


def test_a_single_clip(tmp_path: Path) -> None:
    write_clip(tmp_path / "Run/clip.avi", 3)
    assert_refused(tmp_path / "Run/clip.avi", "clip.avi is a single video without a class.*Point --source at")


def test_two_sets_of_class_folders(tmp_path: Path) -> None:
    write_clip(tmp_path / "source/one/Run/clip.avi", 3)
    write_clip(tmp_path / "source/two/Run/clip.avi", 3)
    assert_refused(
        tmp_path / "source", "contains 2 sets of class folders: .*/one, .*/two. Point --source at one of them"
    )


def test_two_folders_of_one_split(source: Path) -> None:
    write_clip(source / "val/Run/a.avi", 3)
    write_clip(source / "validation/Run/b.avi", 3)
    assert_refused(source, "source/val and .*validation are both folders of the split val. Join or rename one")


def test_unknown_class(source: Path) -> None:
    assert_refused(source, "--classes: the source has no class Fly, Swim. Choose from: Run", classes="Swim,Run,Fly")


def test_all_items_bad(source: Path) -> None:
    (source / SOUND_CLIP).write_bytes(b"garbage")
    assert_refused(
        source, r"nothing in the source became a row. 1 x unreadable-video \(first: train/Run/sound.avi: not a video"
    )


def test_all_items_bad_for_many_reasons(tmp_path: Path) -> None:
    """Three reasons have an example, the others are only counted."""
    source = write_lines(tmp_path / "source", "one id twice", *["reject", "raise", "long"] * 2)
    with pytest.raises(SourceError, match=r"2 x refused \(first: lines.txt:2: .* 1 x duplicate-id\.$"):
        run_lines(source, tmp_path / "out")


def test_all_items_bad_with_a_directory_that_was_there_before(source: Path) -> None:
    (source / SOUND_CLIP).write_bytes(b"garbage")
    out_dir = source.parent / "out"
    out_dir.mkdir()
    with pytest.raises(SourceError, match="nothing in the source became a row"):
        run("ucf101", source, out_dir)
    assert list(out_dir.iterdir()) == []


def test_a_source_whose_name_is_not_utf8(source: Path) -> None:
    renamed = source.rename(os.fsdecode(os.fsencode(source.parent) + b"/caf\xe9"))
    try:
        run("ucf101", renamed, source.parent / "out")
        message = "nothing"
    except Exception as error:  # the raw name in a pytest report would crash the xdist worker
        message = ascii(f"{type(error).__name__}: {error}")
    assert message.startswith("'SourceError: ")
    assert r"caf\\xe9" in message
    assert not (source.parent / "out").exists()


def test_a_source_name_with_a_colon(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source.rename(source.parent / "run:1")
    monkeypatch.chdir(source.parent)
    assert run("ucf101", "run:1", source.parent / "out").accounting.written == 1


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/clips.tar.gz",
        "HTTP://example.com/a//b/",
        "s3://bucket/clips",
        "hf://datasets/owner/name",
        "file:///data/clips",
    ],
)
def test_a_url_is_refused_as_it_was_typed(url: str, tmp_path: Path) -> None:
    message = f"^--source {re.escape(url)} is a URL, but remote sources are not supported. Download the data, then"
    message += " pass the path of the folder or archive."
    with pytest.raises(SourceError, match=f"{message} Without --source, ucf101 uses hub:sayakpaul/ucf101-subset/"):
        run("ucf101", url, tmp_path / "out")
    with pytest.raises(SourceError, match=f"{message}$"):
        run("video-folder", url, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_url_is_refused_for_a_complete_directory_too(source: Path) -> None:
    run("ucf101", source, source.parent / "out")
    with pytest.raises(SourceError, match="--source s3://bucket/source is a URL"):
        run("ucf101", "s3://bucket/source", source.parent / "out")


def test_a_local_source_that_is_spelled_like_a_url_is_converted(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source.parent / "s3:").mkdir()
    source.rename(source.parent / "s3:/bucket")
    monkeypatch.chdir(source.parent)
    assert run("ucf101", "s3://bucket", source.parent / "out").accounting.written == 1


def test_a_source_that_links_to_itself_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert_refused(tmp_path / "loop", "loop does not exist. Check the path given with --source")


def _lists(source: Path, train: str, test: str) -> Path:
    """Change the source to the official layout with these lists."""
    write_clip(source / "UCF-101/Run/v_Run_g01_c01.avi", 9)
    shutil.rmtree(source / "train")
    (source / "ucfTrainTestlist").mkdir()
    (source / "ucfTrainTestlist/trainlist01.txt").write_text(train)
    (source / "ucfTrainTestlist/testlist01.txt").write_text(test)
    return source


def test_list_that_names_a_missing_clip(source: Path) -> None:
    _lists(source, "Run/v_Run_g01_c01.avi 1\n", "Run/v_Run_g02_c01.avi\n")
    assert_quarantined(
        source,
        {"testlist01.txt:1": ("missing-clip", "the list names Run/v_Run_g02_c01.avi, which is not in the source")},
    )


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("\nv_Run_g01_c01.avi 1\n", "", r"trainlist01.txt:2 is not of the form Class/clip.avi \[label\]: 'v_Run_g01"),
        ("Run/a.avi\nRun/a.avi\n", "", "trainlist01.txt:2 lists a clip twice: 'Run/a.avi'"),
        ("Run/a.avi\n", "\nRun/a.avi\n", "Run/a.avi is in both trainlist01.txt:1 and testlist01.txt:2: train and test"),
    ],
    ids=["malformed", "twice", "in-both"],
)
def test_list_that_is_wrong(source: Path, train: str, test: str, message: str) -> None:
    assert_refused(_lists(source, train, test), message)


def test_list_that_is_not_text(source: Path) -> None:
    _lists(source, "Run/v_Run_g01_c01.avi\n", "")
    (source / "ucfTrainTestlist/testlist01.txt").write_bytes(b"Run/\xff.avi")
    assert_refused(source, "testlist01.txt is not a UTF-8 text file")


def test_missing_lists(source: Path) -> None:
    shutil.rmtree(_lists(source, "", "") / "ucfTrainTestlist")
    assert_refused(
        source, "official split lists are needed. .* pass --splits ucfTrainTestlist; .* convert video-folder"
    )


def test_fold_without_lists(source: Path) -> None:
    assert_refused(_lists(source, "", ""), "cannot read the split list .*trainlist02.txt: No such file", fold=2)
