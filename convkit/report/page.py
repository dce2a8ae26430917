"""Render the HTML page: all values are escaped in one place, and the page's policy forbids loading anything."""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from convkit import __version__
from convkit.report import curves
from convkit.report.confusions import class_reports
from convkit.report.curves import Chart
from convkit.report.run_directory import Run
from convkit.report.samples import choose_samples
from convkit.report.tables import data_tables, environment_table, options_table, score_tables, status
from convkit.utils.text import printable

_POLICY = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'"


def render_page(run: Run, charts: Sequence[Chart]) -> str:
    """Return the HTML of a run with its charts, ending in a newline."""
    style = _template("run.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        _environment()
        .get_template("run.html.jinja")
        .render(
            run=run,
            version=__version__,
            style=Markup(style),
            policy=f"{_POLICY}; style-src 'sha256-{digest}'",
            status=status(run),
            options=options_table(run),
            environment=environment_table(run),
            data=data_tables(run),
            charts=charts,
            scores=score_tables(run),
            classes=class_reports(run),
            samples=choose_samples(run),
        )
    )


def escape_control_characters(text: str) -> str:
    """Write control characters other than newlines as escapes, since HTML cannot represent them."""
    return "\n".join(map(printable, text.split("\n")))


def _finalize(value: Any) -> Any:
    return escape_control_characters(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["frame"] = curves
    return environment


def _template(name: str) -> str:
    return files("convkit.report").joinpath("templates", name).read_text(encoding="utf-8")
