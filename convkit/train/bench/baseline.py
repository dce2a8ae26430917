"""The recipe's way, on our model: what `convkit bench train --baseline recipe` is compared with.

One row at a time; every image filled up with crops of zeros to num_crops + 1, all of which CLIP sees; logits of all
tokens in float32; activations of all layers computed twice; weights and moments in bfloat16, but for adapters, which
peft keeps in float32; and torch's AdamW as it is. The kernels of attention are the same as ours.
"""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (its name everywhere)
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


def configured(config: Config) -> Config:
    """The same run, the recipe's way."""
    return replace(config, batch_size_per_gpu=1, gradient_checkpointing="all", compile=False, optim="adamw", fp8=False)


class FilledUp(ImageEmbedding):
    """Shows CLIP as many crops of every image, and forgets what it says of those that are none."""

    crops: int

    def _crops(self, pixel_values: Tensor, image_sizes: Sizes) -> list[Tensor]:
        real = super()._crops(pixel_values, image_sizes)
        return [F.pad(image, (0, 0) * 3 + (0, self.crops - len(image))) for image in real]

    def _sequence(self, features: Tensor, h: int, w: int) -> Tensor:
        return super()._sequence(features[: 1 + h * w], h, w)


class RecipeFamily(RandomPhi3V):
    """The same model, whose images are filled up."""

    def load(self, *args: Any, **kwargs: Any) -> Phi3VForCausalLM:
        model = super().load(*args, **kwargs)
        images = model.model.vision_embed_tokens
        images.__class__ = FilledUp  # its weights are the same
        images.crops = self.num_crops + 1
        return model


class RecipeSharding(Replicated):
    """Everything in bfloat16, and all logits."""

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
