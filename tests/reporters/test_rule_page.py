"""Pages are what the rules say, and no rule is without one."""

from pathlib import Path

import pytest

from convkit.findings import Severity
from convkit.reporters import rule_page
from convkit.rules.base import Rule
from convkit.rules.registry import RULES
from convkit.utils import generated


def test_the_pages_are_what_the_rules_say() -> None:
    assert [*generated.stale(rule_page.files()), *rule_page.extra()] == []


def test_every_rule_has_a_page_with_all_there_is_to_say_and_an_example() -> None:
    examples = rule_page.examples()
    for code, rule in RULES.items():
        text = rule_page.page(rule, examples[code])
        for part in (code, rule.slug, rule.severity, rule.summary, rule.why, rule.fix, *examples[code].splitlines()):
            assert part in text
        assert (rule_page.ROOT / "docs" / "rules" / f"{rule_page.stem(rule)}.md").is_file()
    assert examples["CK303"] == "images/b.png"
    assert examples["CK002"] == 'pets_train.jsonl:1\n{"id": x}'


def test_a_new_rule_gets_its_page_without_a_change_here(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = Rule("CK399", "new-rule", Severity.ERROR, "It finds <image>.", "It is bad.", "Mend it.")
    monkeypatch.setitem(RULES, rule.code, rule)
    files = rule_page.files()
    page = files[rule_page.ROOT / "docs" / "rules" / "CK399_new_rule.md"]
    assert page.startswith("# CK399 new-rule\n\nSeverity: error.\n\nIt finds \\<image>.\n")
    assert "[CK399](CK399_new_rule.md)" in files[rule_page.ROOT / "docs" / "rules" / "README.md"]
    # Not delitem, whose undoing would put the rule at the end for the tests that follow.
    fewer = {code: rule for code, rule in RULES.items() if code != "CK201"}
    monkeypatch.setattr(rule_page, "RULES", fewer)
    assert [path.name for path in rule_page.extra()] == ["CK201_missing_image.md"]


def test_generated_files_are_written_compared_and_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files, old = {tmp_path / "a" / "x": "1\n", tmp_path / "y": "2\n"}, tmp_path / "old"
    old.write_text("")
    assert generated.run("m", ["--check"], files, [old]) == 1
    assert capsys.readouterr().err.count("is stale. Run: python -m m\n") == 3
    assert generated.run("m", [], files, [old]) == 0
    assert not old.exists()
    assert generated.run("m", ["--check"], files, []) == 0
    (tmp_path / "y").write_text("3\n")
    assert generated.stale(files) == [tmp_path / "y"]
    assert generated.run("m", ["--chek"], files, []) == 2
    assert "usage" in capsys.readouterr().err
