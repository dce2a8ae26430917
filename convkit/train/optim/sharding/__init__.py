"""Where weights, gradients and moments lie: whole on every process, or shared out by DeepSpeed or FSDP.

The loop sees one interface. Checkpoints hold whole tensors whatever they were shared out by, so that a run goes on on
another number of processes, or shared out otherwise.
"""

from typing import Any

from convkit.train.config import Config
from convkit.train.distributed.world import World
from convkit.train.optim.sharding.base import Sharding

__all__ = ["Sharding", "shard"]


def shard(model: Any, config: Config, world: World) -> Sharding:
    """Take a model from the CPU to where it is trained; a single process has nothing to share."""
    if world.size == 1 or not config.sharding:
        from convkit.train.optim.sharding.replicated import Plain

        return Plain(model, config, world)
    if config.fsdp:
        from convkit.train.optim.sharding.fsdp import Fsdp

        return Fsdp(model, config, world)
    if config.deepspeed == "zero3":
        from convkit.train.optim.sharding.zero3 import Zero3

        return Zero3(model, config, world)
    from convkit.train.optim.sharding.zero import Zero

    return Zero(model, config, world)
