"""A failed run leaves nothing that a second run, perhaps with other options, would have to remove."""

import shutil
from pathlib import Path

import pytest

from convkit.convert.error_budget import Budget, Policy
from convkit.convert.output_dir import OutputDirectory
from convkit.convert.run import convert
from convkit.errors import ConvkitError, DatasetError, SourceError
from convkit.schema import Manifest
from tests.convert.helpers import run, run_lines, tree
from tests.convert.toy import Line, Lines, LinesOptions, write_lines

STRICT = Policy(budget=Budget(count=0))
SHOUT = LinesOptions(shout=True)


def _run(source: Path, out_dir: Path, options: LinesOptions = SHOUT) -> Manifest:
    return convert(Lines, str(source), options, out_dir, workers=0)


def _interrupt(source: Path, out_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a conversion that is interrupted at the line `interrupt`."""
    whole = Lines.convert

    def interrupted(self: Lines, item: Line) -> object:
        if item.text == "interrupt":
            raise KeyboardInterrupt
        return whole(self, item)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Lines, "convert", interrupted)
        run_lines(source, out_dir)


@pytest.mark.parametrize("policy", [STRICT, Policy(on_error="fail")], ids=["budget", "on-error"])
def test_a_first_entry_that_fails_leaves_nothing(policy: Policy, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "reject", "ok")
    with pytest.raises(ConvkitError, match=r"lines.txt:1: the line says so"):
        run_lines(source, tmp_path / "out", policy=policy)
    assert not (tmp_path / "out").exists()
    assert _run(source, tmp_path / "out").accounting.written == 1


def test_the_message_says_that_nothing_is_kept(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "reject", "ok")
    with pytest.raises(ConvkitError, match=r"None became a row, so nothing is kept. To accept this, run the same"):
        run_lines(source, tmp_path / "out", policy=STRICT)


def test_an_existing_directory_is_kept(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "reject", "ok")
    (tmp_path / "out").mkdir()
    with pytest.raises(ConvkitError, match=r"lines\.txt:1"):
        run_lines(source, tmp_path / "out", policy=STRICT)
    assert list((tmp_path / "out").iterdir()) == []


def test_files_beside_a_foreign_work_directory_are_kept(tmp_path: Path) -> None:
    (tmp_path / "out/.partial").mkdir(parents=True)
    (tmp_path / "out/images").mkdir()
    (tmp_path / "out/images/holiday.jpg").write_bytes(b"irreplaceable")
    with pytest.raises(SourceError, match="does not exist"):
        run_lines(tmp_path / "nowhere", tmp_path / "out")
    assert tree(tmp_path / "out").keys() == {"images/holiday.jpg"}


def test_a_source_without_rows_is_refused_with_the_reasons(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "reject", "raise", "reject")
    with pytest.raises(
        SourceError, match=r"nothing in the source became a row. 2 x refused \(first: lines.txt:1: .* 1 x converter-err"
    ):
        run_lines(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_options_may_change_after_an_interrupt_before_the_first_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_lines(tmp_path / "source", "reject", "interrupt", "ok")
    _interrupt(source, tmp_path / "out", monkeypatch)
    (tmp_path / "out/images").mkdir()
    (tmp_path / "out/images/moved.txt").write_text("moved, but killed before its line was in the journal")
    write_lines(source, "other", "reject", "ok")  # the source may change, too
    _run(source, tmp_path / "out")
    _run(source, tmp_path / "undisturbed")
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


def test_options_may_not_change_after_the_first_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_lines(tmp_path / "source", "reject", "ok", "interrupt")
    _interrupt(source, tmp_path / "out", monkeypatch)
    before = tree(tmp_path / "out")
    with pytest.raises(DatasetError, match="unfinished conversion of another kind: shout False there, True here"):
        _run(source, tmp_path / "out")
    assert tree(tmp_path / "out") == before
    run_lines(source, tmp_path / "out")
    assert not (tmp_path / "out/.partial").exists()


def test_a_complete_directory_is_never_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even if another run completed it at this instant, and was killed before it removed its work directory."""
    source = write_lines(tmp_path / "source", "ok")
    run_lines(source, tmp_path / "out")
    before = tree(tmp_path / "out")
    (tmp_path / "out/.partial").mkdir()
    (tmp_path / "out/.partial/job.json").write_text("{}")
    completed, calls = OutputDirectory.completed, 0

    def late(self: OutputDirectory) -> Manifest | None:
        nonlocal calls
        calls += 1
        return completed(self) if calls > 1 else None

    with monkeypatch.context() as patch, pytest.raises(DatasetError, match="another dataset: shout False there"):
        patch.setattr(OutputDirectory, "completed", late)
        _run(source, tmp_path / "out")
    assert tree(tmp_path / "out") == before
    run_lines(source, tmp_path / "out")
    assert tree(tmp_path / "out") == before


def test_missing_media_of_a_complete_directory_are_counted(clips: Path, tmp_path: Path) -> None:
    run("ucf101", clips, tmp_path / "out", limit=1, num_frames=1)
    shutil.rmtree(tmp_path / "out/images/val/MoveUp")
    with pytest.raises(DatasetError, match=r"files are missing \(0 row files; 11 of 12 media files are there\)"):
        run("ucf101", clips, tmp_path / "out", limit=1, num_frames=1)


def test_missing_row_files_of_a_complete_directory_are_counted(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "ok", "ok", "ok")
    run_lines(source, tmp_path / "out")
    (tmp_path / "out/lines_val.jsonl").unlink()
    with pytest.raises(DatasetError, match=r"files are missing \(1 row files; 3 of 3 media files are there\)"):
        run_lines(source, tmp_path / "out")


def test_a_source_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lines(tmp_path / "home/source", "ok")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    first = run_lines(Path("~/source"), tmp_path / "out")
    assert (first.source.name, first.accounting.written) == ("source", 1)
    assert run_lines(Path("~/source"), tmp_path / "out") == first
    assert run_lines(tmp_path / "home/source", tmp_path / "out") == first


def _other_lists(official: Path, folder: Path) -> Path:
    """Copy the lists of the official layout, without one clip of train."""
    shutil.copytree(official / "ucfTrainTestlist", folder)
    lines = (folder / "trainlist01.txt").read_bytes().splitlines(keepends=True)
    (folder / "trainlist01.txt").write_bytes(b"".join(lines[:-1]))
    return folder


def test_changed_split_lists_for_an_archive_are_refused(official: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "clips"), "tar", official / "UCF-101"))
    lists, other = official / "ucfTrainTestlist", _other_lists(official, tmp_path / "other")
    run("ucf101", archive, tmp_path / "out", splits=lists, num_frames=1)
    before = tree(tmp_path / "out")
    with pytest.raises(DatasetError, match=r"contains another dataset: splits '\w{64}' there, '\w{64}' here"):
        run("ucf101", archive, tmp_path / "out", splits=other, num_frames=1)
    shutil.copytree(lists, tmp_path / "copy")
    run("ucf101", archive, tmp_path / "out", splits=tmp_path / "copy", num_frames=1)
    assert tree(tmp_path / "out") == before


def test_changed_split_lists_for_an_unfinished_conversion_are_refused(
    official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists, other = official / "ucfTrainTestlist", _other_lists(official, tmp_path / "other")

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("convkit.convert.run.finalize", interrupted)
        run("ucf101", official / "UCF-101", tmp_path / "out", splits=lists, num_frames=1)
    with pytest.raises(DatasetError, match=r"unfinished conversion of another kind: splits '\w{64}' there"):
        run("ucf101", official / "UCF-101", tmp_path / "out", splits=other, num_frames=1)


def test_missing_split_lists_are_named(official: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot read the split list .*/trainlist01.txt: No such file"):
        run("ucf101", official / "UCF-101", tmp_path / "out", splits=tmp_path)
    assert not (tmp_path / "out").exists()


# Which changes of a source are detected


@pytest.mark.parametrize("change", ["size", "name", "content"])
def test_a_changed_clip_is_detected_by_its_name_and_size(change: str, clips: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(clips, source)
    first = run("ucf101", source, tmp_path / "out", limit=1, num_frames=1)
    clip = min((source / "train/MoveUp").iterdir())
    if change == "name":
        clip.rename(clip.with_name("v_MoveUp_g01_c09.avi"))
    else:
        clip.write_bytes(clip.read_bytes()[:-1] + (b"" if change == "size" else b"!"))
    if change == "content":  # detecting this would require reading every clip again
        assert run("ucf101", source, tmp_path / "out", limit=1, num_frames=1) == first
    else:
        with pytest.raises(DatasetError, match="which has changed since"):
            run("ucf101", source, tmp_path / "out", limit=1, num_frames=1)
