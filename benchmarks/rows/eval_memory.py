"""Memory of an evaluation with a vocabulary of 30,000: what grows from 1,000 examples to 10,000.

The peak of resident memory at the end of an evaluation over that after its first 1,000 examples.
Trainer keeps all logits by default, which no machine has room for: its growth is measured between
fewer examples, and scaled. Its best reduces them by `preprocess_logits_for_metrics`. Target: below
50 MiB.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from transformers import TrainerCallback

from benchmarks import cases, lengths, ours, trainer
from benchmarks.cases import Case
from benchmarks.measure import Line, alternate, apart, line, peak_memory

TINY: dict[str, Any] = {
    "first": 16,
    "number": 48,
    "reference": (16, 32),
    "vocabulary": 7_000,
    "real": False,
}


def run(
    rounds: int = 3,
    first: int = 1_000,
    number: int = 10_000,
    reference: tuple[int, int] = (100, 300),
    vocabulary: int = 30_000,
    max_length: int = 32,
    real: bool = True,
) -> list[Line]:
    """Return one line."""
    with TemporaryDirectory() as folder:
        rows = lengths.sentences(number, real)
        case = cases.language_modeling("gpt2-2x64", rows, Path(folder), max_length, vocabulary)
        len(case.rows)
        scale = (number - first) / (reference[1] - reference[0])
        grown = alternate(
            {
                "ours": lambda: apart(growth_ours, case, first),
                "trainer": lambda: scale * apart(growth_reference, case, *reference, False),
                "best": lambda: apart(growth_reference, case, first, number, True),
            },
            rounds,
        )
    note = f"Trainer's own: measured from {reference[0]} to {reference[1]} examples, and scaled"
    what = f"evaluation memory, growth from {first:,} to {number:,} examples"
    # a ratio of what hardly grows says nothing
    growth = line(what, "MiB", grown, at_most=50, note=note)
    return [{**growth, "ratio": None, "ratio_best": None}]


def growth_ours(case: Case, first: int) -> float:
    """Evaluate in this process; return by how many MiB the peak has grown since the first."""
    overrides = [*case.overrides, "data.eval_batch_size=8"]
    overrides.append(ours.files(train=case.train, validation=case.train))
    clock, _ = ours.evaluate(
        overrides, case.checkpoint, case.folder / "evaluation", peak_after=first
    )
    return peak_memory() - clock.peak


def growth_reference(case: Case, first: int, number: int, best: bool) -> float:
    """Evaluate with Trainer in this process; return the same."""
    peak = PeakAfter(first)

    def compute_metrics(predicted: Any) -> dict[str, float]:
        scores = predicted.predictions if best else np.argmax(predicted.predictions, axis=-1)
        chosen = predicted.label_ids[:, 1:] != -100
        return {"accuracy": float((scores[:, :-1] == predicted.label_ids[:, 1:])[chosen].mean())}

    model = case.model()
    one = trainer.Reference(
        model=model,
        args=trainer.arguments(case.folder / "trainer"),
        eval_dataset=case.rows.select(range(number)),
        data_collator=case.collator(model),
        processing_class=case.tokenizer,
        compute_metrics=compute_metrics,
        preprocess_logits_for_metrics=(lambda logits, labels: logits.argmax(-1)) if best else None,
        callbacks=[peak],
    )
    one.evaluate()
    return peak_memory() - peak.value


class PeakAfter(TrainerCallback):
    """Notes the peak of memory when a number of examples has been evaluated."""

    def __init__(self, first: int) -> None:
        self.left = first
        self.value = 0.0

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count."""
        self.left -= args.per_device_eval_batch_size
        if self.left <= 0 and not self.value:
            self.value = peak_memory()
