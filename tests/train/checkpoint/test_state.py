"""RunState: what a checkpoint's state.json accepts."""

import json

import pytest
from pydantic import ValidationError

from convkit.train.checkpoint.state import RunState

STATE = RunState(step=3, rows=12, fingerprint={"--seed": 0}, processes=2, sharding="--fsdp", loss_scale={"scale": 2.0})


def test_a_state_is_read_as_it_was_written() -> None:
    assert RunState.from_json(STATE.to_json().encode()) == STATE


def test_sharding_and_loss_scale_are_optional() -> None:
    content = {
        name: value for name, value in json.loads(STATE.to_json()).items() if name not in ("sharding", "loss_scale")
    }
    state = RunState.from_json(json.dumps(content).encode())
    assert (state.sharding, state.loss_scale) == ("", {})


@pytest.mark.parametrize(
    "change",
    [
        {"step": "3"},
        {"step": -1},
        {"rows": None},
        {"rows": 1.5},
        {"fingerprint": []},
        {"processes": 0},
        {"sharding": 1},
    ],
)
def test_a_field_of_the_wrong_type_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        RunState.from_json(json.dumps({**json.loads(STATE.to_json()), **change}).encode())


@pytest.mark.parametrize("field", ["step", "rows", "fingerprint", "processes"])
def test_a_missing_field_is_refused(field: str) -> None:
    content = json.loads(STATE.to_json())
    del content[field]
    with pytest.raises(ValidationError, match=f"{field}\n.*required"):
        RunState.from_json(json.dumps(content).encode())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff"])
def test_content_that_is_not_a_json_object_is_refused(content: bytes) -> None:
    with pytest.raises(ValidationError):
        RunState.from_json(content)


def test_the_layout_names_world_size_and_sharding() -> None:
    assert STATE.layout == "2 processes with --fsdp"
    assert RunState(step=0, rows=0, fingerprint={}, processes=1).layout == "1 process"
