"""Optional packages that some options need in addition to the extra `train`."""

from importlib.util import find_spec

from convkit.errors import ConvkitError, MissingExtra
from convkit.train.config import Config


def check_requirements(config: Config) -> None:
    """Check that the packages are installed, before data and model are loaded.

    Raises:
        MissingExtra: a package of an extra is missing.
        ConvkitError: flash-attn is missing, which no extra installs.
    """
    needed = {
        ("bitsandbytes", "qlora", "--use_qlora"): config.use_qlora,
        ("deepspeed", "deepspeed", f"--deepspeed {config.deepspeed}"): config.deepspeed is not None,
    }
    for (package, extra, option), wanted in needed.items():
        if wanted and find_spec(package) is None:
            raise MissingExtra(package, extra, option)
    if config.use_flash_attention and find_spec("flash_attn") is None:
        raise ConvkitError(
            "--use_flash_attention needs the package flash-attn, which is not installed. Leave the option out: torch "
            "has its own attention kernels for packed sequences."
        )
