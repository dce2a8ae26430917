"""The run report: one page that shows a run directory, complete in itself, readable without network.

`load` reads a run directory, `views` and its neighbours choose and arrange what is shown, `page` makes the file, and
`plot` a picture of its curves. What is shown comes from data: everything is escaped, bounded in number and size, and
the page forbids itself all loading.
"""

from collections.abc import Sequence
from pathlib import Path

from convkit.errors import ConvkitError
from convkit.report import load, page, plot, views
from convkit.utils.files import write_atomic

PAGE = "run.html"


def write_report(run: Path, out: Path | None = None, evaluations: Sequence[Path] = ()) -> Path:
    """Write the report of a run directory, and its curves as a PNG beside it; the same files give the same bytes.

    Args:
        run: of `convkit train` or `convkit evaluate`.
        out: where the page goes; into the run directory if not given.
        evaluations: directories of `convkit evaluate` that are shown with the run's own, in this order.

    Returns:
        Where the page is.

    Raises:
        ConvkitError: it is no run directory, a file of it is damaged, or there is no folder for the page.
        OSError: something cannot be read or written.
    """
    target = out or run / PAGE
    if out and not out.parent.is_dir():
        raise ConvkitError(f"There is no folder {out.parent}. Make it, or choose another --out.")
    found = load.run(run, evaluations)
    charts = views.charts(found)
    text = page.render(found, charts)
    if charts:
        write_atomic(target.with_suffix(".png"), plot.png(charts), target.parent)
    write_atomic(target, text.encode(), target.parent)
    return target
