"""The SwiGLU gradient operator of compiled layers."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor

from convkit.train.models.kernels.swiglu import swiglu
from tests.train.helpers import runs


@pytest.fixture(autouse=True)
def _reset_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def reference(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return up * F.silu(gate)


def run(function: object, gate_up: Tensor, upper: Tensor) -> list[Tensor]:
    """Return the output and the gradient of the input."""
    leaf = gate_up.detach().requires_grad_()
    output = function(leaf)  # type: ignore[operator]
    output.backward(upper)
    assert leaf.grad is not None
    return [output.detach(), leaf.grad]


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch.compile does so
@pytest.mark.parametrize("device", runs.DEVICES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-7)])
@pytest.mark.parametrize("shape", [(3, 5, 2 * 7), (2, 2 * 1500), (0, 2 * 16)])
def test_the_compiled_gradient_equals_that_of_autograd(
    shape: tuple[int, ...], dtype: torch.dtype, tolerance: float, device: str
) -> None:
    torch.manual_seed(0)
    gate_up = (4 * torch.randn(shape)).to(dtype)
    upper = torch.randn(shape[-1] // 2, *shape[:-1]).to(dtype).movedim(0, -1)  # not contiguous
    compiled = torch.compile(swiglu, backend="aot_eager", fullgraph=True)
    found = run(compiled, gate_up.to(device), upper.to(device))
    wanted = run(reference, gate_up.double(), upper.double())
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.cpu().double(), other, rtol=tolerance, atol=tolerance)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*Profiler clears events:UserWarning")
@pytest.mark.parametrize("compiles", [False, True])
def test_only_compiled_code_uses_the_operator(compiles: bool) -> None:
    function = torch.compile(swiglu, backend="aot_eager") if compiles else swiglu
    gate_up, upper = torch.randn(3, 8), torch.randn(3, 4)
    run(function, gate_up, upper)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        run(function, gate_up, upper)
    assert ("convkit::swiglu_backward" in {event.key for event in seen.key_averages()}) == compiles
