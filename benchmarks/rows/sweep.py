"""A sweep of tiny trials: seconds a trial beyond its training.

The wall time of the whole sweep, its start included, over its trials; less the time in which such a
trial takes its optimizer steps. Target: at most 1 s over 20 trials.
"""

from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from benchmarks import command, ours
from benchmarks.measure import Line, alternate, line
from benchmarks.recorder import Recorder

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
    note = f"the training of a trial takes {training:.2f} s"
    return [line(f"a sweep of {trials} trials", "s/trial", {"ours": beyond}, at_most=1, note=note)]


def measured(rounds: int, trials: int, steps: int, folder: Path) -> dict[str, list[float]]:
    """Return the seconds of the sweep, and of one trial's steps, by round."""
    settings = [*TRIAL, f"data.num_train={8 * steps}", "trainer.max_epochs=1"]

    def sweep() -> float:
        where = f"paths.log_dir={mkdtemp(dir=folder)}"
        return command.run(["train.py", "-m", f"seed=range({trials})", where, *settings])

    def training() -> float:
        recorder = Recorder(0, pad_token_id=1, seq2seq=True)
        ours.train(settings, Path(mkdtemp(dir=folder)), recorder)
        return recorder.seconds

    return alternate({"sweep": sweep, "training": training}, rounds)
