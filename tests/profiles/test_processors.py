"""Token profiles against the processors of transformers, on images of random sizes."""

import re
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from convkit.profiles import PROFILES, ImageSize, UnsupportedShape, get_profile
from tests.profiles.processors import BUILDERS, build_processor, pillow_processor

pytest.importorskip("transformers", reason="needs the extra train: pip install 'convkit-vlm[train]'")
# They warn at import; the suite turns warnings into errors.
pytestmark = pytest.mark.filterwarnings("ignore")


EXTRA_TOKENS = {"gemma-3": (2, 0), "paligemma": (0, 2)}
"""Tokens that a processor adds around each image and around the text. In a profile they belong to the template, because
blank lines merge with the text beside them."""


def processor_tokens(spec: str, sizes: list[ImageSize]) -> int:
    """Return the number of ids of the transformers processor for images without text."""
    from PIL import Image

    processor, marker = build_processor(spec)
    images = [Image.new("RGB", size) for size in sizes]
    # Nested, like the images of one conversation in a chat template.
    ids = processor(images=[images], text=[marker * len(images)], add_special_tokens=False)["input_ids"]
    an_image, a_text = EXTRA_TOKENS.get(spec.partition(":")[0], (0, 0))
    return len(ids[0]) - an_image * len(images) - a_text


def profile_tokens(spec: str, sizes: list[ImageSize]) -> int:
    tokens = build_processor(spec)[0].tokenizer
    counts = [
        get_profile(spec).image_tokens(
            size, len(sizes), lambda text: len(tokens(text, add_special_tokens=False).input_ids)
        )
        for size in sizes
    ]
    assert all(count.exact for count in counts)
    return sum(count.low for count in counts)


def transformers_defaults() -> dict[str, dict[str, Any]]:
    """Return profile options from the defaults of transformers, where these equal the reference checkpoint's."""
    import inspect

    import transformers as tf

    def default(cls: str, argument: str) -> Any:
        return inspect.signature(getattr(tf, cls).__init__).parameters[argument].default

    def cell(config: Any) -> dict[str, Any]:
        return {"patch_size": config.vision_config.patch_size, "merge_size": config.vision_config.spatial_merge_size}

    llava, following, onevision, intern = (
        getattr(tf, f"{name}Config")() for name in ("Llava", "LlavaNext", "LlavaOnevision", "InternVL")
    )
    gemma, mistral = tf.Gemma3Config(), tf.Mistral3Config()
    cells = pillow_processor("pixtral", "PixtralImageProcessorPil")
    qwen = pillow_processor("qwen2_vl", "Qwen2VLImageProcessorPil")
    tiles = pillow_processor("idefics3", "Idefics3ImageProcessorPil")
    patches = pillow_processor("got_ocr2", "GotOcr2ImageProcessorPil")
    return {
        "qwen2-vl": {**cell(tf.Qwen2VLConfig()), "min_pixels": qwen.size["shortest_edge"]},
        "qwen2.5-vl": {**cell(tf.Qwen2_5_VLConfig()), "min_pixels": qwen.size["shortest_edge"]},
        "qwen3-vl": cell(tf.Qwen3VLConfig()),
        "idefics3": {
            "longest_edge": tiles.size["longest_edge"],
            "max_image_size": tiles.max_image_size["longest_edge"],
            "image_seq_len": default("Idefics3Processor", "image_seq_len"),
        },
        "llava-1.5": {"crop_size": llava.vision_config.image_size, "patch_size": llava.vision_config.patch_size},
        "llava-next": {
            "crop_size": following.vision_config.image_size,
            "patch_size": following.vision_config.patch_size,
            "grid_pinpoints": tuple((h // 336, w // 336) for h, w in following.image_grid_pinpoints),
        },
        "llava-onevision": {
            "crop_size": onevision.vision_config.image_size,
            "num_image_tokens": (onevision.vision_config.image_size // onevision.vision_config.patch_size) ** 2,
            "anyres_max": int(onevision.vision_aspect_ratio.removeprefix("anyres_max_")),
            "grid_pinpoints": tuple((h // 384, w // 384) for h, w in onevision.image_grid_pinpoints),
        },
        "internvl3": {
            "size": intern.vision_config.image_size[0],
            "image_seq_length": intern.image_seq_length,
            "min_patches": patches.min_patches,
            "max_patches": patches.max_patches,
        },
        "gemma-3": {"image_seq_length": gemma.mm_tokens_per_image},
        "pixtral": {"patch_size": cells.patch_size["height"], "longest_edge": cells.size["longest_edge"]},
        "mistral-3": {
            "patch_size": mistral.vision_config.patch_size,
            "spatial_merge_size": mistral.spatial_merge_size,
            "longest_edge": mistral.vision_config.image_size,
        },
    }


def test_constants_equal_the_defaults_of_transformers() -> None:
    """Other constants are only in the checkpoints: Qwen's `max_pixels`, both limits of Qwen3-VL, SmolVLM, PaliGemma."""
    for name, expected in transformers_defaults().items():
        profile = get_profile(name)
        assert {option: getattr(profile, option) for option in expected} == expected, name


def test_every_profile_is_compared_with_its_processor() -> None:
    assert [name for name in PROFILES if not name.startswith("phi")] == list(BUILDERS)


SMALLEST = 28
"""Side in pixels of an image that is a single token of Mistral 3."""
SPECS = [
    *BUILDERS,
    "qwen2-vl:min_pixels=50000,max_pixels=200000",
    "qwen3-vl:patch_size=14,max_pixels=100000",
    "smolvlm:longest_edge=2048,max_image_size=512,image_seq_len=64",
    "smolvlm:longest_edge=1100,max_image_size=365",  # an odd side that is not a multiple of the tile
    "llava-onevision:anyres_max=4",
    "internvl3:max_patches=6,size=224,image_seq_length=64",
    "pixtral:longest_edge=333,patch_size=14",
    "gemma-3:image_seq_length=64",
]
# Processors interpret three or fewer pixels as colour channels.
SIDES = st.integers(4, 1400)
SIZES = st.one_of(
    st.builds(ImageSize, SIDES, SIDES),
    st.builds(ImageSize, st.integers(4, 40), SIDES),
    st.builds(ImageSize, SIDES, st.integers(4, 40)),
)


@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=12)
@given(size=SIZES)
@example(size=ImageSize(336, 336))
@example(size=ImageSize(672, 336))
@example(size=ImageSize(1401, 449))
@example(size=ImageSize(252, 1008))  # SmolVLM at 365: the shorter side is made even
@example(size=ImageSize(910, 799))  # SmolVLM at 365: scaled to whole tiles, the other side follows
@example(size=ImageSize(1268, 852))  # OneVision: more than its tiles, but less than 1.1 times
@example(size=ImageSize(4, 1333))  # Pixtral at 333: scaled to a width of 0
def test_the_tokens_of_one_image_equal_those_of_the_processor(spec: str, size: ImageSize) -> None:
    assume(spec != "mistral-3" or max(size) > SMALLEST)
    try:
        expected = processor_tokens(spec, [size])
    except ValueError as error:
        assert re.search(r"aspect ratio|height and width must be > 0|(height|width)=0\b", str(error)), error
        with pytest.raises(UnsupportedShape):
            profile_tokens(spec, [size])
    else:
        assert profile_tokens(spec, [size]) == expected


def test_mistral_rejects_an_image_of_a_single_token() -> None:
    """The processor accepts the image, but the model fails."""
    assert processor_tokens("mistral-3", [ImageSize(SMALLEST, SMALLEST)]) == 2
    with pytest.raises(UnsupportedShape, match="28 x 28 pixels are too few"):
        profile_tokens("mistral-3", [ImageSize(SMALLEST, SMALLEST)])
    assert (
        profile_tokens("mistral-3", [ImageSize(SMALLEST + 1, SMALLEST)])
        == processor_tokens("mistral-3", [ImageSize(SMALLEST + 1, SMALLEST)])
        == 3
    )


@pytest.mark.parametrize("spec", BUILDERS)
@settings(max_examples=3)
@given(sizes=st.lists(SIZES.filter(lambda size: max(size) < 20 * min(size)), min_size=2, max_size=3))
def test_the_tokens_of_several_images_equal_those_of_the_processor(spec: str, sizes: list[ImageSize]) -> None:
    assume(spec != "mistral-3" or min(map(max, sizes)) > SMALLEST)
    assert profile_tokens(spec, sizes) == processor_tokens(spec, sizes)


@pytest.mark.parametrize("name", ["qwen2-vl", "qwen2.5-vl", "qwen3-vl"])
def test_qwen_rejects_extreme_aspect_ratios(name: str) -> None:
    assert profile_tokens(name, [ImageSize(4, 800)]) == processor_tokens(name, [ImageSize(4, 800)])
    with pytest.raises(ValueError, match="aspect ratio"):
        processor_tokens(name, [ImageSize(4, 801)])
    with pytest.raises(UnsupportedShape, match="4 x 801 pixels: one side is more than 200 times the other"):
        profile_tokens(name, [ImageSize(4, 801)])
