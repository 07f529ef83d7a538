"""Tasks that read one text and write another."""

from collections.abc import Iterable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from transformers import AutoModelForSeq2SeqLM

from hydralight.config import UserError
from hydralight.metrics.rouge import Rouge
from hydralight.tasks.losses import token_cross_entropy
from hydralight.tasks.task import Batch, Rows, Task, reset_after_compute


class Seq2SeqTask(Task):
    """Token-level cross-entropy in training, generated text in evaluation.

    Args:
        label_smoothing: Part of the probability that is spread over the vocabulary.
        kwargs: Those of `Task`.
    """

    auto_class = AutoModelForSeq2SeqLM
    source: ClassVar[str]
    target: ClassVar[str]
    model: Any

    def __init__(self, *, label_smoothing: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.label_smoothing = label_smoothing
        self.gen_len = MeanMetric()
        self.text_scores = nn.ModuleDict(self.text_metrics())

    def text_metrics(self) -> dict[str, Metric]:
        """Return the metrics that are updated with predicted and reference texts."""
        raise NotImplementedError

    def default_generation(self) -> dict[str, Any]:
        """Cut generation at the longest target, unless the checkpoint says its own length."""
        config = self.model.generation_config
        if config.max_new_tokens is not None or config.max_length not in (None, 20):
            return {}
        return {"max_new_tokens": self.trainer.datamodule.max_target_length}  # type: ignore[attr-defined]

    def configure_model(self) -> None:
        """Build the model, and see that its positions are enough for the data."""
        super().configure_model()
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        positions = getattr(self.model.config, "max_position_embeddings", None)
        if positions is not None and datamodule.longest() > positions:
            raise UserError(
                f"the data has sources of {datamodule.longest()} tokens, and the model takes "
                f"{positions}: set data.max_source_length={positions}."
            )

    def forward(self, batch: Batch) -> Any:
        """Feed the decoder the labels, shifted right."""
        decoder = self.model.prepare_decoder_input_ids_from_labels(labels=batch["labels"])
        return super().forward({**batch, "decoder_input_ids": decoder, "use_cache": False})

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum the cross-entropy over target tokens."""
        return token_cross_entropy(outputs.logits, batch["labels"], self.label_smoothing)

    def generate(self, batch: Batch) -> tuple[list[str], Tensor]:
        """Generate texts, and their lengths in tokens (end included, start and padding not)."""
        tokenizer = self.trainer.datamodule.tokenizer  # type: ignore[attr-defined]
        with torch.no_grad():
            ids = self.model.generate(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            )
        texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
        pad = self.model.generation_config.pad_token_id
        return [text.strip() for text in texts], (ids[:, 1:] != pad).sum(dim=1)

    def update_metrics(self, outputs: Any, batch: Batch) -> Rows:
        """Generate, and compare with the reference texts."""
        texts, lengths = self.generate(batch)
        self.gen_len.update(lengths.float())
        for metric in cast(Iterable[Metric], self.text_scores.values()):
            metric.update(texts, batch[self.target])
        return self.rows(batch, prediction=texts, reference=batch[self.target])

    def compute_metrics(self) -> dict[str, Tensor]:
        """Return the metrics' values by name, and reset them."""
        metrics = {**dict(self.text_scores.items()), "gen_len": self.gen_len}
        return reset_after_compute(cast(dict[str, Metric], metrics))

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Rows:
        """Return each source and what is generated for it."""
        texts, _ = self.generate(batch)
        if self.target in batch:
            return self.rows(batch, self.source, prediction=texts, reference=batch[self.target])
        return self.rows(batch, self.source, prediction=texts)


class SummarizationTask(Seq2SeqTask):
    """Summarization, evaluated by ROUGE (mean F-measure, 0 to 1) and mean generated length."""

    metric_names = ("loss", "rouge1", "rouge2", "rougeL", "rougeLsum", "gen_len")
    source = "text"
    target = "summary"

    def text_metrics(self) -> dict[str, Metric]:
        """Return ROUGE with Porter's stemmer."""
        return {"rouge": Rouge()}
