"""AdamW and the linear learning-rate schedule of the recipe, in two memory layouts.

- `adamw` keeps weights, gradients and moments in float32: 16 bytes per trainable parameter.
- `adamw_bf16` takes 10 bytes. Weights are bfloat16, with the 16 bits that rounding removed stored beside them.
  Gradients and moments are bfloat16.

Both halves of a weight together are exactly the float32 weight that AdamW updates, so nothing is lost between steps.
bfloat16 moments suffice because they decay fast, with betas of 0.9 and 0.95.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from convkit.train.config import Config
from convkit.train.optim.sharding.base import MOMENTS

BETAS = (0.9, 0.95)
EPS = 1e-7
_CHUNK = 2**26
"""Weights per call of the update: compiled code is first benchmarked on copies of them."""
_ALIGNED = 8
"""Number of bfloat16 values in 16 bytes."""


class AdamW(torch.optim.AdamW):
    """torch's AdamW, on weights in float32."""

    def clip(self, max_norm: float) -> Tensor:
        """Clip the gradients to a norm, and return the norm before clipping."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        norm: Tensor = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        return norm

    def reset_moments(self) -> None:
        """Reset the moments to zero, as before the first step."""
        for state in self.state.values():
            for kind in MOMENTS:
                state[kind].zero_()

    def full_state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Return the weight and its moments by `STATE_KINDS`."""
        return {"weight": parameter.data, **{kind: self.state[parameter][kind] for kind in MOMENTS}}

    def load_state(self, parameter: nn.Parameter, state: dict[str, Tensor]) -> None:
        """Restore the result of `full_state`; call it after at least one update."""
        parameter.data.copy_(state["weight"])
        for kind in MOMENTS:  # in place: fused kernels need the step count on the GPU, others do not
            self.state[parameter][kind].copy_(state[kind])


class CompactAdamW(torch.optim.Optimizer):
    """AdamW on bfloat16 weights, which form float32 weights together with their lower halves.

    All weights of a group are stored in one tensor, and so are their gradients and moments: an update is one pass.

    Args:
        groups: parameter groups of torch, each with `weight_decay`; the parameters are moved into the group's tensor.
        rate: the initial learning rate.
        compiled: compile the update to one kernel.
    """

    def __init__(self, groups: list[dict[str, Any]], rate: float, compiled: bool = False) -> None:
        super().__init__(groups, {"lr": rate})
        self._flat = [_FlatGroup(group["params"]) for group in self.param_groups]
        self._of = {p: (flat, place) for flat in self._flat for p, place in flat.places.items()}
        self._update: Callable[..., None] = torch.compile(_update, dynamic=True) if compiled else _update
        self._scale = 1.0
        self._steps = 0

    def clip(self, max_norm: float) -> Tensor:
        """Return the norm of the gradients; the next update clips them to `max_norm`."""
        norms = [torch.linalg.vector_norm(flat.gradient, dtype=torch.float32) for flat in self._flat]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
        self._scale = min(1.0, max_norm / (float(norm) + 1e-6))
        return norm

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters once."""
        self._steps += 1
        for group, flat in zip(self.param_groups, self._flat, strict=True):
            numbers = _step_scalars(group["lr"], group["weight_decay"], self._steps, self._scale, flat.weight.device)
            for start in range(0, len(flat.weight), _CHUNK):
                self._update(*(tensor[start : start + _CHUNK] for tensor in flat.tensors), numbers)
        self._scale = 1.0

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradients to zero in place."""
        for flat in self._flat:
            flat.gradient.zero_()

    def reset_moments(self) -> None:
        """Reset the moments to zero, as before the first step."""
        self._steps = 0
        for flat in self._flat:
            flat.mean.zero_()
            flat.square.zero_()

    def full_state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Return the float32 weight and its moments by `STATE_KINDS`."""
        flat, place = self._of[parameter]
        shape = parameter.shape
        return {
            "weight": _join_halves(flat.weight[place], flat.low[place]).view(shape),
            "step": torch.tensor(float(self._steps)),
            "exp_avg": flat.mean[place].view(shape),
            "exp_avg_sq": flat.square[place].view(shape),
        }

    def load_state(self, parameter: nn.Parameter, state: dict[str, Tensor]) -> None:
        """Restore the result of `full_state`."""
        flat, place = self._of[parameter]
        self._steps = int(state["step"])
        high, low = _split_halves(state["weight"].to(parameter.device).flatten())
        flat.weight[place], flat.low[place] = high, low
        flat.mean[place] = state["exp_avg"].to(parameter.device).flatten()
        flat.square[place] = state["exp_avg_sq"].to(parameter.device).flatten()


class _FlatGroup:
    """The parameters of a group in one tensor, with their gradients and moments."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        count, first = sum(_aligned_numel(parameter) for parameter in parameters), parameters[0]
        self.weight = torch.zeros(count, dtype=first.dtype, device=first.device)
        self.gradient = torch.zeros_like(self.weight)
        self.mean, self.square = torch.zeros_like(self.weight), torch.zeros_like(self.weight)
        self.low = torch.zeros_like(self.weight, dtype=torch.int16)
        self.tensors = (self.weight, self.low, self.gradient, self.mean, self.square)
        self.places: dict[nn.Parameter, slice] = {}
        start = 0
        for parameter in parameters:
            place = self.places[parameter] = slice(start, start + parameter.numel())
            start += _aligned_numel(parameter)
            self.weight[place] = parameter.data.flatten()
            parameter.data = self.weight[place].view(parameter.shape)
            parameter.grad = self.gradient[place].view(parameter.shape)


def _aligned_numel(parameter: nn.Parameter) -> int:
    """Return the size of a parameter, rounded up so that each one is aligned to 16 bytes."""
    return -(-parameter.numel() // _ALIGNED) * _ALIGNED


Optimizer = AdamW | CompactAdamW


def make_optimizer(model: nn.Module, config: Config) -> Optimizer:
    """Return AdamW over the trainable parameters, without weight decay for biases, norms and other vectors."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optim == "adamw_bf16":
        return CompactAdamW(groups, config.learning_rate, compiled=config.compile and _on_gpu(groups))
    # Fused on a GPU, else one tensor at a time: `foreach` would need memory for a third copy of the moments.
    how = {"fused": True} if _on_gpu(groups) else {"foreach": False}
    return AdamW(groups, lr=config.learning_rate, betas=BETAS, eps=EPS, **how)


def learning_rate(step: int, steps: int, config: Config) -> float:
    """Return the learning rate of a step, counted from 0: linear warmup from 0, then linear decay to 0."""
    if step < config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    return config.learning_rate * (steps - step) / max(1, steps - config.warmup_steps)


def _on_gpu(groups: list[dict[str, Any]]) -> bool:
    return all(parameter.is_cuda for group in groups for parameter in group["params"])


def _step_scalars(rate: float, decay: float, steps: int, scale: float, device: torch.device) -> Tensor:
    """Return the scalars of a step as a tensor, because compiled code would be specialised to plain numbers."""
    corrections = 1 - BETAS[0] ** steps, 1 - BETAS[1] ** steps
    return torch.tensor([rate, 1 - rate * decay, scale, *corrections]).to(device, non_blocking=True)


def _update(weight: Tensor, low: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, numbers: Tensor) -> None:
    """Update weights and moments in place, computing in float32."""
    rate, shrink, scale, first, second = numbers.unbind()
    scaled = gradient.float() * scale
    new_mean = mean.float().lerp(scaled, 1 - BETAS[0])
    new_square = square.float() * BETAS[1] + scaled * scaled * (1 - BETAS[1])
    denominator = (new_square / second).sqrt() + EPS
    master = _join_halves(weight, low) * shrink - rate / first * (new_mean / denominator)
    high, rest = _split_halves(master)
    weight.copy_(high)
    low.copy_(rest)
    mean.copy_(new_mean)
    square.copy_(new_square)


def _join_halves(high: Tensor, low: Tensor) -> Tensor:
    """Return the float32 weights from their two halves, see `_split_halves`."""
    return ((high.view(torch.int16).int() << 16) + low.int()).view(torch.float32)


def _split_halves(master: Tensor) -> tuple[Tensor, Tensor]:
    """Split float32 weights into bfloat16 and the int16 remainder of rounding, in units of the last of 32 bits."""
    bits = master.view(torch.int32)
    high = (bits + 0x8000) >> 16
    return high.to(torch.int16).view(torch.bfloat16), (bits - (high << 16)).to(torch.int16)
