"""The configuration of Phi-3-vision and Phi-3.5-vision, read from official files and written back in their keys."""

from typing import Any, ClassVar

from transformers import CLIPVisionConfig, Phi3Config

# Phi-3.5-vision's factors, by which the 48 rotary frequencies are slowed down; `long` beyond 4,096 tokens.
# fmt: off
SHORT_FACTORS = [
    1.08, 1.1, 1.13, 1.28, 1.31, 1.45, 1.45, 1.95, 2.03, 2.43, 2.57, 2.95, 3.73, 3.87, 4.19, 4.44, 4.64, 4.98, 5.16,
    5.28, 5.76, 5.89, 5.89, 5.97, 6.09, 6.28, 6.77, 6.89, 7.11, 7.13, 7.18, 7.29, 7.34, 7.56, 7.62, 7.7, 7.88, 7.88,
    7.88, 7.94, 7.95, 7.98, 8.2, 8.44, 8.47, 8.59, 8.81, 9.0,
]
LONG_FACTORS = [
    1.08, 1.11, 1.14, 1.34, 1.59, 1.6, 1.62, 2.62, 3.23, 3.23, 4.79, 7.4, 7.7, 9.09, 12.2, 17.67, 24.46, 28.57, 30.42,
    30.84, 32.59, 32.93, 42.32, 44.96, 50.34, 50.45, 57.55, 57.93, 58.21, 60.14, 62.61, 62.62, 62.71, 63.14, 63.14,
    63.77, 63.93, 63.96, 63.97, 64.03, 64.07, 64.08, 64.12, 64.41, 64.48, 64.51, 64.53, 64.84,
]
# fmt: on
CLIP_LARGE_336 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
IMAGE_TOKEN_ID = 32044
_OFFICIAL_ROPE = "su"


class Phi3VConfig(Phi3Config):  # type: ignore[misc]
    """Defaults are Phi-3.5-vision's sizes.

    `vision_config` holds CLIP's sizes, which official files leave to the code; `image_token_id` is what stands in
    `input_ids` for every token of an image.
    """

    model_type = "phi3_v"
    sub_configs: ClassVar[dict[str, Any]] = {"vision_config": CLIPVisionConfig}

    max_position_embeddings: int = 131072
    num_key_value_heads: int | None = 32
    eos_token_id: int | list[int] | None = 2
    image_token_id: int = IMAGE_TOKEN_ID
    sliding_window: int | None = None
    rope_parameters: dict[str, Any] | None = None
    vision_config: Any = None
    img_processor: dict[str, Any] | None = None
    embd_layer: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs.pop("_attn_implementation", None)  # official files insist on flash attention
        kwargs.pop("auto_map", None)  # the code that it names is not run, and is not beside what is saved
        rope = kwargs.pop("rope_scaling", None) or self.rope_parameters or {}
        self.rope_parameters = {
            "rope_type": "longrope",
            "rope_theta": kwargs.pop("rope_theta", rope.get("rope_theta", 10_000.0)),
            "partial_rotary_factor": 1.0,
            "short_factor": list(rope.get("short_factor", SHORT_FACTORS)),
            "long_factor": list(rope.get("long_factor", LONG_FACTORS)),
            "original_max_position_embeddings": self.original_max_position_embeddings,
        }
        sizes = self.vision_config or CLIP_LARGE_336
        self.vision_config = sizes if isinstance(sizes, CLIPVisionConfig) else CLIPVisionConfig(**sizes)
        if self.sliding_window and self.sliding_window >= self.max_position_embeddings:
            self.sliding_window = None  # it never acts, and would forbid the plain causal kernels
        self.img_processor = self.img_processor or {
            "name": "clip_vision_model",
            "model_name": "openai/clip-vit-large-patch14-336",
            "image_dim_out": self.vision_config.hidden_size,
            "num_img_tokens": 144,
        }
        self.embd_layer = self.embd_layer or {
            "embedding_cls": "image",
            "hd_transform_order": "sub_glb",
            "projection_cls": "mlp",
            "use_hd_transform": True,
            "with_learnable_separator": True,
        }
        super().__post_init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        """All values in the official spelling: `rope_scaling` of type "su", and `rope_theta` beside it."""
        values: dict[str, Any] = super().to_dict()
        return _official(values)

    def to_diff_dict(self) -> dict[str, Any]:
        """What is saved."""
        values: dict[str, Any] = super().to_diff_dict()
        return _official(values)


def _official(values: dict[str, Any]) -> dict[str, Any]:
    rope = values.pop("rope_parameters", None)
    if rope:
        values["rope_theta"] = rope["rope_theta"]
        values["rope_scaling"] = {
            "type": _OFFICIAL_ROPE,
            "short_factor": rope["short_factor"],
            "long_factor": rope["long_factor"],
        }
    return values
