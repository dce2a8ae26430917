"""What some options need beside the extra `train`."""

from importlib.util import find_spec

from convkit.errors import ConvkitError, MissingExtra
from convkit.train.config import Config


def require(config: Config) -> None:
    """Find out whether it is installed before data and model are read, which may take long.

    Raises:
        MissingExtra: it is not.
        ConvkitError: likewise, of a package that no extra brings.
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
            "has kernels of its own for packed documents."
        )
