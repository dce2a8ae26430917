"""Rotary position embedding with two sets of scaling factors, chosen per document by its length.

All tables are computed in fp32 from the configuration. There is no buffer that casting the module to bf16 could round.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn


class Rotary(nn.Module):
    """Compute tables of cosines and sines, without parameters or buffers."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        rope = config.rope_parameters
        dim = config.hidden_size // config.num_attention_heads
        for name in ("short_factor", "long_factor"):
            if len(rope[name]) != dim // 2:
                raise ValueError(
                    f"rope_scaling.{name} has {len(rope[name])} factors, but head size {dim} needs {dim // 2}"
                )
        self.boundary: int = config.original_max_position_embeddings
        self.theta = float(rope["rope_theta"])
        self.factors: tuple[list[float], list[float]] = (rope["short_factor"], rope["long_factor"])
        self._cache: dict[torch.device, Tensor] = {}
        scale = config.max_position_embeddings / self.boundary
        self.scaling = math.sqrt(1 + math.log(scale) / math.log(self.boundary)) if scale > 1 else 1.0

    @torch.no_grad()
    def forward(self, position_ids: Tensor, lengths: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the tables for (B, T) positions.

        Args:
            position_ids: (B, T).
            lengths: (B, T) or (B, 1), the length of each token's document.
            dtype: the dtype of the returned tables.

        Returns:
            Cosines and sines, (B, T, D) each, D the head size.
        """
        short, long = self._frequencies(position_ids.device)
        is_long = (lengths > self.boundary)[..., None]
        angles = position_ids[..., None].float() * torch.where(is_long, long, short)
        angles = torch.cat((angles, angles), dim=-1)
        return (angles.cos() * self.scaling).to(dtype), (angles.sin() * self.scaling).to(dtype)

    def _frequencies(self, device: torch.device) -> Tensor:
        """Return both sets of frequencies (2, D / 2) float32; cached per device, because copying them synchronizes."""
        if device not in self._cache:
            factors = torch.tensor(self.factors, dtype=torch.float32, device=device)
            half = factors.shape[1]
            exponents = torch.arange(half, dtype=torch.float32, device=device) / half
            self._cache[device] = 1.0 / (factors * self.theta**exponents)
        return self._cache[device]
