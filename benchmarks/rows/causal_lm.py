"""Causal language modelling on short documents: ours packed, Trainer's rows padded to 256.

Real tokens a second. Targets: 1.5 times Trainer's for documents of 150 tokens (sonnets), 3 times
for those of at most 70 (sentences); and the same losses packed and unpacked.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from benchmarks import cases, lengths, ours, trainer
from benchmarks.cases import Case
from benchmarks.hardware import on_gpu
from benchmarks.measure import Line, in_turns, line
from benchmarks.recorder import Recorder
from benchmarks.rows.same_batches import gpu_note

PADDED = 256
TINY: dict[str, Any] = {"shape": "gpt2-2x64", "steps": 4, "warmup": 1, "real": False}


def run(
    rounds: int = 5,
    shape: str = "gpt2-12x768",
    batch_size: int = 4,
    steps: int | None = None,
    warmup: int = 2,
    real: bool = True,
) -> list[Line]:
    """Return a line for each kind of documents."""
    if steps is None:
        steps = 100 if on_gpu() else 8
    number = batch_size * (warmup + steps)
    kinds = [
        ("documents of about 150 tokens", lengths.sonnets(number, real), PADDED, 1.5),
        ("documents of at most 70 tokens", lengths.sentences(number, real), 70, 3.0),
    ]
    lines = []
    for what, rows, max_length, target in kinds:
        with TemporaryDirectory() as folder:
            case = cases.language_modeling(shape, rows, Path(folder), max_length)
            recorders = compared(case, batch_size, warmup, rounds)
            apart = loss_difference(case, batch_size)
        speeds = {
            side: [recorder.per_second("tokens") for recorder in recorded]
            for side, recorded in recorders.items()
        }
        note = f"packed and unpacked losses are {apart:.1e} apart at most"
        lines.append(
            line(
                f"causal LM, {what}, {shape}",
                "tokens/s",
                speeds,
                ratio_at_least=target,
                also=apart < 1e-4,
                note="; ".join(
                    filter(None, [note, gpu_note(recorders["ours"], recorders["trainer"])])
                ),
            )
        )
    return lines


def compared(case: Case, batch_size: int, warmup: int, rounds: int) -> dict[str, list[Recorder]]:
    """Train each side for an epoch, and return the recorders."""
    values: dict[str, Any] = {"per_device_train_batch_size": batch_size}
    packed = [f"data.batch_size={batch_size}", "data.packing=true", "trainer.max_epochs=1"]
    best = {**values, **trainer.BEST_ORDER}
    padded = padding_to(PADDED, case.tokenizer)
    return in_turns(
        {
            "ours": lambda turn: case.train_ours(packed, warmup, turn),
            "trainer": lambda turn: case.train_reference(
                warmup, collator=padded, turn=turn, **values
            ),
            "best": lambda turn: case.train_reference(warmup, turn=turn, **best),
        },
        rounds,
    )


def padding_to(length: int, tokenizer: Any) -> Callable[[list[dict[str, Any]]], Any]:
    """Return a collator that pads all rows to one length."""

    def collate(rows: list[dict[str, Any]]) -> Any:
        inputs = [{"input_ids": row["input_ids"]} for row in rows]
        batch = tokenizer.pad(inputs, padding="max_length", max_length=length, return_tensors="pt")
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        return batch

    return collate


def loss_difference(case: Case, batch_size: int, steps: int = 3) -> float:
    """Return how far apart the losses of the same training are at most, packed and unpacked."""
    losses = []
    for packing in ("true", "false"):
        folder = Path(mkdtemp(dir=case.folder))
        still = "model.config={resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0}"
        overrides = [
            *case.overrides,
            still,
            f"data.packing={packing}",
            f"trainer.max_steps={steps}",
        ]
        overrides += [f"data.batch_size={batch_size}", "trainer.log_every_n_steps=1"]
        ours.train([*overrides, "trainer.max_epochs=null"], folder)
        with next(folder.rglob("metrics.csv")).open() as file:
            losses.append([float(r["train/loss"]) for r in csv.DictReader(file) if r["train/loss"]])
    assert len(losses[0]) == len(losses[1]) == steps
    return max(abs(a - b) for a, b in zip(*losses, strict=True))
