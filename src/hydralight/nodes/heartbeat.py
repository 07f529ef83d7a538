"""Signs of life of the processes of one run: one that stops, or gives none any more, stops all."""

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import count
from threading import Event, Thread

from hydralight.config.explain import chain
from hydralight.nodes.ranks import Place
from hydralight.nodes.store import Store
from hydralight.runs.secrets import redact_message

log = logging.getLogger(__name__)

BEAT = 2.0  # seconds between two signs of life
SILENCE = 40.0  # seconds without one, after which a process is taken for lost
DONE = "done"  # in the place of a sign of life
# What gloo and NCCL say where another process has gone; such errors have no class of their own.
LOST = ("/gloo/", "Gloo ", "NCCL", "Connection closed by peer", "Connection reset by peer")
ADVICE = "see its own last lines; resume=<run dir> goes on from the last checkpoint."
UNREACHABLE = f"the first process cannot be reached any more: {ADVICE}"


class Heartbeat:
    """Gives a sign of life and watches those of others, from a thread with a store of its own.

    The first process watches all others, and they watch the first: what it says, all hear.

    Args:
        place: Which process this is.
        number: Its number among them.
        members: How many there are.
        store: Opens what they say, for one thread.
        leave: Called before this process is ended from the thread.
    """

    def __init__(
        self,
        place: Place,
        number: int,
        members: int,
        store: Callable[..., Store],
        leave: Callable[[], object],
    ) -> None:
        self._place, self._number, self._leave = place, number, leave
        self._watched = range(1, members) if place.first else range(1)
        self._open = store
        self._ended = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Give no more signs; the end of this process is no loss."""
        self._ended.set()
        self._thread.join(2 * BEAT)

    def _run(self) -> None:
        from torch.distributed import DistError

        store = self._open(patience=timedelta(seconds=SILENCE))
        names = ["stopped", *(f"beat/{other}" for other in self._watched)]
        seen = {other: ("", time.monotonic()) for other in self._watched}
        for beat in count(1):
            if self._ended.wait(BEAT):
                return
            try:
                stopped, *beats = store.all(names)
                store.set(f"beat/{self._number}", str(beat))
            except DistError:
                stopped, beats = UNREACHABLE, []
            now = time.monotonic()
            for other, value in zip(self._watched, beats, strict=False):
                if value != seen[other][0]:
                    seen[other] = (value, now)
                elif value != DONE and now - seen[other][1] > SILENCE:
                    stopped = stopped or lost(store, [other])
            if stopped and not self._ended.is_set():
                self._end_this_process(store, stopped)

    def _end_this_process(self, store: Store, sentence: str) -> None:
        """End it from here: its main thread may wait for one that will not come."""
        with suppress(Exception):
            if self._place.first:
                log.error("%s", sentence)
            elif self._place.local == 0:
                print(f"error: {redact_message(sentence)}", file=sys.stderr, flush=True)
        with suppress(Exception):
            tell(store, sentence, self._number)
        with suppress(Exception):
            self._leave()
        if self._place.first:
            time.sleep(2 * BEAT)  # until the others have read it, where the store ends with this
        os._exit(1)


def tell(store: Store, sentence: str, number: int) -> None:
    """Say why the run has stopped, unless that is said already."""
    if store.get("stopped") == "":
        store.set("stopped", sentence)
    store.set(f"beat/{number}", DONE)


def lost(store: Store, others: Sequence[int]) -> str:
    """Say that processes are lost."""
    try:
        names = ", ".join(store.all([f"name/{other}" for other in others]))
    except RuntimeError:
        return UNREACHABLE
    return f"nothing is heard from {names} any more, and the run has stopped: {ADVICE}"


def why(store: Store, number: int, members: int) -> str | None:
    """Say why an operation with all processes has failed; None where all of them are still there.

    Args:
        store: What they say.
        number: That of this process.
        members: How many there are.
    """
    others = [other for other in range(members) if other != number]
    try:
        before = store.all([f"beat/{other}" for other in others])
        for _ in range(3):
            time.sleep(BEAT)
            if stopped := store.get("stopped"):
                return stopped
        now = store.all([f"beat/{other}" for other in others])
    except RuntimeError:
        return UNREACHABLE
    gone = [other for other, a, b in zip(others, before, now, strict=True) if a == b]
    return lost(store, gone) if gone else None


def is_loss(error: BaseException) -> bool:
    """Whether an error, or what it came from, is an operation that another process has left."""
    from torch.distributed import DistError

    return any(
        isinstance(one, DistError)
        or (isinstance(one, RuntimeError) and any(word in str(one) for word in LOST))
        for one in chain(error)
    )
