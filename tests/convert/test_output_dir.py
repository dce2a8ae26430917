"""An unusable output directory is refused with the reason, and a failed write can be resumed."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from convkit.errors import ConvkitError, DatasetError
from tests.convert.helpers import clip_tree, run, run_lines, tree
from tests.convert.toy import write_lines


def test_out_dir_is_a_file(source: Path) -> None:
    (source.parent / "out").write_text("a file")
    with pytest.raises(DatasetError, match=r"out is a file\. Choose a folder for --out_dir"):
        run("ucf101", source, source.parent / "out")
    assert (source.parent / "out").read_text() == "a file"


@pytest.mark.parametrize("out_dir", ["link", "link/out", "link/deep/out", "out"])
def test_a_link_to_a_missing_folder_is_named(out_dir: str, source: Path) -> None:
    link = source.parent / ("out/.partial" if out_dir == "out" else "link")
    link.parent.mkdir(exist_ok=True)
    link.symlink_to("nowhere/there")
    message = f"cannot be created: {link} is a symbolic link to nowhere/there, which does not exist. Create that folder"
    with pytest.raises(DatasetError, match=f"{source.parent / out_dir} {message}"):
        run("ucf101", source, source.parent / out_dir)
    assert link.is_symlink()


def test_a_link_to_an_existing_folder_is_written_to(source: Path) -> None:
    (source.parent / "folder").mkdir()
    (source.parent / "link").symlink_to("folder")
    assert run("ucf101", source, source.parent / "link/out").accounting.written == 1
    assert (source.parent / "folder/out/dataset.json").exists()


@pytest.mark.parametrize("out_dir", ["/proc/out", "/proc/deep/out"])
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system without new folders")
def test_a_file_system_without_new_folders_is_named(out_dir: str, source: Path) -> None:
    message = rf"{out_dir} cannot be used: no folder can be created in /proc \(No such file or directory\). Choose an"
    with pytest.raises(DatasetError, match=message):
        run("ucf101", source, Path(out_dir))


@pytest.mark.parametrize(
    ("file", "reason"),
    [("file", r"in .*/file \(Not a directory\)"), ("file/out/.partial", r"in .*/file/out \(File exists\)")],
)
def test_a_file_in_the_place_of_a_folder_is_named(file: str, reason: str, source: Path) -> None:
    (source.parent / file).parent.mkdir(parents=True, exist_ok=True)
    (source.parent / file).write_text("a file")
    with pytest.raises(DatasetError, match=f"cannot be used: no folder can be created {reason}"):
        run("ucf101", source, source.parent / "file/out")
    assert (source.parent / file).read_text() == "a file"


def test_a_link_to_itself_is_named(source: Path) -> None:
    (source.parent / "out").symlink_to("out")
    with pytest.raises(DatasetError, match="out is a symbolic link to out, which does not exist"):
        run("ucf101", source, source.parent / "out")


def test_out_dir_holds_another_data_set(source: Path) -> None:
    run("ucf101", source, source.parent / "out")
    before = tree(source.parent / "out")
    with pytest.raises(DatasetError, match="contains another dataset: converter 'ucf101' there, 'video-folder' here"):
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
    """Limit the size of all files, so that a write really fails halfway."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [100, 1000, 2500])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_write_that_fails_halfway_is_resumed(size: int, workers: int, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", *["ok"] * 12)
    run_lines(source, tmp_path / "undisturbed", workers=workers)  # starts the fork server without the limit
    with _largest_file(size), pytest.raises(OSError, match="File too large"):
        run_lines(source, tmp_path / "out", workers=workers)
    run_lines(source, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


def test_far_too_many_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_lines(tmp_path / "source", "ok")
    monkeypatch.setattr("convkit.utils.pool.default_workers", lambda: 2)
    with pytest.raises(
        ConvkitError, match=r"^9 workers are more than 4 per CPU, and this process may use 2 CPUs. Pass --workers 2,"
    ):
        run_lines(source, tmp_path / "out", workers=9)
    assert not (tmp_path / "out").exists()
    assert run_lines(source, tmp_path / "out", workers=8).accounting.written == 1
