"""A clip that cannot become a row is quarantined with its address and reason; the others are converted."""

import os
import shutil
from pathlib import Path

import cv2
import pytest

from tests.convert.helpers import SOUND_CLIP, assert_quarantined, quarantined, rows, run, write_clip


def test_clips_that_do_not_decode(source: Path) -> None:
    folder = source / "train/Run"
    (folder / "garbage.avi").write_bytes(bytes(range(256)) * 9)
    (folder / "nothing.mp4").write_bytes(b"")
    cv2.VideoWriter(str(folder / "frameless.avi"), cv2.VideoWriter.fourcc(*"XVID"), 25, (64, 64)).release()
    whole = (source / SOUND_CLIP).read_bytes()
    (folder / "cut.avi").write_bytes(whole[: len(whole) * 2 // 3])
    assert_quarantined(
        source,
        {
            "train/Run/garbage.avi": ("unreadable-video", "not a video that OpenCV's FFmpeg can open (unknown format"),
            "train/Run/nothing.mp4": ("unreadable-video", "can open: the file is empty"),
            "train/Run/frameless.avi": ("no-frames", "opens as a video but none of its frames decodes"),
            "train/Run/cut.avi": (
                "truncated-video",
                f"the file is cut short: {len(whole) * 2 // 3:,} of {len(whole):,}",
            ),
        },
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_clip_that_may_not_be_read(source: Path) -> None:
    write_clip(source / "train/Run/secret.avi", 9)
    (source / "train/Run/secret.avi").chmod(0)
    assert_quarantined(source, {"train/Run/secret.avi": ("unreadable-video", "can open: Permission denied")})


def test_clip_that_vanishes(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from convkit.converters.video_folder import VideoFolder

    write_clip(source / "train/Run/gone.avi", 9)
    convert = VideoFolder.convert

    def vanishing(self: VideoFolder, item: object) -> object:
        (source / "train/Run/gone.avi").unlink(missing_ok=True)
        return convert(self, item)  # type: ignore[arg-type]

    monkeypatch.setattr(VideoFolder, "convert", vanishing)
    assert_quarantined(source, {"train/Run/gone.avi": ("unreadable-video", "can open: No such file")})


def test_broken_link(source: Path) -> None:
    (source / "train/Run/annexed.avi").symlink_to("../../.git/annex/absent")
    assert_quarantined(source, {"train/Run/annexed.avi": ("unreadable", "")})


def test_class_folder_without_clips(source: Path) -> None:
    (source / "train/Empty").mkdir()
    (source / "train/Empty/notes.txt").write_text("nothing yet")
    assert_quarantined(source, {"train/Empty/": ("empty-class", "the class folder holds no video")})


def test_two_clips_with_the_same_stem_are_both_converted_into_one_group(source: Path) -> None:
    shutil.copy(source / SOUND_CLIP, source / "train/Run/sound.mp4")
    run("video-folder", source, source.parent / "out")
    first, second = rows(source.parent / "out", "train")
    assert first["group"] == second["group"] == "Run/sound"
    assert second["conversations"][0]["images"][0] == "train/Run/sound.mp4.0.jpg"


@pytest.mark.parametrize(
    "place", ["loose.avi", "train/loose.avi", "train/Run/deeper/clip.avi", "unsorted/Run/clip.avi", "dev/Run/clip.avi"]
)
def test_clip_outside_the_class_folders_is_accounted_for(source: Path, place: str) -> None:
    write_clip(source / place, 9)
    done = run("ucf101", source, source.parent / "out").accounting
    assert (done.read, done.written) == (2, 1)


def test_a_folder_called_test_outside_the_classes_is_not_a_split(source: Path) -> None:
    classes = source.parent / "classes"
    (source / "train").rename(classes)
    (classes / "docs/test/fixtures").mkdir(parents=True)
    assert run("video-folder", classes, source.parent / "out").accounting.written == 1


def test_clip_above_the_split_folders_is_accounted_for(source: Path) -> None:
    write_clip(source.parent / "above/loose.avi", 9)
    source.rename(source.parent / "above/inner")
    done = run("ucf101", source.parent / "above", source.parent / "out").accounting
    assert (done.read, done.written) == (2, 1)


@pytest.mark.parametrize("place", [b"train/Run/caf\xe9.avi", b"train/Caf\xe9/clip.avi"], ids=["file", "class"])
def test_name_that_is_not_utf8(source: Path, place: bytes) -> None:
    path = os.path.join(os.fsencode(source), place)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    shutil.copy(os.fsencode(source / SOUND_CLIP), path)
    escaped = place.decode(errors="backslashreplace")
    assert_quarantined(source, {escaped: ("bad-name", "the file name is not UTF-8")})


@pytest.mark.parametrize("name", ["back\\slash.avi", "line\nfeed.avi", "bell\a.avi"])
def test_name_that_the_row_schema_forbids(source: Path, name: str) -> None:
    shutil.copy(source / SOUND_CLIP, source / "train/Run" / name)
    assert_quarantined(
        source, {f"train/Run/{name}": ("invalid-row", "the row would break the schema: images/0: String should match")}
    )


def test_name_too_long_for_its_frames(source: Path) -> None:
    name = "x" * 251 + ".avi"
    shutil.copy(source / SOUND_CLIP, source / "train/Run" / name)
    assert_quarantined(source, {f"train/Run/{name}": ("bad-name", "too long")})


def _write_bad_class(source: Path, label: str) -> None:
    """Write a class with every kind of bad item, and an empty class."""
    write_clip(source / f"train/{label}/sound.avi", 9)
    shutil.copy(source / SOUND_CLIP, source / f"train/{label}/sound.mp4")
    (source / f"train/{label}/annexed.avi").symlink_to("../../.git/annex/absent")
    os.link(os.fsencode(source / SOUND_CLIP), os.path.join(os.fsencode(source / f"train/{label}"), b"caf\xe9.avi"))
    (source / f"train/{label}Empty").mkdir()


def test_bad_items_of_unselected_classes_are_excluded_with_them(source: Path) -> None:
    _write_bad_class(source, "Swim")
    done = run("ucf101", source, source.parent / "out", classes="Run").accounting
    assert (done.written, done.quarantined, done.excluded) == (1, 0, {"class not in --classes": 4})


def test_an_empty_unselected_class_is_not_mentioned(source: Path) -> None:
    (source / "train/Empty").mkdir()
    done = run("ucf101", source, source.parent / "out", classes="Run").accounting
    assert (done.read, done.quarantined, done.excluded) == (1, 0, {})


def test_bad_items_of_selected_classes_are_quarantined(source: Path) -> None:
    _write_bad_class(source, "Swim")
    done = run("ucf101", source, source.parent / "out", classes="Swim,SwimEmpty").accounting
    assert (done.written, done.excluded) == (2, {"class not in --classes": 1})
    assert sorted(rule for rule, _ in quarantined(source.parent / "out").values()) == [
        "bad-name",
        "empty-class",
        "unreadable",
    ]


def test_a_clip_with_endless_frames(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(source / "train/Run/endless.avi", 30)
    monkeypatch.setattr("convkit.media.frames.MAX_FRAMES", 29)
    assert_quarantined(source, {"train/Run/endless.avi": ("endless-video", "more than 29 frames of 160x120 pixels")})
