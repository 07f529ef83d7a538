"""Summarization at CNN/DailyMail's lengths, with a budget of tokens a batch on our side.

Tokens (of sources and targets, without padding) a second, and the peak of memory. Targets: 1.2
times Trainer's with batches of a fixed size, and no more memory. As short articles have longer
summaries for their length, and a target's token needs more memory than a source's, the budget is
three quarters of the tokens that Trainer's batch has room for in its sources. Each side runs in
processes of its own, which have imported the same libraries. Some steps of an epoch are timed: all
sides take their batches from the same articles, but not the same ones.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import cases, trainer
from benchmarks.cases import Case
from benchmarks.hardware import on_gpu
from benchmarks.measure import Line, alternate, apart, line, peak_memory
from benchmarks.recorder import Recorder

TINY: dict[str, Any] = {
    "shape": "bart-1+1x64",
    "number": 24,
    "steps": 3,
    "batch_size": 2,
    "real": False,
}


def run(
    rounds: int = 5,
    shape: str = "bart-6+6x768",
    number: int = 800,
    steps: int | None = None,
    batch_size: int = 8,
    max_source_length: int = 1024,
    max_target_length: int = 128,
    real: bool = True,
) -> list[Line]:
    """Return a line of speed and one of memory."""
    if steps is None:
        steps = 100 if on_gpu() else 4
    with TemporaryDirectory() as folder:
        case = cases.summarization(
            shape, number, Path(folder), real, max_source_length, max_target_length
        )
        len(case.rows)  # encoded here, once
        measured = alternate(
            {
                side: lambda side=side: apart(measure, side, case, batch_size, steps)  # type: ignore[misc]
                for side in ("ours", "trainer", "best")
            },
            rounds,
        )
    speed, memory = (
        {side: [values[what] for values in rows] for side, rows in measured.items()}
        for what in ("tokens/s", "MiB")
    )
    padding = ", ".join(f"{side} {rows[0]['padding']:.0%}" for side, rows in measured.items())
    what = f"summarization, CNN/DailyMail lengths, {shape}"
    return [
        line(what, "tokens/s", speed, ratio_at_least=1.2, note=f"padding: {padding}"),
        line(f"{what}, peak memory", "MiB", memory, ratio_at_most=1.0),
    ]


def measure(side: str, case: Case, batch_size: int, steps: int) -> dict[str, float]:
    """Train one side in this process, and return its speed, memory and padding."""
    recorder = trained(side, case, batch_size, warmup=1, steps=steps + 1)
    counts = recorder.counts
    return {
        "tokens/s": recorder.per_second("tokens"),
        "MiB": recorder.peak_gpu_memory if on_gpu() else peak_memory(),
        "padding": 1 - counts["tokens"] / counts["padded"],
    }


def trained(side: str, case: Case, batch_size: int, warmup: int, steps: int = -1) -> Recorder:
    """Train one side for some steps of an epoch, or all of them."""
    if side == "ours":
        budget = batch_size * int(case.override("data.max_source_length")) * 3 // 4
        limits = ["trainer.max_epochs=1", f"trainer.max_steps={steps}"]
        return case.train_ours([f"data.max_tokens={budget}", *limits], warmup)
    values: dict[str, Any] = trainer.BEST_ORDER if side == "best" else {}
    values = {**values, "per_device_train_batch_size": batch_size, "max_steps": steps}
    return case.train_reference(warmup, **values)
