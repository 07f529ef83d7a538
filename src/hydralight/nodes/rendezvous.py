"""How processes that were started together become one run.

The first one decides the run's directory; the others wait for it, compare what they are about to do
with what it does, and stop where they differ. They talk through a store; no clock is shared.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path

from omegaconf import DictConfig

from hydralight.config.explain import chain, explain
from hydralight.errors import UserError, first_line
from hydralight.nodes import heartbeat
from hydralight.nodes.agreement import difference, in_common, members
from hydralight.nodes.heartbeat import DONE, Heartbeat, is_loss, tell, why
from hydralight.nodes.ranks import Place, check_devices, number
from hydralight.nodes.store import PATIENCE, Store
from hydralight.progress import waiting
from hydralight.runs.secrets import redact_message

SEEN_AFTER = 15  # seconds until a directory that was made on one node is there on all
FAREWELL = 60.0  # seconds for which the one that has the store waits for the others' end
_meetings = count()  # of this process: those of a script that trains twice are told apart


class Stopped(UserError):
    """Another process has stopped, and says why."""


class Rendezvous:
    """One process's part in a run of several.

    Args:
        place: Which process it is.

    Raises:
        UserError: the first process cannot be reached.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        meeting = f"hydralight/{number('TORCHELASTIC_RESTART_COUNT')}/{next(_meetings)}/"
        self._open = partial(Store, place, meeting)
        self._store = self._open()
        self._number = 0 if place.first else self._store.come()
        self._members = 0
        self._answered = False
        self._heartbeat: Heartbeat | None = None
        if place.first:
            self._store.set("stopped", "")
        self._store.set(f"name/{self._number}", place.name)

    def decided(self) -> tuple[Path, bool]:
        """Return the run's directory, and whether it is that of a run which is there already.

        The first process has decided both. For another one than the first.

        Raises:
            Stopped: the first one has stopped.
            UserError: the directory is on no file system that this process sees.
            SystemExit: 0, as the first one had something else to do, such as `--cfg job`.
        """
        with waiting("waiting for the first process", patience=10):
            decided = json.loads(self._store.get("first"))
        if "stopped" in decided:
            self._answered = True
            if not decided["stopped"]:
                raise SystemExit(0)
            raise Stopped(decided["stopped"])
        run_dir = Path(decided["run_dir"])
        for _ in range(SEEN_AFTER):  # a network's file system may take its time
            if run_dir.is_dir():
                return run_dir, decided["goes_on"]
            time.sleep(1)
        raise UserError(
            f"{run_dir} of the first process is not there: let paths.log_dir name a folder that "
            "all nodes share."
        )

    def agree(self, run_dir: Path, cfg: DictConfig) -> None:
        """Go on only if all are about to do the same in the same directory.

        Raises:
            Stopped: a process differs, and in what.
            UserError: not all have come, or the config counts others than were started.
        """
        devices, nodes = cfg.trainer.get("devices", 1), cfg.trainer.get("num_nodes", 1)
        if isinstance(devices, int) and isinstance(nodes, int) and devices > 0:  # -1 is all of them
            check_devices(devices, nodes)
        mine = {"the run directory": str(run_dir), **in_common(cfg)}
        if self.place.first:
            goes_on = bool(cfg.get("resume") or cfg.get("run"))
            said = {"run_dir": str(run_dir), "goes_on": goes_on, "in_common": mine}
            self._store.set("first", json.dumps(said))
            self._members = members(self.place, cfg.trainer)
            self._store.set("beat/0", "0")
            self._store.set("members", str(self._members))
            self._store.set("verdict", self._verdict())
        else:
            firsts = json.loads(self._store.get("first"))["in_common"]
            differs = difference(mine, firsts)
            self._store.set(f"beat/{self._number}", "0")
            self._store.set(
                f"said/{self._number}",
                f"{self.place.name} is about to do something else than the first one: {differs}; "
                "start all with the same command line, code and packages."
                if differs
                else "",
            )
            self._members = int(self._store.get("members"))
        self._answered = True
        if verdict := self._store.get("verdict"):
            raise Stopped(verdict)

    def _verdict(self) -> str:
        """Return why the run cannot begin, or nothing; for the first process.

        Raises:
            UserError: not all have come.
        """
        from torch.distributed import DistError

        try:
            with waiting("waiting for the other processes", patience=10):
                said = self._store.all([f"said/{other}" for other in range(1, self._members)])
        except DistError as error:
            here, minutes = 1 + self._store.come(0), PATIENCE.total_seconds() / 60
            raise UserError(
                f"of {self._members} processes {here} have come within {minutes:g} minutes: start "
                "the others with the same MASTER_ADDR and MASTER_PORT, or say how many there are "
                "by trainer.num_nodes and trainer.devices."
            ) from error
        return next((sentence for sentence in said if sentence), "")

    @contextmanager
    def watching(self, leave: Callable[[], object]) -> Iterator[None]:
        """Watch the others; end this process where one of them stops or is lost.

        Args:
            leave: Called before this process is ended, in the place of what its own end would do.

        Raises:
            Stopped: an operation with all has failed, as another process is gone.
        """
        self._heartbeat = Heartbeat(self.place, self._number, self._members, self._open, leave)
        try:
            yield
        except Exception as error:
            sentence = why(self._store, self._number, self._members) if is_loss(error) else None
            if sentence is None:
                raise
            raise Stopped(sentence) from error

    def leave(self) -> None:
        """End well; the one that has the store waits for the others."""
        self._end_heartbeat()
        with suppress(Exception):
            if self.place.first and not self._answered:
                self._store.set("first", json.dumps({"stopped": ""}))
            self._store.set(f"beat/{self._number}", DONE)
            self._wait_for_the_others(FAREWELL)

    def stop(self, error: BaseException) -> None:
        """End because of an error, which the others are told."""
        self._end_heartbeat()
        sentence = explain(error)
        if sentence is None and isinstance(error, Exception):
            sentence = first_line(error)
        if not any(isinstance(one, Stopped) for one in chain(error)):
            said = redact_message(sentence or "it was interrupted")
            sentence = f"{self.place.name} has stopped: {said}"
        with suppress(Exception):
            if not self._answered and self.place.first:
                self._store.set("first", json.dumps({"stopped": sentence}))
                self._store.set("members", "0")
                self._store.set("verdict", str(sentence))
            elif not self._answered:
                self._store.set(f"said/{self._number}", str(sentence))
            tell(self._store, str(sentence), self._number)
            self._wait_for_the_others(3 * heartbeat.BEAT)

    def _end_heartbeat(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.end()

    def _wait_for_the_others(self, patience: float) -> None:
        """Keep the store open until the others have read it, where this process has it."""
        if not self.place.first:
            return
        if self._members == 0:  # they have nothing to say yet
            time.sleep(heartbeat.BEAT)
        end = time.monotonic() + patience
        others = [f"beat/{other}" for other in range(1, self._members)]
        while others and time.monotonic() < end:
            if all(beat == DONE for beat in self._store.all(others)):
                return
            time.sleep(0.1)
