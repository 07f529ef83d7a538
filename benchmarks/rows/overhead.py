"""What the framework adds to a step at 2x64, over a bare PyTorch loop.

The loop has the same optimizer, clipping, schedule and loader. Ours has its loss normalisation, its
log and its other default callbacks on. Target: at most what Trainer adds with the same log, which
the ratio of whole steps says more surely than that of two small differences.
"""

from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import get_linear_schedule_with_warmup

from benchmarks import cases
from benchmarks.cases import Case
from benchmarks.hardware import on_gpu
from benchmarks.measure import Line, in_turns, line
from benchmarks.recorder import Recorder
from benchmarks.rows.same_batches import sides
from hydralight.data.order import Order
from hydralight.optim.groups import parameter_groups

TINY: dict[str, Any] = {"steps": 5, "warmup": 1, "batch_size": 4, "real": False}


def run(
    rounds: int = 5,
    shape: str = "bert-2x64",
    steps: int = 400,
    warmup: int = 20,
    batch_size: int = 8,
    real: bool = True,
) -> list[Line]:
    """Return one line."""
    with TemporaryDirectory() as folder:
        recorders = compared(rounds, shape, steps, warmup, batch_size, real, Path(folder))
    per_step = {
        side: [1000 / recorder.per_second("steps") for recorder in recorded]
        for side, recorded in recorders.items()
    }
    bare = per_step.pop("bare")
    over = {
        side: [value - base for value, base in zip(values, bare, strict=True)]
        for side, values in per_step.items()
    }
    note = f"a step of the bare loop takes {median(bare):.2f} ms; the ratios are of whole steps"
    whole = line(f"framework overhead, {shape}", "ms/step", per_step, ratio_at_most=1.0, note=note)
    added = line("", "", over)
    return [{**whole, "ours": added["ours"], "trainer": added["trainer"], "best": added["best"]}]


def compared(
    rounds: int,
    shape: str,
    steps: int,
    warmup: int,
    batch_size: int,
    real: bool,
    folder: Path,
) -> dict[str, list[Recorder]]:
    """Run all sides on the same batches, and return each side's recorders."""
    number = batch_size * (warmup + steps)
    case = cases.classification(shape, number, folder, real)
    order = Order(num_rows=number, batch_size=batch_size, seed=1).rows(0).tolist()
    overrides = [*cases.SAME, f"data.batch_size={batch_size}", "trainer.max_epochs=1"]
    block = min(10, steps)
    overrides += [*cases.FIXED_BATCHES, "seed=1"]
    return in_turns(
        {
            "bare": lambda turn: bare_loop(
                case, order, batch_size, case.recorder(warmup, turn, block)
            ),
            **sides(case, overrides, batch_size, warmup, block),
        },
        rounds,
    )


def bare_loop(case: Case, order: list[int], batch_size: int, recorder: Recorder) -> Recorder:
    """Train as a script without a framework does."""
    torch.manual_seed(0)
    model = case.model().train()
    rows = case.rows.select_columns(
        [n for n in ("input_ids", "token_type_ids", "labels") if n in case.rows.column_names]
    )
    loader: DataLoader = DataLoader(
        rows,
        batch_size,
        sampler=order,
        collate_fn=case.collator(model),
    )
    device = "cuda" if on_gpu() else "cpu"
    model.to(device)
    optimizer = torch.optim.AdamW(
        parameter_groups(model), lr=cases.LR, weight_decay=cases.WEIGHT_DECAY, fused=True
    )
    schedule = get_linear_schedule_with_warmup(optimizer, 0, len(loader))
    recorder.begin(model, len(loader))
    for batch in loader:
        batch = {name: value.to(device) for name, value in batch.items()}
        with torch.autocast(device, torch.bfloat16, enabled=on_gpu()):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        recorder.step(batch)
    return recorder
