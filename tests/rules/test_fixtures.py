"""Every rule has a data set that breaks it, and every data set has exactly the findings that it lists."""

import re
from pathlib import Path

import pytest

from convkit.errors import ConvkitError
from convkit.findings import Severity
from convkit.rules import corpus, file, media, model, row
from convkit.rules.base import Rule
from convkit.rules.registry import RULES, get_rule
from tests.fixtures.make_datasets import DIRECTORY, MAX_LINE_BYTES, build
from tests.validate.helpers import copy_of, flat, report_of, target_for

NAMES = sorted(str(path.relative_to(DIRECTORY)) for path in DIRECTORY.glob("*/*"))
INVALID = [Path(name).name for name in NAMES if name.startswith("invalid/")]
IMPLIED = {"CK404": {"CK216", "CK217"}}
"""What cannot be had without breaking another rule: shapes that a model refuses are extreme for anyone."""


@pytest.mark.parametrize("name", NAMES)
def test_findings_are_those_listed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convkit.validate.run.MAX_LINE_BYTES", MAX_LINE_BYTES)
    directory = copy_of(name, tmp_path)
    report = report_of(directory, target=target_for(directory))
    assert [flat(finding, directory) for finding in report.findings] == (
        (directory / "expected.txt").read_text(encoding="utf-8").splitlines()
    )
    severities = [finding.severity for finding in report.findings]
    assert report.summary.errors == severities.count(Severity.ERROR)
    assert report.summary.warnings == severities.count(Severity.WARNING)
    for finding in report.findings:
        rule = RULES[finding.code]
        assert (finding.slug, finding.severity, finding.hint) == (rule.slug, rule.severity, rule.fix)
        assert "\n" not in finding.message


def test_every_rule_has_a_fixture_and_every_fixture_a_rule() -> None:
    assert [f"{rule.code}_{rule.slug.replace('-', '_')}" for rule in RULES.values()] == INVALID


@pytest.mark.parametrize("name", INVALID)
def test_a_fixture_breaks_the_rule_that_it_is_named_after(name: str) -> None:
    expected = (DIRECTORY / "invalid" / name / "expected.txt").read_text(encoding="utf-8")
    assert {line.split()[0] for line in expected.splitlines()} - IMPLIED.get(name[:5], set()) == {name[:5]}


def test_the_fixtures_are_what_their_script_makes(tmp_path: Path) -> None:
    def tree(root: Path) -> dict[str, str | bytes | None]:
        return {
            str(path.relative_to(root)): (
                str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            )
            for path in root.rglob("*")
        }

    build(tmp_path)
    assert tree(tmp_path) == tree(DIRECTORY)


@pytest.mark.parametrize(("family", "digit"), [(file, 0), (row, 1), (media, 2), (corpus, 3), (model, 4)])
def test_the_table_holds_every_rule_of_a_family(family: object, digit: int) -> None:
    defined = [value for value in vars(family).values() if isinstance(value, Rule)]
    assert defined == [rule for rule in RULES.values() if rule.code.startswith(f"CK{digit}")]


def test_codes_and_slugs_are_well_formed_and_unique() -> None:
    assert list(RULES) == sorted(RULES)
    assert len({rule.slug for rule in RULES.values()}) == len(RULES)
    for code, rule in RULES.items():
        assert code == rule.code and re.fullmatch(r"CK\d{3}", code)
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", rule.slug)
        assert all(text.endswith(".") for text in (rule.summary, rule.why, rule.fix))


def test_a_rule_is_found_by_code_and_by_slug_and_an_unknown_one_tells_what_was_meant() -> None:
    assert get_rule("CK201") is get_rule("missing-image") is RULES["CK201"]
    with pytest.raises(ConvkitError, match=r"no rule 'duplicat-id'\. Did you mean CK301 duplicate-id or"):
        get_rule("duplicat-id")
