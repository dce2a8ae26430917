"""AdamW and the linear schedule, as the recipe has them."""

import torch
from torch import nn

from convkit.train.config import Config

BETAS = (0.9, 0.95)
EPSILON = 1e-7


def make_optimizer(model: nn.Module, config: Config) -> torch.optim.AdamW:
    """AdamW over what is trained; biases, norms and other vectors do not decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.wd},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    # One tensor after the other: all at once would need room for a third copy of the moments on a GPU.
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=BETAS,
        eps=EPSILON,
        foreach=False,
    )


def learning_rate(step: int, steps: int, config: Config) -> float:
    """Of a step, counted from 0: it rises from 0 in the first `warmup_steps` and falls to 0 at the end."""
    if step < config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    return config.learning_rate * (steps - step) / max(1, steps - config.warmup_steps)
