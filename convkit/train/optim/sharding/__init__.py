"""Sharding of weights, gradients and optimizer state: none, DeepSpeed ZeRO or FSDP.

The trainer uses one interface, `Sharding`. Checkpoints hold unsharded tensors, so a run can resume with another world
size or another kind of sharding.
"""

from typing import Any

from convkit.train.config import Config
from convkit.train.distributed.world import World
from convkit.train.optim.sharding.base import Sharding

__all__ = ["Sharding", "shard"]


def shard(model: Any, config: Config, world: World) -> Sharding:
    """Move a model from the CPU to its devices, sharded as configured; a single process is never sharded."""
    if world.size == 1 or not config.sharding:
        from convkit.train.optim.sharding.replicated import Replicated

        return Replicated(model, config, world)
    if config.fsdp:
        from convkit.train.optim.sharding.fsdp import Fsdp

        return Fsdp(model, config, world)
    if config.deepspeed == "zero3":
        from convkit.train.optim.sharding.zero3 import Zero3

        return Zero3(model, config, world)
    from convkit.train.optim.sharding.zero import Zero

    return Zero(model, config, world)
