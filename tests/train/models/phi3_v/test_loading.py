"""Test loading Phi-3-vision through transformers, and the configuration of Phi-3-vision-128k."""

import json
import shutil
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from convkit.schema import Row
from convkit.train import models
from convkit.train.models.phi3_v.configuration import Phi3VConfig
from convkit.train.models.phi3_v.modeling import Phi3VForCausalLM

PROMPT = "<|user|>\n<|image_1|>\nWhat is it?<|end|>\n<|assistant|>\n"


@pytest.fixture(scope="module")
def inputs(checkpoint: Path) -> Any:
    return AutoProcessor.from_pretrained(checkpoint)(PIL.Image.effect_noise((60, 40), 40), PROMPT, num_crops=1)


def _load(directory: Path, **options: Any) -> Any:
    return AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32, **options).eval()


def _logits(model: Any, inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(**inputs).logits
    return logits


@pytest.mark.parametrize("sharded", [False, True])
def test_a_device_map_gives_the_same_logits(checkpoint: Path, inputs: Any, tmp_path: Path, sharded: bool) -> None:
    expected = _logits(plain := _load(checkpoint), inputs)
    directory = checkpoint
    if sharded:
        directory = tmp_path / "sharded"
        plain.save_pretrained(directory, max_shard_size="60KB")
        assert len(list(directory.glob("*.safetensors"))) > 1
    assert torch.equal(_logits(_load(directory, device_map="auto"), inputs), expected)
    parts = ("embed_tokens", "vision_embed_tokens", "layers.0", "layers.1", "norm")
    device_map = {**{f"model.{part}": "disk" if part == "layers.1" else "cpu" for part in parts}, "lm_head": "disk"}
    offloaded = _load(directory, device_map=device_map, offload_folder=tmp_path / "offload")
    assert offloaded.model.layers[1].self_attn.qkv_proj.weight.device.type == "meta"
    assert torch.equal(_logits(offloaded, inputs), expected)
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}
    assert torch.equal(offloaded.generate(**inputs, **options), plain.generate(**inputs, **options))


@pytest.mark.filterwarnings("ignore")  # bitsandbytes warns about missing kernels
def test_bitsandbytes_loads_the_model_in_4_bits(checkpoint: Path, inputs: Any, tmp_path: Path) -> None:
    modules = pytest.importorskip("bitsandbytes", reason="bitsandbytes").nn
    from transformers import BitsAndBytesConfig

    config = Phi3VConfig.from_pretrained(checkpoint)
    config.vision_config.hidden_size = 64  # a row of weights must fill blocks of 64
    torch.manual_seed(0)
    Phi3VForCausalLM(config).save_pretrained(tmp_path)
    expected = _logits(_load(tmp_path), inputs)
    model = _load(tmp_path, quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"))
    packed = [name for name, module in model.named_modules() if isinstance(module, modules.Linear4bit)]
    assert {name.rpartition(".")[2] for name in packed} >= {"qkv_proj", "down_proj", "q_proj", "fc1", "2"}
    assert type(model.lm_head) is torch.nn.Linear
    found = _logits(model, inputs)
    assert 0 < (found - expected).norm() / expected.norm() < 0.3
    assert model.generate(**inputs, max_new_tokens=3, min_new_tokens=3).shape[1] == inputs["input_ids"].shape[1] + 3


def test_a_missing_flash_attn_package_is_reported(checkpoint: Path) -> None:
    with pytest.raises(ImportError, match="FlashAttention2"):
        _load(checkpoint, attn_implementation="flash_attention_2")


@pytest.fixture
def phi3_vision(checkpoint: Path, tmp_path: Path) -> Path:
    """Write a checkpoint with the differences of Phi-3-vision-128k: rotary factors, sliding window, 16 tiles."""
    directory = Path(shutil.copytree(checkpoint, tmp_path / "phi3_vision"))
    config = json.loads((directory / "config.json").read_bytes())
    config["sliding_window"] = config["max_position_embeddings"]
    config["_attn_implementation"] = "flash_attention_2"
    config["auto_map"] = {"AutoConfig": "configuration_phi3_v.Phi3VConfig"}
    factors = {"short_factor": [1.05, 1.05, 1.1, 1.25, 1.45, 1.85, 2.0, 2.1], "long_factor": [1.03, *range(2, 9)]}
    config["rope_scaling"] = {"type": "su", **factors}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "processor_config.json").unlink()
    images = {"num_crops": 16, "num_img_tokens": 144, "image_processor_type": "Phi3VImageProcessor"}
    images |= {"auto_map": {"AutoProcessor": "processing_phi3_v.Phi3VProcessor"}, "processor_class": "Phi3VProcessor"}
    (directory / "preprocessor_config.json").write_text(json.dumps(images))
    return directory


def test_phi_3_vision_128k_keeps_its_own_configuration(phi3_vision: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert Phi3VConfig().pad_token_id == 32000  # its config.json has none
    family = models.model_family(phi3_vision)
    assert family.profile == "phi-3.5-vision:num_crops=16"
    PIL.Image.effect_noise((900, 700), 40).save(tmp_path / "a.png")
    turn = {"images": ["a.png"], "user": "What?", "assistant": "Yes."}
    row = Row.model_validate({"id": "r1", "source": "s", "conversations": [turn]})
    sample = family.encode(row, tmp_path)
    assert len(family.tiles(sample)) == 16
    model = family.load(torch.float32, "sdpa").eval()
    assert model.config.sliding_window is None
    assert model.model.rotary_emb.factors[0][:2] == [1.05, 1.05]
    batch = family.collate([sample], packed=True)
    with torch.no_grad():
        loss = model(**batch).loss
        assert loss != models.model_family(checkpoint).load(torch.float32, "sdpa").eval()(**batch).loss  # other factors
    model.save_pretrained(tmp_path / "saved")
    family.save_processor(tmp_path / "saved")
    again = models.model_family(tmp_path / "saved")
    assert again.profile == family.profile
    with torch.no_grad():
        assert torch.equal(again.load(torch.float32, "sdpa").eval()(**batch).loss, loss)
    saved = json.loads((tmp_path / "saved/config.json").read_bytes())
    assert saved["rope_scaling"] == json.loads((phi3_vision / "config.json").read_bytes())["rope_scaling"]
