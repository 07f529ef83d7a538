"""Answers to prompts, each of which is judged to be good or not."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import datasets
import numpy as np
import torch
from datasets import Dataset

from hydralight.data.answers import Answers, as_bits, padded
from hydralight.data.messages import filled, tools_of
from hydralight.data.pairs import (
    Pair,
    as_pairs,
    is_answer,
    longest,
    said,
    tokens_of_pairs,
)
from hydralight.data.roles import Where
from hydralight.data.shape import Batch, Columns, Row
from hydralight.errors import UserError

log = logging.getLogger(__name__)
VERDICTS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


@dataclass(frozen=True, kw_only=True)
class UnpairedPreference(Answers):
    """A prompt, an answer, and whether it is a good one.

    Beside its answer, each row has that of another prompt, the nearest one before it: what a model
    gives to such answers tells how far it is from its reference in general (KTO).

    A batch holds `input_ids`, `attention_mask` and `labels` (batch, length) of the answers behind
    their prompts, the same as `kl_…` (batch, another length) of the other prompts' answers behind
    them, `desirable` (batch,), and `prompt_length` (batch,), the tokens before the answers.
    """

    roles = ("prompt", "completion", "label", "chosen", "rejected", "tools", "messages")
    optional_roles = ("prompt", "completion", "label", "chosen", "rejected", "tools", "messages")
    targets = ("completion", "label", "chosen", "rejected")
    text_roles = ("prompt", "completion")

    def prepare(self, rows: Dataset, where: Where) -> Dataset:
        """Return prompts, answers and verdicts, of pairs both answers, without empty answers."""
        there = {*rows.column_names}
        if not ({"completion", "label"} <= there or {"chosen", "rejected"} <= there):
            if not there & {"completion", "label", "chosen", "rejected"}:
                return rows  # which are to be answered
            raise UserError(
                f"{where} has {', '.join(rows.column_names)}: rows need a prompt, a completion and "
                "a label (true or false), or a chosen and a rejected answer; name their columns in "
                "data.columns."
            )
        found = rows.map(
            as_judged,
            batched=True,
            with_indices=True,
            fn_kwargs={"where": str(where)},
            remove_columns=rows.column_names,
            desc="answers",
        )
        if not len(found):
            raise UserError(f"{where} has no row with an answer.")
        if lost := len(rows) * (2 if "chosen" in there else 1) - len(found):
            log.warning(
                "%s: %d answers are left out: empty ones, and pairs that are none", where, lost
            )
        other = found.select(others(found["prompt"])).select_columns("completion")
        parts = [found, other.rename_column("completion", "mismatched").flatten_indices()]
        return datasets.concatenate_datasets(parts, axis=1)

    def encode_answers(self, rows: Columns, indices: list[int], processor: Any) -> Columns:
        """Tokenize answers, and those of other prompts, behind the prompts."""
        template, tools = self.template(processor), list(map(tools_of, rows["tools"]))
        prompts = list(map(json.loads, rows["prompt"]))
        found = []
        for role in ("completion", "mismatched"):
            answers = map(json.loads, rows[role])
            pairs = [Pair(one, two, two) for one, two in zip(prompts, answers, strict=True)]
            limit = self.max_length
            found.append(tokens_of_pairs(processor, template, pairs, tools, indices, limit))
        own, other = found
        lengths = [(longest(one), longest(two)) for one, two in zip(own, other, strict=True)]
        return {
            "prompt_ids": [one.prompt for one in own],
            "completion_ids": [one.chosen for one in own],
            "kl_prompt_ids": [one.prompt for one in other],
            "kl_completion_ids": [one.chosen for one in other],
            "desirable": rows["label"],
            "length": list(map(max, lengths)),
            "too_long": [one.too_long for one in own],
        }

    def size(self, rows: Dataset) -> np.ndarray:
        """Return the tokens of each row's answer and of the other one, which are padded apart."""
        if "prompt_ids" not in rows.column_names:  # prompts that are to be answered
            return rows["length"][:][:, None]
        counts = [
            sum(np.array([len(ids) for ids in rows[name][:]]) for name in names)
            for names in (("prompt_ids", "completion_ids"), ("kl_prompt_ids", "kl_completion_ids"))
        ]
        return np.stack(counts, axis=1)

    def pad_answers(
        self, rows: Sequence[Row], processor: Any, pad_to_multiple_of: int | None
    ) -> Batch:
        """Pad the answers, and apart from them those of other prompts."""
        batch: Batch = {}
        for kind in ("", "kl_"):
            sides = [(row[f"{kind}prompt_ids"], row[f"{kind}completion_ids"]) for row in rows]
            one = padded(sides, processor, pad_to_multiple_of)
            batch |= {f"{kind}{name}": tensor for name, tensor in one.items()}
        batch["prompt_length"] = torch.tensor([len(row["prompt_ids"]) for row in rows])
        batch["desirable"] = torch.tensor([bool(row["desirable"]) for row in rows])
        for name in ("reference", "reference_kl"):
            if name in rows[0]:
                batch[name] = as_bits([row[name] for row in rows])
        return batch

    def parts(self, row: Row, processor: Any) -> list[tuple[str, bool]]:
        """Return a row as texts: the prompt, the answer, which is trained on, and the verdict."""
        prompt, answer = (processor.decode(row[n]) for n in ("prompt_ids", "completion_ids"))
        verdict = "\n(a good answer)" if row["desirable"] else "\n(not a good answer)"
        return [(prompt, False), (answer, True), (verdict, False)]


def as_judged(rows: dict[str, list], indices: list[int], where: str) -> dict[str, list]:
    """Return `prompt`, `completion` (JSON), `label` and `tools` of rows, or of pairs, as two rows.

    Args:
        rows: Columns by role.
        indices: The rows' numbers.
        where: What messages call the rows.

    Raises:
        UserError: a row cannot be read.
    """
    found: dict[str, list] = {"prompt": [], "completion": [], "label": [], "tools": []}
    paired = {"chosen", "rejected"} <= rows.keys()
    pairs = as_pairs(rows, indices, where) if paired else {}
    for place, index in enumerate(indices):
        row = {role: filled(values[place]) for role, values in rows.items()}
        try:
            judged = (
                [(pairs[role][place], role == "chosen") for role in ("chosen", "rejected")]
                if paired
                else [(json.dumps(answer_of(row), ensure_ascii=False), verdict_of(row["label"]))]
            )
            prompt = pairs["prompt"][place] if paired else json.dumps(prompt_of(row))
        except UserError as error:
            raise UserError(f"{where}, row {index + 1}: {error}.") from error
        for answer, verdict in judged:
            if pairs["left_out"][place] if paired else not is_answer(json.loads(answer)):
                continue
            found["prompt"].append(prompt)
            found["completion"].append(answer)
            found["label"].append(verdict)
            found["tools"].append(json.dumps(tools_of(row.get("tools"))))
    return found


def prompt_of(row: Mapping[str, Any]) -> Any:
    """Return the prompt of a row, a text or messages."""
    return said(row.get("prompt") or row.get("messages"), "prompt")


def answer_of(row: Mapping[str, Any]) -> Any:
    """Return the answer of a row: a text, or one message.

    Raises:
        UserError: there are several messages.
    """
    value = row.get("completion")
    answer = "" if value is None or value == "" else said(value, "completion")
    if not isinstance(answer, str) and len(answer) != 1:
        raise UserError(f"the completion should be one message, and has {len(answer)}")
    return answer


def verdict_of(value: Any) -> bool:
    """Return whether an answer is good.

    Raises:
        UserError: the value does not say so.
    """
    verdict = VERDICTS.get(str(value).strip().lower())
    if verdict is None:
        raise UserError(f"the label is {value!r:.40}, and should be true or false (or 1 or 0)")
    return verdict


def others(prompts: Sequence[str]) -> list[int]:
    """Return for each row the nearest one before it, around the end, that has another prompt.

    Where all have the same, it is the one before.
    """
    keys = [hash(prompt) for prompt in prompts]
    last = len(keys) - 1
    # of a run of one prompt, the row before its first; that of the first run is found at the end
    tail = last
    while tail > 0 and keys[tail] == keys[0]:
        tail -= 1
    found = [tail if keys[tail] != keys[0] else last]
    for (row, before), (_, key) in pairwise(enumerate(keys)):
        found.append(row if key != before else found[row])
    if keys[tail] == keys[0]:  # all are the same
        return [(row - 1) % len(keys) for row in range(len(keys))]
    return found
