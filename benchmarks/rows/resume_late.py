"""A resume late in an epoch: seconds from the start to the first new step, beyond a fresh start's.

An epoch of tiny examples is trained up to a million of them, and resumed from there. Target: at
most 1 s.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import cases, command
from benchmarks.hardware import on_gpu
from benchmarks.lengths import Rows
from benchmarks.measure import Line, alternate, line

TINY: dict[str, Any] = {"consumed": 64, "batch_size": 8}


def run(rounds: int = 5, consumed: int = 1_000_000, batch_size: int = 4096) -> list[Line]:
    """Return one line."""
    with TemporaryDirectory() as folder:
        times = measured(rounds, consumed, batch_size, Path(folder))
    beyond = [late - fresh for late, fresh in zip(times["resume"], times["fresh"], strict=True)]
    note = f"a fresh start takes {sorted(times['fresh'])[rounds // 2]:.1f} s"
    what = f"resume after {consumed:,} examples of an epoch"
    return [line(what, "s", {"ours": beyond}, at_most=1, note=note)]


def measured(rounds: int, consumed: int, batch_size: int, folder: Path) -> dict[str, list[float]]:
    """Return the seconds to the first step of a resumed run and of a fresh one, by round."""
    steps = -(-consumed // batch_size)
    number = (steps + max(2, steps // 10)) * batch_size
    rows: Rows = [
        {"sentence1": str(i % 97), "sentence2": "x", "label": i % 2} for i in range(number)
    ]
    case = cases.pair_classification("bert-2x64", rows, folder)
    run_dir, home = folder / "run", str(folder / "home")
    device = "auto" if on_gpu() else "cpu"
    settings = [*case.overrides, "callbacks.samples=null", "callbacks.best_model=null"]
    settings += [f"data.batch_size={batch_size}", "data.group_by_length=false"]
    settings += [f"trainer.accelerator={device}", "+trainer.limit_val_batches=0"]
    settings += ["trainer.max_epochs=1", "trainer.log_every_n_steps=100"]
    stopped = [f"hydra.run.dir={run_dir}", f"trainer.max_steps={steps}"]
    command.run(["train.py", *settings, *stopped], {"HF_HOME": home})
    longer = [f"resume={run_dir}", "trainer.max_steps=-1"]
    fresh = [*settings, f"paths.log_dir={folder / 'logs'}"]
    sides = {
        "resume": lambda: command.first_step(longer, folder, HF_HOME=home),
        "fresh": lambda: command.first_step(fresh, folder, HF_HOME=home),
    }
    alternate(sides, 1)  # for the files to be in memory
    return alternate(sides, rounds)
