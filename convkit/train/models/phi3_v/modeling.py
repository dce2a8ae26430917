"""Phi-3-vision and Phi-3.5-vision, composed of transformers' Phi3 and CLIP modules under the official tensor names.

Shape letters: B sequences, T tokens of a sequence, L tokens with the cache, P places, D width, V vocabulary.
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
from convkit.train.models.phi3_v.generation import Generation, placeholders
from convkit.train.models.phi3_v.image_processing import Sizes
from convkit.train.models.phi3_v.loss import cross_entropy_at
from convkit.train.models.phi3_v.rotary import Rotary
from convkit.train.models.phi3_v.vision import ImageEmbedding


class Phi3VPreTrainedModel(PreTrainedModel):  # type: ignore[misc]
    """What transformers must know of the family."""

    config_class = Phi3VConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["Phi3VDecoderLayer", "ImageEmbedding"]
    _skip_keys_device_placement: ClassVar[list[str]] = ["past_key_values"]
    # Copies of the token embedding, and numbers that count up, which re-saved checkpoints hold.
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
    """The same for silu, with our SwiGLU."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(…, D) to (…, D)."""
        output: Tensor = self.down_proj(swiglu(self.gate_up_proj(hidden_states)))
        return output


class Phi3VDecoderLayer(Phi3DecoderLayer):  # type: ignore[misc]
    """A layer that goes on after its attention with some tokens alone, if it is told which."""

    def __init__(self, config: Phi3VConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        if config.hidden_act == "silu":
            self.mlp.__class__ = Phi3VMLP  # its weights are those that have been made

    def forward(self, hidden_states: Tensor, places: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Run the layer.

        Args:
            hidden_states: (B, T, D).
            places: (P), of the tokens that somebody reads, in all sequences; all if not given.
            kwargs: for the attention.

        Returns:
            (B, T, D), or (B, P, D) at the places.
        """
        attended, _ = self.self_attn(self.input_layernorm(hidden_states), **kwargs)
        hidden_states = hidden_states + self.resid_attn_dropout(attended)
        if places is not None:
            hidden_states = hidden_states.index_select(1, places)
        computed = self.mlp(self.post_attention_layernorm(hidden_states))
        result: Tensor = hidden_states + self.resid_mlp_dropout(computed)
        return result


class Phi3VModel(Phi3VPreTrainedModel):
    """Token ids and images to hidden states."""

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
        """The embeddings (B, T, D) of tokens, with those of images in the place of their placeholders.

        Args:
            image_token_indices: (N,) indices of the placeholders among all B x T tokens, if known; this avoids
                a GPU synchronization.

        Raises:
            ConvkitError: images and placeholders do not belong together.
        """
        places = placeholders(input_ids, self.config.image_token_id)
        wanted = int(places.sum()) if image_token_indices is None else len(image_token_indices)
        embeddings: Tensor = self.embed_tokens(input_ids.masked_fill(places, 0))
        if pixel_values is None or image_sizes is None or not len(image_sizes):
            if wanted:
                raise ConvkitError(
                    f"The input has placeholders for {wanted} image tokens, but no pixel_values and image_sizes: pass "
                    "what the processor returned for the images."
                )
            trained = self.training and any(p.requires_grad for p in self.vision_embed_tokens.parameters())
            return embeddings + self.vision_embed_tokens.zero_contribution().to(embeddings) if trained else embeddings
        images = self.vision_embed_tokens(pixel_values, image_sizes).to(embeddings)
        if wanted != len(images):
            raise ConvkitError(
                f"The input has placeholders for {wanted} image tokens, but the images make {len(images)}: "
                "use input_ids, pixel_values and image_sizes from the same call of the processor."
            )
        if image_token_indices is None:
            return embeddings.masked_scatter(places[..., None], images)
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
        places: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Run the model.

        Args:
            input_ids: (B, T); either these or inputs_embeds.
            attention_mask: (B, L), one for every token that counts; padding may be on either side.
            position_ids: (B, T); derived from the mask if not given.
            past_key_values: the cache.
            inputs_embeds: (B, T, D).
            pixel_values: see `ImageEmbedding.forward`.
            image_sizes: (N, 2), likewise; on a GPU it is waited for, on the CPU it is not.
            image_token_indices: see `embed`.
            use_cache: return a cache.
            cu_seq_lens_q: where documents that are packed into B = 1 begin, and the end: (documents + 1).
            places: (P), of the tokens whose hidden states are wanted, (B, P, D); all if not given.
            kwargs: for the attention, such as `max_length_q`.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("pass either input_ids or inputs_embeds")
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = self.embed(input_ids, pixel_values, image_sizes, image_token_indices)
        use_cache = self.config.use_cache and not self.training if use_cache is None else use_cache
        packed = cu_seq_lens_q is not None
        if packed and (len(inputs_embeds) != 1 or position_ids is None or attention_mask is not None):
            raise ValueError("a pack is one sequence with position_ids and without attention_mask")
        if packed or (self.gradient_checkpointing and self.training):
            use_cache = False
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
                places=places if layer is self.layers[-1] else None,
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

    def _for_attention(self, kwargs: dict[str, Any], **masked: Any) -> tuple[Any, dict[str, Any]]:
        """The mask, and those of the arguments that the attention in use knows."""
        attention = self.config._attn_implementation
        if "cu_seq_lens_q" in kwargs and attention in (VARLEN, "flash_attention_2"):
            mask, unknown = None, set() if attention == VARLEN else _STACK_KEYS
        else:  # a pack is told by its restarted positions
            mask, unknown = create_causal_mask(config=self.config, **masked), _PACK_KEYS | _STACK_KEYS
        return mask, {name: value for name, value in kwargs.items() if name not in unknown}


# transformers looks for GenerationMixin's name among the bases themselves before it generates.
class Phi3VForCausalLM(Generation, Phi3VPreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """The model with its head: loss, logits and generation."""

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__(config)
        self.model = Phi3VModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """Load a checkpoint in the official layout.

        Raises:
            ConvkitError: tensors are missing, have other shapes, or do not belong to this model; they are named.
        """
        kwargs["ignore_mismatched_sizes"] = True  # as refused as the others, but by name
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        check_loading_info(str(args[0]) if args else str(kwargs.get("pretrained_model_name_or_path")), info)
        model.model.vision_embed_tokens.img_processor.vision_model.freeze_unused()  # loading makes new parameters
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
            labels: (B, T), -100 where nothing is to be learnt; unshifted.
            logits_to_keep: logits of the last so many tokens, or of these; 0 for all. With labels and B = 1, the
                places whose next token is learnt: the loss is taken there alone.

        Returns:
            `logits`: (B, T, V) float32, none where the loss was taken at some places alone; `loss` where labels are
            given; the cache.
        """
        items = kwargs.pop("num_items_in_batch", None)
        learnt = logits_to_keep if labels is not None and isinstance(logits_to_keep, Tensor) else None
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            pixel_values=pixel_values,
            image_sizes=image_sizes,
            use_cache=use_cache,
            places=learnt,
            **kwargs,
        )
        hidden, loss, logits = outputs.last_hidden_state, None, None
        if labels is not None and learnt is not None:
            loss = cross_entropy_at(hidden, labels, learnt, self.lm_head, items)
        else:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.lm_head(hidden[:, kept]).float()
        if labels is not None and logits is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size, num_items_in_batch=items
            )
        result = CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=outputs.past_key_values)
        return result.to_tuple() if return_dict is False else result


_PACK_KEYS = {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"}
_STACK_KEYS = {"stack_rows", "stack_from", "stack_at"}


def _positions(embeddings: Tensor, attention_mask: Tensor | None, past: int) -> Tensor:
    """Positions (B, T) that count real tokens only."""
    count = embeddings.shape[1]
    if attention_mask is None or attention_mask.dim() != 2:
        return torch.arange(past, past + count, device=embeddings.device)[None]
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)[:, -count:]


def _lengths(position_ids: Tensor, attention_mask: Tensor | None, cu_seq_lens: Tensor | None) -> Tensor:
    """The length of the document that a token belongs to, (B, 1), or (1, T) in a pack."""
    if cu_seq_lens is not None:
        documents = cu_seq_lens.diff()
        total = position_ids.shape[-1]  # told, so that the GPU need not be waited for
        return documents.repeat_interleave(documents, output_size=total)[None].to(position_ids.device)
    if attention_mask is not None and attention_mask.dim() == 2:
        return attention_mask.sum(dim=-1, keepdim=True).to(position_ids.device)
    return position_ids.amax(dim=-1, keepdim=True) + 1
