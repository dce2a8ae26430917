"""Package versions and hardware of a run, as recorded in run.json."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from convkit import __version__
from convkit.run_info import Hardware
from convkit.train.distributed.world import World

_PACKAGES = ("torch", "transformers", "tokenizers", "peft", "accelerate", "safetensors", "deepspeed", "bitsandbytes")


def versions() -> dict[str, str]:
    """Return the versions of convkit, Python and the installed training packages, by name."""
    found = {"convkit": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware(world: World) -> Hardware:
    """Return the device, platform and CPU count of this process, and the world size."""
    device = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "cpu"
    return Hardware(device=device, processes=world.size, platform=platform.platform(), cpus=os.cpu_count() or 0)
