"""Losses of tokens from the hidden states before a model's last projection, without its logits.

The logits of a batch are as large as its tokens times the vocabulary, and a loss holds several
copies of them. Here they are made for some rows at a time: once for the loss, and again for its
gradient.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

AT_ONCE = 2**25  # logits; 128 MiB as float32
AT_ONCE_ON_A_DEVICE = 2**27  # where few rows are no work


@dataclass(frozen=True)
class Unprojected:
    """Hidden states in the place of the logits that a projection makes of them.

    Args:
        hidden: (…, width).
        weight: (vocabulary, width).
        bias: (vocabulary,).
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None

    def __getitem__(self, index: Any) -> "Unprojected":
        """Return what stands in the place of some of the logits."""
        return replace(self, hidden=self.hidden[index])

    def __len__(self) -> int:
        """Return how many there are along the first dimension."""
        return len(self.hidden)

    def __truediv__(self, divisor: float) -> "Unprojected":
        """Return what stands in the place of the logits divided by a number."""
        bias = None if self.bias is None else self.bias / divisor
        return replace(self, hidden=self.hidden / divisor, bias=bias)

    @property
    def rows_at_once(self) -> int:
        """How many rows of logits are made at a time."""
        return max(1, at_once(self.hidden.device) // len(self.weight))

    def losses(self, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the cross-entropy of each label, 0 where it is -100.

        Args:
            labels: (…).
            label_smoothing: Part of the probability that is spread over the vocabulary.

        Returns:
            (…) in float32.
        """
        hidden, flat = self.hidden.reshape(-1, self.hidden.shape[-1]), labels.reshape(-1)
        kind = hidden.device.type
        if torch.is_autocast_enabled(kind):
            hidden = hidden.to(torch.get_autocast_dtype(kind))
        arguments = self.weight, self.bias, label_smoothing, self.rows_at_once
        if kind != "cpu":  # choosing the targets would wait for the device
            return Losses.apply(hidden, flat, *arguments).reshape(labels.shape)
        (targets,) = (flat != -100).nonzero(as_tuple=True)
        found = Losses.apply(hidden[targets], flat[targets], *arguments)
        return found.new_zeros(len(flat)).index_put((targets,), found).reshape(labels.shape)

    @torch.no_grad()
    def argmax(self, dim: int = -1) -> Tensor:
        """Return the most likely token of each row (…)."""
        assert dim == -1
        flat = self.hidden.reshape(-1, self.hidden.shape[-1])
        best = [
            projected(x, self.weight, self.bias).argmax(-1) for x in flat.split(self.rows_at_once)
        ]
        return torch.cat(best).reshape(self.hidden.shape[:-1])

    def float(self) -> "Unprojected":
        """Return it as it is: the logits are made in 32 bits."""
        return self


def at_once(device: torch.device) -> int:
    """Return how many logits are made at a time."""
    return AT_ONCE if device.type == "cpu" else AT_ONCE_ON_A_DEVICE


def are_many(labels: Tensor, projection: nn.Module | None) -> bool:
    """Whether the logits for labels, by this projection, are more than are made at a time."""
    if projection is None:
        return False
    vocabulary = len(projection.weight)  # type: ignore[arg-type]
    return labels.numel() * vocabulary > at_once(labels.device)


def projected(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return logits (…, vocabulary) in float32, multiplied in the hidden states' own type."""
    own = hidden.dtype
    return F.linear(hidden, weight.to(own), None if bias is None else bias.to(own)).float()


class Losses(torch.autograd.Function):
    """The cross-entropy of each row, and its gradient, some rows at a time.

    `torch.nn.functional.linear_cross_entropy` does much the same. As of torch 2.13 it adds up its
    sums in 16 bits where its inputs have 16, and has no label smoothing.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        labels: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        label_smoothing: float,
        rows_at_once: int,
    ) -> Tensor:
        """Return the losses (rows,) in float32, of hidden states (rows, width)."""
        ctx.save_for_backward(hidden, labels, weight, bias)
        ctx.label_smoothing, ctx.rows_at_once = label_smoothing, rows_at_once
        kind, own = hidden.device.type, hidden.dtype
        with torch.autocast(kind, enabled=False):
            weight = weight.to(own)
            return torch.cat(
                [
                    F.cross_entropy(
                        projected(x, weight, bias),
                        y,
                        ignore_index=-100,
                        reduction="none",
                        label_smoothing=label_smoothing,
                    )
                    for x, y in zip(
                        hidden.split(rows_at_once), labels.split(rows_at_once), strict=True
                    )
                ]
            )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of hidden states, weight and bias; sums are in float32."""
        hidden, labels, weight, bias = ctx.saved_tensors
        by_hidden, _, by_weight, by_bias, *_ = ctx.needs_input_grad
        own, spread = hidden.dtype, ctx.label_smoothing / len(weight)
        of_hidden = torch.empty_like(hidden) if by_hidden else None
        of_weight = torch.zeros_like(weight, dtype=torch.float32) if by_weight else None
        of_bias = torch.zeros_like(bias, dtype=torch.float32) if by_bias else None
        grad = grad.masked_fill(labels == -100, 0)
        target = labels.clamp(min=0)[:, None]
        less = grad.new_full((1, 1), ctx.label_smoothing - 1)
        with torch.autocast(hidden.device.type, enabled=False):
            factor = weight.to(own)
            for begin in range(0, len(hidden), ctx.rows_at_once):
                rows = slice(begin, begin + ctx.rows_at_once)
                logits = projected(hidden[rows], factor, bias)
                # of the loss by the logits: probabilities, less what the target has of them
                torch.softmax(logits, -1, out=logits)
                logits.scatter_add_(1, target[rows], less.expand(len(logits), 1))
                if spread:
                    logits.sub_(spread)
                logits.mul_(grad[rows, None])
                if of_bias is not None:
                    of_bias += logits.sum(dim=0)
                logits = logits.to(own)
                if of_hidden is not None:
                    torch.mm(logits, factor, out=of_hidden[rows])
                if of_weight is not None and own == torch.float32:
                    of_weight.addmm_(logits.T, hidden[rows])
                elif of_weight is not None:
                    of_weight += logits.T @ hidden[rows]
        of_weight = None if of_weight is None else of_weight.to(weight.dtype)
        of_bias = None if of_bias is None else of_bias.to(bias.dtype)
        return of_hidden, None, of_weight, of_bias, None, None
