"""Test that row lengths from image headers, and those of the validator, equal the encoded rows."""

from pathlib import Path

import PIL.Image
import pytest

from convkit.profiles import ImageSize, get_profile
from convkit.train.models.hf.family import HuggingFaceFamily
from convkit.train.models.tokenize import IGNORE_INDEX, RowTooLong
from tests.train.models.hf.rows import TURNS, make_row, supported_turns


def test_lengths_from_image_headers_equal_those_of_encoded_rows(family: HuggingFaceFamily, images: Path) -> None:
    for chosen in (supported_turns(family), TURNS[:1], TURNS[1:2], TURNS[2:]):
        for system in (None, "Be true."):
            found = make_row(*chosen, **({"system": system} if system else {}))
            sample = family.encode(found, images)
            assert family.length(found, images) == (len(sample), int((sample.labels[1:] != IGNORE_INDEX).sum()))


def test_the_token_profile_counts_the_tokens_of_encoded_rows(family: HuggingFaceFamily, images: Path) -> None:
    profile = get_profile(family.profile)
    for chosen, keys in (
        (supported_turns(family), {}),
        (supported_turns(family), {"system": "Be true."}),
        (TURNS[:1], {}),
    ):
        found = make_row(*chosen, **keys)
        sizes = [_image_size(images / name) for turn in chosen for name in turn["images"]]
        count = profile.row_tokens(found, sizes, family._row_tokenizer.count)
        assert count.exact
        assert count.low == len(family.encode(found, images))


def _image_size(path: Path) -> ImageSize:
    with PIL.Image.open(path) as image:
        return ImageSize(*image.size)


def test_tiles_are_counted_as_the_processor_makes_them(tiled_smolvlm: HuggingFaceFamily, images: Path) -> None:
    assert tiled_smolvlm.profile == "smolvlm:longest_edge=128,max_image_size=64,image_seq_len=16"
    sample = tiled_smolvlm.encode(make_row(*TURNS), images)
    assert tiled_smolvlm.length(make_row(*TURNS), images).tokens == len(sample)
    assert int((sample.input_ids == tiled_smolvlm.processor.image_token_id).sum()) == 16 * (5 + 3 + 3)


def test_rows_that_are_too_long_are_rejected_by_id(tiled_smolvlm: HuggingFaceFamily, images: Path) -> None:
    found = make_row(*TURNS)
    length = tiled_smolvlm.length(found, images).tokens
    assert len(tiled_smolvlm.encode(found, images, max_length=length)) == length
    with pytest.raises(RowTooLong, match=f"'r1' has {length} tokens, more than {length - 1}"):
        tiled_smolvlm.encode(found, images, max_length=length - 1)
