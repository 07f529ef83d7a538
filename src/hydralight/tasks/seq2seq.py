"""Tasks that read one text and write another."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric
from transformers import AutoModelForSeq2SeqLM
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.bart.modeling_bart import shift_tokens_right

from hydralight.metrics.rouge import Rouge
from hydralight.metrics.translation import SacreBLEU
from hydralight.tasks.evaluated import Batch, Rows
from hydralight.tasks.losses import token_cross_entropy
from hydralight.tasks.task import Task


class Seq2SeqTask(Task):
    """Token-level cross-entropy in training, generated text in evaluation."""

    auto_class = AutoModelForSeq2SeqLM
    source: ClassVar[str]
    target: ClassVar[str]
    model: Any

    def text_metrics(self) -> dict[str, Metric]:
        """Return the metrics that are updated with predicted and reference texts."""
        raise NotImplementedError

    def build_metrics(self) -> dict[str, Metric]:
        """Return the metrics of texts, and the mean length of what is generated."""
        return {**self.text_metrics(), "gen_len": MeanMetric()}

    def default_generation(self) -> dict[str, Any]:
        """Cut generation at the longest target, unless the checkpoint says its own length."""
        config = self.model.generation_config
        if config.max_new_tokens is not None or config.max_length not in (None, 20):
            return {}
        return {"max_new_tokens": self.datamodule.shape.max_target_length}

    def forward(self, batch: Batch) -> Any:
        """Feed the decoder the labels, shifted right."""
        model, labels = self.model, batch["labels"]
        if hasattr(model, "prepare_decoder_input_ids_from_labels"):
            decoder = model.prepare_decoder_input_ids_from_labels(labels=labels)
        else:  # M2M100, NLLB
            config = model.config
            decoder = shift_tokens_right(labels, config.pad_token_id, config.decoder_start_token_id)
        return super().forward({**batch, "decoder_input_ids": decoder, "use_cache": False})

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum the cross-entropy over target tokens."""
        return token_cross_entropy(outputs.logits, batch["labels"], self.label_smoothing)

    def generate(self, batch: Batch, outputs: Any = None) -> tuple[list[str], Tensor]:
        """Generate texts, and their lengths in tokens (end included, start and padding not).

        Args:
            batch: The sources.
            outputs: What `forward` has returned for them; the encoder need not read them again.
        """
        tokenizer = self.datamodule.processor
        inputs: dict[str, Any] = {"input_ids": batch["input_ids"]}
        if outputs is not None:
            read = BaseModelOutput(last_hidden_state=outputs.encoder_last_hidden_state)
            inputs = {"encoder_outputs": read}
        with torch.no_grad():
            ids = self.model.generate(**inputs, attention_mask=batch["attention_mask"])
        texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
        pad = self.model.generation_config.pad_token_id
        return [text.strip() for text in texts], (ids[:, 1:] != pad).sum(dim=1)

    def update_metrics(self, outputs: Any, batch: Batch) -> Rows:
        """Generate, and compare with the reference texts."""
        texts, lengths = self.generate(batch, outputs)
        for name, metric in self.metrics.items():
            values = (lengths.float(),) if name == "gen_len" else (texts, batch[self.target])
            metric.update(*values)  # type: ignore[operator]
        self.update_further_metrics(texts, batch[self.target])
        return self.rows(batch, prediction=texts, reference=batch[self.target])

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Rows:
        """Return each source and what is generated for it."""
        texts, _ = self.generate(batch)
        if self.target in batch:
            return self.rows(batch, self.source, prediction=texts, reference=batch[self.target])
        return self.rows(batch, self.source, prediction=texts)


class SummarizationTask(Seq2SeqTask):
    """Summarization, evaluated by ROUGE (mean F-measure, 0 to 1) and mean generated length."""

    source = "text"
    target = "summary"
    metric_names = (*Rouge.names, "gen_len")

    def text_metrics(self) -> dict[str, Metric]:
        """Return ROUGE with Porter's stemmer."""
        return {"rouge": Rouge()}


class TranslationTask(Seq2SeqTask):
    """Translation, evaluated by sacreBLEU and chrF (0 to 100) and mean generated length."""

    source = "source"
    target = "target"
    metric_names = (*SacreBLEU.names, "gen_len")

    def text_metrics(self) -> dict[str, Metric]:
        """Return sacreBLEU with its own tokenization, and chrF."""
        return {"sacrebleu": SacreBLEU()}

    def default_generation(self) -> dict[str, Any]:
        """Begin with the target language's code, where the data module knows one."""
        values = super().default_generation()
        code = self.datamodule.shape.target_lang
        if code is None:
            return values
        number = self.datamodule.processor.convert_tokens_to_ids(code)
        config: Any = self.model.config
        if config.model_type == "mbart" and not getattr(config, "decoder_start_token_id", None):
            # mBART-25 begins with the code itself; its later kin with the end token, then the code
            config.decoder_start_token_id = number
            return {**values, "decoder_start_token_id": number}
        return {**values, "forced_bos_token_id": number}
