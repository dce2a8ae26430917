"""Sources are opened from paths, packages and the Hub."""

import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from convkit.errors import SourceError
from convkit.sources import Source, hub, open_source
from convkit.utils.progress import ignore_progress

AVI = frozenset({".avi"})
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def open_address(address: Path | str | None, work: Path, default: str | None = None) -> Source:
    return open_source(None if address is None else str(address), default, AVI, work, ignore_progress)


def open_error(address: Path | str | None, work: Path, default: str | None = None) -> str:
    with pytest.raises(SourceError) as caught:
        open_address(address, work, default)
    assert "\n" not in str(caught.value)
    assert not work.exists() or not list(work.iterdir())
    return str(caught.value)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def tarball(tmp_path: Path) -> Path:
    path = tmp_path / "clips.tar.gz"
    (tmp_path / "a.avi").write_bytes(b"film")
    with tarfile.open(path, "w:gz") as tar:
        tar.add(tmp_path / "a.avi", "v/a.avi")
        tar.add(tmp_path / "a.avi", "/../a.avi")
    return path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a package with data and its installation record; its code must not be run."""
    site = tmp_path / "site"
    (site / "some_data" / "data" / "deep").mkdir(parents=True)
    (site / "some_data" / "__init__.py").write_text("raise RuntimeError('imported')")
    (site / "some_data" / "data" / "deep" / "a.txt").write_text("x")
    (site / "Some_Data_Dist-2.5.dist-info").mkdir()
    (site / "Some_Data_Dist-2.5.dist-info" / "METADATA").write_text("Name: some-data-dist\nVersion: 2.5\n")
    (site / "Some_Data_Dist-2.5.dist-info" / "top_level.txt").write_text("some_data\n")
    (site / "single.py").write_text("")
    monkeypatch.syspath_prepend(site)
    return site


def test_a_folder_is_used_as_it_is(tmp_path: Path, work: Path) -> None:
    folder = tmp_path / "UCF-101"
    folder.mkdir()
    (folder / "a.avi").write_bytes(b"")
    assert open_address(folder, work, "hub:a/b/c.tar") == Source(root=folder, name="UCF-101", bytes=None, refused=())
    assert not work.exists()


def test_a_data_file_is_the_root(tmp_path: Path, work: Path) -> None:
    (tmp_path / "film.AVI").write_bytes(b"film")
    assert open_address(tmp_path / "film.AVI", work) == Source(root=tmp_path / "film.AVI", name="film.AVI", bytes=4)
    assert not work.exists()


@pytest.mark.parametrize("spelling", [".", "./", "../UCF-101", "../UCF-101/."])
def test_the_name_does_not_depend_on_the_spelling(
    spelling: str, tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "UCF-101"
    folder.mkdir()
    (folder / "a.avi").write_bytes(b"")
    monkeypatch.chdir(folder)
    assert open_address(spelling, work).name == "UCF-101"


def test_a_tilde_is_expanded_to_the_home_folder(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.avi").write_bytes(b"")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_address("~/data", work).root == tmp_path / "data"


def test_an_archive_is_unpacked_into_the_work_folder(tarball: Path, work: Path) -> None:
    source = open_address(tarball, work)
    assert (source.root, source.name, source.bytes) == (work / "source", "clips.tar.gz", tarball.stat().st_size)
    assert [r.address for r in source.refused] == ["clips.tar.gz:../a.avi"]
    assert (work / "source" / "v" / "a.avi").read_bytes() == b"film"
    assert open_address(tarball, work) == source


def test_a_source_is_required_without_a_default(work: Path) -> None:
    error = open_error(None, work)
    assert "--source is required" in error


def test_an_unknown_scheme_raises_a_value_error(work: Path) -> None:
    with pytest.raises(ValueError, match="'ftp:x' is not a source address"):
        open_address(None, work, "ftp:x")


def test_a_missing_path_is_refused(tmp_path: Path, work: Path) -> None:
    error = open_error(tmp_path / "gone", work, "hub:a/b/c")
    assert f"{tmp_path / 'gone'} does not exist. Check the path given with --source." in error


def test_an_empty_folder_is_refused(tmp_path: Path, work: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "is empty. Pass the folder with the data to --source." in open_error(tmp_path / "empty", work)


def test_a_folder_whose_path_is_not_utf8_is_refused(tmp_path: Path, work: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "a.avi").write_bytes(b"")
    assert f"{tmp_path}/caf\\xe9, is not UTF-8. Rename the folder" in open_error(folder, work)


def test_a_pipe_is_refused_without_waiting(tmp_path: Path, work: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "neither a folder nor a file" in open_error(tmp_path / "pipe", work)


def test_a_file_that_is_not_an_archive_is_refused(tmp_path: Path, work: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    error = open_error(tmp_path / "a.txt", work)
    assert "is not an archive that convkit can read" in error
    assert "or the folder with the data, to --source" in error


def test_an_unreadable_path_is_refused(tarball: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert "cannot be read: Permission denied. Check its permissions" in open_error(tarball, work)


def test_a_folder_in_a_package_is_opened_with_its_version(package: Path, work: Path) -> None:
    source = open_address(None, work, "package:some_data/data/deep")
    assert source.root == package / "some_data" / "data" / "deep"
    assert source.name == "package:some_data/data/deep==2.5"
    assert source.bytes is None
    assert "some_data" not in sys.modules


def test_a_module_without_a_distribution_has_no_version(package: Path, work: Path) -> None:
    (package / "Some_Data_Dist-2.5.dist-info" / "top_level.txt").unlink()
    # The lookup of distributions depends on the time stamp of the folder on the path.
    os.utime(package, (time.time() + 5, time.time() + 5))
    assert open_address(None, work, "package:some_data/data").name == "package:some_data/data"


def test_a_missing_package_is_reported_with_the_install_command(work: Path) -> None:
    error = open_error(None, work, "package:no_such_package/data")
    assert "Run: pip install no_such_package, or pass the folder" in error


@pytest.mark.parametrize("address", ["package:some_data/gone", "package:single/data"])
def test_a_package_without_the_folder_is_refused(address: str, package: Path, work: Path) -> None:
    error = open_error(None, work, address)
    assert f"has no folder {address.rpartition('/')[2]}. Run: pip install --force-reinstall" in error


def test_a_hub_file_is_downloaded_and_unpacked(tarball: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download_file(repo: str, filename: str) -> tuple[Path, str]:
        asked.append((repo, filename))
        return tarball, COMMIT

    monkeypatch.setattr(hub, "download_file", download_file)
    source = open_address(None, work, "hub:owner/name/deep/clips.tar.gz")
    assert asked == [("owner/name", "deep/clips.tar.gz")]
    assert source.name == f"hub:owner/name/deep/clips.tar.gz@{COMMIT}"
    assert (source.root, source.bytes, len(source.refused)) == (work / "source", tarball.stat().st_size, 1)


def test_a_given_address_takes_precedence_over_the_default(tarball: Path, work: Path) -> None:
    assert open_address(tarball, work, "package:no_such_package/data").name == "clips.tar.gz"


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    script = "import sys, convkit.sources, convkit.sources.hub; print(*sys.modules)"
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"tarfile", "zipfile", "huggingface_hub", "importlib.metadata"} & set(process.stdout.split())


def test_a_hub_pattern_opens_a_folder(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.avi").write_bytes(b"film")
    monkeypatch.setattr(hub, "download_folder", lambda repo, pattern: (tmp_path, f"{repo} {pattern}"))
    source = open_address(None, work, "hub:owner/name/deep/*.avi")
    assert source == Source(root=tmp_path, name="hub:owner/name/deep/*.avi@owner/name deep/*.avi", bytes=None)
