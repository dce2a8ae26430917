"""The generated files in the repository are up to date, and the generator writes, checks and removes them."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from convkit.cli import app
from convkit.cli.score import _COMPARE as COMPARE
from convkit.findings import Severity
from convkit.rules.base import Rule
from convkit.rules.registry import RULES
from scripts import cli_reference, generate


def test_generated_files_are_up_to_date() -> None:
    files = generate.files()
    assert [*generate.stale(files), *generate.obsolete(files)] == []


def test_every_rule_has_a_page_and_every_model_a_schema() -> None:
    files = generate.files()
    assert all(generate.PAGES / f"{generate.stem(rule)}.md" in files for rule in RULES.values())
    assert sorted(path.name for path in generate.SCHEMAS.iterdir()) == sorted(
        path.name for path in files if path.parent == generate.SCHEMAS
    )


def test_every_command_and_option_is_in_the_reference() -> None:
    page = generate.files()[generate.ROOT / "docs" / "cli.md"]
    root: Any = typer.main.get_command(app)
    waiting, found = [("convkit", root, None)], 0
    for path, command, parent in waiting:
        context = command.context_class(command, info_name=path, parent=parent)
        section = re.search(rf"^##+ {path}\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
        assert section is not None, path
        general = page[page.index("All converters have") : page.index("### convkit convert")]
        for option in command.params:
            name = option.metavar if option.param_type_name == "argument" else option.opts[-1].lstrip("-")
            assert re.search(rf"\b{re.escape(name)}\b", section[1] + general * path.startswith("convkit convert")), path
            found += 1
        if hasattr(command, "list_commands"):
            names = command.list_commands(context)
            waiting += [(f"{path} {name}", command.get_command(context, name), context) for name in names]
    assert found > 200


def test_a_changed_option_makes_the_reference_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "| `--compare BASELINE` | A predictions file of another model" in cli_reference.page()
    monkeypatch.setattr(COMPARE, "help", "Other text.")
    assert "| `--compare BASELINE` | Other text. |" in cli_reference.page()
    assert generate.ROOT / "docs" / "cli.md" in generate.stale(generate.files())


def test_a_new_rule_gets_a_page_and_a_line_in_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = Rule("CK399", "new-rule", Severity.ERROR, "bad <image>", "It is bad.", "Fix it.", fixable=True)
    monkeypatch.setitem(RULES, rule.code, rule)
    files = generate.files()
    page = files[generate.PAGES / "CK399_new_rule.md"]
    assert page.startswith("# CK399 new-rule\n\nSeverity: error.\n\n## What it does\n\nChecks for bad \\<image>.\n")
    index = files[generate.PAGES / "README.md"]
    assert "| [CK399](CK399_new_rule.md) | new-rule | error | `[*]` | bad \\<image> |\n" in index


def test_the_page_of_a_removed_rule_is_obsolete(monkeypatch: pytest.MonkeyPatch) -> None:
    # monkeypatch.delitem would put the rule back at the end of the table, in the wrong order for later tests.
    monkeypatch.setattr(generate, "RULES", {code: rule for code, rule in RULES.items() if code != "CK201"})
    assert [path.name for path in generate.obsolete(generate.files())] == ["CK201_missing_image.md"]


def test_files_are_written_checked_and_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = tmp_path / "pages"
    files, old = {tmp_path / "a" / "x": "1\n", pages / "y.md": "2\n"}, pages / "old.md"
    pages.mkdir()
    old.write_text("")
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "PAGES", pages)
    monkeypatch.setattr(generate, "files", lambda: files)
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().err.count(" is stale. Run: make generate\n") == 3
    assert old.exists() and not (pages / "y.md").exists()
    assert generate.main([]) == 0
    assert not old.exists()
    assert generate.main(["--check"]) == 0
    (pages / "y.md").write_text("3\n")
    assert generate.stale(files) == [pages / "y.md"]
    with pytest.raises(SystemExit, match="2"):
        generate.main(["--chek"])
    assert "usage" in capsys.readouterr().err
