"""Losses of pairs of answers of which one is preferred, each pair by itself.

They are functions of log-probabilities, and return a loss for each pair; a batch's sum over them,
with the number of pairs as its weight, is the same however a step is split.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class LogProbs(NamedTuple):
    """What a model gives to the two answers of pairs; all (pairs,).

    Args:
        chosen: The summed log-probability of the chosen answer's tokens.
        rejected: That of the rejected one's.
        chosen_tokens: How many tokens the chosen answer has.
        rejected_tokens: How many the rejected one has.
        chosen_text: The mean log-probability of all tokens of the chosen text, prompt included,
            where that is asked for.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    chosen_text: Tensor | None = None

    @property
    def chosen_mean(self) -> Tensor:
        """The mean log-probability of a token of the chosen answer."""
        return self.chosen / self.chosen_tokens.clamp(min=1)

    @property
    def rejected_mean(self) -> Tensor:
        """The mean log-probability of a token of the rejected answer."""
        return self.rejected / self.rejected_tokens.clamp(min=1)


class PairLosses(NamedTuple):
    """What a loss makes of pairs: their losses, and the rewards that are implied; all (pairs,)."""

    losses: Tensor
    chosen: Tensor
    rejected: Tensor


Reference = tuple[Tensor, Tensor]  # summed log-probabilities of chosen and rejected answers


def smoothed(logits: Tensor, label_smoothing: float) -> Tensor:
    """Return the cross-entropy of a preference that is wrong as often as is said."""
    right, wrong = -F.logsigmoid(logits), -F.logsigmoid(-logits)
    return (1 - label_smoothing) * right + label_smoothing * wrong


def sigmoid(
    policy: LogProbs, reference: Reference, *, beta: float = 0.1, label_smoothing: float = 0.0
) -> PairLosses:
    """Direct preference optimization (Rafailov et al., 2023); smoothed, its conservative form."""
    chosen, rejected = ratios(policy, reference)
    losses = smoothed(beta * (chosen - rejected), label_smoothing)
    return PairLosses(losses, beta * chosen, beta * rejected)


def robust(
    policy: LogProbs, reference: Reference, *, beta: float = 0.1, label_smoothing: float = 0.0
) -> PairLosses:
    """DPO made unbiased where labels are flipped as often as is said (Chowdhury et al., 2024)."""
    chosen, rejected = ratios(policy, reference)
    logits = beta * (chosen - rejected)
    right, wrong = -F.logsigmoid(logits), -F.logsigmoid(-logits)
    losses = (1 - label_smoothing) * right - label_smoothing * wrong
    return PairLosses(losses / (1 - 2 * label_smoothing), beta * chosen, beta * rejected)


def hinge(policy: LogProbs, reference: Reference, *, beta: float = 0.1) -> PairLosses:
    """The hinge loss of the same margin (Zhao et al., 2023, SLiC; Liu et al., 2024, RSO)."""
    chosen, rejected = ratios(policy, reference)
    losses = torch.relu(1 - beta * (chosen - rejected))
    return PairLosses(losses, beta * chosen, beta * rejected)


def ipo(policy: LogProbs, reference: Reference, *, beta: float = 0.1) -> PairLosses:
    """Identity preference optimization (Azar et al., 2023), of means over an answer's tokens."""
    chosen, rejected = ratios(policy, reference)
    margin = by_token(policy, chosen, rejected)
    return PairLosses((margin - 1 / (2 * beta)) ** 2, beta * chosen, beta * rejected)


def sigmoid_norm(
    policy: LogProbs, reference: Reference, *, beta: float = 0.1, label_smoothing: float = 0.0
) -> PairLosses:
    """DPO of means over an answer's tokens (Lambert et al., 2024, Tülu 3)."""
    chosen, rejected = ratios(policy, reference)
    losses = smoothed(beta * by_token(policy, chosen, rejected), label_smoothing)
    return PairLosses(losses, beta * chosen, beta * rejected)


def orpo(policy: LogProbs, *, beta: float = 0.1, nll_of: str = "answer") -> PairLosses:
    """The odds ratio beside the likelihood of what is chosen (Hong et al., 2024).

    `nll_of` is `answer`, or `text` where `chosen_text` is given.
    """
    assert (nll_of == "text") == (policy.chosen_text is not None)
    chosen, rejected = policy.chosen_mean.float(), policy.rejected_mean.float()
    log_odds = chosen - rejected - (log1mexp(chosen) - log1mexp(rejected))
    whole = policy.chosen_text
    losses = -(chosen if whole is None else whole) - beta * F.logsigmoid(log_odds)
    return PairLosses(losses, beta * chosen, beta * rejected)


def simpo(
    policy: LogProbs,
    *,
    beta: float = 2.0,
    simpo_gamma: float = 1.0,
    label_smoothing: float = 0.0,
) -> PairLosses:
    """The margin of mean log-probabilities above a target, `simpo_gamma` (Meng et al., 2024)."""
    chosen, rejected = beta * policy.chosen_mean, beta * policy.rejected_mean
    losses = smoothed(chosen - rejected - simpo_gamma, label_smoothing)
    return PairLosses(losses, chosen, rejected)


def cpo(
    policy: LogProbs, *, beta: float = 0.1, cpo_alpha: float = 1.0, label_smoothing: float = 0.0
) -> PairLosses:
    """DPO without a reference, beside the likelihood of what is chosen (Xu et al., 2024)."""
    chosen, rejected = beta * policy.chosen, beta * policy.rejected
    losses = smoothed(chosen - rejected, label_smoothing) - cpo_alpha * policy.chosen_mean
    return PairLosses(losses, chosen, rejected)


WITH_REFERENCE: dict[str, Callable[..., PairLosses]] = {
    "sigmoid": sigmoid,
    "hinge": hinge,
    "ipo": ipo,
    "robust": robust,
    "sigmoid_norm": sigmoid_norm,
}
WITHOUT: dict[str, Callable[..., PairLosses]] = {"orpo": orpo, "simpo": simpo, "cpo": cpo}


def ratios(policy: LogProbs, reference: Reference) -> tuple[Tensor, Tensor]:
    """Return how much likelier the policy finds each answer than the reference (logarithms)."""
    return policy.chosen - reference[0], policy.rejected - reference[1]


def by_token(policy: LogProbs, chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return the difference of ratios, each divided by the tokens of its answer."""
    lengths = (one.clamp(min=1) for one in (policy.chosen_tokens, policy.rejected_tokens))
    first, second = (one / length for one, length in zip((chosen, rejected), lengths, strict=True))
    return first - second


def log1mexp(values: Tensor) -> Tensor:
    """Return log(1 - exp(values)) of values below 0, without cancellation (Mächler, 2012)."""
    values = values.clamp(max=-torch.finfo(values.dtype).eps)
    near = values > -0.693147
    small = torch.log(-torch.expm1(torch.where(near, values, -1.0)))
    return torch.where(near, small, torch.log1p(-torch.exp(torch.where(near, -1.0, values))))
