"""Render the documentation page of a rule, as in docs/rules/ and in `convkit rule CODE`."""

import json
from collections.abc import Callable
from importlib import resources
from typing import NotRequired, TypedDict

from convkit.rules.base import Rule

EXAMPLES = "examples.json"
"""File beside the rules; an installed package has no test fixtures to take examples from."""
FIXABLE = "Fixable with `convkit validate --fix`."


class Example(TypedDict):
    """The first finding of a rule's test fixture."""

    location: str
    line: NotRequired[str]
    """Text of the line, for findings in a row file."""


def examples() -> dict[str, Example]:
    """Return the packaged examples by rule code."""
    loaded: dict[str, Example] = json.loads(resources.files("convkit.rules").joinpath(EXAMPLES).read_text("utf-8"))
    return loaded


def page(rule: Rule, example: Example | None, escape: Callable[[str], str] = str) -> str:
    """Render a rule's page.

    Args:
        escape: applied to the rule's sentences; pass `formatting.markdown` for Markdown, nothing for a terminal.
    """
    parts = [
        f"# {rule.code} {rule.slug}",
        f"Severity: {rule.severity}.",
        f"## What it does\n\nChecks for {escape(rule.summary)}.",
        f"## Why is this bad?\n\n{escape(rule.why)}",
        f"## How to fix\n\n{escape(rule.fix)}",
    ]
    if example:
        parts.append(f"## Example\n\n{_indented(example['location'], example.get('line', ''))}")
    if rule.instead:
        parts.append(f"Use instead:\n\n{_indented(rule.instead)}")
    if rule.fixable:
        parts.append(f"## Fix availability\n\n{FIXABLE}")
    return "\n\n".join(parts) + "\n"


def _indented(*lines: str) -> str:
    return "\n".join(f"    {line}" for line in lines if line)
