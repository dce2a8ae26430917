"""Test the errors for rows, images and checkpoints that a model family does not support."""

from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest

from convkit.errors import ConvkitError
from convkit.train.models import model_family, row_images
from convkit.train.models.hf.family import HuggingFaceFamily
from convkit.train.models.hf.tokenize import ChatTemplateTokenizer
from convkit.train.models.tokenize import RowError
from tests.train.models.hf.rows import make_row


def test_the_reserved_character_is_rejected(family: HuggingFaceFamily, tmp_path: Path) -> None:
    with pytest.raises(RowError, match=r"'r1' has the character '\\ue002', which convkit reserves"):
        family.length(make_row({"user": "a \ue002"}), tmp_path)


@pytest.mark.parametrize("answer", ["", " \n"])
def test_empty_answers_are_rejected(tiled_smolvlm: HuggingFaceFamily, images: Path, answer: str) -> None:
    with pytest.raises(RowError, match="'r1' has an empty answer in turn 1"):
        tiled_smolvlm.encode(make_row({"user": "a"}, {"user": "b", "assistant": answer}), images)


def test_missing_and_corrupt_images_are_rejected(tiled_smolvlm: HuggingFaceFamily, tmp_path: Path) -> None:
    PIL.Image.effect_noise((30, 20), 50).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    for name, problem in (("none.png", "'none.png' is not in"), ("cut.png", "does not decode")):
        with pytest.raises(RowError, match=problem):
            tiled_smolvlm.encode(make_row({"images": [name], "user": "What?"}), tmp_path)


def test_an_image_removed_after_its_header_was_read_is_reported_missing(tmp_path: Path) -> None:
    with pytest.raises(RowError, match=r"'r1' has an unusable image: 'gone\.png' is not in images/"):
        row_images.load(make_row({"images": ["gone.png"], "user": "What?"}), tmp_path / "images")


def test_an_image_too_small_for_its_family_is_rejected(tiny_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    PIL.Image.effect_noise((9, 9), 50).save(tmp_path / "dot.png")
    family = model_family(tiny_checkpoint("mistral3"))
    with pytest.raises(RowError, match=r"'r1' has an image whose shape .* not support: 'dot\.png': 9 x 9 pixels"):
        family.length(make_row({"images": ["dot.png"], "user": "What?"}), tmp_path)


def test_several_turns_are_rejected_where_the_prompt_has_bidirectional_attention(
    tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(RowError, match="'r1' has 2 turns, but this model can only be trained on the last one"):
        model_family(tiny_checkpoint("paligemma")).length(make_row({"user": "a"}, {"user": "b"}), tmp_path)


def test_packing_is_rejected(tiled_smolvlm: HuggingFaceFamily, images: Path) -> None:
    with pytest.raises(ValueError, match="padding only, not packing"):
        tiled_smolvlm.collate([tiled_smolvlm.encode(make_row({"user": "a"}), images)], packed=True)


def test_a_checkpoint_without_chat_template_is_rejected(tiled_smolvlm: HuggingFaceFamily) -> None:
    with pytest.raises(ConvkitError, match="no chat template"):
        ChatTemplateTokenizer(tiled_smolvlm.processor.tokenizer, None, "<image>")


def test_a_template_that_drops_a_message_is_rejected(tiled_smolvlm: HuggingFaceFamily, images: Path) -> None:
    encoder = ChatTemplateTokenizer(
        tiled_smolvlm.processor.tokenizer, "{{ messages[-1]['content'][-1]['text'] }}<end_of_utterance>", "<image>"
    )
    with pytest.raises(ConvkitError, match="leaves out or repeats"):
        encoder.encode(make_row({"user": "a"}, {"user": "b"}), [])


def test_an_unsupported_model_type_is_reported_with_the_supported_ones(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "kosmos-2"}')
    with pytest.raises(ConvkitError, match=r"'kosmos-2', which convkit cannot train. Supported: phi3_v, .*smolvlm"):
        model_family(tmp_path)
