"""Test Phi-3.5-vision against the official code: ids, sizes, pixels, logits, loss, gradients, generation."""

import json
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

from convkit.train.models.phi3_v.configuration import LONG_FACTORS, SHORT_FACTORS, Phi3VConfig
from convkit.train.models.phi3_v.image_processing import Phi3VImageProcessor, hd_size
from convkit.train.models.phi3_v.modeling import Phi3VForCausalLM
from convkit.train.models.phi3_v.processing import Phi3VProcessor

CASES = [
    "doc_16crops",
    "pair_4crops",
    "small_1crop",
    "multi_turn_images_in_two_turns",
    "video_8frames_4crops_long",
]


@cache
def _expected(reference: Path) -> dict[str, Tensor]:
    return load_file(reference / "expected.safetensors")


@cache
def _cases(reference: Path) -> dict[str, Any]:
    cases: dict[str, Any] = json.loads((reference / "cases.json").read_bytes())
    return cases


@cache
def _processor(reference: Path) -> Any:
    return AutoProcessor.from_pretrained(reference)


@cache
def _model(reference: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(reference, dtype=torch.float32)


def _images(reference: Path, case: dict[str, Any]) -> list[PIL.Image.Image]:
    if isinstance(case["images"], str):
        return [PIL.Image.fromarray(frame.numpy()) for frame in _expected(reference)["video_frames_rgb"]]
    return [PIL.Image.open(reference.parents[1] / "data" / path) for path in case["images"]]


def _inputs(reference: Path, name: str, **options: Any) -> Any:
    case = _cases(reference)[name]
    return _processor(reference)(_images(reference, case), case["prompt"], num_crops=case["num_crops"], **options)


def test_auto_classes_load_convkits_classes_without_remote_code(reference: Path) -> None:
    assert type(AutoConfig.from_pretrained(reference)) is Phi3VConfig
    with suppress(ImportError):  # before 5.23, AutoImageProcessor needs torchvision
        assert type(AutoImageProcessor.from_pretrained(reference)) is Phi3VImageProcessor
    assert type(_processor(reference)) is Phi3VProcessor
    assert type(_model(reference)) is Phi3VForCausalLM
    assert _model(reference).config._attn_implementation == "sdpa"  # the file requires flash attention


def test_default_configuration_has_the_official_sizes(reference: Path) -> None:
    file = reference.parent / "phi35_vision_official" / "config.json"
    values = json.loads(file.read_bytes())
    ours, official = Phi3VConfig(), Phi3VConfig.from_pretrained(file.parent)
    for name in values.keys() - {"_name_or_path", "architectures", "auto_map", "torch_dtype", "transformers_version"}:
        if name not in ("_attn_implementation", "rope_scaling", "rope_theta", "sliding_window"):
            assert getattr(ours, name) == getattr(official, name), name
    assert ours.rope_parameters and ours.rope_parameters["rope_theta"] == values["rope_theta"]
    for ours_, theirs in ((SHORT_FACTORS, "short_factor"), (LONG_FACTORS, "long_factor")):
        assert torch.equal(torch.tensor(ours_), torch.tensor(values["rope_scaling"][theirs]))
    with torch.device("meta"):
        model = Phi3VForCausalLM(ours)
    assert (len(model.state_dict()), sum(p.numel() for p in model.parameters())) == (592, 4_146_621_440)


def test_image_sizes_equal_the_official_ones(reference: Path) -> None:
    rows = json.loads((reference / "hd_sizes.json").read_bytes())
    assert len(rows) == 189
    for row in rows:
        size = hd_size(row["width"], row["height"], row["num_crops"])
        assert (*size.padded, size.tokens) == (row["padded_height"], row["padded_width"], row["tokens"]), row


def test_token_ids_equal_the_official_ones(reference: Path) -> None:
    tokenizer = _processor(reference).tokenizer
    for row in _cases(reference)["_tokenizer"]:
        assert tokenizer(row["text"]).input_ids == row["with_bos"]
        assert tokenizer(row["text"], add_special_tokens=False).input_ids == row["without_bos"]


@pytest.mark.parametrize("name", CASES)
def test_pixels_in_the_official_layout_equal_the_official_ones(reference: Path, name: str) -> None:
    inputs, case = _inputs(reference, name, official_layout=True), _cases(reference)[name]
    pixels = inputs["pixel_values"]
    assert list(pixels.shape) == case["pixel_values_shape"]
    torch.testing.assert_close(
        pixels[..., ::24, ::24], _expected(reference)[f"{name}.pixel_values_subsampled"], atol=1e-5, rtol=0
    )
    assert pixels.mean().item() == pytest.approx(case["pixel_mean"], abs=1e-5)


def test_every_pixel_of_one_image_equals_the_official_one(reference: Path) -> None:
    image = PIL.Image.open(reference.parents[1] / "data/images/skimage/coffee.png")
    pixels = _processor(reference).image_processor(image, num_crops=1, official_layout=True)["pixel_values"]
    torch.testing.assert_close(pixels, _expected(reference)["coffee_1crop.pixel_values"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_logits_loss_and_gradients_equal_the_official_ones(reference: Path, name: str) -> None:
    case, model = _cases(reference)[name], _model(reference)
    inputs = _inputs(reference, name)
    expected = {
        key.removeprefix(f"{name}."): tensor
        for key, tensor in _expected(reference).items()
        if key.startswith(f"{name}.")
    }
    answer = _processor(reference).tokenizer(case["answer"], add_special_tokens=False).input_ids
    ids = torch.cat((inputs["input_ids"], torch.tensor([answer])), dim=1)
    placeholder = _processor(reference).image_token_id
    assert torch.equal(ids[0], expected["input_ids"].where(expected["input_ids"] >= 0, placeholder))
    assert torch.equal(inputs["image_sizes"], expected["image_sizes"])

    where = expected["logit_positions"]
    with torch.no_grad():
        embeddings = model.model.embed(ids, inputs["pixel_values"], inputs["image_sizes"])
    torch.testing.assert_close(embeddings[0, where], expected["inputs_embeds"], atol=1e-4, rtol=0)
    model.zero_grad()
    output = model(
        ids,
        pixel_values=inputs["pixel_values"],
        image_sizes=inputs["image_sizes"],
        labels=expected["labels"][None],
    )
    logits = output.logits[0, where].detach()
    torch.testing.assert_close(logits[:, ::16], expected["logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(logits.logsumexp(-1), expected["logsumexp"], atol=1e-4, rtol=0)
    assert output.loss.item() == pytest.approx(case["loss"], abs=1e-5)
    output.loss.backward()
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
    # A key's bias shifts all scores of a query equally, so its gradient is rounding noise around zero.
    assert norms == pytest.approx(case["grad_norms"], rel=1e-3, abs=1e-6)


def test_official_placeholders_and_pixels_are_accepted(reference: Path) -> None:
    name = "pair_4crops"
    official, ours = _inputs(reference, name, official_layout=True), _inputs(reference, name)
    negative = _expected(reference)[f"{name}.input_ids"][None, : ours["input_ids"].shape[1]]
    with torch.no_grad():
        theirs = _model(reference)(
            negative, pixel_values=official["pixel_values"], image_sizes=official["image_sizes"], logits_to_keep=1
        )
        plain = _model(reference)(**ours, logits_to_keep=1)
    torch.testing.assert_close(theirs.logits, plain.logits, atol=1e-5, rtol=0)


def test_greedy_generation_equals_the_reference(reference: Path) -> None:
    """The reference run used its prompt for the first token only, and ones in place of it for the other tokens."""
    inputs, model = _inputs(reference, "small_1crop"), _model(reference)
    expected = _cases(reference)["_greedy_small_1crop"]
    first = model.generate(**inputs, max_new_tokens=1, do_sample=False)[:, -1:]
    ones = torch.cat((torch.ones_like(inputs["input_ids"]), first), dim=1)
    others = model.generate(ones, attention_mask=torch.ones_like(ones), max_new_tokens=11, do_sample=False)
    assert [*first[0].tolist(), *others[0, ones.shape[1] :].tolist()] == expected
