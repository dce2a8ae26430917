"""LoRA on a full-size Phi-3.5-vision with random weights, on pages of documents: killed in the middle, and resumed.

Run: python -m benchmarks.train_gpu FOLDER [steps] > benchmarks/results/train_gpu.json; FOLDER needs 20 GB.
"""

import json
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import torch
from PIL import Image

from convkit.profiles import Target
from convkit.train.models import tiny
from convkit.train.models.phi3_v.configuration import Phi3VConfig
from convkit.train.models.phi3_v.modeling import Phi3VForCausalLM
from convkit.validate import validate
from tests.fixtures.make_datasets import lines, manifest

PAGE = (1700, 2200)
BATCH = 16
WORDS = ["the", "of", "and", "date", "total", "amount", "page", "report", "company", "number", "letter", "name"]
CONFIGURATION = ["vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "image_token_id"]


def make_checkpoint(directory: Path) -> None:
    """The geometry of Phi-3.5-vision, with the tokenizer of a tiny one."""
    tiny.phi3_v(directory, WORDS)
    small = json.loads((directory / "config.json").read_text())
    config = Phi3VConfig(**{name: small[name] for name in CONFIGURATION if name != "vocab_size"})
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = Phi3VForCausalLM(config)
    (directory / "model.safetensors").unlink()
    model.cpu().save_pretrained(directory)


def make_dataset(directory: Path, count: int) -> None:
    """Noisy pages, one question each."""
    random = Random(0)
    (directory / "images").mkdir(parents=True)
    rows = []
    for number in range(count):
        small = Image.frombytes("L", (85, 110), random.randbytes(85 * 110))
        content = BytesIO()
        small.resize(PAGE).convert("RGB").save(content, "JPEG")
        (directory / "images" / f"{number}.jpg").write_bytes(content.getvalue())
        words = random.sample(WORDS, 6)
        turn = {"images": [f"{number}.jpg"], "user": " ".join(words) + "?", "assistant": " ".join(words[:3])}
        rows.append({"id": f"r{number}", "source": "pages", "conversations": [turn]})
    files = {"pages_train.jsonl": lines(*rows)}
    (directory / "pages_train.jsonl").write_bytes(files["pages_train.jsonl"])
    (directory / "dataset.json").write_bytes(manifest(files, train="pages_train.jsonl"))
    result = validate([directory], target=Target.of("phi-3.5-vision:num_crops=16"))
    if not result.receipts:
        sys.exit(result.report.model_dump_json())


def run(command: list[str], log: Path, kill_at: int = 0) -> str:
    """Run it; with `kill_at`, until so many steps are in its log."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while kill_at and process.poll() is None:
        if log.exists() and len(log.read_bytes().splitlines()) >= kill_at:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.2)
    output, _ = process.communicate()
    if process.returncode and not kill_at:
        sys.exit(output)
    return output


def main(folder: Path, steps: int = 20) -> dict[str, Any]:
    """Train undisturbed, and killed and resumed; compare."""
    model, data = folder / "model", folder / "data"
    make_checkpoint(model)
    make_dataset(data, BATCH * steps)
    torch.cuda.empty_cache()
    common = [sys.executable, "-m", "convkit", "train", "--data_dir", str(data), "--model", str(model), "--use_lora"]
    common += ["--bf16", "--batch_size", str(BATCH), "--max_tokens", "16384", "--save_steps", "5", "--no_tqdm"]
    common += ["--num_crops", "16", "--warmup_steps", "2", "--dataloader_num_workers", "8"]
    whole, killed = folder / "whole", folder / "killed"
    said = run([*common, "--output_dir", str(whole)], whole / "metrics.jsonl")
    run([*common, "--output_dir", str(killed)], killed / "metrics.jsonl", kill_at=steps // 2 + 2)
    resumed = run([*common, "--output_dir", str(killed), "--resume", "auto"], killed / "metrics.jsonl")
    one, two = (
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()] for path in (whole, killed)
    )
    steady = one[2:]
    return {
        "device": torch.cuda.get_device_name(),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
        "images_a_second": round(sum(s["rows"] for s in steady) / sum(s["seconds"] for s in steady), 3),
        "tokens_a_second": round(sum(s["tokens"] for s in steady) / sum(s["seconds"] for s in steady), 1),
        "losses": [s["loss"] for s in one],
        "losses_killed_and_resumed": [s["loss"] for s in two],
        "largest_difference": max(abs(a["loss"] - b["loss"]) for a, b in zip(one, two, strict=True)),
        "said": said.splitlines(),
        "said_resumed": resumed.splitlines(),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *map(int, sys.argv[2:])), indent=2))
