"""Perplexity by token and by byte."""

import math

import torch
from torch import Tensor
from torchmetrics import Metric


class Perplexity(Metric):
    """Perplexity of tokens; bits and perplexity of UTF-8 bytes, which tokenizers have in common.

    The mean is over all tokens (bytes) of a corpus, not over its batches.

    Args:
        by_byte: Whether bytes are known at all.
    """

    higher_is_better = False
    full_state_update = False

    nll: Tensor
    tokens: Tensor
    num_bytes: Tensor

    def __init__(self, by_byte: bool = True) -> None:
        super().__init__()
        self.names = ["perplexity", *(("bits_per_byte", "byte_perplexity") if by_byte else ())]
        for name in ("nll", "tokens", "num_bytes"):
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")

    def update(
        self, nll: Tensor | float, tokens: Tensor | int, num_bytes: Tensor | None = None
    ) -> None:
        """Add a batch: summed negative log-likelihood (nats), tokens, and bytes if known."""
        self.nll += nll
        self.tokens += tokens
        if num_bytes is not None:
            self.num_bytes += num_bytes.sum()

    def compute(self) -> dict[str, Tensor]:
        """Return the values by name; those of bytes where there are any."""
        values = {"perplexity": (self.nll / self.tokens).exp()}
        if self.num_bytes > 0:
            per_byte = self.nll / self.num_bytes
            values |= {"bits_per_byte": per_byte / math.log(2), "byte_perplexity": per_byte.exp()}
        return values
