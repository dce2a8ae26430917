"""The page itself: templates with everything escaped in one place, under a policy that loads nothing."""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from convkit import __version__
from convkit.report import curves, views
from convkit.report.curves import Chart
from convkit.report.load import Run
from convkit.report.samples import samples
from convkit.reporters.formatting import printable

_POLICY = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'"


def render(run: Run, charts: Sequence[Chart]) -> str:
    """The page of a run and its `views.charts`, as a text that ends in a line end."""
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
            status=views.status(run),
            options=views.options(run),
            surroundings=views.surroundings(run),
            accounting=views.accounting(run),
            charts=charts,
            scores=views.scores(run),
            classes=views.classes(run),
            samples=samples(run),
        )
    )


def visible(text: str) -> str:
    """Lines stay, other control characters are written out: HTML has no way to say them."""
    return "\n".join(map(printable, text.split("\n")))


def _finalize(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


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
