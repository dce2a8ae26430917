"""AdamW and the linear schedule, as the recipe has them; and how much memory they take of it.

`adamw` keeps weights, gradients and moments in float32: 16 bytes for each number that is trained. `adamw_bf16` keeps
the weights in bfloat16, beside them the 16 bits that rounding took away, and gradients and moments in bfloat16: 10
bytes. Put together, both halves of a weight are exactly the float32 number that AdamW updates: nothing is lost between
steps. The moments can do with 8 bits of precision because they forget fast, with betas of 0.9 and 0.95.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from convkit.train.config import Config
from convkit.train.optim.sharding.base import MOMENTS

BETAS = (0.9, 0.95)
EPSILON = 1e-7
_AT_ONCE = 2**26
"""Weights of an update: compiled code is tried out on copies of them first."""
_ALIGNED = 8
"""Numbers of bfloat16 in 16 bytes."""


class AdamW(torch.optim.AdamW):
    """torch's, on weights in float32."""

    def clip(self, max_norm: float) -> Tensor:
        """Scale the gradients down to a norm; returns the norm before that."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        norm: Tensor = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        return norm

    def forget(self) -> None:
        """Make the moments the zeros that they begin with."""
        for state in self.state.values():
            for kind in MOMENTS:
                state[kind].zero_()

    def whole(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """By `KINDS`: the weight as it is updated, and its moments."""
        return {"weight": parameter.data, **{kind: self.state[parameter][kind] for kind in MOMENTS}}

    def put(self, parameter: nn.Parameter, whole: dict[str, Tensor]) -> None:
        """Take over what `whole` gave; after at least one update."""
        parameter.data.copy_(whole["weight"])
        for kind in MOMENTS:  # into what torch made: kernels want the count of steps where they run, others do not
            self.state[parameter][kind].copy_(whole[kind])


class CompactAdamW(torch.optim.Optimizer):
    """The same update on weights in bfloat16 that are float32 together with their lower halves.

    All weights of a group lie in one tensor, and so do their gradients and moments: an update is one pass.

    Args:
        groups: as torch takes them, `weight_decay` in each; the parameters are moved into the group's tensor.
        rate: the learning rate, which each step may have another one of.
        compiled: make one kernel of an update; without, as many as it has operations.
    """

    def __init__(self, groups: list[dict[str, Any]], rate: float, compiled: bool = False) -> None:
        super().__init__(groups, {"lr": rate})
        self._flat = [_Flat(group["params"]) for group in self.param_groups]
        self._of = {p: (flat, place) for flat in self._flat for p, place in flat.places.items()}
        self._update: Callable[..., None] = torch.compile(_update, dynamic=True) if compiled else _update
        self._scale = 1.0
        self._steps = 0

    def clip(self, max_norm: float) -> Tensor:
        """The norm of the gradients; the next update scales them down to the given one."""
        norms = [torch.linalg.vector_norm(flat.gradient, dtype=torch.float32) for flat in self._flat]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
        self._scale = min(1.0, max_norm / (float(norm) + 1e-6))
        return norm

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of everything."""
        self._steps += 1
        for group, flat in zip(self.param_groups, self._flat, strict=True):
            numbers = _numbers(group["lr"], group["weight_decay"], self._steps, self._scale, flat.weight.device)
            for start in range(0, len(flat.weight), _AT_ONCE):
                self._update(*(tensor[start : start + _AT_ONCE] for tensor in flat.tensors), numbers)
        self._scale = 1.0

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Make the gradients zero; they stay where they are."""
        for flat in self._flat:
            flat.gradient.zero_()

    def forget(self) -> None:
        """Make the moments the zeros that they begin with."""
        self._steps = 0
        for flat in self._flat:
            flat.mean.zero_()
            flat.square.zero_()

    def whole(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """By `KINDS`: the weight as it is updated, and its moments; weight float32."""
        flat, place = self._of[parameter]
        shape = parameter.shape
        return {
            "weight": _joined(flat.weight[place], flat.low[place]).view(shape),
            "step": torch.tensor(float(self._steps)),
            "exp_avg": flat.mean[place].view(shape),
            "exp_avg_sq": flat.square[place].view(shape),
        }

    def put(self, parameter: nn.Parameter, whole: dict[str, Tensor]) -> None:
        """Take over what `whole` gave."""
        flat, place = self._of[parameter]
        self._steps = int(whole["step"])
        high, low = _split(whole["weight"].to(parameter.device).flatten())
        flat.weight[place], flat.low[place] = high, low
        flat.mean[place] = whole["exp_avg"].to(parameter.device).flatten()
        flat.square[place] = whole["exp_avg_sq"].to(parameter.device).flatten()


class _Flat:
    """Parameters laid end to end, with all that belongs to them."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        count, first = sum(_room(parameter) for parameter in parameters), parameters[0]
        self.weight = torch.zeros(count, dtype=first.dtype, device=first.device)
        self.gradient = torch.zeros_like(self.weight)
        self.mean, self.square = torch.zeros_like(self.weight), torch.zeros_like(self.weight)
        self.low = torch.zeros_like(self.weight, dtype=torch.int16)
        self.tensors = (self.weight, self.low, self.gradient, self.mean, self.square)
        self.places: dict[nn.Parameter, slice] = {}
        start = 0
        for parameter in parameters:
            place = self.places[parameter] = slice(start, start + parameter.numel())
            start += _room(parameter)
            self.weight[place] = parameter.data.flatten()
            parameter.data = self.weight[place].view(parameter.shape)
            parameter.grad = self.gradient[place].view(parameter.shape)


def _room(parameter: nn.Parameter) -> int:
    """Numbers that it takes up: each begins where kernels can read 16 bytes at once."""
    return -(-parameter.numel() // _ALIGNED) * _ALIGNED


Optimizer = AdamW | CompactAdamW


def make_optimizer(model: nn.Module, config: Config) -> Optimizer:
    """AdamW over what is trained; biases, norms and other vectors do not decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optim == "adamw_bf16":
        return CompactAdamW(groups, config.learning_rate, compiled=config.compile and _on_gpu(groups))
    # Fused, and without one, one tensor after the other: all at once would need room for a third copy of the moments.
    how = {"fused": True} if _on_gpu(groups) else {"foreach": False}
    return AdamW(groups, lr=config.learning_rate, betas=BETAS, eps=EPSILON, **how)


def learning_rate(step: int, steps: int, config: Config) -> float:
    """Of a step, counted from 0: it rises from 0 in the first `warmup_steps` and falls to 0 at the end."""
    if step < config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    return config.learning_rate * (steps - step) / max(1, steps - config.warmup_steps)


def _on_gpu(groups: list[dict[str, Any]]) -> bool:
    return all(parameter.is_cuda for group in groups for parameter in group["params"])


def _numbers(rate: float, decay: float, steps: int, scale: float, device: torch.device) -> Tensor:
    """What is the same for all weights; a tensor, since compiled code would be made for each value."""
    corrections = 1 - BETAS[0] ** steps, 1 - BETAS[1] ** steps
    return torch.tensor([rate, 1 - rate * decay, scale, *corrections]).to(device, non_blocking=True)


def _update(weight: Tensor, low: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, numbers: Tensor) -> None:
    """AdamW in float32, in place."""
    rate, shrink, scale, first, second = numbers.unbind()
    scaled = gradient.float() * scale
    new_mean = mean.float().lerp(scaled, 1 - BETAS[0])
    new_square = square.float() * BETAS[1] + scaled * scaled * (1 - BETAS[1])
    denominator = (new_square / second).sqrt() + EPSILON
    master = _joined(weight, low) * shrink - rate / first * (new_mean / denominator)
    high, rest = _split(master)
    weight.copy_(high)
    low.copy_(rest)
    mean.copy_(new_mean)
    square.copy_(new_square)


def _joined(high: Tensor, low: Tensor) -> Tensor:
    """The float32 numbers that `_split` made the two of."""
    return ((high.view(torch.int16).int() << 16) + low.int()).view(torch.float32)


def _split(master: Tensor) -> tuple[Tensor, Tensor]:
    """Rounded to bfloat16, and what that took away, in units of the last of 32 bits (int16)."""
    bits = master.view(torch.int32)
    high = (bits + 0x8000) >> 16
    return high.to(torch.int16).view(torch.bfloat16), (bits - (high << 16)).to(torch.int16)
