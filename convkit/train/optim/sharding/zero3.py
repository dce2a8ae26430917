"""DeepSpeed ZeRO, stage 3: weights too lie in pieces on all processes; a layer is whole while it computes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from convkit.train.optim.sharding.base import MOMENTS
from convkit.train.optim.sharding.zero import Zero


class Zero3(Zero):
    """Stage 2, but for what has to do with weights: between its uses a parameter is empty."""

    name = "--deepspeed zero3"
    stage = 3

    def clip(self, max_norm: float) -> float:
        """It only looks, as in stage 2."""
        from deepspeed.runtime.utils import combine_grad_norm_groups

        return float(combine_grad_norm_groups(self._optimizer._get_norm_groups()))

    def restore(self, read: Callable[[str, str], Tensor]) -> None:
        from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state

        for name, parameter in self._trained.items():
            piece = self._piece(read("weight", name), parameter)
            safe_set_local_fp32_param(parameter, piece)
            # The copy that forward gathers. DeepSpeed 0.19 keeps it apart from the one it updates, even in float32, and
            # would take over the other's numbers after the next update only.
            parameter.ds_tensor.copy_(piece)
            for kind in MOMENTS[1:]:
                safe_set_local_optimizer_state(parameter, self._piece(read(kind, name), parameter), kind)
        self._set_step(read)

    def weights(self) -> dict[str, Tensor]:
        from deepspeed.runtime.zero import GatheredParameters

        found = {}
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            with GatheredParameters(tensor):
                if self._world.first:
                    found[name] = tensor.detach().cpu().clone()
        return found

    def _piece(self, whole: Tensor, parameter: nn.Parameter) -> Tensor:
        """This process's; all are of one size, the last ones filled up with zeros."""
        size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
        piece = whole.flatten()[self._world.rank * size :][:size]
        return torch.nn.functional.pad(piece, (0, size - piece.numel())).to(self._world.device)

    def _link(self) -> None:
        """Each parameter knows its moments."""
