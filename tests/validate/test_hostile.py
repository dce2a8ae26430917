"""Validation of arbitrary bytes ends with a report, and only rows that the schema accepts have no findings."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from convkit.findings import Report
from convkit.rules import texts as text_rules
from convkit.rules.row import explain
from convkit.schema import Row
from tests.fixtures.builders import line, row, turn
from tests.validate.helpers import report_of, write_rows

SOUND = line(
    row(
        "a",
        metadata={"n": [1, 2.5, None], "t": '"\\é'},
        conversations=[turn("<image> é", images=["a.png"], assistant="x"), turn(answers=["1", "2"])],
    )
)
shared_tmp_path = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def is_valid(raw: bytes) -> bool:
    try:
        Row.model_validate_json(raw)
    except ValidationError:
        return False
    return True


def check(tmp_path: Path, content: bytes) -> Report:
    report = report_of(write_rows(tmp_path, content), media="none")
    bad = {finding.line for finding in report.findings if finding.line}
    raws = content.split(b"\n")
    for number, raw in enumerate(raws if raws[-1] else raws[:-1], 1):
        assert is_valid(raw) or number in bad
    Report.model_validate_json(report.model_dump_json())
    return report


@shared_tmp_path
@given(st.binary(max_size=300))
@example(b"")
@example(b"\n")
@example(b"\xff\xfe{\x00}\x00\n")
@example(b'null\ntrue\n0\n""\n[[]]\n{}')
@example(b"\x00" * 100)
@example(b'{"id":"\\ud800"}')
@example(b'{"conversations":[' + b"0," * 1000 + b"0]}")
@example(b'"' + b'\\"' * 1000 + b"NaN")
def test_arbitrary_bytes_give_a_report(tmp_path: Path, content: bytes) -> None:
    check(tmp_path, content)


@pytest.mark.parametrize("length", range(len(SOUND)))
def test_a_truncated_line_is_one_finding_with_its_location(tmp_path: Path, length: int) -> None:
    report = check(tmp_path, SOUND + b"\n" + SOUND[:length])
    assert [finding.code for finding in report.findings] == (["CK009"] if length else [])


@shared_tmp_path
@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.binary(min_size=0, max_size=3)), min_size=1, max_size=4))
def test_a_mutated_line_gives_a_report(tmp_path: Path, changes: list[tuple[int, bytes]]) -> None:
    content = bytearray(SOUND)
    for position, replacement in changes:
        content[position : position + 1] = replacement
    check(tmp_path, bytes(content))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
turns = st.fixed_dictionaries(
    {},
    optional={
        "images": json_values | st.lists(st.sampled_from(["a.png", "../b", 1]), max_size=3),
        "user": json_values | st.sampled_from(["<image>", "x"]),
        "assistant": json_values,
        "answers": json_values,
        "x/~": json_values,
    },
)
documents = json_values | st.fixed_dictionaries(
    {},
    optional={
        "id": json_values,
        "source": json_values,
        "conversations": st.lists(turns | json_values, max_size=3) | json_values,
        "metadata": json_values,
        "group": json_values,
    },
)


@given(documents)
def test_every_invalid_row_has_a_finding_with_a_pointer_that_resolves(document: Any) -> None:
    raw = json.dumps(document).encode()
    try:
        Row.model_validate_json(raw)
    except ValidationError as error:
        _, problems = explain(raw, 1, error)
        assert problems
        for problem in problems:
            assert "\n" not in problem.message
            if problem.pointer:
                follow(document, problem.pointer, problem.message)


def follow(document: Any, pointer: str, message: str) -> None:
    *path, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    for part in path:
        document = document[int(part)] if isinstance(document, list) else document[part]
    if "is missing" not in message:
        assert int(last) < len(document) if isinstance(document, list) else last in document


def test_an_endless_list_is_not_a_list_of_choices() -> None:
    assert text_rules.choices("A. cat\n" * 1_200_000) is None  # more than there are letters, in any alphabet
    many = ", ".join(map(str, range(1001)))
    assert text_rules.choices(f"Choose one of the classes: {many}") is None
    few = text_rules.choices(f"Choose one of the classes: {many.rpartition(', ')[0]}")
    assert few is not None and len(few) == 1000
    assert text_rules.not_a_choice("x" * 1000, few) and not text_rules.not_a_choice("x" * 1001, few)
