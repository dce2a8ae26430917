"""Generate docs/rules/ and the examples of `convkit rule`: `python -m convkit.reporters.rule_page [--check]`.

A page is made of a `Rule` and of the first finding that its fixture expects; nothing here knows any rule by name. The
examples are kept beside the rules, because an installed package has no fixtures.
"""

import json
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from convkit.reporters.words import markdown, printable
from convkit.rules.base import Rule
from convkit.rules.registry import RULES
from convkit.utils import generated

ROOT = Path(__file__).parents[2]
EXAMPLES = "examples.json"
_EXAMPLES_FILE = ROOT / "convkit" / "rules" / EXAMPLES
_DOCS = ROOT / "docs" / "rules"
_FIXTURES = ROOT / "tests" / "fixtures" / "datasets" / "invalid"
_MAX_SHOWN = 240


def page(rule: Rule, example: str | None, words: Callable[[str], str] = str) -> str:
    """A rule's page in Markdown, or with its words as they are to be read as plain text."""
    parts = [
        f"# {rule.code} {rule.slug}",
        f"Severity: {rule.severity}.",
        words(rule.summary),
        f"## Why\n\n{words(rule.why)}",
        f"## How to mend it\n\n{words(rule.fix)}",
    ]
    if example:
        indented = "\n".join(f"    {line}" for line in example.splitlines())
        parts.append(f"## Example\n\n{indented}")
    return "\n\n".join(parts) + "\n"


def examples() -> dict[str, str]:
    """The example of each rule that has one, by code, as the package holds them."""
    loaded: dict[str, str] = json.loads(resources.files("convkit.rules").joinpath(EXAMPLES).read_text("utf-8"))
    return loaded


def stem(rule: Rule) -> str:
    """The name of a rule's fixture and page, such as CK201_missing_image."""
    return f"{rule.code}_{rule.slug.replace('-', '_')}"


def files() -> dict[Path, str]:
    """All generated files and their texts."""
    found = {code: text for code, rule in RULES.items() if (text := _example(_FIXTURES / stem(rule)))}
    pages = {_DOCS / f"{stem(rule)}.md": page(rule, found.get(code), markdown) for code, rule in RULES.items()}
    return {
        _EXAMPLES_FILE: json.dumps(found, indent=2, ensure_ascii=False) + "\n",
        _DOCS / "README.md": _index(),
        **pages,
    }


def extra() -> list[Path]:
    """Pages of rules that are no more."""
    return sorted(set(_DOCS.glob("*.md")) - set(files()))


def _index() -> str:
    rows = "".join(
        f"| [{rule.code}]({stem(rule)}.md) | {rule.slug} | {rule.severity} | {markdown(rule.summary)} |\n"
        for rule in RULES.values()
    )
    head = "| code | slug | severity | what it finds |\n| --- | --- | --- | --- |\n"
    made = "Made by `python -m convkit.reporters.rule_page`; `convkit rule CODE` prints a page."
    return f"# Rules\n\n{made}\n\n{head}{rows}"


def _example(fixture: Path) -> str | None:
    """The address that the fixture expects a finding at, and the line that is there."""
    expected = fixture / "expected.txt"
    if not expected.is_file() or not (lines := expected.read_text(encoding="utf-8").splitlines()):
        return None
    _, address, *pointer = lines[0].split(" ", 2)
    shown = [" ".join([address, *pointer])]
    file, _, number = address.rpartition(":")
    if number.isdigit():
        raw = (fixture / file).read_bytes().split(b"\n")[int(number) - 1]
        text = printable(raw.decode(errors="backslashreplace"))
        shown.append(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…")
    return "\n".join(shown).rstrip()


if __name__ == "__main__":
    sys.exit(generated.run("convkit.reporters.rule_page", sys.argv[1:], files(), extra()))
