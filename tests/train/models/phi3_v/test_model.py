"""Test Phi-3-vision with random weights: packing, generation, checkpoints and LoRA adapters."""

import json
from pathlib import Path
from typing import Any

import peft
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText

from convkit.errors import ConvkitError
from convkit.schema import Row
from convkit.train import models
from convkit.train.models import registration, tiny
from convkit.train.models.collate import Sample, pack, pad
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.models.phi3_v.modeling import Phi3VForCausalLM
from convkit.train.models.tokenize import IGNORE_INDEX
from tests.conftest import ROOT
from tests.train.conftest import TEXTS

PROMPT = "<|user|>\n<|image_1|>\nWhat is it?<|end|>\n<|assistant|>\n"


def _picture(seed: int, size: tuple[int, int] = (60, 40)) -> PIL.Image.Image:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
    return PIL.Image.fromarray(pixels.numpy())


def _sample(family: Phi3VFamily, seed: int, extra: int = 0, image: bool = True) -> Sample:
    """Make a document with or without an image, with `extra` random tokens."""
    text = PROMPT if image else PROMPT.replace("<|image_1|>", "")
    inputs = family.processor(_picture(seed) if image else None, text, num_crops=1)
    tail = torch.randint(260, 300, (extra + 4,), generator=torch.Generator().manual_seed(seed))
    ids = torch.cat((inputs["input_ids"][0], tail))
    labels = ids.clone()
    labels[: -len(tail)] = IGNORE_INDEX
    return Sample(ids, labels, {n: inputs[n] for n in ("pixel_values", "image_sizes") if n in inputs})


def _alone(model: Phi3VForCausalLM, sample: Sample) -> Any:
    return model(sample.input_ids[None], labels=sample.labels[None], **sample.image_inputs)


def _shrink(model: Phi3VForCausalLM, boundary: int) -> None:
    """Lower the boundary between short and long rotary factors, to keep tests fast."""
    model.model.rotary_emb.boundary = boundary


def _compare_packed_with_single(model: Phi3VForCausalLM, samples: list[Sample]) -> Tensor:
    """Compare logits and gradients of packed documents with single ones; return the concatenated logits."""
    model.zero_grad()
    alone = [_alone(model, sample) for sample in samples]
    weights = [(sample.labels[1:] != IGNORE_INDEX).sum() for sample in samples]
    (sum(a.loss * w for a, w in zip(alone, weights, strict=True)) / sum(weights)).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    model.zero_grad()
    packed = model(**pack(samples))
    logits = torch.cat([a.logits[0] for a in alone])
    torch.testing.assert_close(packed.logits[0], logits, atol=1e-5, rtol=1e-5)
    packed.loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    return logits.detach()


@pytest.mark.parametrize("attention", ["varlen", "sdpa", "eager"])
def test_packed_documents_compute_the_same_as_single_ones(family: Phi3VFamily, attention: str) -> None:
    model = family.load(torch.float32, attention).train()
    _shrink(model, 400)
    samples = [_sample(family, 1), _sample(family, 2, extra=90), _sample(family, 3, image=False)]
    assert [len(sample) > 400 for sample in samples] == [False, True, False]
    _compare_packed_with_single(model, samples)


def test_a_packed_document_beyond_4096_tokens_uses_the_long_factors(
    family: Phi3VFamily, model: Phi3VForCausalLM
) -> None:
    samples = [_sample(family, 1), _sample(family, 2, extra=4000), _sample(family, 3)]
    assert [len(sample) > 4096 for sample in samples] == [False, True, False]
    logits = _compare_packed_with_single(model, samples)
    _shrink(model, 100_000)
    with torch.no_grad():
        short_factors = _alone(model, samples[1]).logits[0]
    assert (short_factors - logits[len(samples[0]) : -len(samples[2])]).abs().max() > 1e-3


def test_the_first_token_of_a_packed_document_has_no_label(family: Phi3VFamily) -> None:
    sample = _sample(family, 1, image=False)
    every = Sample(sample.input_ids, sample.input_ids, {})
    packed = pack([every, every])
    assert (packed["labels"] == IGNORE_INDEX).nonzero()[:, 1].tolist() == [0, len(every)]
    assert packed["position_ids"][0].tolist() == [*range(len(every)), *range(len(every))]


def test_padding_does_not_change_logits(family: Phi3VFamily, model: Phi3VForCausalLM) -> None:
    _shrink(model, 400)
    samples = [_sample(family, 1), _sample(family, 2, extra=90)]
    with torch.no_grad():
        batch = model(**pad(samples, family.processor.tokenizer.pad_token_id)).logits
        for row, sample in zip(batch, samples, strict=True):
            torch.testing.assert_close(row[: len(sample)], _alone(model, sample).logits[0], atol=1e-5, rtol=1e-5)


def _generate(model: Phi3VForCausalLM, inputs: Any, **options: Any) -> Any:
    return model.generate(
        **inputs,
        max_new_tokens=8,
        min_new_tokens=8,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        **options,
    )


@pytest.mark.parametrize("boundary", [100_000, 4], ids=["below", "across"])
def test_generation_with_and_without_cache_are_equal(
    family: Phi3VFamily, model: Phi3VForCausalLM, monkeypatch: pytest.MonkeyPatch, boundary: int
) -> None:
    inputs = family.processor(_picture(1), PROMPT, num_crops=1)
    length = inputs["input_ids"].shape[1]
    _shrink(model, boundary if boundary > length else length + boundary)
    cached, plain = _generate(model, inputs), _generate(model, inputs, use_cache=False)
    assert cached.sequences.tolist() == plain.sequences.tolist()
    torch.testing.assert_close(cached.logits, plain.logits, atol=1e-5, rtol=1e-5)
    if boundary == 4:
        monkeypatch.setattr(model, "_crosses_boundary", lambda *_: False)  # without recomputing the prompt
        stale = _generate(model, inputs)
        assert (stale.logits[-1] - plain.logits[-1]).abs().max() > 1e-4


def test_generation_with_cache_crosses_4096_tokens(family: Phi3VFamily, model: Phi3VForCausalLM) -> None:
    sample = _sample(family, 2, extra=4096 - 3 - len(_sample(family, 2)))
    inputs = {
        "input_ids": sample.input_ids[None],
        "attention_mask": torch.ones(1, len(sample)).long(),
        **sample.image_inputs,
    }
    cached, plain = _generate(model, inputs), _generate(model, inputs, use_cache=False)
    assert len(sample) < 4096 < cached.sequences.shape[1]
    torch.testing.assert_close(cached.logits, plain.logits, atol=1e-5, rtol=1e-5)


def test_a_left_padded_batch_generates_the_same_as_single_prompts(family: Phi3VFamily, model: Phi3VForCausalLM) -> None:
    _shrink(model, 336)  # one row crosses the boundary during generation, the other does not
    texts = [PROMPT, "<|user|>\nWhat?<|end|>\n<|assistant|>\n"]
    pictures: list[list[PIL.Image.Image]] = [[_picture(1)], []]
    batch = _generate(model, family.processor(pictures, texts, num_crops=1))
    for row, (text, group) in enumerate(zip(texts, pictures, strict=True)):
        single = _generate(model, family.processor(group, text, num_crops=1))
        for together, alone in zip(batch.logits, single.logits, strict=True):
            torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-5)


def test_beam_search_keeps_the_images_of_each_sequence(family: Phi3VFamily, model: Phi3VForCausalLM) -> None:
    two = PROMPT.replace("<|image_1|>", "<|image_1|><|image_2|>")
    inputs = family.processor([[_picture(1), _picture(2)], [_picture(3), _picture(4)]], [two, two], num_crops=1)
    greedy, beams = _generate(model, inputs), _generate(model, inputs, num_return_sequences=2, num_beams=2)
    assert beams.sequences.shape[0] == 4
    torch.testing.assert_close(beams.logits[0][::2], greedy.logits[0], atol=1e-5, rtol=1e-5)


def test_gradient_checkpointing_does_not_change_gradients(family: Phi3VFamily) -> None:
    model, sample = family.load(torch.float32).train(), _sample(family, 1)
    norms = []
    for checkpointing in (False, True):
        if checkpointing:
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})  # renamed in newer transformers
        model.zero_grad()
        _alone(model, sample).loss.backward()
        norms.append({name: p.grad.norm() for name, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(norms[0], norms[1])


def test_text_without_images_gives_every_trainable_parameter_a_gradient(family: Phi3VFamily) -> None:
    model = family.load(torch.float32).train()
    sample = _sample(family, 1, image=False)
    output = _alone(model, sample)
    output.loss.backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    unused = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert unused and all("encoder.layers.3." in name or "post_layernorm" in name for name in unused)
    with torch.no_grad():
        assert torch.equal(output.logits, _alone(model.eval(), sample).logits)


def test_rotary_tables_are_float32_for_any_model_dtype(family: Phi3VFamily, model: Phi3VForCausalLM) -> None:
    positions = torch.arange(4096)[None]
    exact = model.model.rotary_emb(positions, torch.tensor([[4096]]), torch.float32)
    half = model.to(torch.bfloat16).model.rotary_emb(positions, torch.tensor([[4096]]), torch.float32)
    assert torch.equal(exact[0], half[0]) and torch.equal(exact[1], half[1])
    assert exact[0][0, 0, 0].item() == pytest.approx(1.1902380714)


@pytest.mark.parametrize("shard", ["1GB", "60KB"], ids=["whole", "sharded"])
def test_a_saved_checkpoint_has_the_same_tensors(
    family: Phi3VFamily, model: Phi3VForCausalLM, checkpoint: Path, tmp_path: Path, shard: str
) -> None:
    model.save_pretrained(tmp_path, max_shard_size=shard)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert (len(files) > 1) == (shard == "60KB")
    saved = {name: tensor for file in files for name, tensor in load_file(file).items()}
    original = load_file(checkpoint / "model.safetensors")
    assert saved.keys() == original.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in original.items())
    assert "model.vision_embed_tokens.img_processor.vision_model.encoder.layers.3.mlp.fc1.weight" in saved
    again = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32)
    sample = _sample(family, 1)
    with torch.no_grad():
        assert torch.equal(_alone(again, sample).logits, _alone(model, sample).logits)
    config = json.loads((tmp_path / "config.json").read_bytes())
    assert config["rope_scaling"]["type"] == "su" and "rope_parameters" not in config and "auto_map" not in config


def _changed(checkpoint: Path, directory: Path, added: dict[str, Tensor], drop: str | None = None) -> Path:
    tensors = load_file(checkpoint / "model.safetensors")
    if drop:
        del tensors[drop]
    (directory / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    save_file(tensors | added, directory / "model.safetensors", {"format": "pt"})
    return directory


def test_extra_copies_of_embeddings_and_positions_are_dropped(checkpoint: Path, tmp_path: Path) -> None:
    vision = "model.vision_embed_tokens."
    added = {
        f"{vision}wte.weight": torch.ones(2),
        f"{vision}img_processor.vision_model.embeddings.position_ids": torch.arange(577),
    }
    model = Phi3VForCausalLM.from_pretrained(_changed(checkpoint, tmp_path, added))
    assert not added.keys() & model.state_dict().keys()


def test_missing_and_unexpected_tensors_are_named(checkpoint: Path, tmp_path: Path) -> None:
    directory = _changed(checkpoint, tmp_path, {"model.alien": torch.ones(2)}, drop="model.norm.weight")
    with pytest.raises(ConvkitError, match=r"1 missing: model\.norm\.weight.*1 not part of this model: model\.alien"):
        Phi3VForCausalLM.from_pretrained(directory)


def test_an_unknown_model_type_is_reported_with_the_supported_list(tmp_path: Path) -> None:
    with pytest.raises(ConvkitError, match="is missing or has no model_type"):
        models.model_family(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConvkitError, match=r"'llama', which convkit cannot train. Supported: phi3_v"):
        models.model_family(tmp_path)


@pytest.mark.parametrize("version", ["5.16.1", "5.24.0", "6.0.0.dev0", "4.57.6"])
def test_unsupported_transformers_versions_are_rejected(version: str) -> None:
    with pytest.raises(ConvkitError, match=rf"transformers {version} is installed.*Run: pip install 'transformers>="):
        registration.check_version(version)
    registration.check_version("5.17.0")
    assert "transformers>=5.17,<5.24" in (ROOT / "pyproject.toml").read_text()


def test_the_model_family_is_found_by_model_type(checkpoint: Path) -> None:
    assert isinstance(models.model_family(checkpoint), Phi3VFamily)


def test_placeholders_must_match_the_images(family: Phi3VFamily, model: Phi3VForCausalLM) -> None:
    inputs = family.processor(_picture(1), PROMPT, num_crops=1)
    with pytest.raises(ConvkitError, match="no pixel_values"):
        model(inputs["input_ids"])
    with pytest.raises(ConvkitError, match="placeholders for 312 image tokens, but the images make 313"):
        model(**{**inputs, "input_ids": inputs["input_ids"][:, 5:], "attention_mask": None})


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")  # raised inside peft
def test_a_lora_adapter_computes_the_same_when_saved_and_merged(
    family: Phi3VFamily, model: Phi3VForCausalLM, tmp_path: Path
) -> None:
    sample = _sample(family, 1)
    config = peft.LoraConfig(r=4, target_modules=list(family.lora_targets), init_lora_weights=False)
    adapted = peft.get_peft_model(model, config).eval()
    assert not any("vision" in name for name, p in adapted.named_parameters() if p.requires_grad)
    with torch.no_grad():
        expected = _alone(adapted, sample).logits
    adapted.save_pretrained(tmp_path, save_embedding_layers=False)
    assert list(tmp_path.glob("*.safetensors"))
    again = peft.PeftModel.from_pretrained(family.load(torch.float32).eval(), tmp_path)
    with torch.no_grad():
        assert torch.equal(_alone(again, sample).logits, expected)
        merged = _alone(again.merge_and_unload(), sample).logits
    torch.testing.assert_close(merged, expected, atol=1e-4, rtol=1e-4)


def test_training_overfits_eight_documents(family: Phi3VFamily, tmp_path: Path) -> None:
    _picture(1).save(tmp_path / "a.png")
    turns = [{"images": ["a.png"][:i], "user": f"What is {i}?", "assistant": f"It is {7 * i}."} for i in range(8)]
    rows = [
        Row.model_validate({"id": str(i), "source": "s", "conversations": [turn]})
        for i, turn in enumerate(turns[:2] + [{**turn, "images": []} for turn in turns[2:]])
    ]
    model = family.load(torch.float32).train()
    batch = family.collate([family.encode(row, tmp_path) for row in rows], packed=True)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(60):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.05
    inputs = family.collate([family.encode_prompt(rows[3], tmp_path)], packed=False)
    del inputs["labels"]
    output = model.eval().generate(
        **inputs, max_new_tokens=20, do_sample=False, eos_token_id=list(family.stop_token_ids)
    )
    tokens = output[0, inputs["input_ids"].shape[1] :]
    assert family.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip() == "It is 21."


def test_tiny_checkpoints_are_reproducible(checkpoint: Path, tmp_path: Path) -> None:
    tiny.phi3_v(tmp_path, TEXTS)
    for file in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / file).read_bytes() == (checkpoint / file).read_bytes()
