"""Questions: the context of a turn, and the detection of sources with two answers."""

import pytest

from convkit.schema import Row
from convkit.train.evaluate.questions import Question, binary_answers, list_questions


def test_context_keeps_earlier_turns_or_only_their_images() -> None:
    turns = [
        {"images": ["a.png"], "user": "One?", "assistant": "Yes"},
        {"images": ["b.png"], "user": "And <image>?", "assistant": "No"},
    ]
    row = Row.model_validate({"id": "r", "source": "s", "conversations": turns})
    first, second = list_questions([row])
    assert first.prompt_row("images_only") == first.prompt_row("gold")
    assert len(first.prompt_row("gold").conversations) == 1
    assert second.prompt_row("gold") == row
    (only,) = second.prompt_row("images_only").conversations
    assert (only.images, only.user) == (("a.png", "b.png"), "<image>And <image>?")


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        (["no", "Yes.", "no"], {"s": ("Yes.", "no")}),
        (["a", "b"], {}),
        (["yes", "true"], {}),
        (["yes", "no", "perhaps"], {}),
        (["yes"], {}),
        ([None], {}),
    ],
)
def test_binary_answers_need_exactly_one_positive_and_one_other(
    answers: list[str | None], found: dict[str, tuple[str, str]]
) -> None:
    questions = []
    for answer in answers:
        turn = {"images": [], "user": "?", **({} if answer is None else {"assistant": answer})}
        questions.append(Question(Row.model_validate({"id": "r", "source": "s", "conversations": [turn]}), 0))
    assert binary_answers(questions, ("yes", "true")) == found
