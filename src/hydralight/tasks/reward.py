"""Reward models: one score for a text, higher for the answer that is preferred."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from hydralight.tasks.data import Batch, PredictedRows
from hydralight.tasks.losses import number
from hydralight.tasks.pairs import PairMetrics
from hydralight.tasks.preference_losses import smoothed


@dataclass(kw_only=True, eq=False, repr=False)
class RewardTask(PairMetrics):
    """The Bradley-Terry loss of pairs: -log sigmoid(chosen - rejected - margin).

    Both answers of a pair are scored in one forward pass. A margin is that of the row, where rows
    have one (Touvron et al., 2023); a prediction gives a `score`.

    Args:
        center_rewards_coefficient: What the square of a pair's summed scores counts, so that they
            stay about 0 (Eisenstein et al., 2023).
    """

    center_rewards_coefficient: Annotated[float, Ge(0)] | None = None

    auto_class = AutoModelForSequenceClassification
    sample_columns = ("chosen", "rejected", "score_chosen", "score_rejected")

    def model_arguments(self) -> dict[str, Any]:
        """Return one output, and the padding: a text is scored at the last token that is none."""
        padding = self.datamodule.processor.pad_token_id
        return {"num_labels": 1, "problem_type": "regression", "pad_token_id": padding}

    def forward(self, batch: Batch) -> Any:
        """Call the model without a cache."""
        return super().forward({**batch, "use_cache": False})

    def rewards(self, outputs: Any) -> tuple[Tensor, Tensor]:
        """Return the scores of chosen and rejected answers (pairs,)."""
        chosen, rejected = outputs.logits.float().squeeze(-1).chunk(2)
        return chosen, rejected

    def own_loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum the loss over pairs."""
        chosen, rejected = self.rewards(outputs)
        margin = batch["margins"].view(torch.float32) if "margins" in batch else 0.0
        losses = smoothed(chosen - rejected - margin, self.label_smoothing)
        if self.center_rewards_coefficient:
            losses = losses + self.center_rewards_coefficient * (chosen + rejected) ** 2
        return losses.sum(), number(len(losses), losses)

    def decode(self, outputs: Any, batch: Batch) -> dict[str, list]:
        """Return the scores of both answers."""
        chosen, rejected = self.rewards(outputs)
        return {"score_chosen": chosen.tolist(), "score_rejected": rejected.tolist()}

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> PredictedRows:
        """Score texts; or, of samples, both answers beside their texts."""
        tokenizer = self.datamodule.processor
        if "whole_input_ids" in batch:
            names = ("input_ids", "attention_mask")
            whole = {name: batch[f"whole_{name}"] for name in names}
            texts = tokenizer.batch_decode(self._texts(whole))
            values = self(whole).logits.float().squeeze(-1).tolist()
            return self.rows(batch, {"text": texts, "score": values})
        texts = tokenizer.batch_decode(self._texts(batch))
        pairs = len(texts) // 2
        columns = {"chosen": texts[:pairs], "rejected": texts[pairs:]}
        return self.rows(batch, {**columns, **self.decode(self(batch), batch)})

    def _texts(self, batch: Batch) -> list[list[int]]:
        """Return the tokens of each row without padding."""
        pairs = zip(batch["input_ids"], batch["attention_mask"], strict=True)
        return [ids[mask != 0].tolist() for ids, mask in pairs]
