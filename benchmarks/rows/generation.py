"""Evaluation by generation, of a model that ends its sentences: the quickstart's, trained first.

Examples a second of loss, generation, decoding and ROUGE, with the same batch size and generation
config. Target: 1.3 times Seq2SeqTrainer's, with the same texts.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from datasets import Dataset
from rouge_score.rouge_scorer import RougeScorer
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, DataCollatorForSeq2Seq

import hydralight
from benchmarks import ours, trainer
from benchmarks.hardware import on_gpu
from benchmarks.measure import Line, alternate, line, seconds
from hydralight.metrics.rouge import Rouge

TINY: dict[str, Any] = {
    "number": 20,
    "training": ("data.num_train=64", "data.num_eval=8", "trainer.max_epochs=1"),
}


def run(
    rounds: int = 5, number: int = 600, batch_size: int = 50, training: Sequence[str] = ()
) -> list[Line]:
    """Return one line."""
    with TemporaryDirectory() as folder:
        sides = compared(rounds, number, batch_size, training, Path(folder))
    speeds = {
        side: [len(texts) / elapsed for elapsed, texts in rows] for side, rows in sides.items()
    }
    texts = {side: rows[0][1] for side, rows in sides.items()}
    # Trainer's best order is a random one
    different = sum((Counter(texts["ours"]) - Counter(texts["best"])).values())
    different = max(
        different, sum(a != b for a, b in zip(texts["ours"], texts["trainer"], strict=True))
    )
    note = f"{different} of {number} texts differ"
    return [
        line(
            "evaluation by generation",
            "examples/s",
            speeds,
            ratio_at_least=1.3,
            also=different == 0,
            note=note,
        )
    ]


def compared(
    rounds: int, number: int, batch_size: int, training: Sequence[str], folder: Path
) -> dict[str, list[tuple[float, list[str]]]]:
    """Train the model, and evaluate it on each side: seconds and texts by round."""
    device = "auto" if on_gpu() else "cpu"
    silent = ["callbacks.samples=null", "callbacks.rich_progress=null"]
    where = [f"trainer.accelerator={device}", f"paths.log_dir={folder / 'logs'}"]
    trained = hydralight.train([*silent, *where, *training])
    assert trained is not None
    checkpoint = trained.model_dir
    overrides = [f"data.num_eval={number}", f"data.eval_batch_size={batch_size}"]
    rows = ours.validation_rows(overrides, checkpoint, folder / "encoding")

    def evaluate_ours() -> tuple[float, list[str]]:
        clock, predictions = ours.evaluate(overrides, checkpoint, folder / "evaluation")
        return clock.seconds, [row["prediction"] for row in predictions]

    def evaluate_reference(**values: Any) -> tuple[float, list[str]]:
        return reference(checkpoint, rows, batch_size, folder, **values)

    return alternate(
        {
            "ours": evaluate_ours,
            "trainer": evaluate_reference,
            "best": lambda: evaluate_reference(**trainer.BEST_ORDER),
        },
        rounds,
    )


def reference(
    checkpoint: Path, rows: Dataset, batch_size: int, folder: Path, **values: Any
) -> tuple[float, list[str]]:
    """Evaluate with Seq2SeqTrainer; return the seconds and the texts."""
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint)
    texts: list[str] = []
    scorer = RougeScorer(list(Rouge.names), use_stemmer=True)  # as `evaluate` calls it

    def compute_metrics(predicted: Any) -> dict[str, float]:
        decoded = []
        for ids in (predicted.predictions, predicted.label_ids):
            ids[ids == -100] = tokenizer.pad_token_id
            decoded.append(
                [t.strip() for t in tokenizer.batch_decode(ids, skip_special_tokens=True)]
            )
        texts[:] = decoded[0]
        scores = [scorer.score(*pair) for pair in zip(decoded[1], decoded[0], strict=True)]
        return {n: float(np.mean([score[n].fmeasure for score in scores])) for n in Rouge.names}

    one = trainer.Reference(
        model=model,
        args=trainer.arguments(
            folder / "trainer",
            predict_with_generate=True,
            per_device_eval_batch_size=batch_size,
            **values,
        ),
        eval_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
    )
    elapsed = seconds(one.evaluate)
    return elapsed, texts
