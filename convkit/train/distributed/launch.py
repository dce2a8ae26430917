"""Start the processes of a run on one machine with torchrun, each running the same command."""

import logging
import os
from collections.abc import Sequence

from convkit.errors import ConvkitError

_SAVE_TIMEOUT_S = 600
"""Seconds that processes have to write a checkpoint after SIGTERM."""


def launched() -> bool:
    """Return whether torchrun or a similar launcher started this process among others.

    Clusters set WORLD_SIZE=1 for a single process.
    """
    return os.environ.get("WORLD_SIZE", "1") != "1"


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run `convkit` with these arguments in several processes, which find each other through their environment.

    Returns:
        The exit code of the run: that of the process that failed first, or 143 after SIGTERM.

    Raises:
        ConvkitError: the machine has fewer GPUs than processes.
    """
    import torch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import get_args_parser, run

    if torch.cuda.is_available() and torch.cuda.device_count() < processes:
        raise ConvkitError(
            f"--nproc {processes} needs as many GPUs, but this machine has {torch.cuda.device_count()}. Lower it."
        )
    # The process that failed reports the error; torchrun would add a page about it.
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(_SAVE_TIMEOUT_S))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    options = get_args_parser().parse_args(["--standalone", "--nproc_per_node", str(processes), "-m", "convkit"])
    options.training_script_args = list(arguments)  # not parsed above: torchrun would take them as its own
    try:
        run(options)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return int(failure.exitcode) if failure.exitcode > 0 else 2
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0
