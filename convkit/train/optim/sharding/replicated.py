"""Data parallelism without sharding: gradients are summed over ranks once per step."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from convkit.train.config import Config
from convkit.train.distributed.world import World
from convkit.train.optim.adamw import make_optimizer
from convkit.train.optim.sharding.base import STATE_KINDS
from convkit.train.setup.precision import LossScaler


class Replicated:
    """A replica of the model on each rank, for a single process and for LoRA."""

    name = ""
    requires_lockstep = False

    def __init__(self, model: Any, config: Config, world: World) -> None:
        self.model = model.to(world.device)
        self.optimizer = make_optimizer(self.model, config)
        self.scale = LossScaler(config, world.device)
        self._world = world
        self._trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def forward(self, **batch: Any) -> Any:
        return self.model(**batch)

    def backward(self, loss: Tensor, last: bool) -> None:
        self.scale.backward(loss)

    def hook_gradient(self, parameter: nn.Parameter, note: Callable[[Tensor], None]) -> RemovableHandle:
        handle: RemovableHandle = parameter.register_hook(note)  # type: ignore[no-untyped-call]
        return handle

    def clip(self, max_norm: float) -> float:
        parameters = list(self._trained.values())
        self._world.sum_gradients(parameters)  # before checking for overflow, so that all ranks skip a step together
        self.scale.unscale(self.optimizer)
        return float(self.optimizer.clip(max_norm))

    def update(self, rate: float) -> bool:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        skipped = self.scale.step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        return skipped

    def reset_moments(self) -> None:
        self.optimizer.reset_moments()

    def parameter_states(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        for name, parameter in self._trained.items():
            yield name, self.optimizer.full_state(parameter)

    def load_parameter_states(self, read: Callable[[str, str], Tensor]) -> None:
        for name, parameter in self._trained.items():
            self.optimizer.load_state(parameter, {kind: read(kind, name) for kind in STATE_KINDS})

    def full_weights(self) -> dict[str, Tensor]:
        return dict(self.model.state_dict()) if self._world.first else {}
