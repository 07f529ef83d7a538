"""A command with all processes that it starts: the memory and the time that they take."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

from benchmarks.lengths import ROOT
from benchmarks.measure import variables
from hydralight.errors import UserError

EVERY = 0.5  # seconds
TICKS = 100  # of a second's CPU time in /proc, on Linux


@dataclass
class Seen:
    """What a command took (Linux).

    Args:
        seconds: By the clock on the wall.
        cpu: Seconds of all processes.
        memory: The most that all processes had at once, in MB; what they share counts once.
        resident: The same, where what they share counts for each of them.
        processes: The most there were at once.
        over_time: (seconds, memory) of each look.
        disk: The most bytes that a folder had.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0
    resident: float = 0.0
    processes: int = 0
    over_time: list[tuple[float, float]] = field(default_factory=list)
    disk: int = 0

    def most_between(self, begin: float, end: float) -> float:
        """Return the most memory in a part of the time, said as shares of all of it."""
        part = [m for s, m in self.over_time if begin <= s / self.seconds <= end]
        return max(part, default=0.0)


def watched(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> Seen:
    """Run Python with arguments in the project's root, and return what that took.

    Args:
        arguments: Behind `python`.
        folder: Whose size is looked at.
        environment: Variables to set.

    Raises:
        UserError: it failed.
    """
    seen, spent = Seen(), dict[int, float]()
    start = time.perf_counter()
    with variables(**(environment or {})), TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=said
        )
        while process.poll() is None:
            _look(process.pid, seen, spent, time.perf_counter() - start)
            if len(seen.over_time) % 10 == 1:
                seen.disk = max(seen.disk, size_of(folder))
            time.sleep(EVERY)
        seen.seconds = time.perf_counter() - start
        said.seek(0)
        lines = said.read().strip().splitlines()
    if process.returncode:
        last = lines[-1:] or [f"exit code {process.returncode}"]
        raise UserError(f"python {' '.join(arguments[:3])} failed: {last[0]}")
    seen.cpu = sum(spent.values())
    seen.disk = max(seen.disk, size_of(folder))
    return seen


def _look(root: int, seen: Seen, spent: dict[int, float], now: float) -> None:
    memory, resident, number = 0.0, 0.0, 0
    for process in descendants(root):
        with suppress(OSError, KeyError, IndexError):  # it has just ended
            text = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
            sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 / 1e6 for line in text}
            memory, resident, number = memory + sizes["Pss"], resident + sizes["Rss"], number + 1
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            spent[process] = (int(state[11]) + int(state[12])) / TICKS
    seen.memory, seen.resident = max(seen.memory, memory), max(seen.resident, resident)
    seen.processes = max(seen.processes, number)
    seen.over_time.append((now, memory))


def descendants(root: int) -> list[int]:
    """Return the numbers of a process and of all that it has started, and these."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state = path.read_text().rpartition(")")[2].split()
            parents.setdefault(int(state[1]), []).append(int(path.parent.name))
    found = [root]
    for process in found:
        found += parents.get(process, [])
    return found


def size_of(folder: Path) -> int:
    """Return the bytes of all files of a folder."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total
