"""schemas/ matches the pydantic models, and an independent JSON Schema validator accepts the same documents."""

import json
import math
import string
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ValidationError

from convkit import schemas
from convkit.metrics.predictions import Prediction
from convkit.receipt import Receipt
from convkit.schema import Manifest, Row, Turn
from scripts.generate import SCHEMAS
from tests.fixtures.builders import lines, manifest, row, turn
from tests.fixtures.make_datasets import DIRECTORY, valid


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((SCHEMAS / name).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


ROW = validator("row.json")
# What a JSON Schema cannot say: a relation between values, and that a number is finite.
BEYOND = {"marker_count", "assistant_missing", "not_finite"}


def pydantic_accepts(document: Any, model: type[BaseModel] = Row) -> bool:
    """Return whether pydantic accepts a document, apart from rules that JSON Schema cannot express."""
    try:
        model.model_validate_json(json.dumps(document))
    except ValidationError as error:
        return all(detail["type"] in BEYOND for detail in error.errors(include_url=False))
    return True


@pytest.mark.parametrize("name", schemas.MODELS)
def test_a_schema_begins_with_id_title_and_description(name: str) -> None:
    text = (SCHEMAS / name).read_text(encoding="utf-8")
    schema = json.loads(text)
    assert list(schema)[:4] == ["$schema", "$id", "title", "description"]
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:convkit:schema:v1:{name.removesuffix('.json')}"
    assert text.endswith("}\n") and '\n  "' in text


@pytest.mark.parametrize("name", sorted(valid()))
def test_valid_rows_are_accepted_by_both(name: str) -> None:
    for path in (DIRECTORY / "valid" / name).glob("*.jsonl"):
        if path.name != "quarantine.jsonl":
            for raw in path.read_bytes().splitlines():
                assert pydantic_accepts(json.loads(raw))
                ROW.validate(json.loads(raw))


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        row(id=""),
        row(id="x" * 513),
        row(system=None),
        row(group=""),
        row(metadata=[]),
        row(extra=1),
        row(conversations=[]),
        row(conversations={}),
        row(conversations=[turn(answers=[])]),
        row(conversations=[turn(answers=None)]),
        row(conversations=[turn(assistant=None)]),
        row(conversations=[turn(asistant="")]),
        row(conversations=[{"user": ""}]),
        *(
            row(images=[path])
            for path in [
                *("", "/a", "../a", "a/../b", "./a", "a/.", "a//b", "a/", "a\\b", "a\x00b", "a\nb", "C:/a", "x:a"),
                *("http://h/a", "data:image/png;base64,AA", "..", ".", "~/../a", "a/..", "x" * 1025, "a\x7f"),
            ]
        ),
    ],
)
def test_invalid_rows_are_refused_by_both(document: Any) -> None:
    assert not pydantic_accepts(document)
    assert not ROW.is_valid(document)


@pytest.mark.parametrize(
    ("document", "errors"),
    [
        (row(conversations=[turn("<image><image>", images=["a"])]), [("marker_count", "conversations.0")]),
        (row(conversations=[turn("<image><image>", images=["a"])], extra=1), [("marker_count", "conversations.0")]),
        (row(conversations=[turn(images=[1])]), [("string_type", "conversations.0.images.0")]),
        (row(conversations=[turn(answers=[1])]), [("string_type", "conversations.0.answers.0")]),
        (row(conversations=[1]), [("model_type", "conversations.0")]),
        (row(conversations=[turn(), {**turn(), "user": 1}]), [("string_type", "conversations.1.user")]),
        (row(conversations=[]), [("too_short", "conversations")]),
        (row(conversations=[turn(answers=[])]), [("too_short", "conversations.0.answers")]),
    ],
)
def test_an_invalid_item_does_not_make_its_list_empty(document: Any, errors: list[tuple[str, str]]) -> None:
    with pytest.raises(ValidationError) as caught:
        Row.model_validate_json(json.dumps(document))
    found = [(error["type"], ".".join(map(str, error["loc"]))) for error in caught.value.errors()]
    assert [error for error in found if error != ("extra_forbidden", "extra")] == errors


def test_an_invalid_answer_of_a_prediction_does_not_make_its_list_empty() -> None:
    with pytest.raises(ValidationError) as caught:
        Prediction.model_validate({"id": "1", "source": "s", "turn": 0, "prediction": "a", "answers": [1]})
    assert [error["loc"] for error in caught.value.errors()] == [("answers", 0)]


@pytest.mark.parametrize(
    "path", ["a", ".a", "..a", "...", "a..", "a b/ü/猫.png", "a/b:c", "~a", "%2e%2e/a", "a" * 1024, "-", "a/...b/.c"]
)
def test_valid_image_paths_are_accepted_by_both(path: str) -> None:
    assert pydantic_accepts(row(images=[path]))
    assert ROW.is_valid(row(images=[path]))


# Python's `$` also matches before a line feed at the end, where that of ECMA-262 (and of pydantic) does not.
paths = st.text(st.sampled_from("a./\\:~\n\x00é"), max_size=8).filter(lambda path: not path.endswith("\n"))
texts = st.text(st.sampled_from(string.printable + "é猫"), max_size=6) | st.sampled_from(["<image>", ""])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)


sound_texts = st.text(st.sampled_from(string.printable + "é猫"), min_size=1, max_size=6)
sound_turns = st.fixed_dictionaries(
    {"images": st.lists(st.sampled_from(["a.png", "b/c.png"]) | paths.filter(bool), max_size=2), "user": sound_texts},
    optional={"assistant": sound_texts, "answers": st.lists(texts, min_size=1, max_size=2)},
)
sound_rows = st.fixed_dictionaries(
    {"id": sound_texts, "source": sound_texts, "conversations": st.lists(sound_turns, min_size=1, max_size=2)},
    optional={
        "system": texts,
        "group": sound_texts,
        "metadata": st.dictionaries(texts, anything, max_size=2),
    },
)
KEYS = [*Row.model_fields, *Turn.model_fields, "extra"]


@st.composite
def documents(draw: st.DrawFn) -> Any:
    """Draw a row that is valid but for its paths and at most one changed or removed key of it or of a turn."""
    document = draw(sound_rows)
    target = draw(st.sampled_from([document, *document["conversations"]]))
    key = draw(st.none() | st.sampled_from(KEYS))
    if key and draw(st.booleans()):
        target[key] = draw(anything | st.lists(anything, max_size=2))
    elif key:
        target.pop(key, None)
    return document


def test_both_agree_on_random_rows() -> None:
    verdicts: Counter[bool] = Counter()

    @settings(max_examples=500)
    @given(documents() | anything)
    def agree(document: Any) -> None:
        verdict = pydantic_accepts(document)
        verdicts[verdict] += 1
        assert ROW.is_valid(document) == verdict

    agree()
    assert min(verdicts[True], verdicts[False]) > 50


def test_pydantic_refuses_what_json_schema_cannot_express() -> None:
    for document in (row(metadata={"x": math.inf}), row(conversations=[turn(), turn()])):
        assert pydantic_accepts(document)
        with pytest.raises(ValidationError):
            Row.model_validate_json(json.dumps(document))


def test_nested_numbers_in_metadata_must_be_finite() -> None:
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValidationError, match="numbers must be finite"):
            Row.model_validate(row(metadata={"a": [{"b": [0, value]}]}))
    assert Row.model_validate(row(metadata={"a": [1.5, None, True, "NaN"]})).metadata


@pytest.mark.parametrize(
    "change",
    [
        {"format_version": 2},
        {"name": ""},
        {"extra": 1},
        {"splits": {"train": {"file": "x.jsonl"}}},
        {"source": {"name": "x", "bytes": -1, "fingerprint": "0" * 64}},
        {"source": {"name": "x", "bytes": 1, "fingerprint": "0" * 63}},
    ],
)
def test_both_agree_on_manifests(change: dict[str, Any]) -> None:
    check = validator("manifest.json")
    document = json.loads(manifest({"x.jsonl": lines(row())}, train="x.jsonl"))
    assert check.is_valid(document) and pydantic_accepts(document, Manifest)
    assert not check.is_valid({**document, **change}) and not pydantic_accepts({**document, **change}, Manifest)


def test_a_receipt_refuses_unknown_keys_and_other_types() -> None:
    with pytest.raises(ValidationError):
        Receipt.model_validate_json(b'{"receipt_version": 1, "extra": 1}')
