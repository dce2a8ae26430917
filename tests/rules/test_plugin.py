"""Rules of installed packages: they are found by entry point and work like those of convkit."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from convkit import receipt
from convkit.errors import ConvkitError, DatasetError
from convkit.rules.plugins import load_plugins
from convkit.rules.registry import RULES, codes
from tests.conftest import ROOT
from tests.fixtures.builders import lines, manifest, row, turn
from tests.wheels import install, make_wheel

PAGE = (ROOT / "docs/validate.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("## Write a rule") : PAGE.index("## Report formats")]
(MODULE,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
(ENTRY_POINTS,) = re.findall(r"```toml\n\[project.entry-points.\"(convkit.rules)\"]\n(.*?) = \"(.*?)\"\n```", SECTION)
RULE = "RULE = Rule({code!r}, {slug!r}, Severity.ERROR, 'a', 'b', 'c', fixable={fixable})"
OTHER = """
from convkit.findings import Severity
from convkit.rules.base import Check, Rule
{rule}
class Other(Check):
    rules = (RULE,)
"""
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the documented example."""
    folder = tmp_path_factory.mktemp("package")
    group, name, target = ENTRY_POINTS
    wheel = make_wheel(folder, "acme_rules", f"[{group}]\n{name} = {target}\n", {"acme_rules.py": MODULE})
    return install(folder / "site", [wheel])


@pytest.fixture
def convkit(site: Path, tmp_path: Path) -> Run:
    """Return a function that runs convkit in a folder with a dataset of two rows."""
    data = tmp_path / "data/pets"
    data.mkdir(parents=True)
    rows = [row("a"), row("b", conversations=[turn(assistant="See https://example.org.")])]
    files = {"pets_train.jsonl": lines(*rows)}
    (data / "pets_train.jsonl").write_bytes(files["pets_train.jsonl"])
    (data / "dataset.json").write_bytes(manifest(files, train="pets_train.jsonl"))

    def run(*arguments: str, path: Path = site) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "convkit", *arguments],
            env={**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}", "COLUMNS": "120"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_documented_command_prints_the_documented_report(convkit: Run) -> None:
    result = convkit("validate", "data/pets", "--select", "ACME")
    (shown,) = re.findall(r"\$ convkit validate [^\n]*\n(.*?)```", SECTION, re.DOTALL)
    assert (result.returncode, result.stdout) == (0, shown)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), True),
        (("--select", "ACME0"), True),
        (("--select", "url-in-answer"), True),
        (("--select", "CK"), False),
        (("--ignore", "ACME"), False),
        (("--select", "ACME001", "--ignore", "ACME"), True),
    ],
)
def test_it_is_selected_by_code_prefix_or_slug(convkit: Run, arguments: tuple[str, ...], found: bool) -> None:
    result = convkit("validate", "data/pets", *arguments)
    assert (result.returncode, "ACME001" in result.stdout) == (0, found)


def test_its_severity_can_be_changed(convkit: Run) -> None:
    assert convkit("validate", "data/pets", "--error", "ACME001").returncode == 1


def test_an_unknown_prefix_is_refused_with_a_suggestion(convkit: Run) -> None:
    result = convkit("validate", "data/pets", "--select", "ACME9")
    assert result.returncode == 2
    assert "'ACME9' is neither a rule nor a prefix" in result.stderr


def test_it_is_listed_and_explained_with_the_docstring_of_its_check(convkit: Run) -> None:
    listed = convkit("rule").stdout
    assert re.search(r"^ACME001 +url-in-answer +warning +answers that contain a web address$", listed, re.M)
    assert re.search(r"^CK201 +missing-image +error +", listed, re.M)
    page = convkit("rule", "ACME001").stdout
    assert "# ACME001 url-in-answer" in page and "Checks for answers that contain a web address." in page
    assert page.endswith(
        "## Details\n\nSearch answers for `http://` and `https://`. Addresses in questions are allowed.\n\n"
        "From 'urls' (acme_rules:Urls) of the package acme_rules.\n"
    )
    assert "## Details" not in convkit("rule", "CK201").stdout


def test_sarif_lists_it_at_the_index_of_its_findings(convkit: Run) -> None:
    (run,) = json.loads(convkit("validate", "data/pets", "--format", "sarif").stdout)["runs"]
    (result,) = run["results"]
    rule = run["tool"]["driver"]["rules"][result["ruleIndex"]]
    assert result["ruleId"] == rule["id"] == "ACME001"
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == sorted([*RULES, "ACME001"])


@pytest.mark.parametrize("format", ["json", "jsonl", "github", "junit", "markdown"])
def test_every_format_reports_it(convkit: Run, format: str) -> None:
    result = convkit("validate", "data/pets", "--format", format)
    assert (result.returncode, "ACME001" in result.stdout) == (0, True)


def test_a_baseline_accepts_its_finding(convkit: Run) -> None:
    convkit("validate", "data/pets", "--baseline", "known.json", "--write_baseline")
    assert "ACME001" not in convkit("validate", "data/pets", "--baseline", "known.json").stdout


def test_the_receipt_lists_it(convkit: Run, tmp_path: Path) -> None:
    convkit("validate", "data/pets")
    found = receipt.require(tmp_path / "data/pets")  # here, the package is not installed
    assert found.rules == tuple(sorted([*codes(with_model=False), "ACME001"]))
    assert found.warnings["ACME001"] == 1


def test_a_receipt_without_an_installed_rule_is_refused(
    convkit: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convkit("validate", "data/pets", path=ROOT)
    directory = tmp_path / "data/pets"
    assert receipt.require(directory)
    monkeypatch.setattr("convkit.receipt.codes", lambda with_model: ("ACME001", *codes(with_model=with_model)))
    with pytest.raises(DatasetError, match="it was not validated with ACME001 of an installed package"):
        receipt.require(directory)


def test_a_broken_package_is_named(convkit: Run, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "broken", "[convkit.rules]\nurls = a_missing_module:Urls\n", {"broken.py": ""})
    result = convkit("validate", "data/pets", path=install(tmp_path / "site", [wheel]))
    assert (result.returncode, result.stdout, "Traceback" in result.stderr) == (2, "", False)
    message = " ".join(result.stderr.split())
    assert "The rules 'urls' (a_missing_module:Urls) of the package broken do not load: No module named" in message


@pytest.mark.parametrize(
    ("code", "slug", "fixable", "problem"),
    [
        ("CK901", "other", False, "a code is two or more capital letters, other than CK, and three digits"),
        ("A001", "other", False, "a code is two or more capital letters"),
        ("acme001", "other", False, "a code is two or more capital letters"),
        ("ACME1", "other", False, "a code is two or more capital letters"),
        ("ACME001", "Not A Slug", False, "a slug is lowercase words joined by hyphens"),
        ("ACME001", "missing-image", False, "missing-image is already a rule of convkit"),
        ("ACME001", "other", True, "only rules of convkit can be fixable"),
    ],
)
def test_a_rule_that_collides_or_is_malformed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, slug: str, fixable: bool, problem: str
) -> None:
    point = _entry_point(tmp_path, monkeypatch, RULE.format(code=code, slug=slug, fixable=fixable))
    with pytest.raises(ConvkitError, match=problem):
        load_plugins([point], RULES)


def test_two_packages_cannot_have_a_rule_of_one_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = _entry_point(tmp_path, monkeypatch, RULE.format(code="ACME001", slug="other", fixable=False))
    assert [rule.code for plugin in load_plugins([point], RULES) for rule in plugin.check.rules] == ["ACME001"]
    with pytest.raises(ConvkitError, match="ACME001 is already a rule of 'again'"):
        load_plugins([point, EntryPoint("again", point.value, point.group)], RULES)


def _entry_point(folder: Path, monkeypatch: pytest.MonkeyPatch, rule: str) -> EntryPoint:
    """Write a module with a check of one rule, and return its entry point."""
    module = f"other_rules_{folder.name}"
    (folder / f"{module}.py").write_text(OTHER.format(rule=rule), encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    return EntryPoint("other", f"{module}:Other", "convkit.rules")


@pytest.mark.parametrize("target", ["json:JSONDecoder", "convkit.rules.base:Check", "json:missing"])
def test_an_entry_point_that_is_no_check_with_rules_is_refused(target: str) -> None:
    with pytest.raises(ConvkitError, match=r"The rules 'other' .* do not load"):
        load_plugins([EntryPoint("other", target, "convkit.rules")], RULES)
