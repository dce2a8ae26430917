"""Default sources are downloaded from a local Hub server through the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.convert.helpers import rows, tree
from tests.convert.picture_trees import cauldron_table, docvqa_tables
from tests.hub_server import COMMIT, Answer, HubServer

pytest.importorskip("huggingface_hub")
pytest.importorskip("pyarrow")

DOCVQA = "nielsr/docvqa_1200_examples"
CAULDRON = "HuggingFaceM4/the_cauldron"


def read_files(folder: Path, prefix: str = "") -> dict[str, bytes]:
    return {prefix + p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.parquet")}


def run(hub: HubServer, tmp_path: Path, out_dir: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    process = subprocess.run(
        [sys.executable, "-m", "convkit", "convert", *arguments, "--workers", "0", "--out_dir", str(out_dir)],
        env={**hub.environment(tmp_path / "home"), "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return process.returncode, process.stderr


def source_of(out_dir: Path) -> str:
    name: str = json.loads((out_dir / "dataset.json").read_bytes())["source"]["name"]
    return name


def test_docvqa_is_downloaded_from_the_hub_by_default(tmp_path: Path) -> None:
    docvqa_tables(tmp_path / "files")
    with HubServer(DOCVQA, read_files(tmp_path / "files")) as hub:
        code, _ = run(hub, tmp_path, tmp_path / "out", "docvqa", "--max_errors", "1")
        assert code == 0
        requests = len(hub.requests)
        offline = run(hub, tmp_path, tmp_path / "again", "docvqa", "--max_errors", "1", HF_HUB_OFFLINE="1")
        assert (offline[0], len(hub.requests)) == (0, requests)
    assert source_of(tmp_path / "out") == f"hub:{DOCVQA}/data/*.parquet@{COMMIT}"
    assert (len(rows(tmp_path / "out", "train")), len(rows(tmp_path / "out", "test"))) == (7, 3)
    assert tree(tmp_path / "again") == tree(tmp_path / "out")


def test_a_dataset_of_the_cauldron_is_downloaded_from_the_hub(tmp_path: Path) -> None:
    cauldron_table(tmp_path / "files")
    served = read_files(tmp_path / "files", "nlvr2/")
    with HubServer(CAULDRON, {**served, "vqav2/train-00000-of-00001.parquet": b"another set"}) as hub:
        code, _ = run(hub, tmp_path, tmp_path / "out", "cauldron", "--config", "nlvr2", "--max_errors", "1")
    assert code == 0
    assert source_of(tmp_path / "out") == f"hub:{CAULDRON}/nlvr2/*.parquet@{COMMIT}"
    assert {row["source"] for row in rows(tmp_path / "out")} == {"nlvr2"}


def test_a_gated_dataset_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with HubServer(CAULDRON, {}) as hub:
        hub.answer = Answer.GATED_NO_TOKEN
        code, error = run(hub, tmp_path, tmp_path / "out", "cauldron", "--config", "nlvr2")
    assert code == 2
    assert "restricted to those who are logged in" in error
    assert "Traceback" not in error
