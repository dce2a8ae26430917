"""What the tests that start processes of their own tell them."""

import socket

from tests.conftest import ROOT

ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def meeting(processes: int) -> dict[str, str]:
    """Variables by which so many processes find each other, but for RANK; each call has a free port of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
