"""What makes training fast computes what the plain way does: adapters, losses, places of images, weights in halves."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (its name everywhere)
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPAttention

from convkit.errors import ConvkitError
from convkit.train.evaluate.generate import Generator
from convkit.train.models.kernels import attention, lora, pad_packed
from convkit.train.models.kernels.lora import Fused, SharedAttention
from convkit.train.models.phi3_v import loss as losses
from convkit.train.models.phi3_v import vision
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.optim.adamw import BETAS, EPSILON, AdamW, CompactAdamW, _joined, _split
from convkit.train.optim.sharding.base import MOMENTS
from convkit.train.setup import activation_checkpointing, compilation, trainable
from convkit.train.setup.compilation import compile_layers
from tests.train.helpers import runs


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_dataset(tmp_path_factory.mktemp("data") / "pets")


@pytest.fixture
def budget() -> Iterator[None]:
    """Whatever share of activations a test lets torch keep is put back."""
    before = torch._functorch.config.activation_memory_budget
    yield
    compilation.keep(before)


def assert_same(ours: tuple[float, dict[str, Tensor]], theirs: tuple[float, dict[str, Tensor]]) -> None:
    assert ours[0] == pytest.approx(theirs[0], abs=1e-5)
    assert ours[1].keys() == theirs[1].keys()
    for name, gradient in theirs[1].items():
        torch.testing.assert_close(ours[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def saved(forward: Callable[[], Any]) -> list[Tensor]:
    """What is kept for the backward pass."""
    kept: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward()
    return kept


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of each time that adapters are computed by us, how many layers share it."""
    calls: list[int] = []
    ours = lora._lora

    def count(x: Tensor, frozen: Any, biases: Any, narrow: Tensor, wides: list[Tensor], scalings: Any) -> Any:
        calls.append(len(wides))
        return ours(x, frozen, biases, narrow, wides, scalings)

    monkeypatch.setattr(lora, "_lora", count)
    return calls


@pytest.mark.parametrize(
    "method", [{"use_lora": True}, {"use_lora": True, "gradient_checkpointing": "all"}, {"use_qlora": True}]
)
def test_fused_adapters_compute_what_peft_does(
    dataset: Path, family: Phi3VFamily, monkeypatch: pytest.MonkeyPatch, method: dict[str, Any]
) -> None:
    if "use_qlora" in method:
        pytest.importorskip("bitsandbytes", reason="QLoRA needs bitsandbytes")
    config = runs.config(dataset, family.directory, dataset, **method)
    trainer, packs = runs.parts(config, family)
    model = trainer.sharding.model
    runs.stir(model)
    fused = [module for module in model.modules() if isinstance(module, Fused)]
    assert len(fused) == 2 * 4 + 4 * 6 + 2 + 1 - 6  # all of the language model, the layers of CLIP that run, the rest
    calls = counted(monkeypatch)
    ours = runs.gradients(trainer, packs.batch((0, 1, 2)))
    in_layers, outside, times = 2 * 4 + 3 * 3, 2 + 1, 2 if "checkpointing" in method else 1
    assert (calls.count(3), calls.count(1)) == (3 * times, in_layers * times + outside)
    calls.clear()
    lora.unfuse(model)
    assert not [module for module in model.modules() if isinstance(module, Fused | SharedAttention)]
    assert_same(ours, runs.gradients(trainer, packs.batch((0, 1, 2))))
    assert not calls


def test_adapters_with_dropout_are_left_to_peft(dataset: Path, family: Phi3VFamily) -> None:
    config = runs.config(dataset, family.directory, dataset, use_lora=True, lora_dropout=0.1)
    model = trainable.load(family, config)
    assert not [module for module in model.modules() if isinstance(module, Fused | SharedAttention)]


def adapted_attention(*left_out: str) -> Any:
    """CLIP's attention with adapters of peft's that are not zero, of unlike ranks and scales."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(hidden_size=16, num_attention_heads=2, attn_implementation="sdpa")
    model = nn.ModuleDict({"attention": CLIPAttention(config)}).requires_grad_(False)
    targets = sorted({"q_proj", "k_proj", "v_proj", "out_proj"} - {*left_out})
    ranks = {name: 5 for name in targets if name == "k_proj"}
    inject_adapter_in_model(
        LoraConfig(r=3, lora_alpha=5, rank_pattern=ranks, target_modules=targets, init_lora_weights=False), model
    )
    return model["attention"]


@pytest.mark.parametrize("input_wanted", [True, False])
@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-5), (True, 0.1)])
def test_layers_of_one_input_compute_what_each_does(input_wanted: bool, half: bool, tolerance: float) -> None:
    module, x = adapted_attention(), torch.randn(2, 5, 16, requires_grad=input_wanted)
    layers, turned = [module.q_proj, module.k_proj, module.v_proj], torch.randn(2, 16, 5)

    def computed(attend: Any) -> tuple[list[Tensor], dict[str, Tensor | None]]:
        """Outputs and gradients, where keys are used by nothing, and gradients do not lie as outputs do."""
        leaves = {name: p for name, p in [*module.named_parameters(), ("input", x)] if p.requires_grad}
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            outputs = attend()
            loss = (outputs[0].transpose(1, 2) * turned).sum() + outputs[2].sum()
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        return outputs, dict(zip(leaves, found, strict=True))

    theirs = computed(lambda: [layer(x) for layer in layers])
    lora.fuse(module)
    ours = computed(lambda: lora._adapted(layers, x))
    assert ("input" in ours[1]) == input_wanted
    for mine, other in zip(ours[0], theirs[0], strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)
    for name, gradient in theirs[1].items():
        found = ours[1][name]
        if "k_proj" in name:
            assert gradient is None and found is not None and not found.any()
        else:
            torch.testing.assert_close(found, gradient, rtol=tolerance, atol=tolerance, msg=name)


def test_of_the_input_nothing_is_kept_but_itself_and_its_images() -> None:
    module, x = adapted_attention(), torch.randn(2, 5, 16)
    lora.fuse(module)
    kept = saved(lambda: lora._adapted([module.q_proj, module.k_proj, module.v_proj], x))
    ranks = 3 + 5 + 3
    weights = [(ranks, 16), (16, 3), (16, 5), (16, 3), *[(16, 16)] * 3]
    assert [tuple(tensor.shape) for tensor in kept] == [(2, 5, 16), (2 * 5, ranks), *weights]


@pytest.mark.parametrize("biased", [True, False])
def test_torch_can_compile_what_adapters_compute(biased: bool) -> None:
    x, narrow = torch.randn(2, 5, 16), torch.randn(8, 16)
    weights, biases = [torch.randn(12, 16), torch.randn(7, 16)], [torch.randn(12), torch.randn(7)] * biased
    wides, scalings = [torch.randn(12, 3), torch.randn(7, 5)], [2.0, 0.5]
    gradients, images = [torch.randn(2, 5, 12), torch.randn(2, 5, 7)], torch.randn(2 * 5, 8)
    for input_wanted in (True, False):
        plain: Any = (gradients, x, images, weights, narrow, wides, scalings, input_wanted)
        torch.library.opcheck(lora._lora_backward, plain)
    for trained in (x, narrow, *wides):
        trained.requires_grad_()
    torch.library.opcheck(lora._lora, (x, weights, biases, narrow, wides, scalings))


def test_an_input_is_shared_while_all_that_read_it_adapt(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, ours, theirs = counted(monkeypatch), adapted_attention(), adapted_attention()
    x = torch.randn(2, 5, 16)
    assert lora.fuse(ours) == 4

    def compute_the_same(*sharing: int) -> None:
        calls.clear()
        torch.testing.assert_close(ours(x)[0], theirs(x)[0])
        assert calls == [*sharing]

    compute_the_same(3, 1)
    with torch.no_grad():
        compute_the_same()
    ours.k_proj.merge()
    compute_the_same(1, 1, 1)
    ours.k_proj.unmerge()
    for module in (ours, theirs):
        module.v_proj.enable_adapters(False)
    compute_the_same(1, 1, 1)
    for module in (ours, theirs):
        module.v_proj = module.v_proj.get_base_layer()
    compute_the_same(1, 1, 1)


def test_a_shared_input_does_not_break_what_is_compiled() -> None:
    module = adapted_attention()
    lora.fuse(module)
    trained = [p for p in module.parameters() if p.requires_grad]
    compiled = torch.compile(module.forward, dynamic=True, fullgraph=True, backend="aot_eager")
    try:
        for crops in (2, 3):
            x = torch.randn(crops, 5, 16)
            found, expected = (
                torch.autograd.grad(forward(x)[0].square().sum(), trained) for forward in (compiled, module)
            )
            torch.testing.assert_close(found, expected)
    finally:
        torch._dynamo.reset()


@pytest.mark.parametrize("left_out", ["q_proj", "k_proj", "v_proj"])
def test_an_input_that_not_all_adapt_is_not_shared(left_out: str) -> None:
    module = adapted_attention(left_out)
    assert lora.fuse(module) == 3
    assert type(module) is CLIPAttention


@pytest.mark.parametrize("method", [{}, {"use_lora": True}, {"use_lora": True, "gradient_checkpointing": "all"}])
def test_the_loss_at_learnt_places_is_the_loss(
    dataset: Path, family: Phi3VFamily, monkeypatch: pytest.MonkeyPatch, method: dict[str, Any]
) -> None:
    trainer, packs = runs.parts(runs.config(dataset, family.directory, dataset, **method), family)
    runs.stir(trainer.sharding.model)
    batch = packs.batch((0, 1, 2, 4))
    assert len(batch["logits_to_keep"]) == int((batch["labels"][0, 1:] != -100).sum()) > 4
    ours = runs.gradients(trainer, batch)
    monkeypatch.setattr(losses, "_AT_ONCE", 3)
    in_parts = runs.gradients(trainer, batch)
    del batch["logits_to_keep"]
    everywhere = runs.gradients(trainer, batch)
    assert_same(ours, everywhere)
    assert_same(in_parts, everywhere)


@pytest.mark.parametrize("checkpointing", ["none", "all"])
def test_the_last_layer_computes_learnt_places_alone(dataset: Path, family: Phi3VFamily, checkpointing: str) -> None:
    trainer, packs = runs.parts(
        runs.config(dataset, family.directory, dataset, gradient_checkpointing=checkpointing), family
    )
    batch, seen = packs.batch((0, 1, 2, 4)), []
    for layer in trainer.sharding.model.model.layers:
        layer.mlp.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    tokens, learnt = batch["labels"].shape[1], len(batch["logits_to_keep"])
    runs.gradients(trainer, batch)
    assert seen == [tokens, learnt] + ([learnt, tokens] if checkpointing == "all" else [])
    seen.clear()
    del batch["logits_to_keep"]
    trainer.forward(batch, 1)
    assert seen == [tokens, tokens]


def test_places_are_those_of_one_sequence() -> None:
    hidden, labels = torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="one sequence, not of 2: leave logits_to_keep out"):
        losses.cross_entropy_at(hidden, labels, torch.tensor([0]), nn.Linear(4, 5), None)


@pytest.mark.parametrize("at_once", [1, 3])
def test_crops_are_seen_alike_however_many_at_once(
    family: Phi3VFamily, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    embed = family.load(torch.float32).model.vision_embed_tokens
    tiles = torch.randint(0, 256, (5, 3, 336, 336), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sizes = [(672, 672), (336, 336)]
    whole = embed(tiles, sizes)
    seen: list[int] = []
    embed.img_processor.vision_model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    monkeypatch.setattr(vision, "_AT_ONCE", at_once)
    torch.testing.assert_close(embed(tiles, sizes), whole, rtol=1e-5, atol=1e-6)
    assert sum(seen) == 5 + 2 and max(seen) <= at_once


def test_kernels_without_dropout_are_not_for_who_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_is_whole", lambda module, query, key: True)
    monkeypatch.setattr(attention, "_cudnn", lambda query, key, value, scaling, causal: query)
    states = torch.randn(1, 2, 3, 4)
    for dropout, is_theirs in ((0.0, True), (0.9, False)):
        output, _ = attention.varlen_attention_forward(nn.Identity(), states, states, states, None, dropout)
        assert torch.equal(output.transpose(1, 2), states) == is_theirs


@pytest.mark.parametrize(
    "method",
    [
        {},
        {"optim": "adamw_bf16", "bf16": True},
        {"use_lora": True, "gradient_checkpointing": "all"},
        {"use_lora": True, "lora_dropout": 0.1, "bf16": True},
        {"use_qlora": True, "bf16": True},
        {"use_qlora": True, "lora_dropout": 0.1},
    ],
)
def test_a_pack_in_which_nothing_is_learnt_has_a_loss_of_zero(
    dataset: Path, family: Phi3VFamily, method: dict[str, Any]
) -> None:
    if "use_qlora" in method:
        pytest.importorskip("bitsandbytes", reason="QLoRA needs bitsandbytes")
    trainer, packs = runs.parts(runs.config(dataset, family.directory, dataset, **method), family)
    batch = packs.batch((0,))
    batch |= {"labels": torch.full_like(batch["labels"], -100), "logits_to_keep": torch.zeros(0, dtype=torch.long)}
    trained = {name for name, p in trainer.sharding.model.named_parameters() if p.requires_grad}
    loss, found = runs.gradients(trainer, batch)
    assert loss == 0
    assert found.keys() == trained and not any(gradient.any() for gradient in found.values())


def test_known_places_of_images_are_where_the_model_finds_them(dataset: Path, family: Phi3VFamily) -> None:
    trainer, packs = runs.parts(runs.config(dataset, family.directory, dataset), family)
    batch = packs.batch((0, 1, 3))
    ours = runs.gradients(trainer, batch)
    del batch["image_token_indices"]
    batch["image_sizes"] = torch.tensor(batch["image_sizes"])
    assert_same(ours, runs.gradients(trainer, batch))


def test_known_places_and_images_must_belong_together(dataset: Path, family: Phi3VFamily) -> None:
    trainer, packs = runs.parts(runs.config(dataset, family.directory, dataset), family)
    batch = packs.batch((0,))
    batch["image_token_indices"] = batch["image_token_indices"][:-1]
    with pytest.raises(ConvkitError, match=r"placeholders for .* image tokens, but the images make"):
        trainer.forward_backward(batch, 1, last=True)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's compiler looks there
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # which it does itself
@pytest.mark.parametrize("checkpointing", ["none", "all"])
def test_documents_side_by_side_are_the_pack(
    dataset: Path, family: Phi3VFamily, monkeypatch: pytest.MonkeyPatch, checkpointing: str
) -> None:
    config = runs.config(dataset, family.directory, dataset, gradient_checkpointing=checkpointing)
    trainer, packs = runs.parts(config, family)
    monkeypatch.setattr(pad_packed, "_EVERY", 16)
    batch = packs.batch((0, 0, 0))
    plain = runs.gradients(trainer, batch)
    shapes: list[tuple[int, int]] = []

    def attend(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, causal: bool = True) -> Tensor:
        if not torch.compiler.is_compiling():  # which could not compile it
            shapes.append((len(query), query.shape[2] % 16))
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scaling)

    monkeypatch.setattr(attention, "_suits_cudnn", lambda query: True)
    monkeypatch.setattr(attention, "_cudnn", attend)
    assert_same(runs.gradients(trainer, batch), plain)
    assert (3, 0) in shapes
    shapes.clear()
    torch._dynamo.utils.counters.clear()
    compile_layers(trainer.sharding.model, family.compiled_layers, backend="aot_eager")
    try:
        assert_same(runs.gradients(trainer, batch), plain)
        assert not shapes and not torch._dynamo.utils.counters["graph_break"]
    finally:
        torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's compiler looks there
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # which it does itself
@pytest.mark.parametrize(
    ("method", "share"),
    [
        ({}, compilation.ALL),
        ({"use_lora": True, "gradient_checkpointing": "all"}, compilation.DEAR),
        ({"use_lora": True, "bf16": True, "fp8": True}, compilation.ALL),
    ],
)
def test_compiled_layers_compute_the_same(
    dataset: Path, family: Phi3VFamily, method: dict[str, Any], share: float
) -> None:
    trainer, packs = runs.parts(runs.config(dataset, family.directory, dataset, **method), family)
    runs.stir(trainer.sharding.model)
    batches = [packs.batch(pack) for pack in ((0, 1), (3, 2, 4))]
    nothing = {
        "labels": torch.full_like(batches[0]["labels"], -100),
        "logits_to_keep": torch.zeros(0, dtype=torch.long),
    }
    batches.append(batches[0] | nothing)
    plain = [runs.gradients(trainer, batch) for batch in batches]
    compile_layers(trainer.sharding.model, family.compiled_layers, backend="aot_eager")
    compilation.keep(share)
    torch._dynamo.utils.clear_compilation_metrics()
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as seen:
            for batch, expected in zip(batches, plain, strict=True):
                assert_same(runs.gradients(trainer, batch), expected)
        if "checkpointing" not in method:  # which does not get along with how CPUs attend, and compiles less
            assert "convkit::swiglu_backward" in {event.key for event in seen.key_averages()}
        restarts = [metrics.restart_reasons for metrics in torch._dynamo.utils.get_compilation_metrics()]
        assert not [reason for reasons in restarts for reason in reasons or () if "Scalar" in reason]
    finally:
        compilation.keep(compilation.ALL)


def test_evaluating_compiles_nothing(dataset: Path, family: Phi3VFamily) -> None:
    """Prompts are padded, and of many lengths: layers would be compiled anew for them."""
    trainer, _ = runs.parts(runs.config(dataset, family.directory, dataset), family)
    model = trainer.sharding.model
    samples = [family.encode(trainer.index.row(number), dataset / "images") for number in (1, 2)]
    compile_layers(model, family.compiled_layers, backend="aot_eager")
    torch._dynamo.utils.counters.clear()
    try:
        generator = Generator(model, family, max_new_tokens=2)
        generator(family.collate(samples, packed=False))
        generator.log_likelihoods(family.collate(samples, packed=False))
        assert not torch._dynamo.utils.counters["stats"]["unique_graphs"]
    finally:
        torch._dynamo.reset()


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**127), max_value=2.0**127)))
def test_a_weight_in_halves_is_the_weight(numbers: list[float]) -> None:
    master = torch.tensor(numbers, dtype=torch.float32)
    high, low = _split(master)
    assert torch.equal(_joined(high, low), master)
    assert ((high.float() - master).abs() <= master.abs() * 2**-8 + 1e-40).all()


def test_the_compact_optimizer_updates_as_torch_does() -> None:
    torch.manual_seed(0)
    start = [torch.randn(8, 4).bfloat16(), torch.randn(5).bfloat16()]
    ours = [nn.Parameter(tensor.clone()) for tensor in start]
    theirs = [nn.Parameter(tensor.float()) for tensor in start]
    groups = [
        [{"params": [p], "weight_decay": decay} for p, decay in zip(s, (0.1, 0.0), strict=True)] for s in (ours, theirs)
    ]
    compact, exact = CompactAdamW(groups[0], 1e-3), AdamW(groups[1], lr=1e-3, betas=BETAS, eps=EPSILON, foreach=False)
    for _ in range(50):
        for mine, other in zip(ours, theirs, strict=True):
            gradient = torch.randn_like(mine)
            mine.grad.copy_(gradient)  # type: ignore[union-attr]
            other.grad = gradient.float()
        assert float(compact.clip(1.0)) == pytest.approx(float(exact.clip(1.0)), rel=1e-4)
        compact.step()
        exact.step()
        compact.zero_grad()
    for mine, other, first in zip(ours, theirs, start, strict=True):
        moved = (other - first.float()).abs().mean()
        assert (compact.whole(mine)["weight"] - other).abs().mean() < 0.01 * moved  # moments are rounded, sums are not
        assert torch.equal(mine, _split(compact.whole(mine)["weight"].flatten())[0].view_as(mine))
        assert moved > 0.005


def test_odd_parameters_do_not_move_others_out_of_place() -> None:
    """Kernels of a GPU read 16 bytes at once, or not at all."""
    odd, even = nn.Parameter(torch.randn(1).bfloat16()), nn.Parameter(torch.randn(16).bfloat16())
    start = odd.detach().clone(), even.detach().clone()
    CompactAdamW([{"params": [odd, even], "weight_decay": 0.0}], 1e-3)
    assert even.storage_offset() % 8 == 0 and even.grad is not None and even.grad.storage_offset() % 8 == 0
    assert torch.equal(odd, start[0]) and torch.equal(even, start[1])


def test_moments_are_put_back_where_torch_made_them() -> None:
    """Its fused kernel counts steps on the GPU, its loop on the CPU."""
    parameter = nn.Parameter(torch.randn(8))
    optimizer = AdamW([parameter], lr=1e-3, foreach=False)
    parameter.grad = torch.randn(8)
    optimizer.step()
    made, whole = optimizer.state[parameter], optimizer.whole(parameter)
    places = {kind: made[kind].data_ptr() for kind in MOMENTS}
    optimizer.put(parameter, {kind: tensor.clone() + 1 for kind, tensor in whole.items()})
    assert {kind: optimizer.state[parameter][kind].data_ptr() for kind in MOMENTS} == places
    assert optimizer.state[parameter]["step"] == 2


def test_what_the_compact_optimizer_gives_it_takes_back() -> None:
    torch.manual_seed(0)
    first, second = (nn.Parameter(torch.randn(8, 4).bfloat16()) for _ in range(2))
    one, two = (CompactAdamW([{"params": [p], "weight_decay": 0.1}], 1e-3) for p in (first, second))
    gradients = torch.randn(6, 8, 4).bfloat16()
    for gradient in gradients[:3]:
        first.grad.copy_(gradient)  # type: ignore[union-attr]
        one.step()
    two.put(second, {kind: tensor.clone() for kind, tensor in one.whole(first).items()})
    for gradient in gradients[3:]:
        for parameter, optimizer in ((first, one), (second, two)):
            parameter.grad.copy_(gradient)  # type: ignore[union-attr]
            optimizer.step()
    for kind, tensor in one.whole(first).items():
        assert torch.equal(two.whole(second)[kind], tensor), kind


@pytest.mark.parametrize("options", [{"bf16": False}, {"fp16": True}, {"bf16": True, "fsdp": True}])
def test_the_compact_optimizer_is_for_bfloat16_and_whole_models(dataset: Path, options: dict[str, Any]) -> None:
    with pytest.raises(
        ConvkitError,
        match=r"--optim adamw_bf16 (needs bfloat16\. Add --bf16|cannot be combined with --fsdp\. Leave --fsdp out)",
    ):
        runs.config(dataset, dataset, dataset, optim="adamw_bf16", **options)


def test_as_many_layers_keep_their_activations_as_there_is_room_for() -> None:
    order = [("large", 5), ("large", 5), ("small", 2), ("small", 2)]
    for room, expected in ((0, 0), (4, 0), (5, 1), (11, 2), (12, 3), (100, 4)):
        assert len(activation_checkpointing._affordable(order, room)) == expected


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("method", [{}, {"use_lora": True}])
def test_layers_are_told_by_kind(dataset: Path, family: Phi3VFamily, method: dict[str, Any], frozen: bool) -> None:
    options = {**method, "gradient_checkpointing": "all", "freeze_vision_model": frozen}
    model = trainable.load(family, runs.config(dataset, family.directory, dataset, **options))
    kinds = {kind.__name__: len(layers) for kind, layers in activation_checkpointing._by_kind(model).items()}
    assert kinds == {"Phi3VDecoderLayer": 2, **({} if frozen else {"CLIPEncoderLayer": 3})}  # the fourth never runs


@pytest.mark.parametrize("method", [{}, {"use_lora": True, "full_vision_model": True}])
def test_layers_keep_what_was_measured_of_them(
    dataset: Path, family: Phi3VFamily, monkeypatch: pytest.MonkeyPatch, method: dict[str, Any]
) -> None:
    trainer, packs = runs.parts(
        runs.config(dataset, family.directory, dataset, gradient_checkpointing="all", **method), family
    )
    batch, model, device = packs.batch((0, 1, 3)), trainer.sharding.model, torch.device("cpu")
    all_learnt = batch | {"logits_to_keep": torch.arange(batch["labels"].shape[1] - 1)}
    _count_on_cpu(monkeypatch)

    def forward() -> Tensor:
        return trainer.forward(batch, 1)

    def forward_of_all() -> Tensor:
        """Here the last layer keeps as much as others do: packs after the one that was measured may be such."""
        return trainer.forward(all_learnt, 1)

    base, base_of_all = (activation_checkpointing._kept(each, device) for each in (forward, forward_of_all))
    layers = activation_checkpointing._by_kind(model)
    measured = {kind.__name__: _of_one_more(layers[kind], forward, base) for kind in layers}
    assert all(each > 0 for each in measured.values())
    # Room for the language model's layers, and for one of CLIP's.
    room = 2 * measured["Phi3VDecoderLayer"] + measured["CLIPEncoderLayer"] * 1.1
    told = activation_checkpointing.fit(model, device, room / 2**30, forward, step=lambda: None)
    assert told == "checkpointing: 2 of 5 layers compute twice"
    assert activation_checkpointing._kept(forward, device) - base < 0.9 * room
    assert activation_checkpointing._kept(forward_of_all, device) - base_of_all == pytest.approx(room, rel=0.05)


def test_a_limit_that_nothing_can_keep_is_told(
    dataset: Path, family: Phi3VFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trainable.load(family, runs.config(dataset, family.directory, dataset, gradient_checkpointing="all"))
    _count_on_cpu(monkeypatch)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2**30)
    told = activation_checkpointing.fit(model, torch.device("cpu"), 0.5, lambda: torch.zeros(()), lambda: None)
    assert told == "checkpointing: 5 of 5 layers compute twice, and still --memory_limit 0.5 is exceeded"


@pytest.mark.parametrize(
    "other", [{"gradient_checkpointing": "all"}, {"gradient_checkpointing": "none"}, {"fsdp": True}]
)
def test_a_limit_is_for_auto(dataset: Path, other: dict[str, Any]) -> None:
    with pytest.raises(
        ConvkitError, match=r"--memory_limit cannot be combined with --(gradient_checkpointing (all|none)|fsdp): "
    ):
        runs.config(dataset, dataset, dataset, **{"gradient_checkpointing": "auto", "memory_limit": 9, **other})


def _of_one_more(layers: list[Any], forward: Any, base: int) -> int:
    layers[-2].gradient_checkpointing = False
    kept = activation_checkpointing._kept(forward, torch.device("cpu")) - base
    layers[-2].gradient_checkpointing = True
    return kept


def _count_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for the backward pass outside of layers that compute twice: these keep theirs from being seen."""

    def kept(forward: Any, device: torch.device) -> int:
        sizes: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            graph = forward()
        del graph
        return sum(sizes.values())

    monkeypatch.setattr(activation_checkpointing, "_kept", kept)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=0))
    for name in ("reset_peak_memory_stats", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device: 0)


def test_layers_give_back_until_a_step_fits(
    dataset: Path, family: Phi3VFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trainable.load(family, runs.config(dataset, family.directory, dataset, gradient_checkpointing="all"))
    _count_on_cpu(monkeypatch)
    layers = [layer for kind in activation_checkpointing._by_kind(model).values() for layer in kind]

    def step(most: int) -> None:
        if sum(not layer.gradient_checkpointing for layer in layers) > most:
            raise torch.OutOfMemoryError

    def fit(most: int) -> str:
        return activation_checkpointing.fit(
            model, torch.device("cpu"), 1.0, lambda: torch.zeros(()), lambda: step(most)
        )

    assert fit(2) == "checkpointing: 3 of 5 layers compute twice"
    for layer in layers:
        layer.gradient_checkpointing = True
    with pytest.raises(torch.OutOfMemoryError):
        fit(-1)
    assert activation_checkpointing.fit(nn.Linear(1, 1), torch.device("cpu"), 1.0, lambda: 0, lambda: None) == ""


@pytest.mark.usefixtures("budget")
@pytest.mark.parametrize(
    ("limit", "fits", "agreed", "told", "share"),
    [
        (9, 5, True, "checkpointing: 0 of 5 layers compute twice", compilation.ALL),
        (8, 5, True, "checkpointing: 0 of 5 layers compute twice, the others what is cheap", compilation.DEAR),
        (9, 4, True, "checkpointing: 2 of 5 layers compute twice, the others what is cheap", compilation.DEAR),
        (9, 5, False, "checkpointing: 0 of 5 layers compute twice, the others what is cheap", compilation.DEAR),
        (4, 5, True, "checkpointing: 1 of 5 layers compute twice, the others what is cheap", compilation.DEAR),
    ],
    ids=["all", "not all", "not the step", "not others", "nor what is dear"],
)
def test_compiled_layers_compute_what_is_cheap_again_if_not_all_can_keep_everything(
    dataset: Path,
    family: Phi3VFamily,
    monkeypatch: pytest.MonkeyPatch,
    limit: float,
    fits: int,
    agreed: bool,
    told: str,
    share: float,
) -> None:
    """Each of five layers keeps 1.75 GiB, or 1 without what is cheap."""
    model = trainable.load(family, runs.config(dataset, family.directory, dataset, gradient_checkpointing="all"))
    _count_on_cpu(monkeypatch)
    layers = [layer for kind in activation_checkpointing._by_kind(model).values() for layer in kind]
    now = torch._functorch.config

    def keeping() -> int:
        return sum(not layer.gradient_checkpointing for layer in layers)

    def kept(*_: Any) -> int:
        return int(keeping() * (1.75 if now.activation_memory_budget == compilation.ALL else 1) * 2**30)

    def step() -> None:
        if keeping() > fits:
            raise torch.OutOfMemoryError

    monkeypatch.setattr(activation_checkpointing, "_kept", kept)
    compilation.keep(compilation.DEAR)
    compile_layers(model, family.compiled_layers, backend="eager")
    found = activation_checkpointing.fit(
        model, torch.device("cpu"), limit, lambda: None, step, lambda here: here and agreed
    )
    assert (found, now.activation_memory_budget) == (told, share)


@pytest.mark.usefixtures("budget")
@pytest.mark.parametrize("use_lora", [False, True])
def test_a_first_try_without_memory_is_not_the_last(
    dataset: Path, family: Phi3VFamily, monkeypatch: pytest.MonkeyPatch, use_lora: bool
) -> None:
    """A layer that computes twice holds for a moment what it would keep."""
    options: dict[str, Any] = {"gradient_checkpointing": "all", "use_lora": use_lora}
    model = trainable.load(family, runs.config(dataset, family.directory, dataset, **options))
    _count_on_cpu(monkeypatch)
    now = torch._functorch.config

    def step() -> None:
        if now.activation_memory_budget == compilation.ALL:
            raise torch.OutOfMemoryError

    compile_layers(model, family.compiled_layers, backend="eager")
    told = activation_checkpointing.fit(model, torch.device("cpu"), 1.0, lambda: torch.zeros(()), step)
    assert told == "checkpointing: 0 of 5 layers compute twice, the others what is cheap"


class Gelus(nn.Module):
    """Something cheap between products."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 64), nn.Linear(64, 16)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = F.gelu(self.second(F.gelu(self.first(x))))
        return result


@pytest.mark.usefixtures("budget")
def test_what_is_compiled_is_compiled_anew_to_keep_less() -> None:
    module, x = Gelus(), torch.randn(32, 16)

    def kept() -> int:
        return sum(tensor.nbytes for tensor in saved(lambda: module(x)))

    compile_layers(module, {"Gelus"}, backend="aot_eager")
    everything = kept()
    compilation.keep(compilation.DEAR)
    assert kept() < everything


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
def test_cudnn_attends_where_it_gives_what_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, kernels: bool, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: options.get("deterministic", False))
    calls: list[str] = []
    output = torch.zeros(1, 4, 6, 8)

    def called(name: str) -> Any:
        calls.append(name)
        return output

    monkeypatch.setattr(attention, "_cudnn", lambda *_, causal: called("cudnn"))
    monkeypatch.setattr(attention, "sdpa_attention_forward", lambda *_, **__: (called("sdpa"), None))
    module: Any = SimpleNamespace(is_causal=options.get("is_causal", False))
    query: Any = SimpleNamespace(is_cuda=True, device="cuda", dtype=torch.bfloat16, shape=output.shape)
    key: Any = SimpleNamespace(shape=(1, 4 // options.get("groups", 1), 6, 8))
    attention.varlen_attention_forward(module, query, key, key, None, options.get("dropout", 0.0))
    assert calls == ["cudnn" if kernels else "sdpa"]


def test_learns_in_bfloat16_throughout(dataset: Path, family: Phi3VFamily) -> None:
    options = {"bf16": True, "num_train_epochs": 3}
    compact, packs = runs.parts(runs.config(dataset, family.directory, dataset, optim="adamw_bf16", **options), family)
    plain, _ = runs.parts(runs.config(dataset, family.directory, dataset, **options), family)
    assert {p.dtype for p in compact.sharding.model.parameters()} == {torch.bfloat16}
    for step in range(compact.schedule.steps):
        ours, theirs = (t.step(step, map(packs.batch, t.schedule.micro_batches(step))) for t in (compact, plain))
        assert ours.loss == pytest.approx(theirs.loss, rel=0.02)
