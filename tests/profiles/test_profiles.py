"""Names, options, chat templates and estimates of token profiles."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit.errors import ConvkitError
from convkit.profiles import PROFILES, ImageSize, TargetModel, TokenCount, canonical_name, get_profile, load_tokenizer
from convkit.profiles.base import estimate
from convkit.profiles.phi3 import Phi35Vision
from convkit.schema import Row


def row(*turns: Mapping[str, object], **more: object) -> Row:
    return Row.model_validate({"id": "1", "source": "test", "conversations": turns, **more})


def test_options_are_parsed_after_the_name() -> None:
    assert get_profile("phi-3.5-vision:num_crops=16") == Phi35Vision(num_crops=16)
    assert get_profile("phi-3.5-vision") == get_profile("phi-3.5-vision:") == Phi35Vision()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("phi", r"no model profile 'phi'\. Choose one of: phi-3\.5-vision, .*internvl3, .*mistral-3\."),
        ("phi-3.5-vision:crops=4", r"phi-3\.5-vision has no option 'crops'\. Choose one of: num_crops, num_img_tokens"),
        ("phi-3.5-vision:num_crops", r"num_crops must be a whole number of 1 or more, not ''"),
        ("phi-3.5-vision:num_crops=0", "whole number"),
        ("phi-3.5-vision:num_crops=-1", "whole number"),
        ("phi-3.5-vision:num_crops=²", "whole number"),
        ("phi-3.5-vision:num_crops=1000000000000000000", "num_crops must be at most"),
        ("smolvlm:longest_edge=3000", "more than 6 tiles per row"),
    ],
)
def test_an_unknown_profile_or_option_lists_the_choices(spec: str, message: str) -> None:
    with pytest.raises(ConvkitError, match=message):
        get_profile(spec)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("phi-3.5-vision:num_crops=4", "phi-3.5-vision"),
        ("phi-3.5-vision:", "phi-3.5-vision"),
        ("phi-3.5-vision:num_crops=016,num_img_tokens=144", "phi-3.5-vision:num_crops=16"),
        ("phi-3-vision:num_crops=4", "phi-3-vision:num_crops=4"),
        ("qwen2-vl:max_pixels=9000,min_pixels=4000", "qwen2-vl:min_pixels=4000,max_pixels=9000"),
    ],
)
def test_equal_specifications_have_the_same_canonical_name(spec: str, expected: str) -> None:
    assert TargetModel.from_options(spec).spec == canonical_name(expected) == expected
    assert get_profile(spec) == get_profile(expected)


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_is_complete_and_counts_rows_without_images(name: str) -> None:
    profile = get_profile(name)
    assert profile.checkpoint and profile.control_tokens.groups == 0
    low, high = profile.row_tokens(row({"images": [], "user": "Hello", "assistant": "Hi"}), [])
    assert 0 < low < high < 100
    for text in profile.template.user + profile.template.assistant:
        assert "\r" not in text


def test_the_chat_template_surrounds_images_with_text() -> None:
    template = Phi35Vision().template
    turns = [
        {"images": ["a", "b"], "user": "Which?", "assistant": "One."},
        {"images": ["c"], "user": "And <image>?", "assistant": "Two."},
    ]
    assert template.pieces(row(*turns, system="Be kind.")) == [
        "<|system|>\nBe kind.<|end|>\n<|user|>\n",
        "",
        "\nWhich?<|end|>\n<|assistant|>\nOne.<|end|>\n<|user|>\nAnd ",
        "?<|end|>\n<|assistant|>\nTwo.<|end|>\n<|endoftext|>",
    ]
    assert template.pieces(row({"images": [], "user": "Hello"})) == ["<|user|>\nHello<|end|>\n<|assistant|>\n"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "qwen2-vl",
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n@Hi<|im_end|>\n"
            "<|im_start|>assistant\nYo<|im_end|>\n",
        ),
        ("qwen3-vl", "<|im_start|>user\n@Hi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n"),
        ("smolvlm", "User:@Hi<end_of_utterance>\nAssistant: Yo<end_of_utterance>\n"),
        ("llava-1.5", "USER: @\nHi ASSISTANT: Yo "),
        ("llava-next", "[INST] @\nHi [/INST] Yo</s>"),
        ("llava-onevision", "<|im_start|>user @\nHi<|im_end|><|im_start|>assistant\nYo<|im_end|>"),
        ("gemma-3", "<start_of_turn>user\n\n\n@\n\nHi<end_of_turn>\n<start_of_turn>model\nYo<end_of_turn>\n"),
        ("paligemma", "@Hi\nYo<eos>"),
        ("pixtral", "[INST]@Hi[/INST]Yo</s>"),
        ("mistral-3", "[INST]@Hi[/INST]Yo</s>"),
        ("internvl3", "<|im_start|>user\n@\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n"),
    ],
)
def test_the_chat_template_of_each_family(name: str, expected: str) -> None:
    turn = {"images": ["a"], "user": "Hi", "assistant": "Yo"}
    assert "@".join(get_profile(name).template.pieces(row(turn))) == expected


def test_a_system_prompt_inside_the_first_user_message() -> None:
    turns = [{"images": [], "user": "Hi", "assistant": "Yo"}, {"images": ["a"], "user": "And <image>?"}]
    assert get_profile("gemma-3").template.pieces(row(*turns, system="Be kind.")) == [
        "<start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n<start_of_turn>model\nYo<end_of_turn>\n"
        "<start_of_turn>user\nAnd \n\n",
        "\n\n?<end_of_turn>\n<start_of_turn>model\n",
    ]


def test_a_user_text_that_does_not_begin_with_an_image() -> None:
    turn = {"images": [], "user": "Hi"}
    assert get_profile("smolvlm").template.pieces(row(turn)) == ["User: Hi<end_of_utterance>\nAssistant: "]
    turn = {"images": ["a"], "user": "<image>Hi"}
    assert get_profile("smolvlm").template.pieces(row(turn)) == ["User:", "Hi<end_of_utterance>\nAssistant: "]


@given(st.text())
def test_an_estimate_is_bounded_by_the_number_of_bytes(text: str) -> None:
    control = Phi35Vision.control_tokens
    low, high = estimate(text, control)
    assert 0 <= low <= high <= len(text.encode(errors="replace")) + 1 + text.count("<")
    assert estimate(text + "<|end|>", control).low == low + 1


def test_the_lower_bound_counts_a_run_of_one_character_once() -> None:
    assert estimate(" " * 160, Phi35Vision.control_tokens) == TokenCount(0, 161)
    assert estimate("ab" * 80, Phi35Vision.control_tokens) == TokenCount(10, 161)


def tokenizer(path: Path) -> Path:
    path.write_text(
        json.dumps(
            {
                "version": "1.0",
                "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
                "padding": None,
                "added_tokens": [],
                "normalizer": None,
                "pre_tokenizer": {"type": "Whitespace"},
                "post_processor": None,
                "decoder": None,
                "model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"},
            }
        ),
        encoding="utf-8",
    )
    return path


def test_a_tokenizer_counts_exactly_and_without_truncation(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="needs the extra tokens: pip install 'convkit-vlm[tokens]'")
    count = load_tokenizer(tokenizer(tmp_path / "tokenizer.json"))
    assert count("one two three") == 3
    target = TargetModel.from_options("phi-3.5-vision", tmp_path / "tokenizer.json")
    assert target.count(row({"images": ["a"], "user": "one two"}), [ImageSize(336, 336)]).exact


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff"])
def test_an_invalid_tokenizer_file_is_an_error(content: bytes | None, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="needs the extra tokens: pip install 'convkit-vlm[tokens]'")
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConvkitError, match=r"tokenizer\.json.*Give the"):
        load_tokenizer(path)
