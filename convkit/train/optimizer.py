"""AdamW and the linear schedule, as the recipe has them; and how much memory they take of it.

`adamw` keeps weights, gradients and moments in float32: 16 bytes for each number that is trained. `adamw_bf16` keeps
the weights in bfloat16, beside them the 16 bits that rounding took away, and gradients and moments in bfloat16: 10
bytes. Put together, both halves of a weight are exactly the float32 number that AdamW updates: nothing is lost between
steps. The moments can do with 8 bits of precision because they forget fast, with betas of 0.9 and 0.95.
"""

from typing import Any

import torch
from torch import Tensor, nn

from convkit.train.config import Config

BETAS = (0.9, 0.95)
EPSILON = 1e-7


class AdamW(torch.optim.AdamW):
    """torch's, on weights in float32."""

    def master(self, parameter: nn.Parameter) -> Tensor:
        """The weight as it is updated, float32."""
        return parameter.data

    def put(self, parameter: nn.Parameter, master: Tensor, moments: dict[str, Tensor]) -> None:
        """Take over a weight (float32) and its moments, as they were."""
        parameter.data.copy_(master)
        # The count of steps stays where torch makes it, on the CPU.
        self.state[parameter] = {
            kind: tensor if kind == "step" else tensor.to(parameter.device) for kind, tensor in moments.items()
        }


class CompactAdamW(torch.optim.Optimizer):
    """The same update on weights in bfloat16 that are float32 together with their lower halves.

    Args:
        groups: as torch takes them, `weight_decay` in each.
        rate: the learning rate, which each step may have another one of.
    """

    def __init__(self, groups: list[dict[str, Any]], rate: float) -> None:
        super().__init__(groups, {"lr": rate})
        self._update = torch.compile(_update, dynamic=True) if _on_gpu(groups) else _update

    def master(self, parameter: nn.Parameter) -> Tensor:
        """The weight as it is updated, float32."""
        return _joined(parameter.data, self._state(parameter)["low"])

    def put(self, parameter: nn.Parameter, master: Tensor, moments: dict[str, Tensor]) -> None:
        """Take over a weight (float32) and its moments, as they were."""
        state = self._state(parameter)
        state["step"] = moments["step"]
        for kind in ("exp_avg", "exp_avg_sq"):
            state[kind].copy_(moments[kind])
        high, low = _split(master.to(parameter.device))
        parameter.data.copy_(high)
        state["low"].copy_(low)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self._state(parameter)
                state["step"] += 1
                numbers = _numbers(group["lr"], group["weight_decay"], float(state["step"]), parameter.device)
                tensors = (parameter.data, state["low"], parameter.grad, state["exp_avg"], state["exp_avg_sq"])
                self._update(*(tensor.view(-1) for tensor in tensors), numbers)

    def _state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["low"] = torch.zeros_like(parameter, dtype=torch.int16)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state


Optimizer = AdamW | CompactAdamW


def make_optimizer(model: nn.Module, config: Config) -> Optimizer:
    """AdamW over what is trained; biases, norms and other vectors do not decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.wd},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optim == "adamw_bf16":
        return CompactAdamW(groups, config.learning_rate)
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


def _numbers(rate: float, decay: float, step: float, device: torch.device) -> Tensor:
    """What is the same for all numbers of a tensor; a tensor, since compiled code would be made for each value."""
    corrections = 1 - BETAS[0] ** step, 1 - BETAS[1] ** step
    return torch.tensor([rate, 1 - rate * decay, *corrections]).to(device, non_blocking=True)


def _update(weight: Tensor, low: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, numbers: Tensor) -> None:
    """AdamW in float32 on one tensor, in place; the order of operations is torch's."""
    rate, shrink, first, second = numbers.unbind()
    gradient = gradient.float()
    new_mean = mean.float().lerp(gradient, 1 - BETAS[0])
    new_square = square.float() * BETAS[1] + gradient * gradient * (1 - BETAS[1])
    denominator = new_square.sqrt() / second.sqrt() + EPSILON
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
