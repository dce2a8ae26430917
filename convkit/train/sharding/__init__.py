"""Where weights, gradients and moments lie: whole on every process, or shared out by DeepSpeed or FSDP.

The loop sees one interface. Checkpoints hold whole tensors whatever they were shared out by, so that a run goes on on
another number of processes, or shared out otherwise.
"""

from typing import Any

from convkit.errors import ConvkitError
from convkit.train.config import Config
from convkit.train.distributed import World
from convkit.train.sharding.base import Sharding

__all__ = ["Sharding", "shard"]


def shard(model: Any, config: Config, world: World) -> Sharding:
    """Take a model from the CPU to where it is trained; a single process has nothing to share.

    Raises:
        ConvkitError: what was asked for is not installed, or shares out neither adapters nor float16's gradients.
    """
    if config.sharding and config.use_lora:
        option = "--use_qlora" if config.use_qlora else "--use_lora"
        raise ConvkitError(
            f"{config.sharding} does not go with {option}: adapters are small, and every process has the whole "
            f"model. Leave {config.sharding} out."
        )
    if config.sharding and config.precision == "float16":
        raise ConvkitError(
            f"{config.sharding} does not go with --fp16: all gradients must fit or none, and each process has a part "
            f"of them. Compute in bfloat16 with --bf16, or leave {config.sharding} out."
        )
    if world.size == 1 or not config.sharding:
        from convkit.train.sharding.plain import Plain

        return Plain(model, config, world)
    if config.fsdp:
        from convkit.train.sharding.fsdp import Fsdp

        return Fsdp(model, config, world)
    from convkit.train.sharding.zero import Zero

    return Zero(model, config, world)
