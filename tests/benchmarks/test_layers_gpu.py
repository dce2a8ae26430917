"""The benchmark of single layers: it runs on the CPU, and classifies kernels by name."""

import pytest
import torch

from benchmarks import layers_gpu


@pytest.mark.parametrize("way", ["lora, crops in two parts", "lora, peft's adapters", "full, documents end to end"])
def test_single_layers_run_on_the_cpu(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers_gpu, "CROPS", 2)
    size = layers_gpu.Size("tiny", documents=2, tokens=30, repeats=1)
    found = layers_gpu.measure(size, torch.device("cpu"), **layers_gpu.VARIANTS[way])
    assert found["language"]["all"] > 0 and found["clip"]["all"] > 0


def test_kernels_are_classified_by_name() -> None:
    kinds = {
        "triton_poi_fused__scaled_dot_product_cudnn_attention_backward_mm_3": "other",
        "cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16": "attention",
        "void pytorch_flash::flash_bwd_kernel": "attention",
        "nvjet_hsh_256x128_64x4_2x1_v_bz_coopA_TNT": "products",
        "void at::native::vectorized_elementwise_kernel<4, gemm>": "other",
        "Memcpy DtoD": "other",
    }
    assert {name: layers_gpu.kind(name) for name in kinds} == kinds
