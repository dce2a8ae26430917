"""Every family against the processor of transformers, on images of random sizes.

The processors are built from their configuration; the tokenizer is a byte-level one without merges, to which the
control tokens of the family are added. Images are blank: only their size has a bearing on the number of tokens.
"""

import os
import re
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from convkit.profiles import PROFILES, ImageSize, UnsupportedShape, get_profile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
pytest.importorskip("transformers", reason="needs the extra train: pip install 'convkit-vlm[train]'")
# They warn at import about what is absent and about themselves; the suite turns warnings into errors.
pytestmark = pytest.mark.filterwarnings("ignore")

TAGS = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
QWEN = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
VISION = "<|vision_start|><|image_pad|><|vision_end|>"
IDEFICS = ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<video>"]


def tokenizer(tokens: list[str], **named: str) -> Any:
    """A byte-level tokenizer that knows line ends as SmolVLM's does, and control tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*letters, "ĊĊ"])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ċ", "Ċ")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(tokens)
    result = PreTrainedTokenizerFast(tokenizer_object=core, pad_token=tokens[0], extra_special_tokens=named)
    for name, token in named.items():
        setattr(result, name, token)
        setattr(result, f"{name}_id", result.convert_tokens_to_ids(token))
    return result


def processor_of(cls: str, images: Any, tokens: Any, **options: Any) -> Any:
    """A processor for images only: video processors need torchvision, which is not installed."""
    import transformers
    from transformers.processing_utils import ProcessorMixin

    class ImagesOnly(getattr(transformers, cls)):  # type: ignore[misc]
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument_name != "video_processor":
                return ProcessorMixin.check_argument_for_proper_class(self, argument_name, argument)
            return None

    ImagesOnly.__name__ = cls
    return ImagesOnly(image_processor=images, tokenizer=tokens, **options)


def pil(module: str, cls: str, **options: Any) -> Any:
    """The image processor that works with Pillow alone."""
    return getattr(import_module(f"transformers.models.{module}.image_processing_pil_{module}"), cls)(**options)


def qwen(profile: Any, cls: str) -> tuple[Any, str]:
    images = pil(
        "qwen2_vl",
        "Qwen2VLImageProcessorPil",
        patch_size=profile.patch_size,
        merge_size=profile.merge_size,
        size={"shortest_edge": profile.min_pixels, "longest_edge": profile.max_pixels},
    )
    return processor_of(cls, images, tokenizer(QWEN), video_processor=None), VISION


def idefics(profile: Any, cls: str) -> tuple[Any, str]:
    options = {
        "size": {"longest_edge": profile.longest_edge},
        "max_image_size": {"longest_edge": profile.max_image_size},
    }
    if cls == "Idefics3Processor":
        images = pil("idefics3", "Idefics3ImageProcessorPil", **options)
        return processor_of(cls, images, tokenizer(IDEFICS), image_seq_len=profile.image_seq_len), "<image>"
    import transformers.models.smolvlm.processing_smolvlm as module

    module.num2words = module.num2words or str  # asked for at construction, used for videos only
    images = pil("smolvlm", "SmolVLMImageProcessorPil", **options)
    tokens = tokenizer([*IDEFICS, "<global-img>", *TAGS])
    return processor_of(cls, images, tokens, video_processor=None, image_seq_len=profile.image_seq_len), "<image>"


def llava(profile: Any, cls: str) -> tuple[Any, str]:
    square = {"height": profile.crop_size, "width": profile.crop_size}
    more = {"patch_size": profile.patch_size, "vision_feature_select_strategy": "default"}
    tokens = tokenizer(["<image>", "<video>"], image_token="<image>")
    if cls == "LlavaProcessor":
        images = pil("llava", "LlavaImageProcessorPil", size={"shortest_edge": profile.crop_size}, crop_size=square)
        return processor_of(cls, images, tokens, num_additional_image_tokens=1, **more), "<image>"
    pinpoints = [[rows * profile.crop_size, columns * profile.crop_size] for rows, columns in profile.grid_pinpoints]
    if cls == "LlavaNextProcessor":
        images = pil(
            "llava_next",
            "LlavaNextImageProcessorPil",
            size={"shortest_edge": profile.crop_size},
            crop_size=square,
            image_grid_pinpoints=pinpoints,
        )
        return processor_of(cls, images, tokens, num_additional_image_tokens=1, **more), "<image>"
    images = pil("llava_onevision", "LlavaOnevisionImageProcessorPil", size=square, image_grid_pinpoints=pinpoints)
    more = {"num_image_tokens": profile.num_image_tokens, "vision_aspect_ratio": f"anyres_max_{profile.anyres_max}"}
    return (
        processor_of(cls, images, tokens, video_processor=None, vision_feature_select_strategy="full", **more),
        "<image>",
    )


def internvl(profile: Any, cls: str) -> tuple[Any, str]:
    images = pil(
        "got_ocr2",
        "GotOcr2ImageProcessorPil",
        size={"height": profile.size, "width": profile.size},
        min_patches=profile.min_patches,
        max_patches=profile.max_patches,
    )
    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokens = tokenizer(list(names.values()), **names)
    options = {"video_processor": None, "image_seq_length": profile.image_seq_length}
    return processor_of(cls, images, tokens, **options), "<IMG_CONTEXT>"


def gemma3(profile: Any, cls: str) -> tuple[Any, str]:
    images = pil("gemma3", "Gemma3ImageProcessorPil")
    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokens = tokenizer(list(names.values()), **names)
    return processor_of(cls, images, tokens, image_seq_length=profile.image_seq_length), "<start_of_image>"


def paligemma(profile: Any, cls: str) -> tuple[Any, str]:
    images = pil("siglip", "SiglipImageProcessorPil", image_seq_length=profile.image_seq_length)
    tokens = tokenizer(["<image>", "<bos>"], image_token="<image>", bos_token="<bos>")
    return processor_of(cls, images, tokens), "<image>"


def pixtral(profile: Any, cls: str) -> tuple[Any, str]:
    name = "transformers.models.pixtral.{}_pixtral"
    with pytest.MonkeyPatch.context() as monkeypatch:
        # It asks for one function, which the module for owners of torchvision and that for Pillow both have.
        monkeypatch.setitem(
            sys.modules, name.format("image_processing"), import_module(name.format("image_processing_pil"))
        )
        monkeypatch.setattr("transformers.PixtralProcessor", import_module(name.format("processing")).PixtralProcessor)
        return _pixtral(profile, cls)


def _pixtral(profile: Any, cls: str) -> tuple[Any, str]:
    images = pil("pixtral", "PixtralImageProcessorPil", size={"longest_edge": profile.longest_edge})
    tokens = tokenizer(["[IMG]", "[IMG_BREAK]", "[IMG_END]"])
    cells = {"patch_size": profile.patch_size, "spatial_merge_size": profile.spatial_merge_size}
    return processor_of(cls, images, tokens, **cells), "[IMG]"


BUILDERS: dict[str, tuple[Callable[[Any, str], tuple[Any, str]], str]] = {
    "qwen2-vl": (qwen, "Qwen2VLProcessor"),
    "qwen2.5-vl": (qwen, "Qwen2_5_VLProcessor"),
    "qwen3-vl": (qwen, "Qwen3VLProcessor"),
    "smolvlm": (idefics, "SmolVLMProcessor"),
    "idefics3": (idefics, "Idefics3Processor"),
    "llava-1.5": (llava, "LlavaProcessor"),
    "llava-next": (llava, "LlavaNextProcessor"),
    "llava-onevision": (llava, "LlavaOnevisionProcessor"),
    "internvl3": (internvl, "InternVLProcessor"),
    "gemma-3": (gemma3, "Gemma3Processor"),
    "paligemma": (paligemma, "PaliGemmaProcessor"),
    "pixtral": (pixtral, "PixtralProcessor"),
    "mistral-3": (pixtral, "PixtralProcessor"),
}


@cache
def real(spec: str) -> tuple[Any, str]:
    build, cls = BUILDERS[spec.partition(":")[0]]
    return build(get_profile(spec), cls)


AROUND = {"gemma-3": (2, 0), "paligemma": (0, 2)}
"""What a processor writes of its own around each image and around the text. In a profile it belongs to the template:
empty lines join with the text beside them."""


def tokens_of(spec: str, sizes: list[ImageSize]) -> int:
    """How many ids the real processor makes of images with nothing around them."""
    from PIL import Image

    processor, marker = real(spec)
    images = [Image.new("RGB", size) for size in sizes]
    # Nested, as a chat template passes the images of one conversation.
    ids = processor(images=[images], text=[marker * len(images)], add_special_tokens=False)["input_ids"]
    an_image, a_text = AROUND.get(spec.partition(":")[0], (0, 0))
    return len(ids[0]) - an_image * len(images) - a_text


def ours(spec: str, sizes: list[ImageSize]) -> int:
    tokens = real(spec)[0].tokenizer
    counts = [
        get_profile(spec).image_tokens(
            size, len(sizes), lambda text: len(tokens(text, add_special_tokens=False).input_ids)
        )
        for size in sizes
    ]
    assert all(count.exact for count in counts)
    return sum(count.low for count in counts)


def library() -> dict[str, dict[str, Any]]:
    """Options of profiles as the defaults of transformers have them, where these are the reference checkpoint's."""
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
    cells = pil("pixtral", "PixtralImageProcessorPil")
    qwen = pil("qwen2_vl", "Qwen2VLImageProcessorPil")
    tiles = pil("idefics3", "Idefics3ImageProcessorPil")
    patches = pil("got_ocr2", "GotOcr2ImageProcessorPil")
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


def test_constants_are_those_of_the_library() -> None:
    """The others are in the checkpoints alone: the most pixels of Qwen, both limits of Qwen3-VL, all of SmolVLM and
    PaliGemma."""
    for name, expected in library().items():
        profile = get_profile(name)
        assert {option: getattr(profile, option) for option in expected} == expected, name


def test_every_family_of_transformers_is_compared() -> None:
    assert [name for name in PROFILES if not name.startswith("phi")] == list(BUILDERS)


LEAST = 28
"""Pixels a side that are a single token of Mistral 3."""
SPECS = [
    *BUILDERS,
    "qwen2-vl:min_pixels=50000,max_pixels=200000",
    "qwen3-vl:patch_size=14,max_pixels=100000",
    "smolvlm:longest_edge=2048,max_image_size=512,image_seq_len=64",
    "smolvlm:longest_edge=1100,max_image_size=365",  # a side that is odd, and no multiple of the tile
    "llava-onevision:anyres_max=4",
    "internvl3:max_patches=6,size=224,image_seq_length=64",
    "pixtral:longest_edge=333,patch_size=14",
    "gemma-3:image_seq_length=64",
]
# Three pixels or fewer are taken for colour channels by the processors.
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
@example(size=ImageSize(4, 1333))  # Pixtral at 333: scaled to a width of nothing
def test_one_image(spec: str, size: ImageSize) -> None:
    assume(spec != "mistral-3" or max(size) > LEAST)
    try:
        expected = tokens_of(spec, [size])
    except ValueError as error:
        assert re.search(r"aspect ratio|height and width must be > 0|(height|width)=0\b", str(error)), error
        with pytest.raises(UnsupportedShape):
            ours(spec, [size])
    else:
        assert ours(spec, [size]) == expected


def test_a_single_token_that_mistral_fails_on() -> None:
    """Its processor takes the image, but the model fails."""
    assert tokens_of("mistral-3", [ImageSize(LEAST, LEAST)]) == 2
    with pytest.raises(UnsupportedShape, match="28 x 28 pixels are too few"):
        ours("mistral-3", [ImageSize(LEAST, LEAST)])
    assert (
        ours("mistral-3", [ImageSize(LEAST + 1, LEAST)]) == tokens_of("mistral-3", [ImageSize(LEAST + 1, LEAST)]) == 3
    )


@pytest.mark.parametrize("spec", BUILDERS)
@settings(max_examples=3)
@given(sizes=st.lists(SIZES.filter(lambda size: max(size) < 20 * min(size)), min_size=2, max_size=3))
def test_several_images_in_a_row(spec: str, sizes: list[ImageSize]) -> None:
    assume(spec != "mistral-3" or min(map(max, sizes)) > LEAST)
    assert ours(spec, sizes) == tokens_of(spec, sizes)


@pytest.mark.parametrize("name", ["qwen2-vl", "qwen2.5-vl", "qwen3-vl"])
def test_a_ratio_that_qwen_refuses(name: str) -> None:
    assert ours(name, [ImageSize(4, 800)]) == tokens_of(name, [ImageSize(4, 800)])
    with pytest.raises(ValueError, match="aspect ratio"):
        tokens_of(name, [ImageSize(4, 801)])
    with pytest.raises(UnsupportedShape, match="4 x 801 pixels: one side is more than 200 times the other"):
        ours(name, [ImageSize(4, 801)])
