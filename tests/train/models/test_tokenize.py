"""Test tokenization for Phi-3-vision: prompts, supervised answers, control tokens as plain text, rejected rows."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from convkit.errors import ConvkitError
from convkit.schema import Row, Turn
from convkit.train.models.phi3_v.family import ROLE_TOKENS, Phi3VFamily
from convkit.train.models.phi3_v.tokenize import Phi3VRowTokenizer
from convkit.train.models.tokenize import IGNORE_INDEX, RowError, RowTooLong, TokenizedRow


def _row(*turns: dict[str, Any], **keys: Any) -> Row:
    filled = [{"images": [], "assistant": "Yes.", **turn} for turn in turns]
    return Row.model_validate({"id": "r1", "source": "s", "conversations": filled, **keys})


@pytest.fixture(scope="module")
def row_tokenizer(family: Phi3VFamily) -> Phi3VRowTokenizer:
    return Phi3VRowTokenizer(family.processor.tokenizer, family.processor.image_token_id, ROLE_TOKENS)


def _supervised_text(family: Phi3VFamily, encoded: TokenizedRow) -> str:
    text: str = family.processor.tokenizer.decode([label for label in encoded.labels if label != IGNORE_INDEX])
    return text


MULTI = (
    {"images": ["a.png", "b.png"], "user": "Is it true?", "assistant": "True."},
    {"user": "Why?", "assistant": "A cup, and a logo."},
    {"images": ["c.png"], "user": "What is <image> then?", "assistant": "It is a logo."},
)
CASES: dict[str, tuple[Row, str, list[int]]] = {
    "text only": (_row({"user": "Is it?"}), "<|user|>\nIs it?<|end|>\n<|assistant|>\n", []),
    "image first": (
        _row({"images": ["a.png"], "user": "What?"}),
        "<|user|>\n<|image_1|>\nWhat?<|end|>\n<|assistant|>\n",
        [5],
    ),
    "image in mid-text, system": (
        _row({"images": ["a.png"], "user": "In <image> what?"}, system="Be true."),
        "<|system|>\nBe true.<|end|>\n<|user|>\nIn <|image_1|> what?<|end|>\n<|assistant|>\n",
        [5],
    ),
    "empty system": (  # an empty system message is kept
        _row({"user": "Is it?"}, system=""),
        "<|system|>\n<|end|>\n<|user|>\nIs it?<|end|>\n<|assistant|>\n",
        [],
    ),
    "several turns": (
        _row(*MULTI),
        "<|user|>\n<|image_1|><|image_2|>\nIs it true?<|end|>\n<|assistant|>\nTrue.<|end|>\n"
        "<|user|>\nWhy?<|end|>\n<|assistant|>\nA cup, and a logo.<|end|>\n"
        "<|user|>\nWhat is <|image_3|> then?<|end|>\n<|assistant|>\n",
        [3, 4, 5],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_training_input_begins_with_the_processors_prompt(
    family: Phi3VFamily, row_tokenizer: Phi3VRowTokenizer, name: str
) -> None:
    row, prompt, counts = CASES[name]
    by_processor = family.processor.prompt_ids(prompt, counts)
    assert row_tokenizer.encode_prompt(row, counts).input_ids == by_processor
    trained = row_tokenizer.encode(row, counts)
    assert trained.input_ids[: len(by_processor)] == by_processor
    answer = f"{row.conversations[-1].assistant}<|end|>\n<|endoftext|>"
    assert (
        trained.input_ids[len(by_processor) :]
        == family.processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
    )
    assert trained.labels[len(by_processor) :] == trained.input_ids[len(by_processor) :]
    assert all(label in (IGNORE_INDEX, token) for label, token in zip(trained.labels, trained.input_ids, strict=True))
    assert set(row_tokenizer.encode_prompt(row, counts).labels) == {IGNORE_INDEX}


def test_each_answer_and_its_end_tokens_are_supervised(family: Phi3VFamily, row_tokenizer: Phi3VRowTokenizer) -> None:
    supervised = _supervised_text(family, row_tokenizer.encode(_row(*MULTI), [3, 4, 5]))
    assert supervised.replace(" ", "") == (
        "True.<|end|>\nAcup,andalogo.<|end|>\nItisalogo.<|end|>\n<|endoftext|>"  # without spaces, one per section
    )


@pytest.mark.parametrize("control", ["<|end|>", "<|user|>", "<|endoftext|>", "<s>", "</s>", "<|image|>", "<|image_1|>"])
def test_control_tokens_in_a_row_are_plain_text(
    family: Phi3VFamily, row_tokenizer: Phi3VRowTokenizer, control: str
) -> None:
    hostile = row_tokenizer.encode(
        _row({"user": f"a {control} b", "assistant": f"c {control} d"}, system=f"e {control}"), []
    ).input_ids
    plain = row_tokenizer.encode(_row({"user": "a b", "assistant": "c d"}, system="e"), []).input_ids
    tokenizer = family.processor.tokenizer
    added = set(tokenizer.added_tokens_decoder)
    assert [token for token in hostile if token in added] == [token for token in plain if token in added]
    assert tokenizer.decode(hostile).count(control) >= 3  # no text is lost


@pytest.mark.parametrize(
    "answer", ["  Yes.", "\n\nYes.", "\u3000Yes.", "Yes. \n", "\r\n\t-", "<|end|>\n", "assistant\n"]
)
def test_answers_are_supervised_unchanged(family: Phi3VFamily, row_tokenizer: Phi3VRowTokenizer, answer: str) -> None:
    """The assistant token strips the template's line break, but nothing of the answer."""
    tokenizer = family.processor.tokenizer
    for turns in ([{"user": "a", "assistant": answer}], [{"user": "a", "assistant": answer}, {"user": "b"}]):
        encoded, prompt = (
            row_tokenizer.encode(_row(*turns), []),
            row_tokenizer.encode_prompt(_row(turns[0]), []).input_ids,
        )
        alone = tokenizer(answer, add_special_tokens=False, split_special_tokens=True).input_ids
        assert encoded.input_ids[: len(prompt) + len(alone)] == prompt + alone
        assert encoded.labels[: len(prompt) + len(alone)] == [IGNORE_INDEX] * len(prompt) + alone
        assert tokenizer.decode(alone) == answer


def test_long_rows_are_rejected_by_id(row_tokenizer: Phi3VRowTokenizer) -> None:
    row = _row({"images": ["a.png"], "user": "What?"})
    length = len(row_tokenizer.encode(row, [50]).input_ids)
    assert len(row_tokenizer.encode(row, [50], max_length=length).labels) == length
    with pytest.raises(RowTooLong, match=rf"'r1' has {length} tokens, more than {length - 1}"):
        row_tokenizer.encode(row, [50], max_length=length - 1)


@pytest.mark.parametrize("answer", ["", " \n"])
def test_rows_with_empty_answers_are_rejected(row_tokenizer: Phi3VRowTokenizer, answer: str) -> None:
    with pytest.raises(RowError, match="'r1' has an empty answer in turn 1"):
        row_tokenizer.encode(_row({"user": "a"}, {"user": "b", "assistant": answer}), [])


def test_a_wrong_number_of_images_is_rejected(row_tokenizer: Phi3VRowTokenizer) -> None:
    with pytest.raises(RowError, match="'r1' has 1 images, but 2 token counts were given"):
        row_tokenizer.encode(_row({"images": ["a.png"], "user": "What?"}), [5, 5])


def test_an_extra_image_marker_is_rejected(row_tokenizer: Phi3VRowTokenizer) -> None:
    turn = Turn.model_construct(images=("a.png",), user="<image> and <image>", assistant="x")
    row = _row({"user": "a"}).model_copy(update={"conversations": (turn,)})
    with pytest.raises(RowError, match="'r1' has 2 <image> markers for 1 images"):
        row_tokenizer.encode(row, [5])


def test_a_tokenizer_without_chat_template_is_rejected(family: Phi3VFamily) -> None:
    tokenizer = family.processor.tokenizer
    template, tokenizer.chat_template = tokenizer.chat_template, None
    try:
        with pytest.raises(ConvkitError, match="no chat template"):
            Phi3VRowTokenizer(tokenizer, 0, ROLE_TOKENS)
    finally:
        tokenizer.chat_template = template


def test_a_chat_template_that_drops_a_message_is_rejected(family: Phi3VFamily) -> None:
    tokenizer = family.processor.tokenizer
    template = tokenizer.chat_template
    try:
        tokenizer.chat_template = "{{ messages[0]['content'] }}"
        with pytest.raises(ConvkitError, match="leaves out or repeats"):
            Phi3VRowTokenizer(tokenizer, 0, ROLE_TOKENS).encode(_row({"user": "a"}), [])
    finally:
        tokenizer.chat_template = template


@pytest.mark.parametrize("text", ["<|user|>\nWhat?", "<|image_1|><|image_2|>", "<|image_2|>"])
def test_image_tags_must_match_the_images(family: Phi3VFamily, text: str) -> None:
    with pytest.raises(ConvkitError, match="do not match its images"):
        family.processor(PIL.Image.new("RGB", (8, 8)), text)


def test_images_are_read_from_disk(family: Phi3VFamily, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (30, 20), "red").save(tmp_path / "a.png")
    row = _row({"images": ["a.png"], "user": "What?"})
    sample = family.encode(row, tmp_path)
    assert int((sample.input_ids == family.processor.image_token_id).sum()) == 313
    assert tuple(sample.image_inputs["pixel_values"].shape) == (1, 3, 336, 336)
    assert np.unique(sample.image_inputs["pixel_values"][0, 2]).tolist() == [0, 255]  # red, on white

    PIL.Image.new("RGB", (900, 2)).save(tmp_path / "thin.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    for image, problem in (
        ("thin.png", "too long and thin"),
        ("none.png", "'none.png' is not in"),
        ("cut.png", "decode"),
    ):
        with pytest.raises(RowError, match=problem):
            family.encode(_row({"images": [image], "user": "What?"}), tmp_path)
