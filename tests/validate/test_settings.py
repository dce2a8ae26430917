"""Rules are selected by options or a config file, and no selection gets a receipt for a dataset with errors."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit.errors import ConvkitError
from convkit.findings import Severity
from convkit.rules.registry import RULES
from convkit.validate.config_file import ConfigFile, read_config_file
from convkit.validate.run import validate
from convkit.validate.selection import DEFAULT_SELECTION, Selection
from tests.reporters.test_reporters import finding
from tests.validate.helpers import codes, copy_of, write_rows

ERROR, WARNING = Severity.ERROR, Severity.WARNING


@pytest.mark.parametrize(
    ("selection", "kept"),
    [
        (Selection(), ["CK101", "CK201", "CK202", "CK303"]),
        (Selection(select=("CK2",)), ["CK201", "CK202"]),
        (Selection(select=("CK2", "orphan-image")), ["CK201", "CK202", "CK303"]),
        (Selection(ignore=("CK201",)), ["CK101", "CK202", "CK303"]),
        (Selection(ignore=("CK",)), []),
        (Selection(select=("CK201",), ignore=("CK2",)), ["CK201"]),
        (Selection(select=("CK2",), ignore=("missing-image",)), ["CK202"]),
        (Selection(select=("CK2",), ignore=("CK2",)), []),
    ],
)
def test_the_longest_matching_name_decides(selection: Selection, kept: list[str]) -> None:
    found = [finding(code=code) for code in ("CK101", "CK201", "CK202", "CK303")]
    assert [f.code for f in selection.apply(found)] == kept


def test_the_longest_matching_name_sets_the_severity() -> None:
    selection = Selection(severity={"CK2": WARNING, "missing-image": ERROR, "CK303": ERROR})
    found = [finding(code=code) for code in ("CK201", "CK202", "CK303")]
    assert [f.severity for f in selection.apply(found)] == [ERROR, WARNING, ERROR]
    assert selection.hidden_errors(found) == {"CK202": 1}


@given(st.sets(st.sampled_from(sorted(RULES))), st.sets(st.sampled_from(sorted(RULES))))
def test_an_error_by_the_rules_always_prevents_a_receipt(ignored: set[str], warned: set[str]) -> None:
    selection = Selection(ignore=tuple(ignored), severity=dict.fromkeys(warned, WARNING))
    for code in RULES:
        found = [finding(code=code)]
        assert selection.refuses(found) == (found[0].severity is ERROR)
        assert bool(selection.hidden_errors(found)) == (found[0].severity is ERROR and code in ignored | warned)
    assert Selection(severity={"CK303": ERROR}).refuses([finding(code="CK303")])


@pytest.mark.parametrize("name", ["CK2011", "missing", "ck201", "C", "CK201 ", "missing-imge"])
def test_an_unknown_rule_gets_a_suggestion(name: str) -> None:
    with pytest.raises(ConvkitError, match=r"Did you mean .*CK201 missing-image"):
        Selection(ignore=(name,))


@pytest.mark.parametrize("name", ["", "xyz"])
def test_a_name_unlike_any_rule_points_to_the_list(name: str) -> None:
    with pytest.raises(ConvkitError, match=r"Run `convkit rule` to list all rules\."):
        Selection(ignore=(name,))


def test_the_nearest_config_file_with_a_convkit_table_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    (tmp_path / "pyproject.toml").write_text('[tool.convkit]\nignore = ["CK303"]\nbaseline = "known.json"\n')
    (inner / "pyproject.toml").write_text("[tool.other]\nx = 1\n")
    assert read_config_file() == ConfigFile(ignore=("CK303",), baseline=tmp_path / "known.json")
    (tmp_path / "a" / "convkit.toml").write_text('select = ["CK2"]\n[severity]\nCK303 = "error"\n')
    (tmp_path / "a" / "pyproject.toml").write_text('[tool.convkit]\nignore = ["CK1"]\n')
    assert read_config_file() == ConfigFile(select=("CK2",), severity={"CK303": ERROR})
    assert read_config_file(tmp_path / "a" / "pyproject.toml").ignore == ("CK1",)


def test_a_config_file_beside_the_data_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, here = tmp_path / "data", tmp_path / "here"
    data.mkdir()
    here.mkdir()
    (data / "convkit.toml").write_text('ignore = ["CK"]\n')
    monkeypatch.chdir(here)
    write_rows(data, b"{\n")
    assert codes(validate([data], workers=0, selection=read_config_file().selection()).report) == ["CK002"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "ignroe = []",
            r"convkit\.toml: unknown key 'ignroe'\. Known keys: select, ignore, severity, baseline",
        ),
        ('select = ["CK7"]', r"convkit\.toml: 'CK7' is neither a rule.*Did you mean CK\d+ "),
        ('ignore = ["missing-imge"]', r"'missing-imge' is neither a rule.*Did you mean CK201 missing-image\?"),
        ('severity = {CK201 = "bad"}', r"severity\.CK201: .*'error' or 'warning'"),
        ("select = 1", r"select: "),
        ("select = [", r"convkit\.toml is not TOML: "),
    ],
)
def test_unknown_keys_and_values_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "convkit.toml").write_text(text)
    with pytest.raises(ConvkitError, match=message):
        read_config_file(tmp_path / "convkit.toml")


def test_unreadable_config_files_and_missing_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConvkitError, match="cannot be read"):
        read_config_file(tmp_path / "none.toml")
    (tmp_path / "pyproject.toml").write_text("")
    with pytest.raises(ConvkitError, match="no table"):
        read_config_file(tmp_path / "pyproject.toml")
    (tmp_path / "x.toml").write_bytes(b"\xff")
    with pytest.raises(ConvkitError, match="is not TOML"):
        read_config_file(tmp_path / "x.toml")


def test_the_command_line_overrides_the_config_file() -> None:
    config = ConfigFile(select=("CK2",), ignore=("CK3",), severity={"CK303": ERROR, "CK304": ERROR})
    assert config.selection() == Selection(("CK2",), ("CK3",), {"CK303": ERROR, "CK304": ERROR})
    assert config.selection(["CK1"], ["CK101"], ["CK1"], ["CK303"]) == Selection(
        ("CK1",), ("CK101",), {"CK303": WARNING, "CK304": ERROR, "CK1": ERROR}
    )


@pytest.mark.parametrize("selection", [Selection(ignore=("CK005",)), Selection(severity={"CK005": WARNING})])
def test_a_hidden_error_prevents_a_receipt(tmp_path: Path, selection: Selection) -> None:
    directory = copy_of("invalid/CK005_empty_file", tmp_path)
    (directory / "receipt.json").write_text("{}")
    result = validate([directory], workers=0, selection=selection)
    assert result.report.summary.errors == 0 and result.receipts == ()
    assert not (directory / "receipt.json").exists()
    assert any("receipt not written" in note and "1 of CK005 empty-file" in note for note in result.notes)


def test_ignored_warnings_are_in_the_receipt_and_upgraded_ones_prevent_it(tmp_path: Path) -> None:
    directory = copy_of("invalid/CK304_foreign_rows", tmp_path)
    result = validate([directory], workers=0, selection=Selection(ignore=("CK304",)))
    assert codes(result.report) == [] and result.receipts
    assert '"CK304": 1' in (directory / "receipt.json").read_text()
    result = validate([directory], workers=0, selection=Selection(severity={"CK304": ERROR}))
    assert result.report.summary.errors == 1 and not (directory / "receipt.json").exists()


def test_the_default_selection_changes_nothing() -> None:
    found = [finding(code=code) for code in RULES]
    assert DEFAULT_SELECTION.apply(found) == found
