"""Environment variables for processes that tests start."""

import socket

from tests.conftest import ROOT

ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def join_variables(processes: int) -> dict[str, str]:
    """Return the variables, except RANK, by which processes find each other, with a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
