"""Kahneman-Tversky optimization: a language model learns from answers that are good or not."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import torch
from annotated_types import Gt
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import Metric

from hydralight.metrics.auroc import DefinedAUROC
from hydralight.metrics.kto import KTOLoss, kto_losses
from hydralight.tasks.data import Batch
from hydralight.tasks.evaluation import Scores
from hydralight.tasks.generation import last_turns
from hydralight.tasks.head import logits_for
from hydralight.tasks.log_probs import target_log_probs
from hydralight.tasks.losses import number
from hydralight.tasks.reference import refers_to_itself
from hydralight.tasks.referring import ReferringTask
from hydralight.tasks.same_bits import reduction
from hydralight.tasks.steps import batches_of_step
from hydralight.tasks.task import Task

KTO_LOSSES = ("kto", "apo_zero_unpaired")
COLUMNS = ("reference", "reference_kl")  # of a batch: log-probabilities


class Answers(NamedTuple):
    """What a model and its reference give to answers; all (batch,).

    Args:
        ratios: Log policy - log reference of the answers.
        tokens: How many tokens they have.
        policy: The log-probabilities themselves.
        apart: The same ratios of other prompts' answers; in training None, as `baseline` has them.
    """

    ratios: Tensor
    tokens: Tensor
    policy: Tensor
    apart: Tensor | None


def answers(model: Any, batch: Batch) -> Tensor:
    """Return what a model gives to answers and to other prompts' (batch, 2), log-probabilities."""
    accepted = inspect.signature(model.forward).parameters
    more = {"use_cache": False} if "use_cache" in accepted else {}
    found: Sequence[Tensor] = [
        target_log_probs(logits_for(model, {**inputs, **more}, labels), labels).sum(dim=1)
        for inputs, labels in (
            ({n: batch[n] for n in ("input_ids", "attention_mask")}, batch["labels"]),
            (others(batch), batch["kl_labels"]),
        )
    ]
    return torch.stack(list(found), dim=1)


@dataclass(kw_only=True, eq=False, repr=False)
class KTOTask(ReferringTask):
    """The loss of answers of which each is good or not; continuations of prompts.

    An answer counts by how much likelier it is than by the reference, beside how much other
    prompts' answers are on average, the baseline. That is the mean over the whole optimizer step,
    on all devices, computed before the step's first micro-batch; in an evaluation, over the set.
    It has no gradient, and draws no dropout.

    Metrics: `rewards_chosen` and `rewards_rejected` (means over good and other answers), `margin`
    (their difference), `auroc` (how often a good answer has the higher reward), `kl` (the
    baseline).

    Args:
        loss_type: `kto` (Ethayarajh et al., 2024), or `apo_zero_unpaired` (D'Oosterlinck et al.,
            2024), which has no baseline.
        beta: What a reward counts.
        desirable_weight: What a good answer's loss counts.
        undesirable_weight: What another answer's loss counts.
    """

    loss_type: Literal["kto", "apo_zero_unpaired"] = "kto"
    beta: Annotated[float, Gt(0)] = 0.1
    desirable_weight: Annotated[float, Gt(0)] = 1.0
    undesirable_weight: Annotated[float, Gt(0)] = 1.0
    columns = COLUMNS
    asked = staticmethod(answers)

    _baseline: Tensor | None = None

    def forward(self, batch: Batch) -> Answers:
        """Return what the model gives to answers, and, in an evaluation, to other prompts'."""
        logits = super().forward(batch).logits
        policy = target_log_probs(logits, batch["labels"]).sum(dim=1)
        tokens = (batch["labels"][:, 1:] != -100).sum(dim=1)
        apart = None if self.training else self.apart(batch)
        if COLUMNS[0] in batch:
            reference = batch[COLUMNS[0]].view(torch.float32)
            return Answers(policy - reference, tokens, policy, apart)
        assert refers_to_itself(self), "a batch without its reference"
        return Answers(policy - policy.detach(), tokens, policy, apart)

    @torch.no_grad()
    def apart(self, batch: Batch) -> Tensor:
        """Return log policy - log reference of other prompts' answers (batch,)."""
        training = self.training
        self.eval()
        logits = super().forward({**others(batch), "labels": batch["kl_labels"]}).logits
        policy = target_log_probs(logits, batch["kl_labels"]).sum(dim=1)
        self.train(training)
        if COLUMNS[1] not in batch:
            return torch.zeros_like(policy)
        return policy - batch[COLUMNS[1]].view(torch.float32)

    # ------------------------------------------------------------ losses and metrics

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the baseline before a step's first micro-batch, and return the loss."""
        if batch_idx % self.trainer.accumulate_grad_batches == 0 or self._baseline is None:
            self._baseline = self.baseline(batches_of_step(self, batch, batch_idx))
        return super().training_step(batch, batch_idx)

    def baseline(self, step: Iterable[Batch]) -> Tensor:
        """Return the mean of `apart` over this process's micro-batches and those of all others."""
        if self.loss_type != "kto":
            return torch.zeros((), device=self.device)
        exact = torch.float32 if self.device.type == "mps" else torch.float64
        parts = [
            torch.stack([one.sum().to(exact), number(len(one), one).to(exact)])
            for one in map(self.apart, step)
        ]
        window = torch.stack(parts)
        reduce = reduction(self)
        total = window.sum(dim=0) if reduce is None else reduce(window)
        return (total[0] / total[1]).clamp(min=0).float()

    def loss_and_weight(self, outputs: Answers, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the configured loss's sum and weight, the number of answers."""
        return Task.loss_and_weight(self, outputs, batch)

    def own_loss(self, outputs: Answers, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum the loss over answers; in an evaluation `score` does, with all of them."""
        count = number(len(outputs.ratios), outputs.ratios)
        if not self.training:
            return torch.zeros_like(outputs.ratios).sum(), count
        assert self._baseline is not None
        losses = kto_losses(outputs.ratios, batch["desirable"], self._baseline, self.beta)
        return (losses * self.weights(batch)).sum(), count

    def configure_gradient_clipping(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
        """Finish the step, and say what its baseline was."""
        super().configure_gradient_clipping(optimizer, *args, **kwargs)
        assert self._baseline is not None
        self._step_metrics = {**self._step_metrics, "train/kl": self._baseline}

    def weights(self, batch: Batch) -> Tensor:
        """Return what each answer's loss counts (batch,)."""
        return torch.where(batch["desirable"], self.desirable_weight, self.undesirable_weight)

    def build_metrics(self) -> dict[str, Metric]:
        """Return the loss over the whole set, with the metrics that are computed of it."""
        loss = KTOLoss(self.beta, with_baseline=self.loss_type == "kto")
        return {"loss": loss, "auroc": DefinedAUROC()}

    def decode(self, outputs: Answers, batch: Batch) -> dict[str, list]:
        """Return each answer's reward and log-probabilities by policy and reference."""
        columns = {
            "reward": self.beta * outputs.ratios,
            "logps": outputs.policy,
            "reference": outputs.policy - outputs.ratios,
        }
        verdicts = {"label": batch["desirable"].tolist()}
        return {**{name: values.float().tolist() for name, values in columns.items()}, **verdicts}

    def score(self, outputs: Answers, batch: Batch, columns: Mapping[str, list]) -> Scores:
        """Give the ratios, what they count and what is right; further metrics get rewards."""
        desirable = batch["desirable"]
        right = outputs.ratios.float().sigmoid(), desirable.long()
        told = outputs.ratios, desirable, self.weights(batch), outputs.apart
        return {"loss": told, "auroc": right, "further": right}

    def prompts(self, batch: Batch) -> tuple[Tensor, Tensor, dict[str, list]]:
        """Return what is to be continued, its mask, and the answers beside the prompts."""
        if "prompt_length" not in batch:
            return super().prompts(batch)
        names = ("input_ids", "labels", "prompt_length")
        markers = self.model.generation_config.stop_strings
        return last_turns({n: batch[n] for n in names}, self.datamodule.processor, markers)


def others(batch: Batch) -> Batch:
    """Return the batch of other prompts' answers."""
    return {name: batch[f"kl_{name}"] for name in ("input_ids", "attention_mask")}
