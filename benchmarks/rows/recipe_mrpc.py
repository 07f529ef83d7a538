"""The recipe for MRPC as shipped: examples a second, over Trainer's default and its grouping.

Targets: 1.25 times Trainer's default and no less than its `group_by_length`; with a pretrained
encoder (`--checkpoint`) and MRPC at hand, also the same validation F1 over 3 seeds within noise.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from datasets import Dataset
from sklearn.metrics import f1_score

from benchmarks import cases, lengths, ours, trainer
from benchmarks.cases import Case
from benchmarks.measure import Line, in_turns, line
from benchmarks.recorder import Recorder

TINY: dict[str, Any] = {"shape": "bert-2x64", "number": 24, "real": False}


def run(
    rounds: int = 5,
    shape: str = "bert-6x384",
    number: int = 800,
    real: bool = True,
    checkpoint: str | None = None,
    seeds: Sequence[int] = (1, 2, 3),
    scored_examples: int | None = None,
) -> list[Line]:
    """Return a line of speed; and one of F1 where there is something to be learned from.

    Args:
        rounds: Of the speed.
        shape: Of the model, without a checkpoint.
        number: Training examples of an epoch whose speed is measured.
        real: Whether to take real texts where they are at hand.
        checkpoint: Folder of a pretrained encoder.
        seeds: Of the trainings that F1 is taken from.
        scored_examples: Training examples of these; all of MRPC unless said.
    """
    with TemporaryDirectory() as folder:
        case = cases.classification(
            shape, number, Path(folder), real, Path(checkpoint) if checkpoint else None
        )
        recorders = compared(case, rounds)
        speeds = {
            side: [recorder.per_second("examples") for recorder in recorded]
            for side, recorded in recorders.items()
        }
        padding = {
            side: f"{1 - recorded[0].counts['tokens'] / recorded[0].counts['padded']:.0%}"
            for side, recorded in recorders.items()
        }
        lines = [
            line(
                "recipe as shipped, MRPC lengths",
                "examples/s",
                speeds,
                ratio_at_least=1.25,
                best_ratio_at_least=1.0,
                note="padding: " + ", ".join(f"{side} {part}" for side, part in padding.items()),
            )
        ]
    dev = lengths.SHARED / "mrpc" / "dev.tsv"
    if checkpoint and real and dev.is_file():
        with TemporaryDirectory() as folder:
            lines.append(scored(Path(checkpoint), seeds, Path(folder), scored_examples))
    return lines


def compared(case: Case, rounds: int) -> dict[str, list[Recorder]]:
    """Train two epochs on each side, the second of which is timed; return the recorders."""
    batch_size = 8  # of the recipe, and of Trainer
    epoch = -(-len(case.rows) // batch_size)
    values: dict[str, Any] = {"num_train_epochs": 2}
    best = {**values, **trainer.BEST_ORDER}
    return in_turns(
        {
            "ours": lambda turn: case.train_ours(["trainer.max_epochs=2"], epoch, turn, block=5),
            "trainer": lambda turn: case.train_reference(epoch, turn=turn, block=5, **values),
            "best": lambda turn: case.train_reference(epoch, turn=turn, block=5, **best),
        },
        rounds,
    )


def scored(checkpoint: Path, seeds: Sequence[int], folder: Path, number: int | None = None) -> Line:
    """Train whole, on all sides with each seed, and compare the F1 of the validation split."""
    case = cases.pair_classification("", lengths.mrpc("train")[:number], folder, checkpoint)
    validation = lengths.write(lengths.mrpc("dev"), folder / "dev.jsonl")
    overrides = [*case.overrides, ours.files(train=case.train, validation=validation)]

    def ours_f1(seed: int) -> float:
        own = [*overrides, f"seed={seed}", "callbacks=none"]
        task, data, fit = ours.built(own, folder / f"f1-{seed}")
        fit.fit(task, datamodule=data)
        return 100 * float(fit.callback_metrics["val/f1"])

    _, data, _ = ours.built(overrides, folder / "encoding")
    rows = data.encoded("validation").select_columns(case.rows.column_names)

    def reference_f1(seed: int, **values: Any) -> float:
        arguments = {"num_train_epochs": 3, "seed": seed, "learning_rate": 5e-5, **values}
        trained = trainer.train(
            case.model,
            case.rows,
            case.collator(case.model()),
            folder,
            tokenizer=case.tokenizer,
            **arguments,
        )
        return 100 * f1(trained, rows)

    sides = {
        "ours": [ours_f1(seed) for seed in seeds],
        "trainer": [reference_f1(seed) for seed in seeds],
        "best": [reference_f1(seed, **trainer.BEST_ORDER) for seed in seeds],
    }
    noise = 2 * max(stdev(values) for values in sides.values()) / len(seeds) ** 0.5
    apart = mean(sides["ours"]) - max(mean(sides["trainer"]), mean(sides["best"]))
    scored = line(
        f"recipe as shipped, MRPC, validation F1 over {len(seeds)} seeds",
        "F1, %",
        sides,
        note=f"means: ours {mean(sides['ours']):.2f}, Trainer {mean(sides['trainer']):.2f}, "
        f"grouped {mean(sides['best']):.2f}; two standard errors are {noise:.2f}",
    )
    return {
        **scored,
        "target": "the same within noise",
        "reached": apart >= -noise - 1e-4,  # our F1 is a float32
    }


def f1(trained: trainer.Reference, rows: Dataset) -> float:
    """Return the F1 of the second label."""
    predicted: Any = trained.predict(rows)
    return float(f1_score(predicted.label_ids, np.argmax(predicted.predictions, axis=-1)))
