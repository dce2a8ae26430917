"""Test loading, logits of padded batches, generation, overfitting and saving for each model family."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from convkit.errors import ConvkitError
from convkit.train.models import model_family
from convkit.train.models.hf.family import HuggingFaceFamily
from tests.train.models.hf.rows import SIZES, TURNS, make_row, supported_turns


def without_labels(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name != "labels"}


def test_padding_does_not_change_logits(family: HuggingFaceFamily, images: Path) -> None:
    model = family.load(torch.float32).eval()
    found = [make_row(*supported_turns(family)), make_row(TURNS[1]), make_row(TURNS[2]), make_row(TURNS[0])]
    for make in (family.encode, family.encode_prompt):  # padded on the right, on the left
        samples = [make(one, images) for one in found]
        batch = family.collate(samples, packed=False)
        with torch.no_grad():
            together = model(**without_labels(batch)).logits
            for number, sample in enumerate(samples):
                alone = model(**without_labels(family.collate([sample], packed=False))).logits[0]
                real = batch["attention_mask"][number].bool()
                assert_close(together[number][real], alone, rtol=1e-4, atol=1e-5)


def test_a_batch_generates_the_same_as_its_single_prompts(family: HuggingFaceFamily, images: Path) -> None:
    model = family.load(torch.float32).eval()
    prompts = [family.encode_prompt(make_row(*supported_turns(family, last)), images) for last in (1, 2, 3)]
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": list(family.stop_token_ids)}
    together = model.generate(**without_labels(family.collate(prompts, packed=False)), **options)
    for number, prompt in enumerate(prompts):
        alone = model.generate(**without_labels(family.collate([prompt], packed=False)), **options)[0]
        new = alone[len(prompt) :]
        assert torch.equal(together[number, -together.shape[1] + max(map(len, prompts)) :][: len(new)], new)


def test_training_overfits_eight_rows(family: HuggingFaceFamily, images: Path) -> None:
    torch.manual_seed(0)
    model = family.load(torch.float32).train()
    words = ["cup", "logo", "True", "False", "coffee", "total", "amount", "statement"]
    names = list(SIZES)
    rows = [
        make_row({"images": [names[i % 3]] * (i % 2), "user": f"What is {i}?", "assistant": f"A {word}."})
        for i, word in enumerate(words)
    ]
    batch = family.collate([family.encode(one, images) for one in rows], packed=False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    loss = torch.tensor(9.0)
    for _ in range(80):
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert float(loss.detach()) < 0.05


def test_module_names_of_the_specification_exist_in_the_model(family: HuggingFaceFamily) -> None:
    model = family.load(torch.float32)
    names = [name for name, _ in model.named_parameters()]
    for prefix in family.vision_modules:
        assert any(name.startswith(prefix) for name in names), prefix
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    for end in (*family.lora_targets, *family.vision_lora_targets):
        assert any(name == end or name.endswith(f".{end}") for name in linear), end
    vision = {name for name in linear if name.startswith(family.vision_modules)}
    ends = (*family.lora_targets, *family.vision_lora_targets)
    assert not {name for name in vision if not any(name.endswith(f".{end}") for end in ends)}


def test_a_saved_checkpoint_equals_the_original(family: HuggingFaceFamily, tmp_path: Path) -> None:
    model = family.load(torch.float32)
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    family.save_processor(tmp_path)
    files = sorted(tmp_path.glob("*.safetensors"))
    saved = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert len(files) > 1
    assert_close(saved, load_file(family.directory / "model.safetensors"), rtol=0, atol=0)
    again = model_family(tmp_path)
    assert again.profile == family.profile
    assert_close(again.load(torch.float32, "sdpa").state_dict(), model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["phi3_v", "smolvlm", "qwen2_5_vl"])
def test_missing_extra_and_misshaped_tensors_are_named(
    tiny_checkpoint: Callable[[str], Path], name: str, tmp_path: Path
) -> None:
    directory = shutil.copytree(tiny_checkpoint(name), tmp_path / name)
    weights = directory / "model.safetensors"
    tensors = load_file(weights)
    missing, other = [name for name in tensors if name.endswith("down_proj.weight")][-2:]
    del tensors[missing]
    save_file({**tensors, "model.alien": torch.ones(2), other: torch.ones(3, 3)}, weights, {"format": "pt"})
    part = r"model\.(language_model\.|text_model\.|visual\.)?"
    with pytest.raises(ConvkitError) as refused:
        model_family(directory).load(torch.float32, "sdpa")
    pattern = rf"1 missing: {part}.*1 not part of this model: {part}alien; 1 with a different shape: {part}\S+down_proj"
    assert re.search(pattern, str(refused.value))
