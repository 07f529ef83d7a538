"""Causal language modelling: every token is predicted from those before it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from transformers import AutoModelForCausalLM
from transformers.modeling_outputs import CausalLMOutput

from hydralight.config.ranges import Positive
from hydralight.errors import UserError
from hydralight.metrics.perplexity import Perplexity
from hydralight.tasks.data import Batch, PredictedRows
from hydralight.tasks.evaluation import Scores
from hydralight.tasks.generation import continue_prompts, has_length, ids_of, last_turns
from hydralight.tasks.language import LanguageTask
from hydralight.tasks.log_probs import target_log_probs
from hydralight.tasks.losses import token_cross_entropy


@dataclass(kw_only=True, eq=False, repr=False)
class CausalLMTask(LanguageTask):
    """Cross-entropy of the next token; continuations of prompts.

    An evaluation gives the mean `loss` of each row (nats) and its `tokens`; a prediction gives
    `prompt`, `prediction` and, of a labelled text, `reference`, the rest of it.

    Args:
        prompt_length: How many tokens of a validation text the samples begin with, half of the
            text at most.
    """

    prompt_length: Positive = 16

    auto_class = AutoModelForCausalLM
    sample_columns = ("prompt", "prediction", "reference")

    def build_metrics(self) -> dict[str, Metric]:
        """Return the perplexity; by byte where whole texts are read."""
        by_byte = not hasattr(self.datamodule.shape, "end_of_turn")
        return {"perplexity": Perplexity(by_byte)}

    def default_generation(self) -> dict[str, Any]:
        """Continue by 64 tokens, unless the checkpoint says how far; end at `data.append`."""
        length = {} if has_length(self.model) else {"max_new_tokens": 64}
        return {**length, **self.ending()}

    def ending(self) -> dict[str, Any]:
        """Return what ends a text that is written, where that is not the end token alone.

        A marker that is a token of its own counts as an end token; of another the text tells.

        Raises:
            UserError: the end tokens that are typed are not what is learnt.
        """
        shape, tokenizer = self.datamodule.shape, self.datamodule.processor
        turns = hasattr(shape, "end_of_turn")
        marker = shape.end_of_turn(tokenizer) if turns else getattr(shape, "append", None)
        if not marker:
            return {}
        added = tokenizer.get_added_vocab()
        if marker not in added:
            return {"stop_strings": marker}
        said, known = self.generating.get("eos_token_id"), tokenizer.eos_token_id
        if turns and said is not None and added[marker] not in ids_of(said):
            raise UserError(
                f"generation.eos_token_id={said} is not the end of a turn, {marker} "
                f"({added[marker]}), which the model learns to write: add it, or leave it out."
            )
        own = self.model.generation_config.eos_token_id
        ids = [*ids_of(own), added[marker], *(ids_of(known) if turns else [])]
        return {"eos_token_id": list(dict.fromkeys(ids))}

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

    def own_loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum the cross-entropy over the tokens that have one before them."""
        return token_cross_entropy(outputs.logits, batch["labels"], self.label_smoothing)

    def decode(self, outputs: Any, batch: Batch) -> dict[str, list]:
        """Return each row's mean loss, and its tokens."""
        nll = -target_log_probs(outputs.logits, batch["labels"])
        tokens = (batch["labels"][:, 1:] != -100).sum(dim=1)
        means = nll.sum(dim=1) / tokens.clamp(min=1)
        return {"loss": means.tolist(), "tokens": tokens.tolist()}

    def score(self, outputs: Any, batch: Batch, columns: Mapping[str, list]) -> Scores:
        """Count likelihoods; further metrics get the logits (batch, vocabulary, length)."""
        pairs = zip(columns["loss"], columns["tokens"], strict=True)
        nll = sum(loss * tokens for loss, tokens in pairs)
        scores: Scores = {"perplexity": (nll, sum(columns["tokens"]), batch.get("num_bytes"))}
        if not self.evaluation.further:  # there may be no logits
            return scores
        logits = outputs.logits[:, :-1].transpose(1, 2)
        return {**scores, "further": (logits, batch["labels"][:, 1:])}

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> PredictedRows:
        """Continue prompts, or the beginnings of labelled texts."""
        tokenizer = self.datamodule.processor
        ids, mask, columns = self.prompts(batch)
        texts = continue_prompts(self.model, tokenizer, ids, mask, self.positions)
        each = len(texts) // len(ids)  # num_return_sequences
        spread = {
            name: [v for v in values for _ in range(each)] for name, values in columns.items()
        }
        order = {"prompt": spread.pop("prompt"), "prediction": texts, **spread}
        return self.rows({"row": batch["row"].repeat_interleave(each)}, order)

    def prompts(self, batch: Batch) -> tuple[Tensor, Tensor, dict[str, list]]:
        """Return what is to be continued, its mask (batch, length), and as text with the rest."""
        tokenizer = self.datamodule.processor
        ids, mask = batch["input_ids"], batch["attention_mask"]
        for name in ("text", "prompt"):
            if name in batch:
                return ids, mask, {"prompt": batch[name]}
        if "prompt_length" in batch:
            return last_turns(batch, tokenizer, self.model.generation_config.stop_strings)
        shortest = int(mask.sum(dim=1).min())
        length = max(1, min(self.prompt_length, shortest // 2))
        rest = ids.masked_fill(mask == 0, tokenizer.pad_token_id)[:, length:]
        ids, mask = ids[:, :length], mask[:, :length]
        prompts, references = (
            tokenizer.batch_decode(one, skip_special_tokens=True) for one in (ids, rest)
        )
        return ids, mask, {"prompt": prompts, "reference": references}
