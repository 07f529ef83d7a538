"""Texts, as the models that read nothing but text see them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hydralight.data.datamodule import Batch, DataModule, Purpose
from hydralight.data.documents import CLEAN, cleaned, encode_documents, encode_prompts
from hydralight.data.packing import pack
from hydralight.data.padding import pad, pad_inputs
from hydralight.errors import UserError, did_you_mean


class LanguageModelingData(DataModule):
    """What causal and masked language modelling share: documents, in rows or blocks.

    A batch holds `input_ids` and `attention_mask` (batch, length) and `labels` (-100 where there
    is no target); in the evaluation of causal models also `num_bytes` (batch,).

    Args:
        clean: Steps on each text, in order: `lower`, `strip`.
        append: Marker behind each text; the tokenizer's end token unless said.
        block_size: Join all texts and cut them into blocks of that many tokens, with no padding;
            one text an example unless said.
        max_length: In tokens, without blocks; longer texts fall under `too_long`.
        kwargs: Those of `DataModule`.
    """

    roles = ("text",)
    text_roles = ("text",)
    end: ClassVar[bool]  # whether a text ends with the end token

    def __init__(
        self,
        *,
        clean: Sequence[str] = (),
        append: str | None = None,
        block_size: int | None = None,
        max_length: int = 1024,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for step in clean or ():
            if step not in CLEAN:
                raise UserError(
                    f"data.clean: there is no step '{step}'{did_you_mean(step, CLEAN)} (there are: "
                    f"{', '.join(CLEAN)})"
                )
        if block_size is not None and block_size < 2:
            raise UserError("data.block_size should be 2 or more.")
        self.clean = list(clean or ())
        self.append = append
        self.block_size = block_size
        self.max_length = max_length

    @property
    def length_limit(self) -> Literal["block_size", "max_length"]:  # type: ignore[override]
        """The argument that bounds an input's tokens."""
        return "max_length" if self.block_size is None else "block_size"

    def checked(self, dataset: Dataset, where: str) -> Dataset:
        """Leave out texts that are empty once they are cleaned; a corpus has such lines."""
        checked = dataset.filter(_has_text, batched=True, desc="texts")
        if len(checked) == 0:
            raise UserError(f"{where} holds no text.")
        return checked

    def texts(self) -> Iterator[str]:
        """Yield the cleaned texts of the training split."""
        for text in super().texts():
            yield cleaned(text, self.clean)

    def prepared(self, processor: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Refuse a tokenizer without an end token where that ends the texts."""
        if self.end and self.append is None and processor.eos_token_id is None:
            raise UserError("the tokenizer has no end token: say what ends a text in data.append.")
        return processor

    def encode_arguments(self, purpose: Purpose) -> dict[str, Any]:
        """Return the arguments of `encode_documents`, or of `encode_prompts`."""
        shared = {"clean": self.clean, "end": self.end}
        if purpose == "predict":
            return {**shared, "max_length": self.block_size or self.max_length}
        return {
            **shared,
            "append": self.append,
            "max_length": self.max_length,
            "block_size": self.block_size,
            "columns": self.extra_columns(purpose),
        }

    def extra_columns(self, purpose: Purpose) -> list[str]:
        """Return what `encode_documents` is to tell of the tokens."""
        return []

    def encode_for(self, purpose: Purpose) -> Callable[..., dict[str, list]]:
        """Return the function that encodes documents, or prompts."""
        return encode_prompts if purpose == "predict" else encode_documents

    def kept_roles(self, purpose: Purpose) -> Sequence[str]:
        """Return nothing: a block is no longer one text."""
        return ()

    def pad(self, rows: list[dict[str, Any]]) -> Batch:
        """Pad on the right; prompts, which are to be continued, on the left."""
        prompts = "prompt" in rows[0]
        batch: Batch = pad_inputs(
            rows,
            self.processor,
            None if prompts else self.pad_to_multiple_of,
            left=prompts and self.end,
        )
        if prompts:
            return batch
        if "num_bytes" in rows[0]:
            batch["num_bytes"] = torch.tensor([row["num_bytes"] for row in rows])
        width = batch["input_ids"].shape[1]
        labels = [row.get("labels", row["input_ids"]) for row in rows]
        batch["labels"] = pad(labels, width, -100)
        return batch

    @property
    def target_capacity(self) -> int:
        """Tokens of a batch of the longest examples."""
        return self.batch_size * (self.block_size or self.max_length)


def _has_text(rows: dict[str, list]) -> list[bool]:
    return [bool(text and text.strip()) for text in rows["text"]]


class CausalLMData(LanguageModelingData):
    """Data of causal language modelling: every token is a target.

    Args:
        packing: Lay the texts of a training batch side by side into rows without padding, instead
            of one below the other; the loss is the same. Then there are `position_ids` instead
            of `attention_mask`.
        kwargs: Those of `LanguageModelingData`.
    """

    end = True

    def __init__(self, *, packing: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if packing and self.block_size is not None:
            raise UserError("data.packing is for texts that are not joined: leave out block_size.")
        self.packing = packing

    def collate(self, rows: list[dict[str, Any]], purpose: Purpose = "evaluate") -> Batch:
        """Pack training batches where asked."""
        if not self.packing or purpose != "train":
            return super().collate(rows, purpose)
        packed = pack(
            [row["input_ids"] for row in rows], self.processor.pad_token_id, self.pad_to_multiple_of
        )
        return {**packed, "row": torch.tensor([row["row"] for row in rows])}

    def extra_columns(self, purpose: Purpose) -> list[str]:
        """Return `num_bytes` for evaluation, where the tokenizer can tell them."""
        return ["num_bytes"] if purpose == "evaluate" and self.processor.is_fast else []


class MaskedLMData(LanguageModelingData):
    """Data of masked language modelling (Devlin et al., 2018).

    Of the chosen tokens, the only targets, 80 % become the mask token, 10 % a random one, and 10 %
    stay. The choice is new in every epoch of training, and always the same in evaluation.

    Args:
        mlm_probability: Part of the tokens that is chosen.
        whole_word_mask: Choose whole words.
        kwargs: Those of `LanguageModelingData`.
    """

    end = False

    def __init__(
        self, *, mlm_probability: float = 0.15, whole_word_mask: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not 0 < mlm_probability <= 1:
            raise UserError("data.mlm_probability should be above 0, and 1 at most.")
        self.mlm_probability = mlm_probability
        self.whole_word_mask = whole_word_mask

    def prepared(self, processor: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Refuse a tokenizer without a mask token, or one that cannot tell words."""
        if processor.mask_token_id is None:
            raise UserError(
                "the tokenizer has no mask token: masked language modelling needs a checkpoint "
                "with one, such as BERT's or RoBERTa's."
            )
        if self.whole_word_mask and not processor.is_fast:
            raise UserError("data.whole_word_mask needs a fast tokenizer (a tokenizer.json).")
        return super().prepared(processor)

    def extra_columns(self, purpose: Purpose) -> list[str]:
        """Return `word_ids` for whole words."""
        return ["word_ids"] if self.whole_word_mask else []

    def vary(self, row: dict[str, Any], rng: np.random.Generator, purpose: Purpose) -> None:
        """Choose and mask the targets."""
        words = row.pop("word_ids", None)
        if purpose == "predict":
            return
        ids = np.array(row["input_ids"])
        special = np.isin(ids, self.processor.all_special_ids)
        if words is not None:
            # a word's pieces follow one another; a new document begins with word 0 again
            starts = np.flatnonzero(np.diff(words, prepend=-2))
            drawn = np.repeat(rng.random(len(starts)), np.diff(starts, append=len(ids)))
        else:
            drawn = rng.random(len(ids))
        chosen = (drawn < self.mlm_probability) & ~special
        labels = np.where(chosen, ids, -100)
        change = rng.random(len(ids))
        masked = np.where(chosen & (change < 0.8), self.processor.mask_token_id, ids)
        others = rng.integers(0, len(self.processor), len(ids))
        masked = np.where(chosen & (change >= 0.9), others, masked)
        row["input_ids"], row["labels"] = masked.tolist(), labels.tolist()
