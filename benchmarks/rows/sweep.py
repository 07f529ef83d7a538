"""A sweep of tiny trials: seconds a trial beyond its training.

The wall time of the whole sweep, its start and its report included, over its trials; less the
least time that such a run takes in a process that has trained before, as the trials of
`Trainer.hyperparameter_search` do. Target: at most 1 s over 20 trials.
"""

import io
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import hydralight
from benchmarks import command
from benchmarks.measure import Line, alternate, line, seconds

TINY: dict[str, Any] = {"trials": 2, "steps": 2}
TRIAL = ("data.num_eval=20", "data.batch_size=8", "generation.max_new_tokens=8")


def run(rounds: int = 3, trials: int = 20, steps: int = 20) -> list[Line]:
    """Return one line."""
    with TemporaryDirectory() as folder:
        times = measured(rounds, trials, steps, Path(folder))
    beyond = [
        whole / trials - training
        for whole, training in zip(times["sweep"], times["training"], strict=True)
    ]
    training = sorted(times["training"])[rounds // 2]
    note = f"a run alone takes {training:.2f} s"
    return [line(f"a sweep of {trials} trials", "s/trial", {"ours": beyond}, at_most=1, note=note)]


def measured(rounds: int, trials: int, steps: int, folder: Path) -> dict[str, list[float]]:
    """Return the seconds of the sweep, and of one such run, by round."""
    settings = [*TRIAL, f"data.num_train={8 * steps}", "trainer.max_epochs=1"]

    def sweep() -> float:
        where = f"paths.log_dir={mkdtemp(dir=folder)}"
        return command.run(["train.py", "-m", f"seed=range({trials})", where, *settings])

    def once() -> float:
        where = f"paths.log_dir={mkdtemp(dir=folder)}"
        with redirect_stdout(io.StringIO()):
            return seconds(
                lambda: hydralight.train([where, "callbacks.rich_progress=null", *settings])
            )

    def training() -> float:
        return min(once() for _ in range(3))

    once()  # imports, and what is cached
    return alternate({"sweep": sweep, "training": training}, rounds)
