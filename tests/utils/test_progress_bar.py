"""The layout of the progress bar on a terminal."""

import io
import re

import pytest

from convkit.utils import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [80, 100])
def test_a_long_note_stays_on_one_line_of_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(progress, "SHOW_AFTER_S", 0.0)
    for name, value in {"COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    with progress.progress_bar("training", "rows", lambda: "loss 6.238 · 12.34 img/s · " + "x" * 40) as update:
        for done in (100, 250):
            update(done, 300)
    lines = [line.strip() for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*\w", "", terminal.getvalue()))]
    drawn = [line for line in lines if line]
    assert drawn
    for line in drawn:
        assert re.match(r"training .*.*/\S+ +rows .*loss .*…$", line), drawn
        assert len(line) <= columns
