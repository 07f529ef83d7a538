"""How processes that were started together become one run.

The first one decides the run's directory; the others wait for it, compare what they are about to do
with what it does, and stop where they differ. From then on each gives a sign of life, and one that
stops, or gives none any more, stops all. They talk through torch's store, at the address and port
where the process group is going to meet (`torch.distributed.TCPStore`); no clock is shared.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from hashlib import sha256
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from hydralight.config.explain import chain, explain
from hydralight.config.project import PACKAGE, projects
from hydralight.errors import UserError, first_line, told
from hydralight.progress import waiting
from hydralight.ranks import Place, number
from hydralight.runs.environment import versions
from hydralight.runs.secrets import redact, redact_message

if TYPE_CHECKING:
    from torch.distributed import TCPStore

log = logging.getLogger(__name__)

PATIENCE = timedelta(minutes=10)  # until all have come
BEAT = 2.0  # seconds between two signs of life
SILENCE = 40.0  # seconds without one, after which a process is taken for lost
FAREWELL = timedelta(minutes=1)  # until the others have ended too, for the one that has the store
SEEN_AFTER = 15  # seconds until a directory that was made on one node is there on all
SHOWN = 5  # differences in a sentence
# Words of gloo and NCCL, whose errors have no class of their own, where another process has gone.
LOST = ("/gloo/", "Gloo ", "NCCL", "Connection closed by peer", "Connection reset by peer")
_meetings = count()  # of this process: those of one script that trains twice are told apart


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
        self._prefix = f"hydralight/{number('TORCHELASTIC_RESTART_COUNT')}/{next(_meetings)}/"
        self._address, self._port = main_address(place)
        self._store = self._connect(place.first and not place.hosted)
        self._number = 0 if place.first else self._store.add(f"{self._prefix}come", 1)
        self._members = 0
        self._answered = False
        self._ended = Event()
        self._watch: Thread | None = None
        if place.first:
            self._set("stopped", "")
        self._set(f"name/{self._number}", place.name)

    def _connect(self, hosts: bool) -> "TCPStore":
        from torch.distributed import DistError, TCPStore

        where = f"{self._address}:{self._port}"
        try:
            return TCPStore(
                self._address,
                self._port,
                is_master=hosts,
                timeout=PATIENCE,
                wait_for_workers=False,
                multi_tenant=True,  # the process group takes the same
            )
        except (DistError, RuntimeError) as error:
            if hosts:
                raise UserError(
                    f"nothing can listen at {where} ({first_line(error)}): set another MASTER_PORT."
                ) from error
            raise UserError(
                f"{self.place.name} does not reach the first one at {where}: set MASTER_ADDR to an "
                "address of its node that all nodes reach, and MASTER_PORT to a port that is free "
                "there."
            ) from error

    def _set(self, key: str, value: str) -> None:
        self._store.set(self._prefix + key, value)

    def _get(self, *keys: str) -> list[str]:
        """Return values, waiting until they are there."""
        return [v.decode() for v in self._store.multi_get([self._prefix + key for key in keys])]

    # ------------------------------------------------------------ before the run

    def decided(self) -> tuple[Path, bool]:
        """Return the run's directory, and whether it is that of a run which is there already.

        The first process has decided both. For another one than the first.

        Raises:
            Stopped: the first one has stopped.
            UserError: the directory is on no file system that this process sees.
        """
        with waiting("waiting for the first process", patience=10):
            (text,) = self._get("first")
        decided = json.loads(text)
        if "stopped" in decided:
            self._answered = True
            if not decided["stopped"]:  # it had something else to do, such as `--cfg job`
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
            UserError: not all have come.
        """
        mine = {**settings_of(cfg), **versions(), **code()}
        if self.place.first:
            goes_on = bool(cfg.get("resume") or cfg.get("run"))
            said = {"run_dir": str(run_dir), "goes_on": goes_on, "settings": mine}
            self._set("first", json.dumps(said))
            verdict = self._verdict(members(self.place, cfg.trainer))
            self._set("go", verdict)
        else:
            (text,) = self._get("first")
            theirs = json.loads(text)
            self._set(f"beat/{self._number}", "0")
            self._set(f"said/{self._number}", self._difference(theirs, run_dir, mine))
        self._answered = True
        (verdict, counted) = self._get("go", "members")
        self._members = int(counted)
        if verdict:
            raise Stopped(verdict)

    def _difference(self, theirs: dict[str, Any], run_dir: Path, mine: dict[str, Any]) -> str:
        """Say in what this process differs from the first; nothing where it does not."""
        if str(run_dir) != theirs["run_dir"]:
            return (
                f"{self.place.name} would work in {run_dir}, and the first process in "
                f"{theirs['run_dir']}: start all with the same command line."
            )
        first = theirs["settings"]
        named = [
            f"{key} is {mine.get(key, 'not there')} there and {first.get(key, 'not there')} in the "
            "first one"
            for key in [*first, *(key for key in mine if key not in first)]
            if first.get(key) != mine.get(key)
        ]
        if not named:
            return ""
        more = f", and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
        return (
            f"{self.place.name} differs from the first process: {'; '.join(named[:SHOWN])}{more}: "
            "start all with the same command line, code and packages."
        )

    def _verdict(self, members: int) -> str:
        """Return why the run cannot begin, or nothing; for the first process.

        Raises:
            UserError: not all have come.
        """
        from torch.distributed import DistError

        self._set("members", str(members))
        self._set("beat/0", "0")
        try:
            with waiting("waiting for the other processes", patience=10):
                said = self._get(*(f"said/{other}" for other in range(1, members)))
        except DistError as error:
            here = 1 + self._store.add(f"{self._prefix}come", 0)
            minutes = PATIENCE.total_seconds() / 60
            raise UserError(
                f"of {members} processes {here} have come within {minutes:g} minutes: start the "
                "others with the same MASTER_ADDR and MASTER_PORT, or say how many there are by "
                "trainer.num_nodes and trainer.devices."
            ) from error
        return next((sentence for sentence in said if sentence), "")

    # ------------------------------------------------------------ while it goes on

    @contextmanager
    def watching(self, leave: Callable[[], object]) -> Iterator[None]:
        """Watch the others from a thread; end this process where one stops or is lost.

        Args:
            leave: Called before this process is ended from the thread.

        Raises:
            Stopped: the others have gone, as an operation with them says.
        """
        self._watch = Thread(target=self._beat, args=(leave,), daemon=True)
        self._watch.start()
        try:
            yield
        except Exception as error:
            sentence = self._last_words() if is_loss(error) else None
            if sentence is None:
                raise
            raise Stopped(sentence) from error

    def _beat(self, leave: Callable[[], object]) -> None:
        from torch.distributed import DistError

        store = self._connect(hosts=False)
        store.set_timeout(timedelta(seconds=SILENCE))
        watched = range(1, self._members) if self.place.first else range(1)
        keys = [f"{self._prefix}{key}" for key in ("stopped", *(f"beat/{n}" for n in watched))]
        seen = {n: ("", time.monotonic()) for n in watched}
        for beat in count(1):
            if self._ended.wait(BEAT):
                return
            try:
                stopped, *beats = (value.decode() for value in store.multi_get(keys))
                store.set(f"{self._prefix}beat/{self._number}", str(beat))
            except DistError:
                stopped, beats = "the first process cannot be reached any more.", []
            now = time.monotonic()
            for other, value in zip(watched, beats, strict=False):
                if value != seen[other][0]:
                    seen[other] = (value, now)
                elif value != DONE and now - seen[other][1] > SILENCE:
                    stopped = stopped or self._lost([other])
            if stopped and not self._ended.is_set():
                self._end(stopped, leave)

    def _end(self, sentence: str, leave: Callable[[], object]) -> None:
        """End this process, whose main thread may wait for one that will not come."""
        with suppress(Exception):
            if self.place.first:
                log.error("%s", sentence)
            elif self.place.local == 0:
                print(f"error: {redact_message(sentence)}", file=sys.stderr, flush=True)
        with suppress(Exception):
            self._tell(sentence)
        with suppress(Exception):
            leave()
        os._exit(1)

    def _lost(self, others: list[int]) -> str:
        with suppress(Exception):
            names = ", ".join(self._get(*(f"name/{n}" for n in others)))
            return f"nothing is heard from {names} any more, and the run has stopped: {ADVICE}"
        return f"nothing is heard from another process any more: {ADVICE}"

    def _last_words(self) -> str | None:
        """Say who has gone, once an operation with all has failed, and why, if it has said so.

        None where all are still there: it has failed by itself.
        """
        with suppress(Exception):
            others = [n for n in range(self._members) if n != self._number]
            beats = self._get(*(f"beat/{n}" for n in others))
            for _ in range(3):
                time.sleep(BEAT)
                (stopped,) = self._get("stopped")
                if stopped:
                    return stopped
            again = self._get(*(f"beat/{n}" for n in others))
            gone = [n for n, a, b in zip(others, beats, again, strict=True) if a == b]
            return self._lost(gone) if gone else None
        return f"the first process cannot be reached any more: {ADVICE}"

    # ------------------------------------------------------------ at the end

    def leave(self) -> None:
        """End well: the one that has the store waits for the others."""
        self._finish()
        if self.place.first and not self._answered:
            self._set("first", json.dumps({"stopped": ""}))
        with suppress(Exception):
            self._set(f"beat/{self._number}", DONE)
            self._wait_for_the_others(FAREWELL)

    def stop(self, error: BaseException) -> None:
        """End because of an error, which the others are told."""
        self._finish()
        sentence = explain(error) or "interrupted"
        if isinstance(error, Exception) and explain(error) is None:
            sentence = f"{type(error).__name__}: {first_line(error)}"
        if not any(isinstance(one, Stopped) for one in chain(error)):
            sentence = f"{self.place.name} has stopped: {redact_message(sentence)}"
        with suppress(Exception):
            self._tell(sentence)

    def _tell(self, sentence: str) -> None:
        if not self._answered:
            key = "first" if self.place.first else f"said/{self._number}"
            self._set(key, json.dumps({"stopped": sentence}) if self.place.first else sentence)
            if self.place.first:
                self._set("go", sentence)
                self._set("members", str(1 + self._store.add(f"{self._prefix}come", 0)))
        if self._get("stopped") == [""]:
            self._set("stopped", sentence)
        self._set(f"beat/{self._number}", DONE)
        self._wait_for_the_others(timedelta(seconds=4 * BEAT))

    def _finish(self) -> None:
        self._ended.set()
        if self._watch is not None:
            self._watch.join(2 * BEAT)

    def _wait_for_the_others(self, patience: timedelta) -> None:
        """Keep the store open until the others have read it, where this process has it."""
        if not self.place.first:
            return
        end = time.monotonic() + patience.total_seconds()
        others = [f"beat/{n}" for n in range(1, self._members)]
        while others and time.monotonic() < end:
            if all(beat == DONE for beat in self._get(*others)):
                return
            time.sleep(0.1)


DONE = "done"  # in the place of a sign of life
ADVICE = "see its own last lines; resume=<run dir> goes on from the last checkpoint."


def main_address(place: Place) -> tuple[str, int]:
    """Return the address and port where processes meet, which Lightning takes too.

    Raises:
        UserError: SLURM was not told what Lightning has to know.
    """
    if place.starter == "srun":
        if "SLURM_NTASKS_PER_NODE" not in os.environ:
            raise UserError(
                "srun does not say how many processes a node has: add --ntasks-per-node."
            )
        from lightning.fabric.plugins.environments import SLURMEnvironment

        with told("srun"):
            environment = SLURMEnvironment()
            return environment.main_address, environment.main_port
    return os.environ["MASTER_ADDR"], number("MASTER_PORT")


def members(place: Place, trainer: DictConfig) -> int:
    """Return how many processes meet, of a config that has not been checked yet.

    Raises:
        UserError: neither the environment nor the config says it.
    """
    if place.world is not None and not place.leads:
        return place.world
    nodes, devices = trainer.get("num_nodes", 1), trainer.get("devices", 1)
    if place.leads:
        devices = 1
    if not (isinstance(nodes, int) and isinstance(devices, int) and devices > 0):
        raise UserError("set WORLD_SIZE, the number of processes on all nodes, on each of them.")
    return nodes * devices


def settings_of(cfg: DictConfig) -> dict[str, str]:
    """Return the values of a config by their dotted keys, unresolved and without secrets."""
    found: dict[str, str] = {}

    def walk(node: Any, path: str) -> None:
        if isinstance(node, Mapping) and node:
            for key, child in node.items():
                walk(child, f"{path}.{key}" if path else str(key))
        else:
            found[path] = str(node)

    walk(redact(OmegaConf.to_container(cfg, resolve=False)), "")
    return found


def code() -> dict[str, str]:
    """Return a digest of the code of this package, and of those that the user's projects name."""
    folders = {"hydralight": PACKAGE}
    for name in {name.split(".")[0] for one in projects() for name in one.whitelist}:
        with suppress(ImportError, ValueError):
            spec = find_spec(name)
            for place in (spec.submodule_search_locations or ()) if spec is not None else ():
                folders[name] = Path(place)
    return {f"the code of {name}": _digest(folder) for name, folder in sorted(folders.items())}


def _digest(folder: Path) -> str:
    digest = sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def is_loss(error: BaseException) -> bool:
    """Whether an error, or what it came from, is an operation that another process has left."""
    from torch.distributed import DistError

    return any(
        isinstance(one, DistError)
        or (isinstance(one, RuntimeError) and any(word in str(one) for word in LOST))
        for one in chain(error)
    )
