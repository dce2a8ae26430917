"""What generation asks of Phi-3-vision beside the forward pass: other rotary factors on the way, images of beams."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin

from convkit.errors import ConvkitError
from convkit.profiles.phi3 import TILE


class Generation(GenerationMixin):  # type: ignore[misc]
    """For a causal language model whose `model` has a `rotary_emb`."""

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
        """Inputs of one step; where a sequence outgrows the short rotary factors, all is read once more.

        Everything in the cache depends on the factors, so that none of it is right beyond the boundary.
        """
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        if past and self._outgrown(input_ids, attention_mask, past):
            if kwargs.get("inputs_embeds") is not None:
                raise ConvkitError(
                    f"Generation from inputs_embeds cannot go beyond {self.model.rotary_emb.boundary:,} tokens, where "
                    "the prompt must be read again: pass input_ids, pixel_values and image_sizes."
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

    def _outgrown(self, input_ids: Tensor, attention_mask: Tensor | None, past: int) -> bool:
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
        """Repeat sequences for beams; their images are repeated by sequence too, not one by one."""
        media = {name: model_kwargs.pop(name, None) for name in ("pixel_values", "image_sizes")}
        if expand_size > 1 and input_ids is not None and media["image_sizes"] is not None:
            media = _repeat_images(media, placeholders(input_ids, self.config.image_token_id), expand_size)
        expanded, model_kwargs = super()._expand_inputs_for_generation(
            expand_size, is_encoder_decoder, input_ids, **model_kwargs
        )
        return expanded, model_kwargs | {name: value for name, value in media.items() if value is not None}


def placeholders(input_ids: Tensor, image_token_id: int) -> Tensor:
    """Where images stand: the placeholder, or the negative numbers that the official processor writes."""
    return (input_ids == image_token_id) | (input_ids < 0)


def _repeat_images(media: dict[str, Any], places: Tensor, times: int) -> dict[str, Any]:
    """Repeat each sequence's images as a group; an image is a run of placeholders, for a BOS follows every image."""
    starts = places & ~nn.functional.pad(places[:, :-1], (1, 0))
    sizes, pixels = media["image_sizes"], media["pixel_values"]
    tiles = [1] * len(sizes) if pixels.dim() == 5 else (sizes // TILE).prod(dim=1).tolist()
    images = list(zip(torch.split(pixels, tiles), torch.split(sizes, 1), strict=True))
    repeated: list[tuple[Tensor, Tensor]] = []
    for count in starts.sum(dim=1).tolist():
        own, images = images[:count], images[count:]
        repeated += own * times
    return {"pixel_values": torch.cat([p for p, _ in repeated]), "image_sizes": torch.cat([s for _, s in repeated])}
