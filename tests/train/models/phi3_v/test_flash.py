"""Test how Phi-3-vision calls flash-attn 2, with fake functions because the package needs a GPU to build."""

import sys
from importlib.machinery import ModuleSpec
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (its name everywhere)
from torch import Tensor
from transformers import modeling_flash_attention_utils as flash

from convkit.schema import Row
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.models.phi3_v.modeling import Phi3VPreTrainedModel
from tests.train.models.phi3_v.test_model import _generate, _sample, _shrink

Calls = list[dict[str, Any]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Replace flash-attn's two functions by their documented behaviour, and record each call."""
    made: Calls = []

    def flash_attn_func(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        dropout_p: float = 0.0,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
        deterministic: bool = False,
    ) -> Tensor:
        made.append({"causal": causal, "window": window_size, "dropout": dropout_p})
        return _attend(q, k, v, softmax_scale, causal)

    def flash_attn_varlen_func(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        dropout_p: float = 0.0,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
        deterministic: bool = False,
    ) -> Tensor:
        made.append({"causal": causal, "window": window_size, "dropout": dropout_p, "bounds": cu_seqlens_q.tolist()})
        assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
        assert (max_seqlen_q, max_seqlen_k) == (int(cu_seqlens_q.diff().max()), int(cu_seqlens_k.diff().max()))
        spans = zip(pairwise(cu_seqlens_q.tolist()), pairwise(cu_seqlens_k.tolist()), strict=True)
        documents = [
            _attend(q[None, a:b], k[None, c:d], v[None, c:d], softmax_scale, causal)[0] for (a, b), (c, d) in spans
        ]
        return torch.cat(documents)

    package, padding = ModuleType("flash_attn"), ModuleType("flash_attn.bert_padding")
    vars(package).update(
        __spec__=ModuleSpec("flash_attn", None),
        flash_attn_func=flash_attn_func,
        flash_attn_varlen_func=flash_attn_varlen_func,
        flash_attn_with_kvcache=None,
        bert_padding=padding,
    )
    vars(padding).update(pad_input=flash._pad_input, unpad_input=flash._unpad_input)
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    monkeypatch.setitem(sys.modules, "flash_attn.bert_padding", padding)
    monkeypatch.setattr(flash, "is_flash_attn_2_available", lambda: True)
    for name in vars(flash):
        if name.endswith("_fn") or name == "_loaded_implementation":
            monkeypatch.setattr(flash, name, getattr(flash, name))  # restores the cached imports after the test
    monkeypatch.setattr(flash, "_loaded_implementation", None)
    monkeypatch.setattr(Phi3VPreTrainedModel, "_flash_attn_can_dispatch", lambda *_, **__: True)
    return made


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None, causal: bool) -> Tensor:
    """Attend over (B, T, H, D); with fewer queries than keys, the last query is aligned with the last key."""
    mask = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril(k.shape[1] - q.shape[1]) if causal else None
    q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(1, 2)


def test_packed_documents_are_passed_as_cumulative_lengths(family: Phi3VFamily, calls: Calls) -> None:
    samples = [_sample(family, 1), _sample(family, 2, extra=90), _sample(family, 3, image=False)]
    batch = family.collate(samples, packed=True)
    found = {}
    for attention in ("varlen", "flash_attention_2"):
        model = family.load(torch.float32, attention).train()
        _shrink(model, 400)
        output = model(**batch)
        output.loss.backward()
        found[attention] = (output.logits, {name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    torch.testing.assert_close(found["flash_attention_2"], found["varlen"], atol=1e-5, rtol=1e-5)
    text = [call for call in calls if call["causal"]]
    assert [call["bounds"] for call in text] == [batch["cu_seq_lens_q"].tolist()] * 2  # layers
    assert [call.get("bounds") for call in calls if not call["causal"]] == [None] * 3  # CLIP layers except the last
    assert all(call["window"] == (-1, -1) and not call["dropout"] for call in calls)


@pytest.mark.parametrize("prompts", [False, True], ids=["right", "left"])
def test_padding_is_removed_before_attention(family: Phi3VFamily, calls: Calls, prompts: bool) -> None:
    row = Row.model_validate(
        {"id": "r1", "source": "s", "conversations": [{"images": [], "user": "What?", "assistant": "A cup."}]}
    )
    make = family.encode_prompt if prompts else family.encode
    other = row.model_copy(update={"system": "Be true, and brief."})
    batch = family.collate([make(row, family.directory), make(other, family.directory)], packed=False)
    real = batch["attention_mask"].bool()
    logits = []
    for attention in ("sdpa", "flash_attention_2"):
        with torch.no_grad():
            logits.append(family.load(torch.float32, attention).eval()(**batch).logits[real])
    torch.testing.assert_close(logits[1], logits[0], atol=1e-5, rtol=1e-5)
    lengths = real.sum(dim=1)
    assert calls and all(call["bounds"] == [0, int(lengths[0]), int(lengths.sum())] for call in calls)


def test_generation_uses_the_cache(family: Phi3VFamily, calls: Calls) -> None:
    sample = _sample(family, 1)
    inputs = {
        "input_ids": sample.input_ids[None],
        "attention_mask": torch.ones(1, len(sample)).long(),
        **sample.image_inputs,
    }
    found = []
    for attention in ("sdpa", "flash_attention_2"):
        model = family.load(torch.float32, attention).eval()
        _shrink(model, len(sample) + 4)  # the prompt is recomputed on the way
        found.append(_generate(model, inputs))
    assert torch.equal(found[1].sequences, found[0].sequences)
    torch.testing.assert_close(found[1].logits, found[0].logits, atol=1e-5, rtol=1e-5)
    assert calls
