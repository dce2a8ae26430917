"""Test the exact tokens and labels of every model family against stored ones."""

from pathlib import Path

import pytest

from convkit.train.models import tiny
from tests.fixtures import make_tokens

ANSWERS = [turn["assistant"] for turn in make_tokens.TURNS]


@pytest.mark.parametrize("family", tiny.BUILDERS)
def test_tokens_and_labels_equal_the_stored_ones(family: str, tmp_path: Path) -> None:
    stored = (make_tokens.DIRECTORY / f"{family}.json").read_text()
    found = make_tokens.encoded(family, tmp_path)
    assert make_tokens.text(found) == stored
    rest = found["supervised"].replace(" ", "")
    for answer in ANSWERS[:1] if family in make_tokens.SINGLE_TURN else ANSWERS:
        end, answered, rest = rest.partition(answer.replace(" ", ""))
        assert answered
        assert end in ("", "<|im_end|>", "</s>", "<end_of_turn>", "<end_of_utterance>", "<|end|>\n")
    assert rest in ("</s>", "<eos>", "<|im_end|>", "<end_of_turn>", "<end_of_utterance>", "<|end|>\n<|endoftext|>")


def test_tokens_of_every_family_are_stored() -> None:
    assert {path.stem for path in make_tokens.DIRECTORY.iterdir()} == set(tiny.BUILDERS)
