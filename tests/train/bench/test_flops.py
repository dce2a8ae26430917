"""Model FLOPs: the count agrees with torch's own counter, and with a count by hand in the full size."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from convkit.train.bench.flops import ModelFlops, RowSize, row_size
from convkit.train.bench.random_model import RandomPhi3V
from convkit.train.data.loader import MicroBatches
from convkit.train.models.phi3_v.configuration import Phi3VConfig
from convkit.train.models.phi3_v.modeling import Phi3VForCausalLM
from convkit.train.setup import trainable
from tests.train.bench.helpers import CPU, NUM_CROPS, configured, small_data

LORA: dict[str, Any] = {"use_lora": True, "lora_rank": 4, "lora_dropout": 0.1}
METHODS: dict[str, dict[str, Any]] = {
    "full": {},
    "frozen": {"freeze_vision_model": True},
    "lora": LORA,
    "lora, frozen": {**LORA, "freeze_vision_model": True},
}


@pytest.mark.parametrize("name", METHODS)
def test_flops_equal_those_counted_by_torch(name: str, tmp_path: Path) -> None:
    """Compare all products with weights. Attention, which torch does not halve for causality, is counted by hand."""
    family = RandomPhi3V(tmp_path / "model", "tiny", NUM_CROPS, CPU, seed=0)
    data = small_data(family, tmp_path / "data")
    config = configured(tmp_path, gradient_checkpointing="none", **METHODS[name])
    model = trainable.load_for_training(family, config).train()
    batch = MicroBatches(data.index, data.images, family).batch((0,))
    with FlopCounterMode(display=False) as counted:
        model(**batch, num_items_in_batch=1).loss.backward()
    operations = counted.get_flop_counts()["Global"]
    expected = sum(count for name, count in operations.items() if "attention" not in str(name))
    tokens, supervised = data.index.tokens[0], data.index.supervised[0]
    flops = ModelFlops(model).row(row_size(data.index, 0, data.images, NUM_CROPS))
    unsupervised_logits = len(batch.get("logits_to_keep", batch["labels"][0])) - supervised
    unneeded = flops["head"] // supervised * unsupervised_logits
    assert sum(flops.values()) - attention(model, tokens, name) + unneeded == expected


def attention(model: Any, tokens: int, name: str) -> Any:
    """Count attention by hand: two language layers, and three CLIP layers on two crops of 577 patches each."""
    config = model.config
    vision = 2 * 3 * 4 * 577**2 * config.vision_config.hidden_size
    language = 2 * 2 * tokens**2 * config.hidden_size
    return language * 3 + vision * (1 if "frozen" in name else 3)


def test_flops_of_a_page_in_the_full_size() -> None:
    """Compare with a count by hand for 17 crops and 2,559 tokens, with all weights trained."""
    with torch.device("meta"):
        model = Phi3VForCausalLM(Phi3VConfig())
    flops = ModelFlops(model).row(RowSize(tokens=2559, supervised=8, image_tokens=2509, crops=17))
    layer = 3072 * (9216 + 3072 + 16384) + 8192 * 3072
    last_mlp = 3072 * 16384 + 8192 * 3072  # of the last layer, needed at supervised tokens only
    assert flops["language"] == 32 * (6 * layer * 2559 + 3 * 2 * 3072 * 2559**2) - 6 * last_mlp * (2559 - 8)
    encoder = 23 * 17 * (6 * 12 * 1024**2 * 577 + 3 * 4 * 1024 * 577**2)
    patches, projection = 4 * 588 * 1024 * 576 * 17, 6 * (4096 + 3072) * 3072 * 2509
    assert flops["vision"] == encoder + patches + projection
    assert flops["head"] == 6 * 3072 * 32064 * 8
