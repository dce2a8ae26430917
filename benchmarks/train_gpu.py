"""Training a full-size Phi-3.5-vision with random weights on pages of documents: undisturbed; killed and resumed.

Run: python -m benchmarks.train_gpu FOLDER STEPS METHOD... > benchmarks/results/train_gpu.json
Methods: full, frozen, lora, qlora (bfloat16), lora_fp16. FOLDER needs 10 GB; runs are in FOLDER/runs, or where the
variable TRAIN_GPU_RUNS says, and need 5 GB for adapters, 60 GB for frozen and full. Of these no checkpoint is written
but the one that the resumed run goes on from: the runs end with their last step. On a disk of 64 GiB let FOLDER be in
/dev/shm and TRAIN_GPU_RUNS on the disk. MAX_TOKENS (default: 16384; full needs 4096 on a card of 80 GB) and CONFIG,
more options of `convkit train`, are variables as well.
"""

import json
import os
import shlex
import shutil
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
WARM = 2
"""Steps before the speed is taken."""
WORDS = ["the", "of", "and", "date", "total", "amount", "page", "report", "company", "number", "letter", "name"]
CONFIGURATION = ["vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "image_token_id"]
METHODS = {
    "full": ["--bf16"],
    "frozen": ["--bf16", "--freeze_vision_model"],
    "lora": ["--bf16", "--use_lora"],
    "qlora": ["--bf16", "--use_qlora"],
    "lora_fp16": ["--fp16", "--use_lora"],
}


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
    torch.set_default_dtype(torch.float32)


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


def run(command: list[str], log: Path, kill_at: int = 0) -> list[str]:
    """Run it; with `kill_at`, until so many steps are in its log. Returns what it said."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while kill_at and process.poll() is None:
        if log.exists() and len(log.read_bytes().splitlines()) >= kill_at:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.2)
    output, _ = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL if kill_at else 0):
        raise RuntimeError(output)
    return output.splitlines()


def measure(method: str, folder: Path, steps: int) -> dict[str, Any]:
    """Train undisturbed, and killed and resumed; compare."""
    runs = Path(os.environ.get("TRAIN_GPU_RUNS", folder / "runs")) / method
    shutil.rmtree(runs, ignore_errors=True)
    whole_model = method in ("full", "frozen")
    save_at = steps // 2
    common = [sys.executable, "-m", "convkit", "train", "--data_dir", str(folder / "data"), "--warmup_steps", "2"]
    common += ["--model", str(folder / "model"), "--batch_size", str(BATCH), "--num_crops", "16", "--no_tqdm"]
    common += ["--max_tokens", os.environ.get("MAX_TOKENS", "16384"), "--dataloader_num_workers", "8"]
    common += ["--save_total_limit", "1", *METHODS[method], *shlex.split(os.environ.get("CONFIG", ""))]
    # Whole models: at the last step there is no room for a second checkpoint, nor any need.
    end = steps if whole_model else 0
    common += ["--no_trial_checkpoint"] if whole_model else []
    log = runs / "run/metrics.jsonl"
    command = [*common, "--output_dir", str(log.parent)]
    said = run([*command, "--save_steps", str(steps)], log, end)
    one = [json.loads(line) for line in log.read_text().splitlines()]
    shutil.rmtree(log.parent)
    run([*command, "--save_steps", str(save_at)], log, kill_at=save_at + 2)
    began = time.monotonic()
    resumed = run([*command, "--save_steps", str(save_at), "--resume", "auto"], log, end)
    two = [json.loads(line) for line in log.read_text().splitlines()]
    size = sum(path.stat().st_size for path in (log.parent / "checkpoints").rglob("*") if path.is_file())
    shutil.rmtree(runs)
    steady = one[WARM:]
    seconds = sum(step["seconds"] for step in steady)
    return {
        "method": method,
        "options": common[3:],
        "images_a_second": round(sum(step["rows"] for step in steady) / seconds, 3),
        "tokens_a_second": round(sum(step["tokens"] for step in steady) / seconds, 1),
        "memory_gib": max((step["memory_gib"] for step in one if "memory_gib" in step), default=None),
        "mfu": steady[-1].get("mfu"),
        "skipped_steps": sum(step.get("skipped", False) for step in one),
        "checkpoint_gb": round(size / 1e9, 2),
        "losses": [step["loss"] for step in one],
        "losses_killed_and_resumed": [step["loss"] for step in two],
        "largest_difference": max(abs(a["loss"] - b["loss"]) for a, b in zip(one, two, strict=True)),
        "resumed_run_s": round(time.monotonic() - began, 1),
        "said": said,
        "said_resumed": resumed,
    }


def main(folder: Path, steps: int, methods: list[str]) -> dict[str, Any]:
    """Measure methods in turn; one that fails says why, and the others go on."""
    unknown = [method for method in methods if method not in METHODS]
    if unknown or not methods or steps <= WARM + 2:
        sys.exit(f"Give more than {WARM + 2} steps, and methods of: {', '.join(METHODS)}.")
    if not (folder / "model/config.json").exists():
        make_checkpoint(folder / "model")
    shutil.rmtree(folder / "data", ignore_errors=True)
    make_dataset(folder / "data", BATCH * steps)
    torch.cuda.empty_cache()
    found = {}
    for method in methods:
        try:
            found[method] = measure(method, folder, steps)
        except RuntimeError as error:
            found[method] = {"method": method, "failed": str(error)[-4000:].splitlines()}
        print(json.dumps(found[method]), file=sys.stderr)
    return {
        "device": torch.cuda.get_device_name(),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
        "steps": steps,
        "methods": found,
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]), indent=2))
