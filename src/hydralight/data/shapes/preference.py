"""Prompts with two answers, of which one is preferred."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from hydralight.data.answers import Answers, as_bits, padded
from hydralight.data.messages import tools_of
from hydralight.data.pairs import Pair, as_pairs, longest, tokens_of_pairs
from hydralight.data.roles import Where
from hydralight.data.shape import Batch, Columns, Row
from hydralight.errors import UserError

log = logging.getLogger(__name__)
SIDES = ("chosen_ids", "rejected_ids")


@dataclass(frozen=True, kw_only=True)
class Preference(Answers):
    """A prompt and two answers, as the tokenizer's chat template writes them, or as plain texts.

    A batch of pairs holds `input_ids`, `attention_mask` and `labels` (2 x pairs, length): first
    the chosen answers behind their prompts, then the rejected ones; labels are the tokens of the
    answers and of what ends them, -100 elsewhere. `prompt_length` (pairs,) is the number of tokens
    before the answers, and `margins` (pairs,) is there where rows have a margin: the bits of 32-bit
    floats, as are what a reference gives to the answers.
    """

    roles = ("prompt", "chosen", "rejected", "margin", "tools", "messages", "completion")
    optional_roles = ("prompt", "margin", "tools", "messages", "completion")
    targets = ("chosen", "rejected", "margin")
    text_roles = ("prompt", "chosen", "rejected")

    def prepare(self, rows: Dataset, where: Where) -> Dataset:
        """Return `prompt`, `chosen` and `rejected` as JSON, without the pairs that teach nothing.

        These have one and the same answer twice, or none, or differ in more than their answers.
        """
        if not {"chosen", "rejected"} <= {*rows.column_names}:
            return rows  # which are to be answered, or scored
        found = rows.map(
            as_pairs,
            batched=True,
            with_indices=True,
            fn_kwargs={"where": str(where)},
            remove_columns=[name for name in ("messages", "completion") if name in rows.features],
            desc="pairs",
        )
        reasons = found["left_out"][:]
        if counts := {one: reasons.count(one) for one in dict.fromkeys(reasons) if one}:
            said = ", ".join(
                f"{number} with {one} (the first is row {reasons.index(one) + 1})"
                for one, number in counts.items()
            )
            said = f"{where}: of {len(found)} pairs these are left out: {said}"
            if sum(counts.values()) == len(found):
                raise UserError(f"{said}; there is none left.")
            log.warning("%s", said)
            found = found.select([row for row, one in enumerate(reasons) if not one])
        if "margin" in found.column_names:
            check_margins(found, where)
        return found.remove_columns("left_out")

    def encode_answers(self, rows: Columns, indices: list[int], processor: Any) -> Columns:
        """Tokenize pairs."""
        columns = zip(*(map(json.loads, rows[role]) for role in Pair._fields), strict=True)
        pairs = [Pair(*one) for one in columns]
        tools = [tools_of(own) for own in rows.get("tools", [None] * len(pairs))]
        template = self.template(processor)
        found = tokens_of_pairs(processor, template, pairs, tools, indices, self.max_length)
        encoded: Columns = {
            "prompt_ids": [one.prompt for one in found],
            "chosen_ids": [one.chosen for one in found],
            "rejected_ids": [one.rejected for one in found],
            "length": [longest(one) for one in found],
            "too_long": [one.too_long for one in found],
        }
        if "margin" in rows:
            encoded["margins"] = [float(margin) for margin in rows["margin"]]
        return encoded

    def size(self, rows: Dataset) -> np.ndarray:
        """Return the tokens of each pair, whose answers are padded to one length."""
        return 2 * rows["length"][:][:, None]

    def pad_answers(
        self, rows: Sequence[Row], processor: Any, pad_to_multiple_of: int | None
    ) -> Batch:
        """Pad chosen and rejected answers together."""
        sides = [(row["prompt_ids"], row[side]) for side in SIDES for row in rows]
        batch = padded(sides, processor, pad_to_multiple_of)
        batch["prompt_length"] = torch.tensor([len(row["prompt_ids"]) for row in rows])
        for name in ("margins", "reference_chosen", "reference_rejected"):
            if name in rows[0]:
                batch[name] = as_bits([row[name] for row in rows])
        return batch

    def parts(self, row: Row, processor: Any) -> list[tuple[str, bool]]:
        """Return a pair as texts: the prompt, and its answers, which are trained on."""
        prompt, *answers = (
            processor.decode(row[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids")
        )
        chosen, rejected = ((answer, True) for answer in answers)
        return [(prompt, False), chosen, ("\n\nrather than\n", False), rejected]


def is_number(value: Any) -> bool:
    """Whether a value of a table, which may be a text, is a finite number."""
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False


def check_margins(rows: Dataset, where: Where) -> None:
    """Look at the margins by which chosen answers are better.

    Raises:
        UserError: one is no number, or missing.
    """
    for row, margin in enumerate(rows["margin"][:]):
        if not is_number(margin):
            raise UserError(
                f"{where}: the margin (column '{where.column('margin')}') of pair {row + 1} is "
                f"{margin!r:.40}, and should be a number; data.columns={{margin: null}} leaves "
                "margins out."
            )
