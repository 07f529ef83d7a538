"""The first start: from `python train.py` to the first optimizer step, beyond the imports.

The quickstart without the samples before training, with empty caches: its articles are written,
its tokenizer is trained, its data are encoded. The time of importing torch, lightning and
transformers is taken off. Target: at most 3 s.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from benchmarks import command
from benchmarks.measure import Line, alternate, line

TINY: dict[str, Any] = {"overrides": ("data.num_train=64", "data.num_eval=8")}


def run(rounds: int = 5, overrides: Sequence[str] = ()) -> list[Line]:
    """Return one line."""
    with TemporaryDirectory() as folder:
        times = measured(rounds, overrides, Path(folder))
    beyond = [start - base for start, base in zip(times["start"], times["imports"], strict=True)]
    note = f"the imports take {sorted(times['imports'])[rounds // 2]:.1f} s"
    return [line("first start, quickstart", "s", {"ours": beyond}, at_most=3, note=note)]


def measured(rounds: int, overrides: Sequence[str], folder: Path) -> dict[str, list[float]]:
    """Return the seconds of both by round; a first one, for the files to be in memory, is left out.

    Args:
        rounds: How many.
        overrides: Of the quickstart.
        folder: For caches and runs.
    """

    def start() -> float:
        settings = ["callbacks.samples=null", f"paths.log_dir={folder / 'logs'}", *overrides]
        return command.first_step(settings, folder, HF_HOME=mkdtemp(dir=folder))

    sides = {"start": start, "imports": lambda: command.run(["-c", command.IMPORTS])}
    alternate(sides, 1)
    return alternate(sides, rounds)
