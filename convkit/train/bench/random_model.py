"""A model of random weights, made where it is trained: nothing of it is read from a disk."""

from pathlib import Path
from typing import Any, Literal

import torch

from convkit.train.bench.synthetic import WORDS
from convkit.train.models import tiny
from convkit.train.models.checkpoint_files import read_json
from convkit.train.models.kernels.attention import VARLEN
from convkit.train.models.phi3_v.configuration import Phi3VConfig
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.models.phi3_v.modeling import Phi3VForCausalLM

Geometry = Literal["full", "tiny"]
_OF_THE_TOKENIZER = ("pad_token_id", "bos_token_id", "eos_token_id", "image_token_id")


class RandomPhi3V(Phi3VFamily):
    """Phi-3.5-vision, or a model of two layers, that is never the same twice but for the same seed.

    Args:
        directory: an empty folder, for the files of a tokenizer.
        geometry: `full` is that of Phi-3.5-vision.
        device: where weights are made.
    """

    def __init__(self, directory: Path, geometry: Geometry, num_crops: int, device: torch.device, seed: int) -> None:
        tiny.phi3_v(directory, WORDS * 8)
        super().__init__(directory, num_crops)
        small = read_json(directory / "config.json")
        sizes = {name: small[name] for name in _OF_THE_TOKENIZER} if geometry == "full" else small
        self._config, self._device, self._seed = Phi3VConfig(**sizes), device, seed

    def load(self, dtype: torch.dtype = torch.bfloat16, attention: str = VARLEN) -> Phi3VForCausalLM:
        """The model on its device."""
        self._config._attn_implementation = attention
        torch.manual_seed(self._seed)
        usual: Any = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with self._device:
                return Phi3VForCausalLM(self._config)
        finally:
            torch.set_default_dtype(usual)
