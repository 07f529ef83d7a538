"""Causal language modelling: every token is predicted from those before it."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from transformers import AutoModelForCausalLM
from transformers.modeling_outputs import CausalLMOutput

from hydralight.errors import UserError
from hydralight.metrics.perplexity import Perplexity
from hydralight.tasks.evaluated import Batch, Rows
from hydralight.tasks.losses import token_cross_entropy
from hydralight.tasks.task import Task


class CausalLMTask(Task):
    """Cross-entropy of the next token; continuations of prompts.

    Args:
        prompt_length: How many tokens of a validation text the samples begin with, half of the
            text at most.
        kwargs: Those of `Task`.
    """

    auto_class = AutoModelForCausalLM
    sample_columns = ("prompt", "prediction")
    model: Any

    def __init__(self, *, prompt_length: int = 16, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.prompt_length = prompt_length

    @property
    def metric_names(self) -> Sequence[str]:
        """Those of `Perplexity`."""
        return ("perplexity", "bits_per_byte", "byte_perplexity")

    def build_metrics(self) -> dict[str, Metric]:
        """Return the perplexity."""
        return {"perplexity": Perplexity()}

    def default_generation(self) -> dict[str, Any]:
        """Continue by 64 tokens, unless the checkpoint says how far."""
        config = self.model.generation_config
        if config.max_new_tokens is not None or config.max_length not in (None, 20):
            return {}
        return {"max_new_tokens": 64}

    def configure_model(self) -> None:
        """Build the model, and see that it has room for what it is to generate."""
        super().configure_model()
        new, positions = self.model.generation_config.max_new_tokens, self.positions
        if positions is not None and new is not None and new >= positions:
            raise UserError(
                f"generation.max_new_tokens={new} leaves no room for a prompt: the model takes "
                f"{positions} tokens in all."
            )

    def on_fit_start(self) -> None:
        """See that packed texts do not see one another."""
        super().on_fit_start()
        if getattr(self.datamodule.shape, "packing", False) and self.leaks():
            kind = self.model.config.model_type
            how = self.model.config._attn_implementation
            raise UserError(
                f"data.packing=true: {kind} with {how} attention looks across the texts of "
                "a row: leave it out, or set model.attn_implementation=sdpa."
            )

    @torch.no_grad()
    def leaks(self) -> bool:
        """Whether the logits of a text change with what it is packed with."""
        if "position_ids" not in self._forward_names:
            return True
        ids = torch.arange(8, device=self.device).reshape(2, 4)
        positions = torch.arange(4, device=self.device).expand(2, 4)
        pairs = {
            "input_ids": torch.cat([ids.flip(1), ids], 1),
            "position_ids": positions.repeat(1, 2),
        }
        training = self.training
        self.eval()
        alone = self({"input_ids": ids}).logits
        packed = self(pairs).logits[:, 4:]
        self.train(training)
        tolerance = torch.finfo(alone.dtype).eps ** 0.5 * alone.std()
        return bool((packed - alone).abs().max() > tolerance)

    def forward(self, batch: Batch) -> Any:
        """Call the model without a cache."""
        return super().forward({**batch, "use_cache": False})

    def loss_and_weight(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Put each token beside the logits that predict it, and return the loss of that."""
        aligned = CausalLMOutput(logits=outputs.logits[:, :-1])
        return super().loss_and_weight(aligned, {**batch, "labels": batch["labels"][:, 1:]})

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum the cross-entropy over the tokens that have one before them."""
        return token_cross_entropy(outputs.logits, batch["labels"], self.label_smoothing)

    def update_metrics(self, outputs: Any, batch: Batch) -> Rows:
        """Count likelihoods, and return each row's mean loss and its tokens."""
        logits, labels = outputs.logits[:, :-1].float(), batch["labels"][:, 1:]
        nll = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none")
        tokens = (labels != -100).sum(dim=1)
        metric: Any = self.metrics["perplexity"]
        metric.update(nll.sum(), tokens.sum(), batch.get("num_bytes"))
        self.update_further_metrics(logits.transpose(1, 2), labels)
        means = (nll.sum(dim=1) / tokens.clamp(min=1)).tolist()
        return self.rows(batch, loss=means, tokens=tokens.tolist())

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Rows:
        """Continue prompts, or the beginnings of labelled texts."""
        tokenizer, ids = self.datamodule.processor, batch["input_ids"]
        prompts, references = batch.get("text"), None
        mask = batch["attention_mask"]
        if prompts is None:
            shortest = int(mask.sum(dim=1).min())
            length = max(1, min(self.prompt_length, shortest // 2))
            rest = ids.masked_fill(mask == 0, tokenizer.pad_token_id)[:, length:]
            references = tokenizer.batch_decode(rest, skip_special_tokens=True)
            ids, mask = ids[:, :length], mask[:, :length]
            prompts = tokenizer.batch_decode(ids, skip_special_tokens=True)
        config = self.model.generation_config
        if self.positions is not None:  # the end of a long prompt, and what is to come
            room = self.positions - (config.max_new_tokens or 0)
            ids, mask = ids[:, -room:], mask[:, -room:]
        stopping = {"tokenizer": tokenizer} if config.stop_strings else {}
        with torch.no_grad():
            continued = self.model.generate(input_ids=ids, attention_mask=mask, **stopping)
        texts = tokenizer.batch_decode(continued[:, ids.shape[1] :], skip_special_tokens=True)
        texts = [cut(text, config.stop_strings) for text in texts]
        each = len(texts) // len(prompts)  # num_return_sequences
        repeated = {"row": batch["row"].repeat_interleave(each)}
        columns = {"prompt": prompts} | ({"reference": references} if references else {})
        spread = {
            name: [v for v in values for _ in range(each)] for name, values in columns.items()
        }
        return self.rows(
            repeated, **{"prompt": spread.pop("prompt"), "prediction": texts, **spread}
        )


def cut(text: str, markers: str | Sequence[str] | None) -> str:
    """Cut a text before the first of the markers that is in it."""
    for marker in [markers] if isinstance(markers, str) else markers or ():
        text = text.partition(marker)[0]
    return text
