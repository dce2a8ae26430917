"""DeepSpeed ZeRO: stage 2 shards gradients and moments, stage 3 also weights."""

import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from convkit.train.config import Config
from convkit.train.distributed.world import BUCKET, World
from convkit.train.optim.adamw import make_optimizer
from convkit.train.optim.sharding.base import MOMENTS
from convkit.train.setup.precision import LossScaler


class Zero:
    """DeepSpeed's engine at stage 2; the trainer decides when it updates."""

    name = "--deepspeed zero2"
    requires_lockstep = True
    stage = 2

    def __init__(self, model: Any, config: Config, world: World) -> None:
        self.model, self._world = model, world
        self._engine = _engine(model, config, world, self.stage)
        self._optimizer = self._engine.optimizer
        self.scale = LossScaler(config, world.device)
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def forward(self, **batch: Any) -> Any:
        return self._engine(**batch)

    def backward(self, loss: Tensor, last: bool) -> None:
        self._engine.set_gradient_accumulation_boundary(last)
        # DeepSpeed averages over ranks, but the loss of each rank is already divided by the global batch.
        self._engine.backward(loss * self._world.size)

    def hook_gradient(self, parameter: nn.Parameter, note: Callable[[Tensor], None]) -> RemovableHandle:
        handle: RemovableHandle = parameter.register_hook(note)  # type: ignore[no-untyped-call]
        return handle

    def clip(self, max_norm: float) -> float:
        """Return the gradient norm; DeepSpeed clips in its update, to the norm in its options."""
        norm = float(self._optimizer.scaled_global_norm())
        return norm if norm >= 0 else float("nan")  # a negative norm stands for NaN

    def update(self, rate: float) -> bool:
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._engine.step()
        return False

    def reset_moments(self) -> None:
        for state in self._states():
            for kind in MOMENTS:
                state[kind].zero_()

    def parameter_states(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        self._link()
        step = next(self._states())["step"]
        for name, parameter in self._trained.items():
            moments = {kind: safe_get_full_optimizer_state(parameter, kind) for kind in MOMENTS[1:]}
            yield name, {"weight": safe_get_full_fp32_param(parameter), "step": step.clone(), **moments}

    def load_parameter_states(self, read: Callable[[str, str], Tensor]) -> None:
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        self._link()
        for name, parameter in self._trained.items():
            weight = read("weight", name).to(self._world.device)
            parameter.data.copy_(weight)
            safe_set_full_fp32_param(parameter, weight)
            for kind in MOMENTS[1:]:
                safe_set_full_optimizer_state(parameter, read(kind, name).to(self._world.device), kind)
        self._set_step(read)

    def full_weights(self) -> dict[str, Tensor]:
        # Copies: parameters are views of one flat tensor, which safetensors refuses.
        return {name: t.cpu().clone() for name, t in self.model.state_dict().items()} if self._world.first else {}

    def _states(self) -> Iterator[dict[str, Tensor]]:
        return iter(self._optimizer.optimizer.state.values())

    def _set_step(self, read: Callable[[str, str], Tensor]) -> None:
        step = read("step", next(iter(self._trained)))
        for state in self._states():
            state["step"].copy_(step)

    def _link(self) -> None:
        """Link each parameter to its moments: DeepSpeed does so only after the first update of the first group."""
        self._optimizer._hp_optimizer_states_linked = False
        self._optimizer._lazy_init_hp_params_optimizer_state()


def _engine(model: Any, config: Config, world: World, stage: int) -> Any:
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    import deepspeed

    deepspeed.utils.logger.setLevel(logging.ERROR)
    if world.device.type == "cpu":
        # Its own kernel would have to be compiled, and sums in another order; gloo is available.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    engine, *_ = deepspeed.initialize(
        model=model.to(world.device),
        optimizer=make_optimizer(model, config),
        config=_options(config, stage),
        dist_init_required=False,
    )
    return engine


def _options(config: Config, stage: int) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.max_grad_norm,
        # The optimizer is a subclass of torch's AdamW, but DeepSpeed recognises only exact classes.
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": stage,
            "reduce_bucket_size": BUCKET,
            "allgather_bucket_size": BUCKET,
            "stage3_param_persistence_threshold": 0,
        },
        # Autocast for computations only: gradients are reduced in the dtype of their weights.
        "torch_autocast": {
            "enabled": config.precision == "bfloat16",
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],
        },
    }
