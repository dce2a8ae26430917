"""Every rule has a dataset that breaks it, and every dataset has exactly the findings that it lists."""

import re
from pathlib import Path

import pytest

from convkit.errors import ConvkitError
from convkit.findings import Severity
from convkit.rules import dataset, duplicates, file, labels, media, model, row, splits, texts
from convkit.rules.base import Rule
from convkit.rules.registry import RULES, get_rule
from scripts.generate import stem
from tests.fixtures.builders import MAX_LINE_BYTES
from tests.fixtures.make_datasets import DIRECTORY, build
from tests.validate.helpers import codes, copy_of, flat, report_of, target_for

NAMES = sorted(str(path.relative_to(DIRECTORY)) for path in DIRECTORY.glob("*/*"))
INVALID = [Path(name).name for name in NAMES if name.startswith("invalid/")]
IMPLIED = {"CK404": {"CK216", "CK217"}}
"""Rules that a fixture also breaks: an image shape that a model rejects is extreme in any case."""


@pytest.mark.parametrize("name", NAMES)
def test_a_fixture_has_exactly_the_expected_findings(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    assert [stem(rule) for rule in RULES.values()] == INVALID


@pytest.mark.parametrize("name", INVALID)
def test_a_fixture_breaks_only_the_rule_that_it_is_named_after(name: str) -> None:
    expected = (DIRECTORY / "invalid" / name / "expected.txt").read_text(encoding="utf-8")
    assert {line.split()[0] for line in expected.splitlines()} - IMPLIED.get(name[:5], set()) == {name[:5]}


def test_the_fixtures_are_what_their_script_writes(tmp_path: Path) -> None:
    def tree(root: Path) -> dict[str, str | bytes | None]:
        return {
            str(path.relative_to(root)): (
                str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            )
            for path in root.rglob("*")
        }

    build(tmp_path)
    assert tree(tmp_path) == tree(DIRECTORY)


FAMILIES = {
    "CK0": (file,),
    "CK1": (row, texts),
    "CK2": (media,),
    "CK3": (dataset, duplicates, splits, labels),
    "CK4": (model,),
}


@pytest.mark.parametrize("prefix", FAMILIES)
def test_the_table_has_every_rule_that_a_family_defines(prefix: str) -> None:
    modules = FAMILIES[prefix]
    defined = [value for module in modules for value in vars(module).values() if isinstance(value, Rule)]
    assert sorted(defined, key=lambda rule: rule.code) == [r for r in RULES.values() if r.code.startswith(prefix)]


@pytest.mark.parametrize("code", [code for code, rule in RULES.items() if rule.instead])
def test_the_corrected_example_is_a_row_without_findings(code: str, tmp_path: Path) -> None:
    directory = copy_of(f"invalid/{stem(RULES[code])}", tmp_path)
    for path in directory.glob("*.jsonl"):
        path.unlink()
    (directory / "pets_train.jsonl").write_text(RULES[code].instead + "\n", encoding="utf-8")
    assert set(codes(report_of(directory, target=target_for(directory)))) <= {"CK303"}  # for images of other rows


def test_codes_and_slugs_are_well_formed_and_unique() -> None:
    assert list(RULES) == sorted(RULES)
    assert len({rule.slug for rule in RULES.values()}) == len(RULES)
    for code, rule in RULES.items():
        assert code == rule.code and re.fullmatch(r"CK\d{3}", code)
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", rule.slug)
        assert all(text.endswith(".") for text in (rule.why, rule.fix))
        assert not rule.summary.endswith(".") and not rule.summary[0].isspace()


def test_a_rule_is_found_by_code_or_slug_and_an_unknown_name_gets_a_suggestion() -> None:
    assert get_rule("CK201") is get_rule("missing-image") is RULES["CK201"]
    with pytest.raises(ConvkitError, match=r"no rule 'duplicat-id'\. Did you mean CK301 duplicate-id or"):
        get_rule("duplicat-id")
