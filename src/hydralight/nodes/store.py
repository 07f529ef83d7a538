"""Where processes that were started together read what the others say."""

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from hydralight.errors import UserError, first_line, told
from hydralight.nodes.ranks import Place, number

if TYPE_CHECKING:
    from torch.distributed import TCPStore

PATIENCE = timedelta(minutes=10)  # until all have come


class Store:
    """Texts by their names, kept by the first process or by torchrun's agent.

    It is torch's own (`torch.distributed.TCPStore`), at the address and port where the process
    group is going to meet, which takes the same one.

    Args:
        place: Which process this is.
        meeting: What all names begin with.
        patience: How long a name is waited for.

    Raises:
        UserError: the store cannot be reached.
    """

    def __init__(self, place: Place, meeting: str, patience: timedelta = PATIENCE) -> None:
        self._place = place
        self._meeting = meeting
        self._store = self._connected(place.first and not place.hosted, patience)

    def _connected(self, hosts: bool, patience: timedelta) -> "TCPStore":
        from torch.distributed import TCPStore

        address, port = main_address(self._place)
        try:
            return TCPStore(
                address,
                port,
                is_master=hosts,
                timeout=patience,
                wait_for_workers=False,
                multi_tenant=True,  # of one process: further ones share what listens there
            )
        except RuntimeError as error:
            if hosts:
                raise UserError(
                    f"nothing can listen at {address}:{port} ({first_line(error)}): set another "
                    "MASTER_PORT."
                ) from error
            raise UserError(
                f"{self._place.name} does not reach the first one at {address}:{port}: set "
                "MASTER_ADDR to an address of its node that all nodes reach, and MASTER_PORT to a "
                "port that is free there."
            ) from error

    def set(self, name: str, text: str) -> None:
        """Say something under a name."""
        self._store.set(self._meeting + name, text)

    def get(self, name: str) -> str:
        """Return what is said under a name, once it is."""
        return self.all([name])[0]

    def all(self, names: Sequence[str]) -> list[str]:
        """Return what is said under each name, once it is.

        Raises:
            torch.distributed.DistError: not in time, or the store is gone.
        """
        # the call that waits with a limit, also where the other side has gone silently
        return [text.decode() for text in self._store.multi_get([self._meeting + n for n in names])]

    def come(self, more: int = 1) -> int:
        """Count this process, and return how many others than the first have come."""
        return self._store.add(f"{self._meeting}come", more)


def main_address(place: Place) -> tuple[str, int]:
    """Return the address and port where processes meet, which Lightning takes too.

    Raises:
        UserError: SLURM was not told what Lightning has to know.
    """
    if place.starter == "srun":
        if "SLURM_NTASKS_PER_NODE" not in os.environ:
            raise UserError("srun does not say how many tasks a node has: add --ntasks-per-node=…")
        from lightning.fabric.plugins.environments import SLURMEnvironment

        with told("srun"):
            environment = SLURMEnvironment()
            return environment.main_address, environment.main_port
    return os.environ["MASTER_ADDR"], number("MASTER_PORT")
