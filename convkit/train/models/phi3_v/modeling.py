"""Phi-3-vision and Phi-3.5-vision, composed of transformers' Phi3 and CLIP modules under the official tensor names.

Shape letters: B sequences, T tokens per sequence, L tokens with the cache, P selected tokens, D width, V vocabulary.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings
from transformers.models.phi3.modeling_phi3 import Phi3DecoderLayer, Phi3MLP, Phi3RMSNorm

from convkit.errors import ConvkitError
from convkit.train.models.kernels.attention import VARLEN
from convkit.train.models.kernels.swiglu import swiglu
from convkit.train.models.loading_info import check_loading_info
from convkit.train.models.phi3_v.configuration import Phi3VConfig
from convkit.train.models.phi3_v.generation import Generation, image_token_mask
from convkit.train.models.phi3_v.image_processing import Sizes
from convkit.train.models.phi3_v.loss import cross_entropy_at
from convkit.train.models.phi3_v.rotary import Rotary
from convkit.train.models.phi3_v.vision import ImageEmbedding


class Phi3VPreTrainedModel(PreTrainedModel):  # type: ignore[misc]
    """Class attributes and weight initialisation that transformers expects."""

    config_class = Phi3VConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["Phi3VDecoderLayer", "ImageEmbedding"]
    _skip_keys_device_placement: ClassVar[list[str]] = ["past_key_values"]
    # Re-saved checkpoints have copies of the token embedding and of the position indices.
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"(^|\.)wte\.weight$", r"(^|\.)position_ids$"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, CLIPVisionEmbeddings):
            init.normal_(module.class_embedding, std=std)
            init.copy_(module.position_ids, torch.arange(module.num_positions).expand((1, -1)))
        elif isinstance(module, ImageEmbedding):
            init.normal_(module.glb_GN, std=std)
            init.normal_(module.sub_GN, std=std)


class Phi3VMLP(Phi3MLP):  # type: ignore[misc]
    """The MLP with silu, through convkit's fused SwiGLU."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Transform hidden states, (…, D) to (…, D)."""
        output: Tensor = self.down_proj(swiglu(self.gate_up_proj(hidden_states)))
        return output


class Phi3VDecoderLayer(Phi3DecoderLayer):  # type: ignore[misc]
    """A decoder layer that can drop tokens after its attention."""

    def __init__(self, config: Phi3VConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        if config.hidden_act == "silu":
            self.mlp.__class__ = Phi3VMLP  # keeps the initialised weights

    def forward(self, hidden_states: Tensor, output_indices: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Run attention and MLP of the layer.

        Args:
            hidden_states: (B, T, D).
            output_indices: (P), the tokens to keep, the same in all sequences. Default: all.
            kwargs: passed to the attention.

        Returns:
            Hidden states, (B, T, D), or (B, P, D) with `output_indices`.
        """
        attended, _ = self.self_attn(self.input_layernorm(hidden_states), **kwargs)
        hidden_states = hidden_states + self.resid_attn_dropout(attended)
        if output_indices is not None:
            hidden_states = hidden_states.index_select(1, output_indices)
        computed = self.mlp(self.post_attention_layernorm(hidden_states))
        result: Tensor = hidden_states + self.resid_mlp_dropout(computed)
        return result


class Phi3VModel(Phi3VPreTrainedModel):
    """The model without its output head: token ids and images to hidden states."""

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__(config)
        config.vision_config._attn_implementation = config._attn_implementation
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.vision_embed_tokens = ImageEmbedding(config)
        self.layers = nn.ModuleList([Phi3VDecoderLayer(config, index) for index in range(config.num_hidden_layers)])
        self.norm = Phi3RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = Rotary(config)
        self.gradient_checkpointing = False
        self.post_init()

    def embed(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None,
        image_sizes: Sizes | None,
        image_token_indices: Tensor | None = None,
    ) -> Tensor:
        """Return the embeddings (B, T, D) of tokens, with image embeddings in place of the placeholders.

        Args:
            input_ids: (B, T).
            pixel_values: see `ImageEmbedding.forward`.
            image_sizes: see `ImageEmbedding.forward`.
            image_token_indices: indices of the placeholders among all B x T tokens. They are optional, and avoid a GPU
                synchronization.

        Raises:
            ConvkitError: images and placeholders do not match.
        """
        is_image = image_token_mask(input_ids, self.config.image_token_id)
        expected = int(is_image.sum()) if image_token_indices is None else len(image_token_indices)
        embeddings: Tensor = self.embed_tokens(input_ids.masked_fill(is_image, 0))
        if pixel_values is None or image_sizes is None or not len(image_sizes):
            if expected:
                raise ConvkitError(
                    f"The input has placeholders for {expected} image tokens, but no pixel_values and image_sizes: "
                    "pass what the processor returned for the images."
                )
            trainable = self.training and any(p.requires_grad for p in self.vision_embed_tokens.parameters())
            return embeddings + self.vision_embed_tokens.zero_contribution().to(embeddings) if trainable else embeddings
        images = self.vision_embed_tokens(pixel_values, image_sizes).to(embeddings)
        if expected != len(images):
            raise ConvkitError(
                f"The input has placeholders for {expected} image tokens, but the images make {len(images)}: "
                "use input_ids, pixel_values and image_sizes from the same call of the processor."
            )
        if image_token_indices is None:
            return embeddings.masked_scatter(is_image[..., None], images)
        return embeddings.flatten(0, 1).index_copy(0, image_token_indices, images).view_as(embeddings)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Sizes | None = None,
        image_token_indices: Tensor | None = None,
        use_cache: bool | None = None,
        cu_seq_lens_q: Tensor | None = None,
        output_indices: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Compute the hidden states of tokens and images.

        Args:
            input_ids: (B, T); pass either these or inputs_embeds.
            attention_mask: (B, L), 1 for each real token; padding may be on either side.
            position_ids: (B, T). Default: derived from the mask.
            past_key_values: the key-value cache.
            inputs_embeds: (B, T, D).
            pixel_values: see `ImageEmbedding.forward`.
            image_sizes: see `ImageEmbedding.forward`; a tensor on a GPU causes a synchronization.
            image_token_indices: see `embed`.
            use_cache: return a cache.
            cu_seq_lens_q: cumulative lengths of the documents packed into B = 1, (documents + 1).
            output_indices: (P), the tokens whose hidden states are returned, (B, P, D). Default: all.
            kwargs: passed to the attention, such as `max_length_q`.
        """
        packed = cu_seq_lens_q is not None
        inputs_embeds = self._embed(input_ids, inputs_embeds, pixel_values, image_sizes, image_token_indices)
        if packed and (len(inputs_embeds) != 1 or position_ids is None or attention_mask is not None):
            raise ValueError("packed documents need one sequence with position_ids and without attention_mask")
        use_cache = self._uses_cache(use_cache, packed)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        if position_ids is None:
            position_ids = _positions(inputs_embeds, attention_mask, past)
        lengths = _lengths(position_ids, attention_mask, cu_seq_lens_q)
        mask, kwargs = self._for_attention(
            {**kwargs, "cu_seq_lens_q": cu_seq_lens_q} if packed else kwargs,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        hidden = inputs_embeds
        tables = self.rotary_emb(position_ids, lengths, hidden.dtype)
        for layer in self.layers:
            hidden = layer(
                hidden,
                output_indices=output_indices if layer is self.layers[-1] else None,
                attention_mask=mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
                position_embeddings=tables,
                **kwargs,
            )
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(hidden), past_key_values=past_key_values if use_cache else None
        )

    def _embed(self, input_ids: Tensor | None, inputs_embeds: Tensor | None, *images: Any) -> Tensor:
        """Return the input embeddings, (B, T, D): those given, or those of tokens and images."""
        if inputs_embeds is not None and input_ids is None:
            return inputs_embeds
        if inputs_embeds is not None or input_ids is None:
            raise ValueError("pass either input_ids or inputs_embeds")
        return self.embed(input_ids, *images)

    def _uses_cache(self, use_cache: bool | None, packed: bool) -> bool:
        if packed or (self.gradient_checkpointing and self.training):
            return False
        return bool(self.config.use_cache) and not self.training if use_cache is None else use_cache

    def _for_attention(self, kwargs: dict[str, Any], **masked: Any) -> tuple[Any, dict[str, Any]]:
        """Return the attention mask, and the arguments that the configured attention accepts."""
        attention = self.config._attn_implementation
        if "cu_seq_lens_q" in kwargs and attention in (VARLEN, "flash_attention_2"):
            mask, unknown = None, set() if attention == VARLEN else _PADDING_KEYS
        else:  # packed documents are found by their restarting positions
            mask, unknown = create_causal_mask(config=self.config, **masked), _PACK_KEYS | _PADDING_KEYS
        return mask, {name: value for name, value in kwargs.items() if name not in unknown}


# transformers generates only with GenerationMixin among the direct bases.
class Phi3VForCausalLM(Generation, Phi3VPreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """The model with its output head: loss, logits and generation."""

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__(config)
        self.model = Phi3VModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """Load a checkpoint in the official layout.

        Raises:
            ConvkitError: tensors are missing, have other shapes, or are not part of this model. It names them.
        """
        kwargs["ignore_mismatched_sizes"] = True  # check_loading_info refuses them, by name
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        check_loading_info(str(args[0]) if args else str(kwargs.get("pretrained_model_name_or_path")), info)
        model.model.vision_embed_tokens.img_processor.vision_model.freeze_unused()  # loading replaces the parameters
        return (model, info) if output_loading_info else model

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Sizes | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Run the model, see `Phi3VModel.forward`.

        Args:
            labels: (B, T), unshifted, -100 at tokens without loss.
            logits_to_keep: the number of last tokens to compute logits for, or their indices; 0 for all. With labels
                and B = 1: the indices of tokens whose next token is supervised; the loss is computed only there.

        Returns:
            `logits`: (B, T, V) float32, or None if the loss was computed at some tokens only; `loss` if labels are
            given; the cache.
        """
        items = kwargs.pop("num_items_in_batch", None)
        supervised = logits_to_keep if labels is not None and isinstance(logits_to_keep, Tensor) else None
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            pixel_values=pixel_values,
            image_sizes=image_sizes,
            use_cache=use_cache,
            output_indices=supervised,
            **kwargs,
        )
        hidden, logits = outputs.last_hidden_state, None
        if supervised is None:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.lm_head(hidden[:, kept]).float()
        loss = None if labels is None else self._loss(hidden, logits, labels, supervised, items)
        result = CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=outputs.past_key_values)
        return result.to_tuple() if return_dict is False else result

    def _loss(
        self, hidden: Tensor, logits: Tensor | None, labels: Tensor, supervised: Tensor | None, items: int | None
    ) -> Tensor:
        """Return the loss: from the logits of all tokens, or from the hidden states (1, P, D) of supervised ones."""
        if supervised is not None:
            return cross_entropy_at(hidden, labels, supervised, self.lm_head, items)
        loss: Tensor = self.loss_function(
            logits=logits, labels=labels, vocab_size=self.config.vocab_size, num_items_in_batch=items
        )
        return loss


_PACK_KEYS = {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"}
_PADDING_KEYS = {"pad_index", "unpad_index"}


def _positions(embeddings: Tensor, attention_mask: Tensor | None, past: int) -> Tensor:
    """Return positions (B, T) that count real tokens only."""
    count = embeddings.shape[1]
    if attention_mask is None or attention_mask.dim() != 2:
        return torch.arange(past, past + count, device=embeddings.device)[None]
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)[:, -count:]


def _lengths(position_ids: Tensor, attention_mask: Tensor | None, cu_seq_lens: Tensor | None) -> Tensor:
    """Return the length of each token's document, (B, 1), or (1, T) for packed documents."""
    if cu_seq_lens is not None:
        documents = cu_seq_lens.diff()
        total = position_ids.shape[-1]  # avoids a GPU synchronization
        return documents.repeat_interleave(documents, output_size=total)[None].to(position_ids.device)
    if attention_mask is not None and attention_mask.dim() == 2:
        return attention_mask.sum(dim=-1, keepdim=True).to(position_ids.device)
    return position_ids.amax(dim=-1, keepdim=True) + 1
