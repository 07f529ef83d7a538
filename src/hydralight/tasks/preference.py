"""Preferences: a language model learns which of two answers is the better one."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torchmetrics import Metric

from hydralight.errors import UserError
from hydralight.metrics.loss import TargetMean
from hydralight.tasks.data import Batch
from hydralight.tasks.evaluation import Scores
from hydralight.tasks.generation import last_turns
from hydralight.tasks.head import logits_for
from hydralight.tasks.log_probs import target_log_probs
from hydralight.tasks.losses import number
from hydralight.tasks.pairs import PairMetrics
from hydralight.tasks.preference_losses import (
    WITH_REFERENCE,
    WITHOUT,
    LogProbs,
    PairLosses,
    Reference,
    ratios,
)
from hydralight.tasks.projection import Unprojected
from hydralight.tasks.reference import refers_to_itself
from hydralight.tasks.referring import ReferringTask

COLUMNS = (
    "reference_chosen",
    "reference_rejected",
)  # of a batch: log-probabilities, the bits of floats
OPTIONS = ("beta", "simpo_gamma", "cpo_alpha", "nll_of")  # of some losses; None is their default


class PairOutputs(NamedTuple):
    """What a model and its reference, where the loss has one, give to the answers of pairs."""

    policy: LogProbs
    reference: Reference | None


def answers(model: Any, batch: Batch) -> Tensor:
    """Return what a model gives to both answers (pairs, 2), its summed log-probabilities."""
    accepted = inspect.signature(model.forward).parameters
    inputs = {"input_ids", "attention_mask", "use_cache"} & accepted.keys()
    arguments = {name: {**batch, "use_cache": False}[name] for name in inputs}
    found = log_probs_of(logits_for(model, arguments, batch["labels"]), batch)
    return torch.stack([found.chosen, found.rejected], dim=1)


@dataclass(kw_only=True, eq=False, repr=False)
class PreferenceTask(PairMetrics, ReferringTask):
    """Losses of pairs of answers; continuations of prompts.

    A pair shares one forward pass. Reference log-probabilities are computed with the model as it
    was when training began, once, and kept in the cache (`tasks/reference.py`).

    Beside the means over pairs there is with a reference `kl`, the mean over the tokens of both
    answers of log policy - log reference: the plain estimator of the divergence, of answers that
    the policy has not drawn, so that it may be negative.

    Args:
        loss_type: `sigmoid` (DPO), `hinge`, `ipo`, `robust`, `sigmoid_norm` have a reference;
            `orpo`, `simpo`, `cpo` have none.
        beta: What a reward counts, by the loss's own default unless said.
        simpo_gamma: The margin of rewards that `simpo` aims at.
        cpo_alpha: What the likelihood of the chosen answer counts in `cpo`.
        nll_of: Of what `orpo` adds the likelihood: of the chosen `answer`, or of the `text` with
            its prompt.
        reference: Another model to refer to: hub id, local folder, or a recipe.
    """

    loss_type: Literal[
        "sigmoid", "hinge", "ipo", "robust", "sigmoid_norm", "orpo", "simpo", "cpo"
    ] = "sigmoid"
    beta: Annotated[float, Gt(0)] | None = None
    simpo_gamma: Annotated[float, Ge(0)] | None = None
    cpo_alpha: Annotated[float, Ge(0)] | None = None
    nll_of: Literal["answer", "text"] | None = None
    columns = COLUMNS
    asked = staticmethod(answers)

    def __post_init__(self) -> None:
        super().__post_init__()
        function = {**WITH_REFERENCE, **WITHOUT}[self.loss_type]
        taken = inspect.signature(function).parameters
        said = {name: value for name in OPTIONS if (value := getattr(self, name)) is not None}
        if self.label_smoothing:
            said["label_smoothing"] = self.label_smoothing
        for name in said:
            if name not in taken:
                raise UserError(
                    f"task.{name} does nothing to task.loss_type={self.loss_type}: leave it out."
                )
        if self.loss_type == "robust" and self.label_smoothing >= 0.5:
            raise UserError(
                f"task.label_smoothing={self.label_smoothing} should be below 0.5: no more than "
                "half of the preferences can be wrong."
            )
        if self.reference is not None and not self.has_reference:
            raise UserError(
                f"task.reference does nothing to task.loss_type={self.loss_type}: leave it out."
            )
        self.pair_losses = partial(function, **said)

    @property
    def has_reference(self) -> bool:
        """Whether the loss compares the model with a reference."""
        return self.loss_type in WITH_REFERENCE

    def forward(self, batch: Batch) -> PairOutputs:
        """Return the log-probabilities of both answers, by the model and by its reference."""
        text = self.nll_of == "text"
        policy = log_probs_of(super().forward(batch).logits, batch, text)
        if not self.has_reference:
            return PairOutputs(policy, None)
        if COLUMNS[0] in batch:
            chosen, rejected = (batch[name].view(torch.float32) for name in COLUMNS)
            return PairOutputs(policy, (chosen, rejected))
        assert refers_to_itself(self), "a batch without its reference"
        return PairOutputs(policy, (policy.chosen.detach(), policy.rejected.detach()))

    # ------------------------------------------------------------ losses and metrics

    def own_loss(self, outputs: PairOutputs, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum the loss over pairs."""
        losses = self.of_pairs(outputs).losses
        return losses.sum(), number(len(losses), losses)

    def of_pairs(self, outputs: PairOutputs) -> PairLosses:
        """Return each pair's loss and rewards."""
        policy, reference = outputs
        return self.pair_losses(policy, *(() if reference is None else (reference,)))

    def rewards(self, outputs: PairOutputs) -> tuple[Tensor, Tensor]:
        """Return the rewards that the loss implies (pairs,)."""
        found = self.of_pairs(outputs)
        return found.chosen, found.rejected

    def build_metrics(self) -> dict[str, Metric]:
        """Return the means over pairs, and with a reference `kl`, over tokens."""
        metrics = PairMetrics.build_metrics(self)
        return metrics | ({"kl": TargetMean()} if self.has_reference else {})

    def decode(self, outputs: PairOutputs, batch: Batch) -> dict[str, list]:
        """Return each pair's loss, rewards, and log-probabilities by policy and reference."""
        found, (policy, reference) = self.of_pairs(outputs), outputs
        columns = {
            "loss": found.losses,
            "rewards_chosen": found.chosen,
            "rewards_rejected": found.rejected,
            "logps_chosen": policy.chosen,
            "logps_rejected": policy.rejected,
        }
        if reference is not None:
            columns |= dict(zip(COLUMNS, reference, strict=True))
        return {name: values.float().tolist() for name, values in columns.items()}

    def score(self, outputs: PairOutputs, batch: Batch, columns: Mapping[str, list]) -> Scores:
        """Sum up over pairs, and for `kl` over tokens."""
        scores, (policy, reference) = (
            dict(PairMetrics.score(self, outputs, batch, columns)),
            outputs,
        )
        if reference is not None:
            apart = torch.cat(ratios(policy, reference)).sum()
            scores["kl"] = (apart, (policy.chosen_tokens + policy.rejected_tokens).sum())
        return scores

    def prompts(self, batch: Batch) -> tuple[Tensor, Tensor, dict[str, list]]:
        """Return what is to be continued, its mask, and the chosen answers beside the prompts."""
        if "prompt_length" not in batch:
            return super().prompts(batch)
        pairs = len(batch["prompt_length"])
        first = {n: batch[n][:pairs] for n in ("input_ids", "labels", "prompt_length")}
        markers = self.model.generation_config.stop_strings
        return last_turns(first, self.datamodule.processor, markers)


def log_probs_of(logits: Tensor | Unprojected, batch: Batch, text: bool = False) -> LogProbs:
    """Return the log-probabilities of the answers of pairs.

    Args:
        logits: (2 x pairs, length, vocabulary), first of the chosen answers; or what stands in
            their place.
        batch: With `labels` (2 x pairs, length), and `input_ids` and `attention_mask`.
        text: Whether those of the chosen texts with their prompts are needed too.
    """
    labels, pairs = batch["labels"], len(logits) // 2
    given = target_log_probs(logits, labels)
    sums, tokens = given.sum(dim=1), (labels[:, 1:] != -100).sum(dim=1)
    whole = None
    if text:
        ids = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)[:pairs]
        targets = (ids[:, 1:] != -100).sum(dim=1)
        whole = target_log_probs(logits[:pairs], ids).sum(dim=1) / targets
    return LogProbs(sums[:pairs], sums[pairs:], tokens[:pairs], tokens[pairs:], whole)
