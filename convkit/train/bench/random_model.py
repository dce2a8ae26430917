"""Build a Phi-3.5-vision model with random weights directly on its device, without a checkpoint."""

from pathlib import Path
from typing import Any

import torch

from convkit.train.bench.options import ModelSize
from convkit.train.bench.synthetic import WORDS
from convkit.train.models import tiny
from convkit.train.models.checkpoint_files import read_json
from convkit.train.models.kernels.attention import VARLEN
from convkit.train.models.phi3_v.configuration import Phi3VConfig
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.models.phi3_v.modeling import Phi3VForCausalLM

_TOKENIZER_FIELDS = ("pad_token_id", "bos_token_id", "eos_token_id", "image_token_id")


class RandomPhi3V(Phi3VFamily):
    """Phi-3.5-vision, or a two-layer model, with random weights that depend on the seed alone.

    Args:
        directory: an empty folder, for the files of a tokenizer.
        model_size: `full` is the size of Phi-3.5-vision.
        device: where the weights are created.
    """

    def __init__(self, directory: Path, model_size: ModelSize, num_crops: int, device: torch.device, seed: int) -> None:
        tiny.phi3_v(directory, WORDS * 8)
        super().__init__(directory, num_crops)
        small = read_json(directory / "config.json")
        fields = {name: small[name] for name in _TOKENIZER_FIELDS} if model_size == "full" else small
        self._config, self._device, self._seed = Phi3VConfig(**fields), device, seed

    def load(self, dtype: torch.dtype = torch.bfloat16, attention: str = VARLEN) -> Phi3VForCausalLM:
        """Return the model on its device."""
        self._config._attn_implementation = attention
        torch.manual_seed(self._seed)
        before: Any = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with self._device:
                return Phi3VForCausalLM(self._config)
        finally:
            torch.set_default_dtype(before)
