"""The gradient of SwiGLU, as compiled layers compute it."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (its name everywhere)
from torch import Tensor

from convkit.train.models.kernels.swiglu import swiglu
from tests.train.helpers import runs


@pytest.fixture(autouse=True)
def _compiled_anew() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def plain(both: Tensor) -> Tensor:
    gate, up = both.chunk(2, dim=-1)
    return up * F.silu(gate)


def computed(function: object, both: Tensor, upper: Tensor) -> list[Tensor]:
    """Output and gradient."""
    leaf = both.detach().requires_grad_()
    output = function(leaf)  # type: ignore[operator]
    output.backward(upper)
    assert leaf.grad is not None
    return [output.detach(), leaf.grad]


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # which torch's compiler does
@pytest.mark.parametrize("device", runs.DEVICES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-7)])
@pytest.mark.parametrize("shape", [(3, 5, 2 * 7), (2, 2 * 1500), (0, 2 * 16)])
def test_compiled_it_is_what_torch_derives(
    shape: tuple[int, ...], dtype: torch.dtype, tolerance: float, device: str
) -> None:
    torch.manual_seed(0)
    both = (4 * torch.randn(shape)).to(dtype)
    upper = torch.randn(shape[-1] // 2, *shape[:-1]).to(dtype).movedim(0, -1)  # as it may lie
    compiled = torch.compile(swiglu, backend="aot_eager", fullgraph=True)
    found = computed(compiled, both.to(device), upper.to(device))
    wanted = computed(plain, both.double(), upper.double())
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.cpu().double(), other, rtol=tolerance, atol=tolerance)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*Profiler clears events:UserWarning")
@pytest.mark.parametrize("compiles", [False, True])
def test_only_what_is_compiled_uses_the_operator(compiles: bool) -> None:
    function = torch.compile(swiglu, backend="aot_eager") if compiles else swiglu
    both, upper = torch.randn(3, 8), torch.randn(3, 4)
    computed(function, both, upper)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        computed(function, both, upper)
    assert ("convkit::swiglu_backward" in {event.key for event in seen.key_averages()}) == compiles
