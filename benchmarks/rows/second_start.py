"""The second start: the time in which encoded data are found again, over that of encoding them.

Both read the file, load the tokenizer and set up the data module, each in a fresh process. Target:
at most 5 %, with no file of the cache written anew.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from benchmarks import cases, ours
from benchmarks.measure import Line, apart, line, seconds

TINY: dict[str, Any] = {"number": 64, "shape": "bart-1+1x64", "real": False}


def run(
    rounds: int = 3, shape: str = "bart-2+2x64", number: int = 4_000, real: bool = True
) -> list[Line]:
    """Return one line."""
    parts, times, rewritten = [], [], 0
    with TemporaryDirectory() as folder:
        case = cases.summarization(shape, number, Path(folder), real)
        for _ in range(rounds):
            home = Path(mkdtemp(dir=folder))
            first, second = (
                apart(set_up, case.overrides, home, HF_HOME=str(home)) for _ in range(2)
            )
            parts.append(100 * second[0] / first[0])
            times.append(first[0])
            rewritten += sum(first[1].get(name) != state for name, state in second[1].items())
    note = f"the first takes {sorted(times)[rounds // 2]:.2f} s; "
    note += f"{rewritten} files of the cache written anew"
    what = f"second start, {number:,} articles"
    sides = {"ours": parts}
    return [line(what, "% of the first", sides, at_most=5, also=not rewritten, note=note)]


def set_up(overrides: Sequence[str], home: Path) -> tuple[float, dict[str, tuple[int, int]]]:
    """Set up the data in this process.

    Returns:
        The seconds, and the size and time of change of each data file of the cache.
    """
    _, data, _ = ours.built(overrides, home / "run")
    elapsed = seconds(lambda: [data.encoded(split) for split in ("train", "validation")])
    cached = {
        str(path.relative_to(home)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in home.rglob("*.arrow")
    }
    return elapsed, cached
