"""What is wrong with a source is named, with its address; nothing of it reaches the rows, and nothing else suffers."""

import errno
import json
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import pytest

from convkit.convert.error_budget import Budget, Policy
from convkit.errors import ConvkitError, DatasetError, SourceError
from tests.convert.helpers import clip_tree, quarantined, rows, run, run_lines, tree, write_clip
from tests.convert.toy import Lines, write_lines

SOUND = "train/Run/sound.avi"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source with one sound clip."""
    write_clip(tmp_path / "source" / SOUND, 9)
    return tmp_path / "source"


def _refused(source: Path, message: str, **options: Any) -> None:
    """The source as a whole is refused, and no directory is left."""
    out_dir = source.parent / "out"
    with pytest.raises(SourceError, match=message):
        run("ucf101", source, out_dir, **options)
    assert not out_dir.exists()


def _left_out(source: Path, expected: dict[str, tuple[str, str]]) -> None:
    """All but the sound clip is quarantined: address -> (rule, part of the reason)."""
    manifest = run("ucf101", source, source.parent / "out")
    found = quarantined(source.parent / "out")
    assert found.keys() == expected.keys()
    for address, (rule, reason) in expected.items():
        assert (found[address][0], reason in found[address][1]) == (rule, True), found[address]
    assert [row["conversations"][0]["assistant"] for row in rows(source.parent / "out")] == ["Run"]
    assert manifest.accounting.written == 1


# The source as a whole


def test_missing_source(tmp_path: Path) -> None:
    _refused(tmp_path / "nowhere", "nowhere does not exist. Check the path given with --source")


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    _refused(tmp_path / "source", "source is empty. Pass the folder with the data")


def test_folder_without_class_folders(tmp_path: Path) -> None:
    write_clip(tmp_path / "source/clip.avi", 3)
    reason = "contains no videos in class folders. Looked for .*<Class>/<video>.*Point --source at"
    _refused(tmp_path / "source", reason)


def test_a_single_clip(tmp_path: Path) -> None:
    write_clip(tmp_path / "Run/clip.avi", 3)
    _refused(tmp_path / "Run/clip.avi", "clip.avi is a single video without a class.*Point --source at")


def test_two_sets_of_class_folders(tmp_path: Path) -> None:
    write_clip(tmp_path / "source/one/Run/clip.avi", 3)
    write_clip(tmp_path / "source/two/Run/clip.avi", 3)
    _refused(tmp_path / "source", "contains 2 sets of class folders: .*/one, .*/two. Point --source at one of them")


def test_two_folders_of_one_split(source: Path) -> None:
    write_clip(source / "val/Run/a.avi", 3)
    write_clip(source / "validation/Run/b.avi", 3)
    _refused(source, "source/val and .*validation are both folders of the split val. Join or rename one")


def test_unknown_class(source: Path) -> None:
    _refused(source, "no class Fly, Swim in the source. Its classes: Run", classes="Swim,Run,Fly")


def test_all_items_bad(source: Path) -> None:
    (source / SOUND).write_bytes(b"garbage")
    _refused(
        source, r"nothing in the source became a row. 1 x unreadable-video \(first: train/Run/sound.avi: not a video"
    )


def test_all_items_bad_for_many_reasons(tmp_path: Path) -> None:
    """Three have an example; the others are counted."""
    source = write_lines(tmp_path / "source", "one id twice", *["reject", "raise", "long"] * 2)
    with pytest.raises(SourceError, match=r"2 x refused \(first: lines.txt:2: .* 1 x duplicate-id\.$"):
        run_lines(source, tmp_path / "out")


def test_all_items_bad_with_a_directory_that_was_there_before(source: Path) -> None:
    (source / SOUND).write_bytes(b"garbage")
    out_dir = source.parent / "out"
    out_dir.mkdir()
    with pytest.raises(SourceError, match="nothing in the source became a row"):
        run("ucf101", source, out_dir)
    assert list(out_dir.iterdir()) == []


def test_a_source_whose_name_is_not_utf8(source: Path) -> None:
    renamed = source.rename(os.fsdecode(os.fsencode(source.parent) + b"/caf\xe9"))
    try:
        run("ucf101", renamed, source.parent / "out")
        said = "nothing"
    except Exception as error:  # in a report of pytest, the name would kill the worker of xdist
        said = ascii(f"{type(error).__name__}: {error}")
    assert said.startswith("'SourceError: ")
    assert r"caf\\xe9" in said
    assert not (source.parent / "out").exists()


def test_a_source_whose_name_looks_like_a_protocol(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source.rename(source.parent / "run:1")
    monkeypatch.chdir(source.parent)
    assert run("ucf101", "run:1", source.parent / "out").accounting.written == 1


# Split lists


def _lists(source: Path, train: str, test: str) -> Path:
    """Turn the source into the official layout with these lists."""
    write_clip(source / "UCF-101/Run/v_Run_g01_c01.avi", 9)
    shutil.rmtree(source / "train")
    (source / "ucfTrainTestlist").mkdir()
    (source / "ucfTrainTestlist/trainlist01.txt").write_text(train)
    (source / "ucfTrainTestlist/testlist01.txt").write_text(test)
    return source


def test_list_that_names_a_missing_clip(source: Path) -> None:
    _lists(source, "Run/v_Run_g01_c01.avi 1\n", "Run/v_Run_g02_c01.avi\n")
    _left_out(
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
    _refused(_lists(source, train, test), message)


def test_list_that_is_not_text(source: Path) -> None:
    _lists(source, "Run/v_Run_g01_c01.avi\n", "")
    (source / "ucfTrainTestlist/testlist01.txt").write_bytes(b"Run/\xff.avi")
    _refused(source, "testlist01.txt is not a UTF-8 text file")


def test_no_lists(source: Path) -> None:
    shutil.rmtree(_lists(source, "", "") / "ucfTrainTestlist")
    _refused(source, "official split lists are needed. .* pass --splits ucfTrainTestlist; .* convert video-folder")


def test_fold_without_lists(source: Path) -> None:
    _refused(_lists(source, "", ""), "cannot read the split list .*trainlist02.txt: No such file", fold=2)


# Single clips


def test_clips_that_do_not_decode(source: Path) -> None:
    folder = source / "train/Run"
    (folder / "garbage.avi").write_bytes(bytes(range(256)) * 9)
    (folder / "nothing.mp4").write_bytes(b"")
    cv2.VideoWriter(str(folder / "frameless.avi"), cv2.VideoWriter.fourcc(*"XVID"), 25, (64, 64)).release()
    whole = (source / SOUND).read_bytes()
    (folder / "cut.avi").write_bytes(whole[: len(whole) * 2 // 3])
    _left_out(
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
    _left_out(source, {"train/Run/secret.avi": ("unreadable-video", "can open: Permission denied")})


def test_clip_that_vanishes(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from convkit.converters.video_folder import VideoFolder

    write_clip(source / "train/Run/gone.avi", 9)
    convert = VideoFolder.convert

    def vanishing(self: VideoFolder, item: object) -> object:
        (source / "train/Run/gone.avi").unlink(missing_ok=True)
        return convert(self, item)  # type: ignore[arg-type]

    monkeypatch.setattr(VideoFolder, "convert", vanishing)
    _left_out(source, {"train/Run/gone.avi": ("unreadable-video", "can open: No such file")})


def test_link_that_leads_nowhere(source: Path) -> None:
    (source / "train/Run/annexed.avi").symlink_to("../../.git/annex/absent")
    _left_out(source, {"train/Run/annexed.avi": ("unreadable", "")})


def test_class_folder_without_clips(source: Path) -> None:
    (source / "train/Empty").mkdir()
    (source / "train/Empty/notes.txt").write_text("nothing yet")
    _left_out(source, {"train/Empty/": ("empty-class", "the class folder holds no video")})


def test_two_clips_of_one_name_are_both_taken_and_one_group(source: Path) -> None:
    shutil.copy(source / SOUND, source / "train/Run/sound.mp4")
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


def test_a_folder_called_test_elsewhere_is_no_split(source: Path) -> None:
    classes = source.parent / "classes"
    (source / "train").rename(classes)
    (classes / "docs/test/fixtures").mkdir(parents=True)
    assert run("video-folder", classes, source.parent / "out").accounting.written == 1


def test_clip_above_all_of_it_is_accounted_for(source: Path) -> None:
    write_clip(source.parent / "above/loose.avi", 9)
    source.rename(source.parent / "above/inner")
    done = run("ucf101", source.parent / "above", source.parent / "out").accounting
    assert (done.read, done.written) == (2, 1)


@pytest.mark.parametrize("place", [b"train/Run/caf\xe9.avi", b"train/Caf\xe9/clip.avi"], ids=["file", "class"])
def test_name_that_is_not_utf8(source: Path, place: bytes) -> None:
    path = os.path.join(os.fsencode(source), place)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    shutil.copy(os.fsencode(source / SOUND), path)
    escaped = place.decode(errors="backslashreplace")
    _left_out(source, {escaped: ("bad-name", "the file name is not UTF-8")})


@pytest.mark.parametrize("name", ["back\\slash.avi", "line\nfeed.avi", "bell\a.avi"])
def test_name_that_cannot_stand_in_a_row(source: Path, name: str) -> None:
    shutil.copy(source / SOUND, source / "train/Run" / name)
    _left_out(
        source, {f"train/Run/{name}": ("invalid-row", "the row would break the schema: images/0: String should match")}
    )


def test_name_too_long_for_its_frames(source: Path) -> None:
    name = "x" * 251 + ".avi"
    shutil.copy(source / SOUND, source / "train/Run" / name)
    _left_out(source, {f"train/Run/{name}": ("bad-name", "too long")})


def _flawed(source: Path, label: str) -> None:
    """A class with everything that cannot become an item, and an empty one."""
    write_clip(source / f"train/{label}/sound.avi", 9)
    shutil.copy(source / SOUND, source / f"train/{label}/sound.mp4")
    (source / f"train/{label}/annexed.avi").symlink_to("../../.git/annex/absent")
    os.link(os.fsencode(source / SOUND), os.path.join(os.fsencode(source / f"train/{label}"), b"caf\xe9.avi"))
    (source / f"train/{label}Empty").mkdir()


def test_what_is_wrong_with_other_classes_is_left_out_with_them(source: Path) -> None:
    _flawed(source, "Swim")
    done = run("ucf101", source, source.parent / "out", classes="Run").accounting
    assert (done.written, done.quarantined, done.excluded) == (1, 0, {"class not in --classes": 4})


def test_an_empty_class_that_is_not_wanted_is_not_mentioned(source: Path) -> None:
    (source / "train/Empty").mkdir()
    done = run("ucf101", source, source.parent / "out", classes="Run").accounting
    assert (done.read, done.quarantined, done.excluded) == (1, 0, {})


def test_what_is_wrong_with_a_class_that_is_wanted_is_named(source: Path) -> None:
    _flawed(source, "Swim")
    done = run("ucf101", source, source.parent / "out", classes="Swim,SwimEmpty").accounting
    assert (done.written, done.excluded) == (2, {"class not in --classes": 1})
    assert sorted(rule for rule, _ in quarantined(source.parent / "out").values()) == [
        "bad-name",
        "empty-class",
        "unreadable",
    ]


def test_a_clip_that_decodes_for_ever(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(source / "train/Run/endless.avi", 30)
    monkeypatch.setattr("convkit.media.frames.MAX_FRAMES", 29)
    _left_out(source, {"train/Run/endless.avi": ("endless-video", "more than 29 frames of 160x120 pixels")})


# Converters with defects


def test_converter_that_raises(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "ok", "raise", "ok")
    assert run_lines(source, tmp_path / "out").accounting.written == 2
    ((rule, reason),) = quarantined(tmp_path / "out").values()
    assert rule == "converter-error"
    assert reason.startswith("RuntimeError: the line says so (toy.py:")


def test_converter_with_media_that_no_row_names(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "ok", "orphan")
    run_lines(source, tmp_path / "out")
    reason = "the converter gives media that no row names: orphan.txt"
    assert quarantined(tmp_path / "out") == {"lines.txt:2": ("converter-error", reason)}
    assert tree(tmp_path / "out/images").keys() == {"0.txt"}


def test_converter_that_gives_an_id_twice(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "ok", "first id", "one id twice", "ok")
    assert run_lines(source, tmp_path / "out").accounting.written == 2
    found = quarantined(tmp_path / "out")
    assert {address: rule for address, (rule, _) in found.items()} == {
        "lines.txt:2": "duplicate-id",
        "lines.txt:3": "duplicate-id",
    }
    assert "row id line-0" in found["lines.txt:2"][1]
    assert tree(tmp_path / "out/images").keys() == {"0.txt", "3.txt"}


@pytest.mark.parametrize("workers", [0, 2])
def test_no_image_is_replaced_by_another_items(tmp_path: Path, workers: int) -> None:
    source = write_lines(tmp_path / "source", "ok", "first image", "ok")
    manifest = run_lines(source, tmp_path / "out", workers=workers)
    reason = "an earlier item has another image of the name 0.txt"
    assert quarantined(tmp_path / "out") == {"lines.txt:2": ("media-conflict", reason)}
    assert (tmp_path / "out/images/0.txt").read_bytes().startswith(b"0 ok")
    assert manifest.accounting.media_files == len(tree(tmp_path / "out/images")) == 2


def test_item_that_kills_its_worker(tmp_path: Path) -> None:
    lines = ["ok"] * 12
    lines[4] = lines[9] = "die"
    source = write_lines(tmp_path / "source", *lines)
    manifest = run_lines(source, tmp_path / "out", workers=2)
    assert manifest.accounting.written == 10
    assert quarantined(tmp_path / "out") == {
        f"lines.txt:{number}": ("crash", "the process that decoded it died (a crash in a decoder, or out of memory)")
        for number in (5, 10)
    }
    assert [row["id"] for row in rows(tmp_path / "out", "train")] == [f"line-{n}" for n in (0, 1, 3, 6, 7, 10)]
    assert [row["id"] for row in rows(tmp_path / "out", "val")] == [f"line-{n}" for n in (2, 5, 8, 11)]


# Items that are batches


def _batch(tmp_path: Path, text: str, workers: int = 0) -> tuple[list[str], dict[str, tuple[str, str]]]:
    """The rows' ids and the quarantine of a batch between two ordinary lines; everything must be accounted for."""
    source = write_lines(tmp_path / "source", "ok", f"batch {text}", "ok")
    manifest = run_lines(source, tmp_path / "out", workers)
    ids = sorted(row["id"] for row in rows(tmp_path / "out"))
    assert {"line-0", "line-2"} <= set(ids)
    assert manifest.accounting.read == 2 + len(text.split())
    named = {image for row in rows(tmp_path / "out") for turn in row["conversations"] for image in turn["images"]}
    assert tree(tmp_path / "out/images").keys() == named
    return [i for i in ids if i not in ("line-0", "line-2")], quarantined(tmp_path / "out")


def test_parts_of_a_batch_are_rejected_one_by_one(tmp_path: Path) -> None:
    ids, found = _batch(tmp_path, "ok reject ok reject ok")
    assert ids == ["line-100", "line-102", "line-104"]
    reason = ("refused", "the word says so")
    assert found == {"lines.txt:2:2": reason, "lines.txt:2:4": reason}


def test_a_batch_that_raises_keeps_what_it_gave_before(tmp_path: Path) -> None:
    ids, found = _batch(tmp_path, "ok ok raise ok ok")
    assert ids == ["line-100", "line-101"]
    assert found.keys() == {"lines.txt:2"}
    (entry,) = [json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").read_bytes().splitlines()]
    assert (entry["rule"], entry["units"]) == ("converter-error", 3)


def test_a_batch_that_gives_too_little_is_noticed(tmp_path: Path) -> None:
    ids, found = _batch(tmp_path, "ok nothing ok nothing")
    assert ids == ["line-100", "line-102"]
    assert found == {"lines.txt:2": ("converter-error", "2 units are unaccounted for")}


def test_a_batch_that_gives_too_much_is_noticed(tmp_path: Path) -> None:
    ids, found = _batch(tmp_path, "ok ok two")
    assert ids == ["line-100", "line-101"]
    assert found["lines.txt:2"][0] == "converter-error"


def test_a_batch_that_gives_something_else_is_noticed(tmp_path: Path) -> None:
    ids, found = _batch(tmp_path, "ok exclude ok")
    assert ids == ["line-100"]
    assert found == {"lines.txt:2": ("converter-error", "Exclude is neither a record nor a reject")}


def test_a_batch_that_kills_its_worker_leaves_no_media(tmp_path: Path) -> None:
    ids, found = _batch(tmp_path, "ok ok die ok", workers=1)
    assert ids == []
    assert found["lines.txt:2"][0] == "crash"


def test_a_batch_with_the_id_of_another_loses_that_part_alone(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "batch ok ok ok", "ok")  # parts 0, 1, 2; then line 1
    assert run_lines(source, tmp_path / "out").accounting.written == 3
    assert list(quarantined(tmp_path / "out")) == ["lines.txt:2"]
    assert [row["id"] for row in rows(tmp_path / "out")] == ["line-0", "line-1", "line-2"]


def test_parts_are_quarantined_in_their_order_whatever_the_reason(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", f"batch {'ok ' * 102}", "batch reject ok reject ok")
    assert run_lines(source, tmp_path / "out").accounting.quarantined == 3
    assert list(quarantined(tmp_path / "out")) == ["lines.txt:2:1", "lines.txt:2", "lines.txt:2:3"]  # its part is 101


# The output


def test_out_dir_is_a_file(source: Path) -> None:
    (source.parent / "out").write_text("a file")
    with pytest.raises(DatasetError, match=r"out is a file\. Choose a folder for --out_dir"):
        run("ucf101", source, source.parent / "out")
    assert (source.parent / "out").read_text() == "a file"


def test_out_dir_holds_another_data_set(source: Path) -> None:
    run("ucf101", source, source.parent / "out")
    before = tree(source.parent / "out")
    with pytest.raises(DatasetError, match="holds another data set: converter 'ucf101' there, 'video-folder' here"):
        run("video-folder", source, source.parent / "out")
    assert tree(source.parent / "out") == before


def test_out_dir_holds_a_broken_manifest(source: Path) -> None:
    (source.parent / "out").mkdir()
    (source.parent / "out/dataset.json").write_text("{")
    with pytest.raises(DatasetError, match=r"dataset\.json is not a manifest"):
        run("ucf101", source, source.parent / "out")


def test_full_disk(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip_tree(source)
    run("ucf101", source, source.parent / "undisturbed")
    write, calls = os.write, iter(range(30))

    def full(descriptor: int, data: memoryview) -> int:
        if next(calls, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr("convkit.utils.files.os.write", full)
        with pytest.raises(OSError, match="No space left"):
            run("ucf101", source, source.parent / "out")
    assert not (source.parent / "out/dataset.json").exists()
    run("ucf101", source, source.parent / "out")
    assert tree(source.parent / "out") == tree(source.parent / "undisturbed")


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """The system refuses to let any file grow beyond a size: a real failure in the middle of a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [100, 1000, 2500])
@pytest.mark.parametrize("workers", [0, 2])
def test_files_may_not_grow(size: int, workers: int, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", *["ok"] * 12)
    run_lines(source, tmp_path / "undisturbed", workers=workers)  # workers are forked from what knows no limit
    with _largest_file(size), pytest.raises(OSError, match="File too large"):
        run_lines(source, tmp_path / "out", workers=workers)
    run_lines(source, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


def test_far_too_many_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_lines(tmp_path / "source", "ok")
    monkeypatch.setattr("convkit.utils.pool.default_workers", lambda: 2)
    with pytest.raises(ConvkitError, match=r"^9 workers are more than 4 for each of the 2 processors .* --workers 2,"):
        run_lines(source, tmp_path / "out", workers=9)
    assert not (tmp_path / "out").exists()
    assert run_lines(source, tmp_path / "out", workers=8).accounting.written == 1


# Policy


@pytest.mark.parametrize(
    ("text", "budget"),
    [("0", Budget(count=0)), ("100", Budget(count=100)), ("5%", Budget(share=0.05)), ("100%", Budget(share=1.0))],
)
def test_budget_is_a_number_or_a_share(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget


@pytest.mark.parametrize("text", ["", "%", "-1", "-1%", "101%", "nan%", "inf%", "few", "5 %%"])
def test_budget_that_is_neither(text: str) -> None:
    with pytest.raises(ConvkitError, match=f"--max_errors {text} is neither a number such as 100 nor a share"):
        Budget.parse(text)


def test_share_is_judged_on_a_thousand_or_at_the_end() -> None:
    budget = Budget(share=0.05)
    assert not budget.exceeded(50, 50, complete=False)
    assert budget.exceeded(51, 51, complete=False)
    assert not budget.exceeded(100, 2000, complete=False)
    assert budget.exceeded(3, 50, complete=True)
    assert not budget.exceeded(2, 50, complete=True)


@pytest.mark.parametrize("budget", [Budget(count=2), Budget(share=0.2)], ids=["count", "share"])
def test_budget_that_is_exceeded_keeps_the_work(budget: Budget, tmp_path: Path) -> None:
    lines = ["ok", "reject", "ok", "reject", "ok", "reject", "ok", "ok"]
    source = write_lines(tmp_path / "source", *lines)
    with pytest.raises(ConvkitError, match=r"3 of \d lines could not be converted.*3 x refused \(first: lines.txt:2:"):
        run_lines(source, tmp_path / "out", policy=Policy(budget=budget))
    Lines.converted.clear()
    manifest = run_lines(source, tmp_path / "out", policy=Policy(budget=Budget(count=3)))
    assert (manifest.accounting.written, manifest.accounting.quarantined) == (5, 3)
    assert 0 not in Lines.converted


def test_budget_that_is_just_met(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "ok", "reject", "ok", "reject")
    assert run_lines(source, tmp_path / "out", policy=Policy(budget=Budget(count=2))).accounting.quarantined == 2


def test_on_error_fail_stops_at_the_first(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "ok", "reject", "raise", "ok")
    Lines.converted.clear()
    with pytest.raises(SourceError, match=r"^lines.txt:2: the line says so \(refused; --on_error fail\)"):
        run_lines(source, tmp_path / "out", policy=Policy(on_error="fail"))
    assert Lines.converted == [0, 1]
    assert not (tmp_path / "out/dataset.json").exists()
