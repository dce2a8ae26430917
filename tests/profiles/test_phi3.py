"""The Phi-3-vision profiles against values computed by the official code."""

import json
from pathlib import Path

import pytest

from convkit.profiles import TargetModel, get_profile
from convkit.profiles.base import ImageSize, TokenCount, UnsupportedShape
from convkit.profiles.phi3 import Phi3Vision, Phi35Vision
from convkit.schema import Row

CASES = {
    "doc_16crops": [("What is the total amount?", 1, "$14,650")],
    "pair_4crops": [("Is the statement true? There is a cup in the right image.", 2, "True")],
    "small_1crop": [("Which board is this?", 1, "A chessboard.")],
    "multi_turn_images_in_two_turns": [("What is this?", 1, "A cup of coffee."), ("And this?", 1, "A logo.")],
    "video_8frames_4crops_long": [
        (
            "Classify the video into one of the following classes: ApplyEyeMakeup, ApplyLipstick.",
            8,
            "ApplyEyeMakeup",
        )
    ],
}


@pytest.fixture(scope="module")
def reference(shared_data: Path) -> Path:
    return shared_data / "reference" / "phi35_vision_tiny"


def conversation(turns: list[tuple[str, int, str]]) -> Row:
    return Row.model_validate(
        {
            "id": "1",
            "source": "test",
            "conversations": [
                {"images": [f"{index}.png" for index in range(images)], "user": user, "assistant": answer}
                for user, images, answer in turns
            ],
        }
    )


def test_token_counts_equal_the_reference_table_for_all_sizes(reference: Path) -> None:
    table = json.loads((reference / "hd_sizes.json").read_bytes())
    assert len(table) == 189
    for entry in table:
        profile = Phi35Vision(num_crops=entry["num_crops"])
        size = ImageSize(entry["width"], entry["height"])
        if "tokens" in entry:
            assert profile.padded(size) == (entry["padded_width"], entry["padded_height"]), entry
            assert profile.image_tokens(size) == TokenCount(entry["tokens"], entry["tokens"]), entry
        else:
            with pytest.raises(UnsupportedShape):
                profile.image_tokens(size)


@pytest.mark.parametrize("name", CASES)
def test_row_lengths_equal_those_of_the_official_code(reference: Path, name: str) -> None:
    case = json.loads((reference / "cases.json").read_bytes())[name]
    row = conversation(CASES[name])
    sizes = [ImageSize(*size) for size in case["image_input_sizes"]]
    target = TargetModel.from_options(f"phi-3.5-vision:num_crops={case['num_crops']}", reference / "tokenizer.json")
    length = case["sequence_length"]
    assert target.count(row, sizes) == (length, length)
    assert [target.profile.image_tokens(size).low for size in sizes] == case["num_img_tokens"]

    low, high = TargetModel(target.profile).count(row, sizes)
    assert low <= length <= high
    # An estimate is of the text alone: the images are a thousand times its uncertainty.
    assert high - low <= 16 * (length - sum(case["num_img_tokens"]))


def test_a_hand_computed_image_size() -> None:
    # 320 x 240 at 4 crops: scaled to 672 x 504, padded to 672 x 672, so 2 x 2 tiles.
    profile = Phi35Vision()
    assert profile.padded(ImageSize(320, 240)) == (672, 672)
    assert profile.image_tokens(ImageSize(320, 240)) == ((4 + 1) * 144 + 1 + 3 * 12,) * 2
    assert Phi3Vision().image_tokens(ImageSize(320, 240)).low > profile.image_tokens(ImageSize(320, 240)).low


@pytest.mark.parametrize(("size", "fails"), [((1344, 1), False), ((1345, 1), True), ((1, 1345), True)])
def test_a_shape_that_is_scaled_to_0_pixels_is_rejected(size: tuple[int, int], fails: bool) -> None:
    profile = get_profile("phi-3.5-vision")
    if fails:
        with pytest.raises(UnsupportedShape, match=f"{size[0]} x {size[1]} pixels"):
            profile.image_tokens(ImageSize(*size))
    else:
        assert profile.image_tokens(ImageSize(*size)).exact
