"""Texts of which some tokens are hidden."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Interval
from transformers import PreTrainedTokenizerBase

from hydralight.data.documents import Documents
from hydralight.data.shape import Purpose, Row
from hydralight.errors import UserError


@dataclass(frozen=True, kw_only=True)
class MaskedLM(Documents):
    """Masked language modelling (Devlin et al., 2018).

    Of the chosen tokens, the only targets, 80 % become the mask token, 10 % a random one, and 10 %
    stay. The choice is new in every epoch of training, and always the same in evaluation.

    Args:
        mlm_probability: Part of the tokens that is chosen.
        whole_word_mask: Choose whole words.
    """

    mlm_probability: Annotated[float, Interval(gt=0, le=1)] = 0.15
    whole_word_mask: bool = False

    ends = False
    not_encoded = ("mlm_probability",)

    def ready(self, processor: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Refuse a tokenizer without a mask token, or one that cannot tell words."""
        if processor.mask_token_id is None:
            raise UserError(
                "the tokenizer has no mask token: masked language modelling needs a checkpoint "
                "with one, such as BERT's or RoBERTa's."
            )
        if self.whole_word_mask and not processor.is_fast:
            raise UserError("data.whole_word_mask needs a fast tokenizer (a tokenizer.json).")
        return super().ready(processor)

    def extra_columns(self, processor: Any, purpose: Purpose) -> Sequence[str]:
        """Return `word_ids` for whole words."""
        return ["word_ids"] if self.whole_word_mask else []

    def vary(self, row: Row, rng: np.random.Generator, processor: Any, purpose: Purpose) -> None:
        """Choose and mask the targets."""
        words = row.pop("word_ids", None)
        if purpose == "predict":
            return
        ids = np.array(row["input_ids"])
        special = np.isin(ids, processor.all_special_ids)
        if words is not None:
            # a word's pieces follow one another; a new document begins with word 0 again
            starts = np.flatnonzero(np.diff(words, prepend=-2))
            drawn = np.repeat(rng.random(len(starts)), np.diff(starts, append=len(ids)))
        else:
            drawn = rng.random(len(ids))
        chosen = (drawn < self.mlm_probability) & ~special
        labels = np.where(chosen, ids, -100)
        change = rng.random(len(ids))
        masked = np.where(chosen & (change < 0.8), processor.mask_token_id, ids)
        others = rng.integers(0, len(processor), len(ids))
        masked = np.where(chosen & (change >= 0.9), others, masked)
        row["input_ids"], row["labels"] = masked.tolist(), labels.tolist()
