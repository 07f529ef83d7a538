"""Tasks that read one text and write another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torchmetrics import MeanMetric, Metric
from transformers import AutoModelForSeq2SeqLM
from transformers.models.bart.modeling_bart import shift_tokens_right

from hydralight.metrics.rouge import Rouge
from hydralight.metrics.translation import SacreBLEU
from hydralight.tasks.data import Batch
from hydralight.tasks.evaluation import Scores
from hydralight.tasks.generation import has_length, write
from hydralight.tasks.language import LanguageTask
from hydralight.tasks.losses import token_cross_entropy


@dataclass(kw_only=True, eq=False, repr=False)
class Seq2SeqTask(LanguageTask):
    """Token-level cross-entropy in training, generated text in evaluation.

    Predictions: `prediction`, `reference` where there is one, and `gen_len`, the tokens that were
    generated. A reference is a text, or a list of texts where the data has several; the loss is
    then that of the first.
    """

    auto_class = AutoModelForSeq2SeqLM
    target: ClassVar[str]  # the role of what is to be written

    def text_metrics(self) -> dict[str, Metric]:
        """Return the metrics that are updated with predicted and reference texts."""
        raise NotImplementedError

    def build_metrics(self) -> dict[str, Metric]:
        """Return the metrics of texts, and the mean length of what is generated."""
        return {**self.text_metrics(), "gen_len": MeanMetric()}

    def default_generation(self) -> dict[str, Any]:
        """Cut generation at the longest target, unless the checkpoint says its own length."""
        if has_length(self.model):
            return {}
        return {"max_new_tokens": self.datamodule.shape.max_target_length}

    def forward(self, batch: Batch) -> Any:
        """Feed the decoder the labels, shifted right; without labels, run the encoder alone."""
        model, labels = self.model, batch.get("labels")
        if labels is None:
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            return model.get_encoder()(**inputs, return_dict=True)
        if hasattr(model, "prepare_decoder_input_ids_from_labels"):
            decoder = model.prepare_decoder_input_ids_from_labels(labels=labels)
        else:  # M2M100, NLLB
            config = model.config
            decoder = shift_tokens_right(labels, config.pad_token_id, config.decoder_start_token_id)
        return super().forward({**batch, "decoder_input_ids": decoder, "use_cache": False})

    def own_loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum the cross-entropy over target tokens."""
        return token_cross_entropy(outputs.logits, batch["labels"], self.label_smoothing)

    def decode(self, outputs: Any, batch: Batch) -> dict[str, list]:
        """Generate from what the encoder has read."""
        read = getattr(outputs, "encoder_last_hidden_state", None)
        if read is None:
            read = outputs.last_hidden_state
        written = write(self.model, self.datamodule.processor, batch, read)
        references = {"reference": batch[self.target]} if self.target in batch else {}
        return {"prediction": written["prediction"], **references, "gen_len": written["gen_len"]}

    def score(self, outputs: Any, batch: Batch, columns: Mapping[str, list]) -> Scores:
        """Compare with the reference texts."""
        texts = columns["prediction"], columns["reference"]
        scores: dict[str, tuple] = dict.fromkeys([*self.evaluation.metrics, "further"], texts)
        return {**scores, "gen_len": (columns["gen_len"],)}


@dataclass(kw_only=True, eq=False, repr=False)
class SummarizationTask(Seq2SeqTask):
    """Summarization, evaluated by ROUGE (mean F-measure, 0 to 1) and mean generated length."""

    inputs = ("text",)
    target = "summary"

    def text_metrics(self) -> dict[str, Metric]:
        """Return ROUGE with Porter's stemmer."""
        return {"rouge": Rouge()}


@dataclass(kw_only=True, eq=False, repr=False)
class TranslationTask(Seq2SeqTask):
    """Translation, evaluated by sacreBLEU and chrF (0 to 100) and mean generated length."""

    inputs = ("source",)
    target = "target"

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
        config = self.model.config
        if config.model_type == "mbart" and not getattr(config, "decoder_start_token_id", None):
            # mBART-25 begins with the code itself; its later kin with the end token, then the code
            config.decoder_start_token_id = number
            return {**values, "decoder_start_token_id": number}
        return {**values, "forced_bos_token_id": number}
