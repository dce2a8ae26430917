"""What some options need beside the extra `train`."""

from importlib.util import find_spec

from convkit.errors import MissingExtra
from convkit.train.config import Config


def require(config: Config) -> None:
    """Find out whether it is installed before data and model are read, which may take long.

    Raises:
        MissingExtra: it is not.
    """
    needed = {
        ("bitsandbytes", "qlora", "--use_qlora"): config.use_qlora,
        ("deepspeed", "deepspeed", f"--deepspeed {config.deepspeed}"): config.deepspeed is not None,
    }
    for (package, extra, option), wanted in needed.items():
        if wanted and find_spec(package) is None:
            raise MissingExtra(package, extra, option)
