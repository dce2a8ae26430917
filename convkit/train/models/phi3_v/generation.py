"""Generation with Phi-3-vision: switching the rotary factors at 4,096 tokens, and images in beam search."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin

from convkit.errors import ConvkitError
from convkit.profiles.phi3 import TILE


class Generation(GenerationMixin):  # type: ignore[misc]
    """A mixin for causal language models whose `model` has a `rotary_emb`."""

    config: Any
    model: Any

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Prepare the inputs of one step; recompute the whole prompt when a sequence outgrows the short rotary factors.

        All cached keys and values depend on the factors, so the cache is invalid beyond the boundary.

        Raises:
            ConvkitError: the prompt was given as `inputs_embeds`, so it cannot be recomputed.
        """
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        if past and self._crosses_boundary(input_ids, attention_mask, past):
            if kwargs.get("inputs_embeds") is not None:
                raise ConvkitError(
                    f"Generation from inputs_embeds cannot exceed {self.model.rotary_emb.boundary:,} tokens, because "
                    "the prompt must be recomputed there: pass input_ids, pixel_values and image_sizes."
                )
            past_key_values, is_first_iteration = None, True
            kwargs["next_sequence_length"] = None
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        return inputs

    def _crosses_boundary(self, input_ids: Tensor, attention_mask: Tensor | None, past: int) -> bool:
        total = input_ids.shape[1]
        lengths = attention_mask.sum(dim=-1) if attention_mask is not None else torch.tensor([total])
        boundary = self.model.rotary_emb.boundary
        return bool(((lengths > boundary) & (lengths - (total - past) <= boundary)).any())

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[Tensor | None, dict[str, Any]]:
        """Repeat sequences for beam search; the images of each sequence are repeated as a group."""
        image_inputs = {name: model_kwargs.pop(name, None) for name in ("pixel_values", "image_sizes")}
        if expand_size > 1 and input_ids is not None and image_inputs["image_sizes"] is not None:
            image_inputs = _repeat_images(
                image_inputs, image_token_mask(input_ids, self.config.image_token_id), expand_size
            )
        expanded, model_kwargs = super()._expand_inputs_for_generation(
            expand_size, is_encoder_decoder, input_ids, **model_kwargs
        )
        return expanded, model_kwargs | {name: value for name, value in image_inputs.items() if value is not None}


def image_token_mask(input_ids: Tensor, image_token_id: int) -> Tensor:
    """Return a mask of image tokens: the placeholder, or the negative ids of the official processor."""
    return (input_ids == image_token_id) | (input_ids < 0)


def _repeat_images(image_inputs: dict[str, Any], mask: Tensor, times: int) -> dict[str, Any]:
    """Repeat each sequence's images as a group; each run of placeholders is one image, because a BOS follows it."""
    starts = mask & ~nn.functional.pad(mask[:, :-1], (1, 0))
    sizes, pixels = image_inputs["image_sizes"], image_inputs["pixel_values"]
    tiles = [1] * len(sizes) if pixels.dim() == 5 else (sizes // TILE).prod(dim=1).tolist()
    images = list(zip(torch.split(pixels, tiles), torch.split(sizes, 1), strict=True))
    repeated: list[tuple[Tensor, Tensor]] = []
    for count in starts.sum(dim=1).tolist():
        own, images = images[:count], images[count:]
        repeated += own * times
    return {"pixel_values": torch.cat([p for p, _ in repeated]), "image_sizes": torch.cat([s for _, s in repeated])}
