"""Limits on how much may be quarantined, and what happens when they are exceeded."""

from pathlib import Path

import pytest

from convkit.convert.error_budget import Budget, Policy, RejectSummary
from convkit.converters.base import Reject
from convkit.errors import ConvkitError, DatasetError, SourceError
from tests.convert.helpers import run_lines
from tests.convert.toy import Lines, write_lines


@pytest.mark.parametrize(
    ("text", "budget"),
    [("0", Budget(count=0)), ("100", Budget(count=100)), ("5%", Budget(share=0.05)), ("100%", Budget(share=1.0))],
)
def test_budget_is_a_number_or_a_share(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget


@pytest.mark.parametrize("text", ["", "%", "-1", "-1%", "101%", "nan%", "inf%", "few", "5 %%"])
def test_budget_that_is_neither(text: str) -> None:
    with pytest.raises(ConvkitError, match=f"--max_errors {text} is neither a number such as 100 nor a share"):
        Budget.parse(text)


def test_a_share_counts_from_a_thousand_units_or_at_the_end() -> None:
    budget = Budget(share=0.05)
    assert not budget.exceeded(50, 50, complete=False)
    assert budget.exceeded(51, 51, complete=False)
    assert not budget.exceeded(100, 2000, complete=False)
    assert budget.exceeded(3, 50, complete=True)
    assert not budget.exceeded(2, 50, complete=True)


@pytest.mark.parametrize("budget", [Budget(count=2), Budget(share=0.2)], ids=["count", "share"])
def test_an_exceeded_budget_keeps_the_work(budget: Budget, tmp_path: Path) -> None:
    lines = ["ok", "reject", "ok", "reject", "ok", "reject", "ok", "ok"]
    source = write_lines(tmp_path / "source", *lines)
    with pytest.raises(ConvkitError, match=r"3 of \d lines could not be converted.*3 x refused \(first: lines.txt:2:"):
        run_lines(source, tmp_path / "out", policy=Policy(budget=budget))
    Lines.converted.clear()
    manifest = run_lines(source, tmp_path / "out", policy=Policy(budget=Budget(count=3)))
    assert (manifest.accounting.written, manifest.accounting.quarantined) == (5, 3)
    assert 0 not in Lines.converted


def test_a_budget_that_is_just_met_is_not_exceeded(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "ok", "reject", "ok", "reject")
    assert run_lines(source, tmp_path / "out", policy=Policy(budget=Budget(count=2))).accounting.quarantined == 2


def test_on_error_fail_stops_at_the_first(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "ok", "reject", "raise", "ok")
    Lines.converted.clear()
    with pytest.raises(SourceError, match=r"^lines.txt:2: the line says so \(refused; --on_error fail\)"):
        run_lines(source, tmp_path / "out", policy=Policy(on_error="fail"))
    assert Lines.converted == [0, 1]
    assert not (tmp_path / "out/dataset.json").exists()


def test_rejects_are_counted_in_units_and_an_entry_without_units_is_counted_once() -> None:
    rejects = [Reject("a", "bad", "is bad"), Reject("b", "bad", "is worse", 3), Reject("c/", "empty", "is empty", 0)]
    summary = RejectSummary(rejects)
    assert (summary.units, summary.entries) == (4, 3)
    assert summary.describe() == "4 x bad (first: a: is bad). 1 x empty (first: c/: is empty)."


def test_a_quarantine_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    for content in ("{", "[1]\n", '{"address": "a"}\n'):
        path.write_text(content)
        with pytest.raises(DatasetError, match=r"quarantine\.jsonl is damaged. Restore it"):
            RejectSummary.read(path)
