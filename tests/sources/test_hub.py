"""Files are downloaded from a local Hub server, each in its own process: the client reads its settings on import."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from convkit.errors import MissingExtra
from convkit.sources.hub import download_file, download_folder
from tests.hub_server import COMMIT, Answer, HubServer

pytest.importorskip("huggingface_hub")

REPO = "owner/name"
FILE = "data/clips.tar.gz"
CONTENT = random.Random(0).randbytes(300_000)

SCRIPT = """
import json, sys, time
time.sleep = lambda seconds: None  # The client waits between its attempts.
from convkit.errors import SourceError
from convkit.sources.hub import download_file
try:
    path, revision = download_file(*sys.argv[1:])
    print(json.dumps({"path": str(path), "revision": revision}))
except SourceError as error:
    print(json.dumps({"error": str(error)}))
"""


@dataclass
class Fetched:
    path: Path
    revision: str
    error: str
    stderr: str


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer(REPO, {FILE: CONTENT}) as server:
        yield server


def download_in_process(
    hub: HubServer, home: Path, *, repo: str = REPO, file: str = FILE, script: str = SCRIPT, **environment: str
) -> Fetched:
    process = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", script, repo, file],
        env={**hub.environment(home), "PYTHONPATH": os.getcwd(), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    return Fetched(
        Path(result.get("path", "")), result.get("revision", ""), result.get("error", ""), stderr=process.stderr
    )


def test_a_file_is_downloaded_with_its_revision_and_without_progress_bars(hub: HubServer, tmp_path: Path) -> None:
    fetched = download_in_process(hub, tmp_path)
    assert fetched.error == ""
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.path.is_relative_to(tmp_path)
    assert fetched.revision == COMMIT
    assert "%" not in fetched.stderr


def test_a_file_in_the_cache_is_not_downloaded_again(hub: HubServer, tmp_path: Path) -> None:
    first = download_in_process(hub, tmp_path)
    assert hub.count("GET") == 1
    second = download_in_process(hub, tmp_path)
    assert hub.count("GET") == 1
    assert (second.path, second.revision) == (first.path, first.revision)


def test_a_file_in_the_cache_is_found_offline(hub: HubServer, tmp_path: Path) -> None:
    first = download_in_process(hub, tmp_path)
    requests = len(hub.requests)
    second = download_in_process(hub, tmp_path, HF_HUB_OFFLINE="1")
    assert (second.path, second.revision) == (first.path, COMMIT)
    assert len(hub.requests) == requests


def test_a_dropped_connection_is_resumed(hub: HubServer, tmp_path: Path) -> None:
    # The client keeps complete chunks of 10 MiB, so the first half must contain one.
    content = CONTENT * 80
    hub.files["large.tar"] = content
    hub.drop_once = True
    fetched = download_in_process(hub, tmp_path, file="large.tar")
    assert fetched.error == ""
    assert fetched.path.read_bytes() == content
    first, second = (wanted for method, _, wanted in hub.requests if method == "GET")
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= len(content) // 2


@pytest.mark.parametrize(
    ("answer", "reason", "remedy"),
    [
        (Answer.REPO_NOT_FOUND, "does not exist, or is private", "hf auth login"),
        (Answer.PRIVATE, "does not exist, or is private", "HF_TOKEN"),
        (Answer.GATED_NO_TOKEN, "restricted to those who are logged in", "then set HF_TOKEN or run: hf auth login"),
        (Answer.GATED_NO_ACCESS, "the account of your token has not been granted it", "Accept the conditions on http"),
        (Answer.BAD_TOKEN, "the hub refused access", "hf auth login"),
        (Answer.FORBIDDEN, "Your token lacks the permission", "hf auth login"),
        (Answer.BROKEN, "the hub answered with an error", "Try again later"),
    ],
)
def test_a_refused_download_is_explained_with_a_remedy(
    hub: HubServer, tmp_path: Path, answer: Answer, reason: str, remedy: str
) -> None:
    hub.answer = answer
    error = download_in_process(hub, tmp_path).error
    assert error.startswith(f"The file {FILE} of the dataset {REPO} cannot be downloaded: ")
    assert reason in error
    assert remedy in error
    assert f"{hub.endpoint}/datasets/{REPO} and pass it to --source." in error
    assert "\n" not in error


def test_a_file_missing_from_the_dataset_is_reported(hub: HubServer, tmp_path: Path) -> None:
    error = download_in_process(hub, tmp_path, file="gone.tar").error
    assert "The file gone.tar" in error
    assert "has no such file" in error
    assert f"Find it on {hub.endpoint}/datasets/{REPO} and pass it to --source." in error


def test_offline_mode_without_a_cached_file_is_reported(hub: HubServer, tmp_path: Path) -> None:
    error = download_in_process(hub, tmp_path, HF_HUB_OFFLINE="1").error
    assert "HF_HUB_OFFLINE is set, and the file is not in the cache. Unset it, or download" in error
    assert hub.requests == []


def test_an_unreachable_hub_is_reported(hub: HubServer, tmp_path: Path) -> None:
    # Port 9 is "discard", on which nothing listens locally.
    error = download_in_process(hub, tmp_path, HF_ENDPOINT="http://127.0.0.1:9").error
    assert "the hub cannot be reached (" in error
    assert "refused" in error
    assert "Check the network and try again, or download" in error


def test_a_cache_that_cannot_be_written_is_not_blamed_on_the_hub(hub: HubServer, tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.write_text("")
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, REPO, FILE],
        env={**hub.environment(home), "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 1
    assert "NotADirectoryError" in process.stderr.splitlines()[-1]


def test_a_missing_client_is_reported_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra) as caught:
        download_file(REPO, FILE)
    assert "pip install 'convkit-vlm[hub]'" in str(caught.value)
    assert FILE in str(caught.value)


PATTERN = "docvqa/*.parquet"
SHARDS = {f"docvqa/train-{k:05d}-of-00002.parquet": CONTENT[k : 100 + k] for k in range(2)}
OTHERS = {"docvqa/readme.md": b"x", "ocrvqa/train-00000-of-00001.parquet": b"y"}


@pytest.fixture
def shards() -> Iterator[HubServer]:
    with HubServer(REPO, {**SHARDS, **OTHERS}) as server:
        yield server


def folder_in_process(hub: HubServer, home: Path, *, pattern: str = PATTERN, **environment: str) -> Fetched:
    return download_in_process(
        hub, home, file=pattern, script=SCRIPT.replace("download_file", "download_folder"), **environment
    )


def test_only_the_files_that_match_the_pattern_are_downloaded(shards: HubServer, tmp_path: Path) -> None:
    fetched = folder_in_process(shards, tmp_path)
    assert fetched.error == ""
    assert (fetched.path.name, fetched.path.parent.name, fetched.revision) == ("docvqa", COMMIT, COMMIT)
    assert {f"docvqa/{path.name}": path.read_bytes() for path in fetched.path.iterdir()} == SHARDS


def test_a_folder_in_the_cache_is_found_offline(shards: HubServer, tmp_path: Path) -> None:
    first = folder_in_process(shards, tmp_path)
    requests = len(shards.requests)
    second = folder_in_process(shards, tmp_path, HF_HUB_OFFLINE="1")
    assert (second.path, second.revision) == (first.path, COMMIT)
    assert len(shards.requests) == requests


def test_an_incomplete_cached_folder_is_refused_offline(shards: HubServer, tmp_path: Path) -> None:
    fetched = folder_in_process(shards, tmp_path)
    (fetched.path / "train-00001-of-00002.parquet").unlink()
    error = folder_in_process(shards, tmp_path, HF_HUB_OFFLINE="1").error
    assert "HF_HUB_OFFLINE is set, and not all of the files are in the cache. Unset it, or download" in error


def test_offline_mode_without_a_cached_folder_is_reported(shards: HubServer, tmp_path: Path) -> None:
    error = folder_in_process(shards, tmp_path, HF_HUB_OFFLINE="1").error
    assert "HF_HUB_OFFLINE is set" in error
    assert shards.requests == []


@pytest.mark.parametrize("pattern", ["gone/*.parquet", "docvqa/*.tar"])
def test_a_pattern_without_matches_is_refused(shards: HubServer, tmp_path: Path, pattern: str) -> None:
    error = folder_in_process(shards, tmp_path, pattern=pattern).error
    assert error.startswith(f"The files {pattern} of the dataset {REPO} cannot be downloaded: the dataset has none.")
    assert f"Find its files on {shards.endpoint}/datasets/{REPO} and pass a folder of them to --source." in error


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer.REPO_NOT_FOUND, "does not exist, or is private"),
        (Answer.GATED_NO_TOKEN, "restricted to those who are logged in"),
        (Answer.GATED_NO_ACCESS, "the account of your token has not been granted it"),
        (Answer.BAD_TOKEN, "the hub refused access"),
        (Answer.BROKEN, "the hub answered with an error"),
    ],
)
def test_a_refused_folder_download_is_explained(shards: HubServer, tmp_path: Path, answer: Answer, reason: str) -> None:
    shards.answer = answer
    error = folder_in_process(shards, tmp_path).error
    assert error.startswith(f"The files {PATTERN} of the dataset {REPO} cannot be downloaded: ")
    assert reason in error
    assert "\n" not in error


def test_an_unreachable_hub_is_reported_for_a_folder(shards: HubServer, tmp_path: Path) -> None:
    error = folder_in_process(shards, tmp_path, HF_ENDPOINT="http://127.0.0.1:9").error
    assert "the hub cannot be reached (" in error
    assert f"or download {PATTERN} by hand" in error


@pytest.mark.parametrize("pattern", ["*/a.parquet", "a/train*.parquet", "a/*-*.parquet", "a/b.parquet"])
def test_other_patterns_raise_a_value_error(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"is not a pattern FOLDER/\*SUFFIX for all files of a folder"):
        download_folder(REPO, pattern)
