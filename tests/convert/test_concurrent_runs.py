"""Two runs into one directory each end with the dataset or a clear message, at whatever instant they meet."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.convert.helpers import run_lines, tree
from tests.convert.toy import write_lines

WITH_ANOTHER = """
import os, shutil, sys
from pathlib import Path
from convkit.convert.error_budget import Policy
from convkit.convert.run import convert
from convkit.errors import ConvkitError
from tests.convert.toy import Lines

source, other_source, out_dir, undisturbed = sys.argv[1:]
before, seen, inside = 0, 0, False

def attempt(source):
    try:
        convert(Lines, source, Lines.Options(), Path(out_dir), workers=0)
    except ConvkitError as error:
        return str(error)
    return "finished"

def hook(event, arguments):
    # Python calls this before it opens, lists, renames, locks or removes anything.
    global seen, inside
    if inside or not event.startswith(("open", "os.", "shutil.", "fcntl.")):
        return
    seen += 1
    if seen == before:
        inside = True
        print("other:", attempt(other_source))
        inside = False

sys.addaudithook(hook)
while True:
    before, seen = before + 1, 0
    Lines.converted.clear()
    print("this:", attempt(source))
    if seen < before:
        break
    assert (Path(out_dir) / "dataset.json").exists(), before
    assert not (Path(out_dir) / ".partial").exists(), before
    assert source != other_source or Lines.converted == [0, 1], before
    os.rename(out_dir, f"{undisturbed}-{before}")
"""


@pytest.mark.parametrize("other", ["ok", "reject"], ids=["finishes", "fails"])
def test_a_second_run_at_each_instant(other: str, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "ok", "ok")
    other_source = source if other == "ok" else write_lines(tmp_path / "other/source", other)
    run_lines(source, tmp_path / "undisturbed")
    folders = [source, other_source, tmp_path / "out", tmp_path / "ended"]
    command = [sys.executable, "-c", WITH_ANOTHER, *map(str, folders)]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = set(done.stdout.splitlines())
    busy = f"another conversion is writing to {tmp_path / 'out'}. Wait for it, or choose another --out_dir."
    nothing = "nothing in the source became a row. 1 x refused (first: lines.txt:1: the line says so)."
    fate = "finished" if other == "ok" else nothing
    assert {"this: finished", f"other: {fate}", f"other: {busy}"} <= printed
    ended = sorted(tmp_path.glob("ended-*"))
    assert len(ended) > 20
    assert [path.name for path in ended if tree(path) != tree(tmp_path / "undisturbed")] == []
    if other == "ok":
        assert printed == {"this: finished", f"other: {fate}", f"other: {busy}"}
