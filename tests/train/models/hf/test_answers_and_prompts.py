"""Test which tokens of a row are supervised, and that training input begins with the generation prompt."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from convkit.train.models import row_images
from convkit.train.models.hf.family import HuggingFaceFamily
from convkit.train.models.hf.tokenize import ChatTemplateTokenizer
from convkit.train.models.tokenize import IGNORE_INDEX
from tests.train.models.hf.rows import (
    TURNS,
    ends_only_the_last_answer,
    make_row,
    prompt_differs_from_history,
    supervised_text,
    supported_turns,
)


def test_only_answers_and_their_end_tokens_are_supervised(family: HuggingFaceFamily, images: Path) -> None:
    sample = family.encode(make_row(*supported_turns(family)), images)
    end = family._row_tokenizer.end
    between = "" if ends_only_the_last_answer(family) else end
    expected = between.join(turn["assistant"] for turn in supported_turns(family)) + end
    assert supervised_text(family, sample.labels).replace(" ", "") == expected.replace(" ", "")
    kept = sample.labels != IGNORE_INDEX
    assert torch.equal(sample.labels[kept], sample.input_ids[kept])


ODD_ANSWERS = (
    *("  Yes", "\n\nYes", " \n Yes", "\r\nYes", "Yes \n", "assistant\n", ": no", "USER: a ASSISTANT: b"),
    *("\u3000\u00e9\u6f22\U0001f389\u200b", "\x00\x1c-", "</s><|im_end|>\n<end_of_turn>", "\ue0000\ue001"),
)
"""Answers that could merge with the white space before them, or that look like template text."""


@pytest.mark.parametrize("answer", ODD_ANSWERS)
def test_odd_answers_are_supervised_unchanged(family: HuggingFaceFamily, images: Path, answer: str) -> None:
    prefix, end = family._row_tokenizer._answer_prefix, family._row_tokenizer.end
    chosen = [{**turn, "assistant": answer} for turn in supported_turns(family)]
    sample = family.encode(make_row(*chosen), images)
    between = prefix if ends_only_the_last_answer(family) else end + prefix
    assert supervised_text(family, sample.labels) == prefix + between.join([answer] * len(chosen)) + end
    for last in range(len(chosen) if prompt_differs_from_history(family) else 1, len(chosen) + 1):
        prompt = family.encode_prompt(make_row(*chosen[:last]), images).input_ids
        assert torch.equal(sample.input_ids[: len(prompt)], prompt)
        assert sample.labels[len(prompt) - 1] == IGNORE_INDEX != sample.labels[len(prompt)]


def test_training_input_begins_with_the_prompt_of_each_turn(family: HuggingFaceFamily, images: Path) -> None:
    for last in range(len(TURNS) if prompt_differs_from_history(family) else 1, len(TURNS) + 1):
        row = make_row(*supported_turns(family, last if family.spec.single_turn else 3))
        whole = family.encode(row, images).input_ids
        prompt = family.encode_prompt(make_row(*supported_turns(family, last)), images)
        assert torch.equal(whole[: len(prompt)], prompt.input_ids)
        assert bool((prompt.labels == IGNORE_INDEX).all())


def test_a_prompt_equals_that_of_the_processor(family: HuggingFaceFamily, images: Path) -> None:
    """Compare with the rendered template, tokenized by the checkpoint's own tokenizer."""
    processor, found = family.processor, make_row(*supported_turns(family, 1 if family.spec.single_turn else 3))
    _, image_texts = processor.process(row_images.load(found, images))
    messages = []
    for turn in supported_turns(family, 1 if family.spec.single_turn else 3):
        before, marker, after = str(turn["user"]).partition("<image>")
        texts = [{"type": "text", "text": part} for part in (before, after) if part]
        pictures = [{"type": "image"}] * len(turn["images"])
        content = [texts[0], *pictures, *texts[1:]] if marker else [*pictures, *texts]
        if marker and "Llava" in family.spec.processor:  # its template puts all images first
            content = [{"type": "text", "text": turn["user"]}]
        messages.append({"role": "user", "content": content})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": turn["assistant"]}]})
    rendered = processor.tokenizer.apply_chat_template(
        messages[:-1], chat_template=family._row_tokenizer._template, tokenize=False, add_generation_prompt=True
    )
    for text in image_texts:
        rendered = rendered.replace(processor.image_token, text.replace(processor.image_token, "\ue123"), 1)
    rendered = rendered.replace("\ue123", processor.image_token)
    begins = bool(processor.tokenizer.bos_token) and rendered.startswith(processor.tokenizer.bos_token)
    expected = processor.tokenizer(rendered, add_special_tokens=not begins).input_ids
    assert family.encode_prompt(found, images).input_ids.tolist() == expected


def test_control_tokens_in_texts_are_encoded_as_plain_text(family: HuggingFaceFamily, images: Path) -> None:
    tokenizer = family.processor.tokenizer
    controls = {id: str(token) for id, token in tokenizer.added_tokens_decoder.items()}
    all_of_them = " ".join(controls.values())
    hostile = family.encode(
        make_row({"user": f"a {all_of_them.replace('<image>', '')} b", "assistant": f"c {all_of_them} d"}), images
    ).input_ids.tolist()
    plain = family.encode(make_row({"user": "a b", "assistant": "c d"}), images).input_ids.tolist()
    assert [token for token in hostile if token in controls] == [token for token in plain if token in controls]
    assert all(tokenizer.decode(hostile).count(name) >= 1 for name in controls.values())


@pytest.mark.parametrize("answer", ["True.", "  Yes", "\n\nYes", ": no", "\u6f22"])
def test_a_llama_style_tokenizer_encodes_each_section_in_one_piece(checkpoint: Path, answer: str) -> None:
    """It adds a space symbol before each encoded text, so encoding in parts would add too many."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    template = (
        "{% for m in messages %}{{ m['role'] + ': ' }}{% for c in m['content'] %}{{ c['text'] or '<|image|>\n' }}"
    )
    template += "{% endfor %}{{ ' ' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    row_tokenizer = ChatTemplateTokenizer(tokenizer, template, "<|image|>")
    chosen = [{**turn, "assistant": answer} for turn in TURNS]
    encoded = row_tokenizer.encode(make_row(*chosen), ["<|image|>" * 3] * 3)
    supervised = str(tokenizer.decode([label for label in encoded.labels if label != IGNORE_INDEX]))
    assert supervised == f"{answer} {answer} {answer}<|endoftext|>"
    for last in (1, 2, 3):
        images = sum(len(turn["images"]) for turn in chosen[:last])
        prompt = row_tokenizer.encode_prompt(make_row(*chosen[:last]), ["<|image|>" * 3] * images).input_ids
        assert encoded.input_ids[: len(prompt)] == prompt
    whole = "".join(piece.text for piece in row_tokenizer._prompt(make_row(*chosen), ["<|image|>" * 3] * 3))
    assert prompt == tokenizer(whole).input_ids
