"""Everything whole on every process; gradients are added up once a step."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from convkit.train.config import Config
from convkit.train.distributed.world import World
from convkit.train.optim.adamw import make_optimizer
from convkit.train.optim.sharding.base import KINDS
from convkit.train.setup.precision import LossScale


class Plain:
    """For one process, and for adapters."""

    name = ""
    requires_lockstep = False

    def __init__(self, model: Any, config: Config, world: World) -> None:
        self.model = model.to(world.device)
        self.optimizer = make_optimizer(self.model, config)
        self.scale = LossScale(config, world.device)
        self._world = world
        self._trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def forward(self, **batch: Any) -> Any:
        return self.model(**batch)

    def backward(self, loss: Tensor, last: bool) -> None:
        self.scale.backward(loss)

    def watch(self, parameter: nn.Parameter, note: Callable[[Tensor], None]) -> RemovableHandle:
        handle: RemovableHandle = parameter.register_hook(note)  # type: ignore[no-untyped-call]
        return handle

    def clip(self, max_norm: float) -> float:
        parameters = list(self._trained.values())
        self._world.sum_gradients(parameters)  # before it is seen whether they fit: all skip a step together
        self.scale.unscale(self.optimizer)
        return float(self.optimizer.clip(max_norm))

    def update(self, rate: float) -> bool:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        skipped = self.scale.step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        return skipped

    def forget(self) -> None:
        self.optimizer.forget()

    def trained(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        for name, parameter in self._trained.items():
            yield name, self.optimizer.whole(parameter)

    def restore(self, read: Callable[[str, str], Tensor]) -> None:
        for name, parameter in self._trained.items():
            self.optimizer.put(parameter, {kind: read(kind, name) for kind in KINDS})

    def weights(self) -> dict[str, Tensor]:
        return dict(self.model.state_dict()) if self._world.first else {}
