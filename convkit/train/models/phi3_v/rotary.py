"""Rotary position embedding with two sets of factors, chosen for each document by its own length.

Everything is computed in fp32 from the configuration's numbers: there is no buffer that a cast of the module to
bf16 could round.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn


class Rotary(nn.Module):
    """Tables of cosines and sines; holds no parameters and no buffers."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        rope = config.rope_parameters
        dim = config.hidden_size // config.num_attention_heads
        for name in ("short_factor", "long_factor"):
            if len(rope[name]) != dim // 2:
                raise ValueError(
                    f"rope_scaling.{name} has {len(rope[name])} numbers, but heads of size {dim} need {dim // 2}"
                )
        self.boundary: int = config.original_max_position_embeddings
        self.theta = float(rope["rope_theta"])
        self.factors: tuple[list[float], list[float]] = (rope["short_factor"], rope["long_factor"])
        self._made: dict[torch.device, Tensor] = {}
        scale = config.max_position_embeddings / self.boundary
        self.scaling = math.sqrt(1 + math.log(scale) / math.log(self.boundary)) if scale > 1 else 1.0

    @torch.no_grad()
    def forward(self, position_ids: Tensor, lengths: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The tables for (B, T) positions.

        Args:
            position_ids: (B, T).
            lengths: (B, T) or (B, 1), the length of the document that each token belongs to.
            dtype: what the finished tables are rounded to.

        Returns:
            cosines and sines, (B, T, D) each, D the size of a head.
        """
        short, long = self._frequencies(position_ids.device)
        is_long = (lengths > self.boundary)[..., None]
        angles = position_ids[..., None].float() * torch.where(is_long, long, short)
        angles = torch.cat((angles, angles), dim=-1)
        return (angles.cos() * self.scaling).to(dtype), (angles.sin() * self.scaling).to(dtype)

    def _frequencies(self, device: torch.device) -> Tensor:
        """The two sets (2, D / 2) float32; made once for a device, since a GPU is waited for as they go there."""
        if device not in self._made:
            factors = torch.tensor(self.factors, dtype=torch.float32, device=device)
            half = factors.shape[1]
            exponents = torch.arange(half, dtype=torch.float32, device=device) / half
            self._made[device] = 1.0 / (factors * self.theta**exponents)
        return self._made[device]
