"""DeepSpeed ZeRO stage 3: weights are sharded too; each layer is gathered while it computes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from convkit.train.optim.sharding.base import MOMENTS
from convkit.train.optim.sharding.zero import Zero


class Zero3(Zero):
    """Stage 2 with sharded weights: a parameter is empty except while it is used."""

    name = "--deepspeed zero3"
    stage = 3

    def clip(self, max_norm: float) -> float:
        """Return the gradient norm, as in stage 2."""
        from deepspeed.runtime.utils import combine_grad_norm_groups

        return float(combine_grad_norm_groups(self._optimizer._get_norm_groups()))

    def load_parameter_states(self, read: Callable[[str, str], Tensor]) -> None:
        from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state

        for name, parameter in self._trained.items():
            piece = self._piece(read("weight", name), parameter)
            safe_set_local_fp32_param(parameter, piece)
            # The copy that the forward pass gathers. DeepSpeed 0.19 keeps it separate from the updated one, even in
            # float32, and synchronises the two only after the next update.
            parameter.ds_tensor.copy_(piece)
            for kind in MOMENTS[1:]:
                safe_set_local_optimizer_state(parameter, self._piece(read(kind, name), parameter), kind)
        self._set_step(read)

    def full_weights(self) -> dict[str, Tensor]:
        from deepspeed.runtime.zero import GatheredParameters

        found = {}
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            with GatheredParameters(tensor):
                if self._world.first:
                    found[name] = tensor.detach().cpu().clone()
        return found

    def _piece(self, whole: Tensor, parameter: nn.Parameter) -> Tensor:
        """Return this rank's shard; all shards have the same size, padded with zeros."""
        size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
        piece = whole.flatten()[self._world.rank * size :][:size]
        return torch.nn.functional.pad(piece, (0, size - piece.numel())).to(self._world.device)

    def _link(self) -> None:
        """Do nothing: in stage 3, each parameter is linked to its moments from the start."""
