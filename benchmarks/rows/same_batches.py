"""The same batches in float32: optimizer steps a second, ours over Trainer's.

Target: at least 0.98 at every size, and at least 1 over all of them.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import cases, lengths, trainer
from benchmarks.cases import Case
from benchmarks.hardware import on_gpu
from benchmarks.measure import Line, PassOn, in_turns, line
from benchmarks.recorder import Recorder
from hydralight.data.order import Order

# batch size, and steps behind the warm-up; more where a step is short
SIZES = {
    "bert-2x64": (8, 300),
    "bert-6x384": (8, 30),
    "bert-12x768": (8, 8),
    "bart-6+6x768": (2, 6),
    "gpt2-12x768": (4, 5),
}
GPU_SIZES = {name: (4 * size, 100) for name, (size, _) in SIZES.items()}
TINY: dict[str, Any] = {"sizes": {"bert-2x64": (4, 6)}, "warmup": 1, "real": False}


def run(
    rounds: int = 5,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    warmup: int = 3,
    real: bool = True,
) -> list[Line]:
    """Return a line for each size, and one over all."""
    if sizes is None:
        sizes = GPU_SIZES if on_gpu() else SIZES
    lines: list[Line] = []
    everywhere: dict[str, list[float]] = {}
    for shape, (batch_size, steps) in sizes.items():
        with TemporaryDirectory() as folder:
            recorders = compared(shape, batch_size, steps, warmup, rounds, Path(folder), real)
        speeds = {
            side: [recorder.per_second("steps") for recorder in recorded]
            for side, recorded in recorders.items()
        }
        lines.append(
            line(
                f"same batches, {shape}",
                "steps/s",
                speeds,
                ratio_at_least=0.98,
                note=gpu_note(recorders["ours"], recorders["trainer"]),
            )
        )
        for side, values in speeds.items():
            everywhere.setdefault(side, []).extend(values)
    over_all = line("same batches, all sizes", "steps/s", everywhere, ratio_at_least=1.0)
    # only the ratio means something here
    return [*lines, {**over_all, "ours": None, "trainer": None, "best": None}]


def compared(
    shape: str, batch_size: int, steps: int, warmup: int, rounds: int, folder: Path, real: bool
) -> dict[str, list[Recorder]]:
    """Train both sides on the same batches, and return each side's recorders."""
    number = batch_size * (warmup + steps)
    if shape.startswith("bert"):
        case = cases.classification(shape, number, folder, real)
    elif shape.startswith("bart"):
        case = cases.summarization(
            shape, number, folder, real, max_source_length=256, max_target_length=64
        )
    else:
        case = cases.language_modeling(shape, lengths.sonnets(number, real), folder)
    overrides = [*cases.SAME, f"data.batch_size={batch_size}", "trainer.max_epochs=1"]
    overrides += [*cases.FIXED_BATCHES, "seed=1"]
    if shape.startswith("gpt2"):
        overrides.append("data.packing=false")
    assert len(case.rows) == number
    block = min(10, max(1, steps // 10))
    return in_turns(sides(case, overrides, batch_size, warmup, block), rounds)


def sides(
    case: Case, overrides: list[str], batch_size: int, warmup: int, block: int
) -> dict[str, Callable[[PassOn], Recorder]]:
    """Return the sides of a training on the same batches, in our own order of seed 1."""
    order = Order(num_rows=len(case.rows), batch_size=batch_size, seed=1).rows(0).tolist()
    same: dict[str, Any] = {
        "per_device_train_batch_size": batch_size,
        "learning_rate": cases.LR,
        "weight_decay": cases.WEIGHT_DECAY,
    }
    best = {**same, **trainer.BEST}
    return {
        "ours": lambda turn: case.train_ours(overrides, warmup, turn, block),
        "trainer": lambda turn: case.train_reference(warmup, order, turn=turn, block=block, **same),
        "best": lambda turn: case.train_reference(warmup, order, turn=turn, block=block, **best),
    }


def gpu_note(ours: list[Recorder], reference: list[Recorder]) -> str:
    """Say what the GPU had to do: peak memory, tokens a second, model FLOPs utilisation."""
    if not on_gpu():
        return ""
    parts = []
    for side, recorded in (("ours", ours), ("Trainer", reference)):
        middle = sorted(recorded, key=lambda recorder: recorder.seconds)[len(recorded) // 2]
        used = middle.utilisation()
        share = f", {used:.1%} of the FLOP/s" if used is not None else ""
        parts.append(
            f"{side}: {middle.peak_gpu_memory:,.0f} MiB, "
            f"{middle.per_second('tokens'):,.0f} tokens/s{share}"
        )
    return "; ".join(parts)
