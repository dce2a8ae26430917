"""Starting the processes of a run on one machine: the command again, once for each of them, by torchrun."""

import logging
import os
from collections.abc import Sequence

from convkit.errors import ConvkitError

_TO_SAVE_S = 600
"""What the processes are given to write a checkpoint after SIGTERM."""


def launched() -> bool:
    """Whether torchrun or its like has started this process already, beside others: clusters say 1 of a single one."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run `convkit` with these arguments in so many processes, which learn of each other from their environment.

    Returns:
        The exit code of the run: that of the process that failed first, or 143 after SIGTERM.

    Raises:
        ConvkitError: there are fewer GPUs.
    """
    import torch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import get_args_parser, run

    if torch.cuda.is_available() and torch.cuda.device_count() < processes:
        raise ConvkitError(f"--nproc {processes} needs as many GPUs; here are {torch.cuda.device_count()}. Lower it.")
    # What went wrong is said by the process that failed; torchrun would add a page about it.
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(_TO_SAVE_S))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    options = get_args_parser().parse_args(["--standalone", "--nproc_per_node", str(processes), "-m", "convkit"])
    options.training_script_args = list(arguments)  # not parsed with the others: torchrun would take ours for its own
    try:
        run(options)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return int(failure.exitcode) if failure.exitcode > 0 else 2
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0
