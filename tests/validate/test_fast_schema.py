"""The fast schema accepts the same rows as `convkit.schema.Row`, and counts their keys."""

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from convkit.rules import file as file_rules
from convkit.schema import IMAGE_MARKER, Row
from convkit.validate.fast_schema import count_keys, read_row
from tests.fixtures.builders import row, turn
from tests.validate.test_hostile import documents


def is_valid(raw: bytes) -> bool:
    try:
        Row.model_validate_json(raw)
    except ValidationError:
        return False
    return True


@settings(max_examples=300)
@given(documents)
@example(row("x" * 513))
@example(row("a", group=""))
@example(row("a", metadata={"x": float("nan")}))
@example(row("a", conversations=[]))
@example(row("a", conversations=[turn(answers=[])]))
@example(row("a", conversations=[turn(), turn()]))
@example(row("a", ["../a"], group="g", system="s", metadata={"a": [{}]}))
def test_the_fast_schema_accepts_the_same_rows_as_the_model(document: Any) -> None:
    raw = json.dumps(document).encode()
    try:
        plain = read_row(raw)
    except ValidationError:
        assert not is_valid(raw)
        return
    turns = plain["conversations"]
    markers = [turn["user"].count(IMAGE_MARKER) for turn in turns]
    valid = all(count in (0, len(turn["images"])) for count, turn in zip(markers, turns, strict=True)) and all(
        "assistant" in turn for turn in turns[:-1]
    )
    assert is_valid(raw) == valid
    if valid:
        assert json.loads(Row.model_validate_json(raw).to_line()) == json.loads(raw)


def test_the_fast_schema_has_the_keys_of_the_model() -> None:
    from convkit.schema import Turn
    from convkit.validate.fast_schema import PlainRow, PlainTurn

    for plain, model in ((PlainRow, Row), (PlainTurn, Turn)):
        assert list(plain.__annotations__) == list(model.model_fields)
        assert plain.__required_keys__ == {name for name, field in model.model_fields.items() if field.is_required()}


json_values = st.recursive(
    st.none() | st.integers() | st.text(alphabet='a": \t\\', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='a": \\', max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text(alphabet='a": ', max_size=3), json_values, max_size=3), st.booleans())
def test_the_key_count_is_an_upper_bound(metadata: Any, spaced: bool) -> None:
    content = row("1", metadata=metadata)
    raw = json.dumps(content, separators=(",", " \t:") if spaced else None).encode()
    assert file_rules.most_keys(raw) >= count_keys(read_row(raw))
    assert file_rules.duplicate_key(raw, 1) is None
