"""A rule's page shows everything that the rule and its example contain, also after rendering as Markdown."""

import json

import pytest
from markdown_it import MarkdownIt

from convkit.reporters.formatting import markdown
from convkit.reporters.rule_page import FIXABLE, examples, page
from convkit.rules.base import Rule
from convkit.rules.registry import RULES
from convkit.validate.fix import FIXERS
from scripts.generate import PAGES, stem

ALL = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def rendered(text: str) -> list[str]:
    """Return the text of each heading, paragraph and code block; code spans keep their backticks, nothing else does."""
    blocks = []
    for token in MarkdownIt("commonmark").parse(text):
        if token.type == "code_block":
            blocks.append(token.content.rstrip("\n"))
        elif token.children is not None:
            assert {child.type for child in token.children} <= {"text", "text_special", "code_inline"}
            blocks.append("".join(f"`{c.content}`" if c.markup == "`" else c.content for c in token.children))
    return blocks


@ALL
def test_the_rendered_page_reads_like_the_rule(rule: Rule) -> None:
    example = examples()[rule.code]
    expected = [
        f"{rule.code} {rule.slug}",
        f"Severity: {rule.severity}.",
        *("What it does", f"Checks for {rule.summary}."),
        *("Why is this bad?", rule.why),
        *("How to fix", rule.fix),
        *("Example", "\n".join(filter(None, (example["location"], example.get("line"))))),
        *(("Use instead:", rule.instead) if rule.instead else ()),
        *(("Fix availability", FIXABLE) if rule.fixable else ()),
    ]
    assert rendered((PAGES / f"{stem(rule)}.md").read_text(encoding="utf-8")) == expected


@ALL
def test_the_page_for_the_terminal_contains_the_same_without_escapes(rule: Rule) -> None:
    example = examples()[rule.code]
    text = page(rule, example)
    for part in (rule.code, rule.slug, rule.severity, rule.summary, rule.why, rule.fix, *example.values()):
        assert str(part) in text


def test_markdown_escapes_markup_outside_of_code_spans() -> None:
    text = "Use `a_b <c>` for <image>, not *x* or [y] or `` or a\\b: `d`"
    assert markdown(text) == "Use `a_b <c>` for \\<image>, not \\*x\\* or \\[y] or \\`\\` or a\\\\b: `d`"
    assert rendered(markdown(text)) == [text]


def test_rules_marked_fixable_are_those_with_a_fixer() -> None:
    assert {code for code, rule in RULES.items() if rule.fixable} == set(FIXERS)


def test_corrected_examples_are_single_lines_of_json() -> None:
    for rule in RULES.values():
        assert not rule.instead or json.loads(rule.instead)


def test_examples_are_taken_from_the_fixtures() -> None:
    assert examples()["CK303"] == {"location": "images/b.png"}
    assert examples()["CK002"] == {"location": "pets_train.jsonl:1", "line": '{"id": x}'}
