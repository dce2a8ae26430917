"""Train our model the recipe's way, as a baseline for training speed.

Differences from `convkit train`:
- one row per micro-batch, no sequence packing;
- every image padded with crops of zeros to num_crops + 1, all of which CLIP encodes;
- logits of all tokens, in float32;
- activation checkpointing in all layers, no compilation;
- weights and moments in bfloat16, except LoRA adapters, which peft keeps in float32; torch's AdamW.

Both ways use the same attention kernels.
"""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor

from convkit.train.bench.random_model import RandomPhi3V
from convkit.train.config import Config
from convkit.train.distributed.world import World
from convkit.train.models.kernels.lora import unfuse_lora
from convkit.train.models.phi3_v.image_processing import Sizes
from convkit.train.models.phi3_v.modeling import Phi3VForCausalLM
from convkit.train.models.phi3_v.vision import ImageEmbedding
from convkit.train.optim.adamw import BETAS, EPS, AdamW
from convkit.train.optim.sharding.replicated import Replicated


def recipe_config(config: Config) -> Config:
    """Return the same configuration with the recipe's options."""
    return replace(config, batch_size_per_gpu=1, gradient_checkpointing="all", compile=False, optim="adamw", fp8=False)


class PaddedImageEmbedding(ImageEmbedding):
    """Encodes the same number of crops for every image, and drops the embeddings of padding crops."""

    crops: int

    def _crops(self, pixel_values: Tensor, image_sizes: Sizes) -> list[Tensor]:
        real = super()._crops(pixel_values, image_sizes)
        return [F.pad(image, (0, 0) * 3 + (0, self.crops - len(image))) for image in real]

    def _sequence(self, features: Tensor, h: int, w: int) -> Tensor:
        return super()._sequence(features[: 1 + h * w], h, w)


class RecipeFamily(RandomPhi3V):
    """The random model, with images padded to num_crops + 1 crops."""

    def load(self, *args: Any, **kwargs: Any) -> Phi3VForCausalLM:
        model = super().load(*args, **kwargs)
        images = model.model.vision_embed_tokens
        images.__class__ = PaddedImageEmbedding  # its weights stay the same
        images.crops = self.num_crops + 1
        return model


class RecipeSharding(Replicated):
    """Weights in bfloat16, logits of all tokens, and torch's AdamW."""

    def __init__(self, model: Any, config: Config, world: World) -> None:
        if config.precision == "bfloat16" and not config.use_lora:
            model = model.to(torch.bfloat16)
        unfuse_lora(model)
        super().__init__(model, config, world)
        self.optimizer = AdamW(
            list(self._trained.values()),
            lr=config.learning_rate,
            betas=BETAS,
            eps=EPS,
            weight_decay=config.weight_decay,
        )

    def forward(self, **batch: Any) -> Any:
        labels, total = batch.pop("labels"), batch.pop("num_items_in_batch")
        batch.pop("logits_to_keep", None)
        output = self.model(**batch)
        base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        output.loss = base.loss_function(
            logits=output.logits.float(),
            labels=labels,
            vocab_size=base.config.vocab_size,
            num_items_in_batch=total,
        )
        return output
