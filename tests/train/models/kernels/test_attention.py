"""The choice of attention kernels, and packs padded to a batch for cuDNN."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor, nn

from convkit.train.models.kernels import attention, pad_packed
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.setup.compilation import compile_layers
from tests.train.helpers import runs
from tests.train.helpers.gradients import assert_same_gradients


def test_cudnn_attention_is_not_used_with_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_is_full_attention", lambda module, query, key: True)
    monkeypatch.setattr(attention, "_cudnn_attention", lambda query, key, value, scaling, causal: query)
    states = torch.randn(1, 2, 3, 4)
    for dropout, is_theirs in ((0.0, True), (0.9, False)):
        output, _ = attention.varlen_attention_forward(nn.Identity(), states, states, states, None, dropout)
        assert torch.equal(output.transpose(1, 2), states) == is_theirs


@pytest.mark.parametrize(
    ("kernels", "options"),
    [
        (True, {}),
        (False, {"deterministic": True}),
        (False, {"groups": 2}),
        (False, {"dropout": 0.1}),
        (False, {"is_causal": True}),
    ],
)
def test_cudnn_attention_is_used_only_where_it_supports_the_request(
    monkeypatch: pytest.MonkeyPatch, kernels: bool, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: options.get("deterministic", False))
    calls: list[str] = []
    output = torch.zeros(1, 4, 6, 8)

    def called(name: str) -> Any:
        calls.append(name)
        return output

    monkeypatch.setattr(attention, "_cudnn_attention", lambda *_, causal: called("cudnn"))
    monkeypatch.setattr(attention, "sdpa_attention_forward", lambda *_, **__: (called("sdpa"), None))
    module: Any = SimpleNamespace(is_causal=options.get("is_causal", False))
    query: Any = SimpleNamespace(is_cuda=True, device="cuda", dtype=torch.bfloat16, shape=output.shape)
    key: Any = SimpleNamespace(shape=(1, 4 // options.get("groups", 1), 6, 8))
    attention.varlen_attention_forward(module, query, key, key, None, options.get("dropout", 0.0))
    assert calls == ["cudnn" if kernels else "sdpa"]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch.compile reads it
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch.compile does so itself
@pytest.mark.parametrize("checkpointing", ["none", "all"])
def test_a_pack_padded_to_a_batch_has_the_same_gradients(
    dataset: Path, family: Phi3VFamily, monkeypatch: pytest.MonkeyPatch, checkpointing: str
) -> None:
    config = runs.config(dataset, family.directory, dataset, gradient_checkpointing=checkpointing)
    trainer, packs = runs.parts(config, family)
    monkeypatch.setattr(pad_packed, "_LENGTH_MULTIPLE", 16)
    batch = packs.batch((0, 0, 0))
    plain = runs.gradients(trainer, batch)
    shapes: list[tuple[int, int]] = []

    def attend(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, causal: bool = True) -> Tensor:
        if not torch.compiler.is_compiling():  # torch.compile cannot trace this list
            shapes.append((len(query), query.shape[2] % 16))
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scaling)

    monkeypatch.setattr(attention, "_supports_cudnn", lambda query: True)
    monkeypatch.setattr(attention, "_cudnn_attention", attend)
    assert_same_gradients(runs.gradients(trainer, batch), plain)
    assert (3, 0) in shapes
    shapes.clear()
    torch._dynamo.utils.counters.clear()
    compile_layers(trainer.sharding.model, family.compiled_layers, backend="aot_eager")
    try:
        assert_same_gradients(runs.gradients(trainer, batch), plain)
        assert not shapes and not torch._dynamo.utils.counters["graph_break"]
    finally:
        torch._dynamo.reset()
