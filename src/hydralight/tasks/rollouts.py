"""Completions that a policy has written and that it learns from, once or several times."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hydralight.tasks.generation import ids_of


@dataclass(frozen=True)
class Rollout:
    """A micro-batch of prompts with their completions, padded on the right.

    Args:
        rows: The numbers of the prompts in the training data (prompts,).
        input_ids: Prompts with completions (completions, length).
        attention_mask: 0 where they are padded.
        labels: The tokens of the completions, -100 elsewhere.
        advantages: (completions,).
        sums: What is logged of them (`tasks/rollout_log.py`).
        old: Log-probabilities of the targets as they were written (completions, length - 1); None
            before the first use.
        reference: The same of the reference; None where there is none.
        uses: How many optimizer steps have been made of it.
    """

    rows: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    advantages: Tensor
    sums: Tensor
    old: Tensor | None = None
    reference: Tensor | None = None
    uses: int = 0

    def is_of(self, rows: Tensor) -> bool:
        """Whether its prompts are these rows."""
        return torch.equal(self.rows.cpu(), rows.cpu())

    def saved(self) -> dict[str, Any]:
        """Return it as tensors in the host's memory, and numbers."""
        return {n: v.cpu() if isinstance(v, Tensor) else v for n, v in vars(self).items()}

    @classmethod
    def restored(cls, values: Mapping[str, Any], device: torch.device) -> "Rollout":
        """Return what `saved` has made values of."""
        there: dict[str, Any] = {
            n: v.to(device) if isinstance(v, Tensor) else v for n, v in values.items()
        }
        return cls(**there)


@dataclass(frozen=True)
class Written:
    """Completions as they were written.

    Args:
        ids: Their tokens, the end included.
        ended: Whether each has ended by itself, and was not cut off.
        texts: What they say.
    """

    ids: list[list[int]]
    ended: list[bool]
    texts: list[str]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each."""
        return [len(one) for one in self.ids]


def read(written: Tensor, tokenizer: Any, config: Any, max_new_tokens: int) -> Written:
    """Return what a generator has written, up to the ends.

    Args:
        written: Token ids (completions, length).
        tokenizer: Decodes them.
        config: The model's generation config, with the ends of a text.
        max_new_tokens: Where a completion is cut off.
    """
    ends, found, ended = set(ids_of(config.eos_token_id)), [], []
    for row in written.tolist():
        end = next((place for place, token in enumerate(row) if token in ends), None)
        if end is not None:
            row = row[: end + 1]
        elif config.stop_strings:  # behind which a row is filled up
            while len(row) > 1 and row[-1] == tokenizer.pad_token_id:
                row = row[:-1]
        found.append(row)
        ended.append(end is not None or len(row) < max_new_tokens)
    return Written(found, ended, tokenizer.batch_decode(found, skip_special_tokens=True))


def laid_out(
    prompts: Tensor, mask: Tensor, completions: Sequence[Sequence[int]], pad_token_id: int
) -> dict[str, Any]:
    """Return prompts and completions as a batch that is padded on the right.

    So positions are those that the completions were written at, whatever else is in the batch.

    Args:
        prompts: (prompts, length), padded on the left.
        mask: 0 where they are padded.
        completions: Tokens, as many for each prompt, those of a prompt side by side.
        pad_token_id: What fills up.

    Returns:
        `input_ids`, `attention_mask` and `labels` (completions, length).
    """
    each = len(completions) // len(prompts)
    own = [ids[there.bool()].tolist() for ids, there in zip(prompts, mask, strict=True)]
    heads = [one for one in own for _ in range(each)]
    width = max(len(h) + len(c) for h, c in zip(heads, completions, strict=True))
    shape = (len(completions), width)
    ids = torch.full(shape, pad_token_id, dtype=torch.long)
    labels, seen = torch.full(shape, -100, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    for row, (head, tail) in enumerate(zip(heads, completions, strict=True)):
        stop = len(head) + len(tail)
        ids[row, :stop] = torch.tensor([*head, *tail])
        labels[row, len(head) : stop] = torch.tensor(tail, dtype=torch.long)
        seen[row, :stop] = 1
    batch = {"input_ids": ids, "attention_mask": seen, "labels": labels}
    return {name: value.to(prompts.device) for name, value in batch.items()}
