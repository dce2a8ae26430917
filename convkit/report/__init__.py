"""The run report: a run directory as one HTML page that is readable offline.

`run_directory` reads the files, `tables`, `charts`, `confusions` and `samples` select and format what is shown, `page`
renders the HTML, and `plot` draws the curves as a PNG. All data is escaped and bounded in number and size, and the
page's policy forbids loading anything.
"""

from collections.abc import Sequence
from pathlib import Path

from convkit.errors import ConvkitError
from convkit.report import charts, page, plot, run_directory
from convkit.utils.files import write_atomic

PAGE = "run.html"


def write_report(run: Path, out: Path | None = None, evaluations: Sequence[Path] = ()) -> Path:
    """Write the report of a run directory, with its curves as a PNG beside it; equal files give equal bytes.

    Args:
        run: output directory of `convkit train` or `convkit evaluate`.
        out: path of the page; by default in the run directory.
        evaluations: output directories of `convkit evaluate` to include, in this order.

    Returns:
        The path of the page.

    Raises:
        ConvkitError: it is not a run directory, a file is damaged, or the folder of `out` does not exist.
        OSError: a file cannot be read or written.
    """
    target = out or run / PAGE
    if out and not out.parent.is_dir():
        raise ConvkitError(f"There is no folder {out.parent}. Make it, or choose another --out.")
    found = run_directory.read_run(run, evaluations)
    curves = charts.run_charts(found)
    text = page.render_page(found, curves)
    if curves:
        write_atomic(target.with_suffix(".png"), plot.draw_png(curves), target.parent)
    write_atomic(target, text.encode(), target.parent)
    return target
