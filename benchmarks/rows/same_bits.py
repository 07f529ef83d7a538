"""What `trainer.same_bits=true` costs on two processes, over DDP's own all-reduce.

The same steps in two processes over gloo, one thread each: with one micro-batch a process, and
with four, of whose gradients partial sums are held. The ratios are of the sides of one round. There
is no target; Trainer has nothing like it.
"""

import os
import socket
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import cases, ours
from benchmarks.cases import Case
from benchmarks.measure import Line, alternate, line, peak_memory

TINY: dict[str, Any] = {"shape": "bert-2x64", "steps": 3, "warmup": 1, "real": False}
PROCESSES = 2

Figures = tuple[float, float]  # milliseconds a step, and the peak of memory (MiB)


def run(
    rounds: int = 5,
    shape: str = "bert-12x768",
    steps: int = 8,
    warmup: int = 2,
    batch_size: int = 4,
    real: bool = True,
) -> list[Line]:
    """Return two lines for each number of micro-batches: of time, and of memory."""
    lines = []
    for own in (1, 4):
        with TemporaryDirectory() as folder:
            number = batch_size * PROCESSES * own * (warmup + steps)
            case = cases.classification(shape, number, Path(folder), real)
            len(case.rows)  # encoded before the processes begin
            found = compared(case, rounds, warmup, batch_size, PROCESSES * own)
        for index, (what, unit) in enumerate((("time", "ms/step"), ("memory a process", "MiB"))):
            tree, ddp = ([figures[index] for figures in found[side]] for side in ("tree", "ddp"))
            ratios = [one / other for one, other in zip(tree, ddp, strict=True)]
            note = f"DDP alone: {median(ddp):.0f}; {median(ratios):.2f} times as much ("
            note += f"{min(ratios):.2f} to {max(ratios):.2f})"
            what = f"same bits, {what}, {shape}, {PROCESSES} processes, {own} micro-batches each"
            lines.append(line(what, unit, {"ours": tree}, note=note))
    return lines


def compared(
    case: Case, rounds: int, warmup: int, batch_size: int, batches_per_step: int
) -> dict[str, list[Figures]]:
    """Train with the tree, and with DDP alone."""
    overrides = [*cases.SAME, *cases.FIXED_BATCHES, "trainer.max_epochs=1", "seed=1"]
    overrides += [f"data.batch_size={batch_size}", f"data.batches_per_step={batches_per_step}"]
    same = [*overrides, "trainer.same_bits=true"]
    sides = {
        "tree": lambda: together(case, same, warmup),
        "ddp": lambda: together(case, overrides, warmup),
    }
    return alternate(sides, rounds)


def together(case: Case, overrides: list[str], warmup: int) -> Figures:
    """Train in two processes; return the figures of the first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    result = case.folder / "figures.pt"
    arguments = (port, case, overrides, warmup, result)
    torch.multiprocessing.spawn(_share, arguments, nprocs=PROCESSES)
    return tuple(torch.load(result))


def _share(
    rank: int, port: int, case: Case, overrides: list[str], warmup: int, result: Path
) -> None:
    """Train as one of the processes, which Lightning knows by these variables."""
    variables = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1"}
    variables |= {"WORLD_SIZE": PROCESSES, "LOCAL_WORLD_SIZE": PROCESSES, "MASTER_PORT": port}
    variables |= {"TORCHELASTIC_RUN_ID": "benchmarks", "OMP_NUM_THREADS": 1}
    os.environ.update({name: str(value) for name, value in variables.items()})
    torch.set_num_threads(1)
    recorder = case.recorder(warmup)
    folder = case.folder / f"rank-{rank}"
    ddp = ["trainer=ddp_cpu", f"trainer.devices={PROCESSES}"]
    ours.train([*case.overrides, *ddp, *overrides], folder, recorder)
    if rank == 0:
        torch.save([1000 / recorder.per_second("steps"), peak_memory()], result)
