"""Configuration of Phi-3-vision and Phi-3.5-vision; reads and writes the keys of the official files."""

from typing import Any, ClassVar

from transformers import CLIPVisionConfig, Phi3Config

# Phi-3.5-vision's scaling factors of the 48 rotary frequencies; the long ones apply beyond 4,096 tokens.
# fmt: off
SHORT_FACTORS = [
    1.08, 1.1, 1.13, 1.28, 1.31, 1.45, 1.45, 1.95, 2.03, 2.43, 2.57, 2.95, 3.73, 3.87, 4.19, 4.44, 4.64, 4.98, 5.16,
    5.28, 5.76, 5.89, 5.89, 5.97, 6.09, 6.28, 6.77, 6.89, 7.11, 7.13, 7.18, 7.29, 7.34, 7.56, 7.62, 7.7, 7.88, 7.88,
    7.88, 7.94, 7.95, 7.98, 8.2, 8.44, 8.47, 8.59, 8.81, 9.0,
]
LONG_FACTORS = [  # exact fp32 values
    1.0800000429153442, 1.1100000143051147, 1.1399999856948853, 1.340000033378601, 1.5899999141693115,
    1.600000023841858, 1.6200000047683716, 2.620000123977661, 3.2300000190734863, 3.2300000190734863,
    4.789999961853027, 7.400000095367432, 7.700000286102295, 9.09000015258789, 12.199999809265137,
    17.670000076293945, 24.46000099182129, 28.57000160217285, 30.420001983642578, 30.840002059936523,
    32.590003967285156, 32.93000411987305, 42.320003509521484, 44.96000289916992, 50.340003967285156,
    50.45000457763672, 57.55000305175781, 57.93000411987305, 58.21000289916992, 60.1400032043457,
    62.61000442504883, 62.62000274658203, 62.71000289916992, 63.1400032043457, 63.1400032043457,
    63.77000427246094, 63.93000411987305, 63.96000289916992, 63.970001220703125, 64.02999877929688,
    64.06999969482422, 64.08000183105469, 64.12000274658203, 64.41000366210938, 64.4800033569336,
    64.51000213623047, 64.52999877929688, 64.83999633789062,
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
    """Configuration with the sizes of Phi-3.5-vision as defaults.

    `vision_config` holds CLIP's sizes, which the official files leave to the code. `image_token_id` is the placeholder
    in `input_ids` for each image token.
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
        kwargs.pop("_attn_implementation", None)  # official files require flash attention
        kwargs.pop("auto_map", None)  # remote code is neither run nor saved
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
            self.sliding_window = None  # it has no effect, but would disable the causal kernels
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
        """Return all values under the official keys: `rope_scaling` of type "su", and a separate `rope_theta`."""
        values: dict[str, Any] = super().to_dict()
        return _to_official_keys(values)

    def to_diff_dict(self) -> dict[str, Any]:
        """Return the values that are saved to config.json, under the official keys."""
        values: dict[str, Any] = super().to_diff_dict()
        return _to_official_keys(values)


def _to_official_keys(values: dict[str, Any]) -> dict[str, Any]:
    rope = values.pop("rope_parameters", None)
    if rope:
        values["rope_theta"] = rope["rope_theta"]
        values["rope_scaling"] = {
            "type": _OFFICIAL_ROPE,
            "short_factor": rope["short_factor"],
            "long_factor": rope["long_factor"],
        }
    return values
