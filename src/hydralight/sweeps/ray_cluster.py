"""A Ray cluster: connecting to it, how many trials it takes, and whether its head is there."""

import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hydralight.errors import UserError

SILENCE = 20.0  # seconds without the head; after 60, Ray ends the process without a word


@dataclass
class RayCluster:
    """A cluster, and what a trial takes of it.

    Args:
        address: The head's `host:port`; None for `RAY_ADDRESS`, a cluster that this machine is
            part of, or else one of this machine alone, for as long as the sweep; `local` for that.
        num_cpus: CPUs that a trial takes, as Ray counts them.
        num_gpus: GPUs that a trial takes, or a fraction of one; None for one where there are any.
        runtime_env: Ray's own, such as `{env_vars: {…}}`.
    """

    address: str | None
    num_cpus: float
    num_gpus: float | None
    runtime_env: Mapping[str, Any] | None
    head: str = field(default="", init=False)  # kept, as asking Ray may connect again

    def connect(self) -> None:
        """Connect to it, unless this process is.

        Raises:
            UserError: there is none at the address.
        """
        import ray

        if self.head:
            return
        if not ray.is_initialized():
            self._init()
        self.head = ray.get_runtime_context().gcs_address

    def _init(self) -> None:
        import ray

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that begins here
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # no GPU taken, none seen
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                address=self.address,
                include_dashboard=False,
                log_to_driver=False,  # what a trial prints is in its output.log
                logging_level="error",  # type: ignore[arg-type]
                runtime_env=dict(self.runtime_env) if self.runtime_env else None,
            )
        except ConnectionError as error:
            raise UserError(
                f"hydra.launcher.address={self.address}: there is no Ray cluster that this "
                "machine is part of: start one by `ray start --head`, or leave the address out."
            ) from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's would end us without a word

    @property
    def takes(self) -> dict[str, float]:
        """What a trial takes, by Ray's names."""
        import ray

        gpus = self.num_gpus
        if gpus is None:
            gpus = 1 if ray.cluster_resources().get("GPU") else 0
        return {"CPU": self.num_cpus, "GPU": gpus}

    def room(self) -> int:
        """Return how many trials its nodes take together, if nobody else uses them.

        Raises:
            UserError: none, or the head does not answer.
        """
        import ray

        self.connect()
        self.check_head()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        takes = {name: number for name, number in self.takes.items() if number}
        room = sum(
            min(int(node.get(name, 0) / number + 1e-6) for name, number in takes.items())
            for node in nodes
        )
        if room == 0:
            asked = ", ".join(f"{number:g} {name}" for name, number in takes.items())
            has = "; ".join(f"{n.get('CPU', 0):g} CPU, {n.get('GPU', 0):g} GPU" for n in nodes)
            raise UserError(
                f"no node of the Ray cluster has what a trial takes, {asked} (its nodes have "
                f"{has}): set hydra.launcher.num_cpus and hydra.launcher.num_gpus."
            )
        return room

    def answers(self) -> bool:
        """Whether its head does."""
        host, _, port = self.head.rpartition(":")
        with suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), 5):
            return True
        return False

    def check_head(self) -> None:
        """Refuse to wait for a cluster whose head is gone.

        Raises:
            UserError: it has not answered for `SILENCE` seconds.
        """
        begin = time.monotonic()
        while not self.answers():
            if time.monotonic() - begin > SILENCE:
                raise UserError(f"the head of the Ray cluster ({self.head}) does not answer.")
            time.sleep(1)
