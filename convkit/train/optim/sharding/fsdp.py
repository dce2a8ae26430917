"""FSDP2: weights, gradients and moments are sharded; each layer is gathered while it computes."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.hooks import RemovableHandle

from convkit.train.config import Config
from convkit.train.distributed.world import World
from convkit.train.optim.adamw import make_optimizer
from convkit.train.optim.sharding.base import MOMENTS
from convkit.train.setup.precision import LossScaler


class Fsdp:
    """A model sharded per module that is listed in its `_no_split_modules`."""

    name = "--fsdp"
    requires_lockstep = True

    def __init__(self, model: Any, config: Config, world: World) -> None:
        self._world = world
        self.model = _fully_shard(model, world)
        self.optimizer = make_optimizer(self.model, config)
        self.scale = LossScaler(config, world.device)
        self._trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def forward(self, **batch: Any) -> Any:
        return self.model(**batch)

    def backward(self, loss: Tensor, last: bool) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def hook_gradient(self, parameter: nn.Parameter, note: Callable[[Tensor], None]) -> RemovableHandle:
        handle: RemovableHandle = parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
            lambda p: note(p.grad.to_local())
        )
        return handle

    def clip(self, max_norm: float) -> float:
        norm = torch.nn.utils.clip_grad_norm_(self._trained.values(), max_norm)
        return float(_whole(norm))

    def update(self, rate: float) -> bool:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return False

    def reset_moments(self) -> None:
        for state in self.optimizer.state.values():
            for kind in MOMENTS:
                state[kind].zero_()

    def parameter_states(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        for name, parameter in self._trained.items():
            state = self.optimizer.state[parameter]
            yield name, {"weight": _whole(parameter), **{kind: _whole(state[kind]) for kind in MOMENTS}}

    def load_parameter_states(self, read: Callable[[str, str], Tensor]) -> None:
        for name, parameter in self._trained.items():
            state = self.optimizer.state[parameter]
            state["step"].copy_(read("step", name))
            places = cast(DTensor, parameter).device_mesh, cast(DTensor, parameter).placements
            for kind in ("weight", *MOMENTS[1:]):
                whole = read(kind, name).to(self._world.device)
                piece = distribute_tensor(whole, *places, src_data_rank=None)  # each rank reads the full tensor itself
                (parameter.data if kind == "weight" else state[kind]).copy_(piece)

    def full_weights(self) -> dict[str, Tensor]:
        found = {}
        for name, tensor in self.model.state_dict().items():
            whole = _whole(tensor)
            if self._world.first:
                found[name] = whole.cpu()
        return found


def _fully_shard(model: Any, world: World) -> Any:
    mesh = init_device_mesh(world.device.type, (world.size,))
    # Frozen weights are few and of another dtype: they are replicated.
    frozen = {p for p in model.parameters() if not p.requires_grad}
    for parameter in frozen:
        parameter.data = parameter.data.to(world.device)
    for module in model.modules():
        if type(module).__name__ in model._no_split_modules and any(p.requires_grad for p in module.parameters()):
            fully_shard(module, mesh=mesh, ignored_params=frozen)
    fully_shard(model, mesh=mesh, ignored_params=frozen)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # Sum instead of averaging: the loss of each rank is already divided by the global batch.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return model


def _whole(tensor: Tensor) -> Tensor:
    """Gather the full tensor from all ranks."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.detach()
