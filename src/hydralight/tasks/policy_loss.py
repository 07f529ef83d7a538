"""The losses of group-relative policy optimisation, as sums and weights."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

LossType = Literal["grpo", "dr_grpo", "dapo"]


def advantages_of(rewards: Tensor, number: int, scale: Literal["group", "none"]) -> Tensor:
    """Return how much better than those of its prompt each completion is (Shao et al., 2024).

    Args:
        rewards: (completions,), those of a prompt side by side; NaN where nobody judges.
        number: Completions of a prompt.
        scale: Whether they are divided by the standard deviation in the group, or not (Liu et al.,
            2025: dividing weighs prompts that are too easy or too hard up).

    Returns:
        (completions,), 0 where nobody judges.
    """
    groups = rewards.reshape(-1, number)
    judged = ~groups.isnan()
    counts = judged.sum(dim=1, keepdim=True)
    values = groups.nan_to_num(nan=0.0)
    means = values.sum(dim=1, keepdim=True) / counts.clamp(min=1)
    apart = (values - means).masked_fill(~judged, 0.0)
    if scale == "group":
        variance = (apart**2).sum(dim=1, keepdim=True) / (counts - 1).clamp(min=1)
        apart = apart / (variance.sqrt() + 1e-4)
    return apart.reshape(-1)


@dataclass(frozen=True)
class PolicyLoss:
    """The clipped loss of a policy on completions that it, or an earlier state of it, has written.

    Args:
        loss_type: What the mean is of. `grpo`: of completions, each the mean of its tokens (Shao
            et al., 2024); `dr_grpo`: of completions, each the sum of its tokens over the most
            that it may have (Liu et al., 2025); `dapo`: of tokens (Yu et al., 2025).
        epsilon: How far below 1 the ratio of probabilities counts.
        epsilon_high: How far above 1.
        beta: Weight of the divergence from the reference.
        use_bias_correction_kl: Whether that is multiplied by the ratio, whose gradient is then that
            of the divergence of what the policy would write now (DeepSeek-AI, 2025).
        importance_sampling_level: Whether each token has a ratio of its own, or a completion has
            one, the geometric mean of its tokens' (GSPO; Zheng et al., 2025).
        max_new_tokens: The most that a completion may have.
    """

    loss_type: LossType
    epsilon: float
    epsilon_high: float
    beta: float
    use_bias_correction_kl: bool
    importance_sampling_level: Literal["token", "sequence"]
    max_new_tokens: int

    def __call__(
        self,
        log_probs: Tensor,
        old: Tensor,
        reference: Tensor | None,
        advantages: Tensor,
        mask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the summed loss and its weight (scalars), and what is logged (3, 2).

        That is, as sums and numbers: how many tokens are cut off, minus the log-probabilities of
        what was drawn, which are an estimate of the entropy, and the divergence.

        Args:
            log_probs: Of the tokens of each completion (completions, length), with their graph.
            old: The same as the completions were written.
            reference: The same of the reference; None where `beta` is 0.
            advantages: (completions,).
            mask: 1 where a token counts (completions, length).
        """
        mask = mask.to(log_probs.dtype)
        tokens = mask.sum(dim=1).clamp(min=1)
        log_ratio = log_probs - old
        if self.importance_sampling_level == "sequence":
            log_ratio = ((log_ratio * mask).sum(dim=1) / tokens).unsqueeze(1)
        ratio, gain = log_ratio.exp(), advantages.to(log_probs.dtype).unsqueeze(1)
        clipped = ratio.clamp(1 - self.epsilon, 1 + self.epsilon_high)
        losses = -torch.minimum(ratio * gain, clipped * gain).expand_as(mask)
        low, high = ratio < 1 - self.epsilon, ratio > 1 + self.epsilon_high
        cut = ((low & (gain < 0)) | (high & (gain > 0))).expand_as(mask)
        divergence = torch.zeros_like(mask)
        if reference is not None:
            apart = reference - log_probs
            divergence = apart.exp() - apart - 1  # Schulman's k3: never below 0
            if self.use_bias_correction_kl:
                divergence = divergence * ratio
            losses = losses + self.beta * divergence
        seen = torch.stack([cut, -log_probs.detach(), divergence.detach()])
        logged = torch.stack([(seen * mask).sum(dim=(1, 2)), mask.sum().expand(3)], dim=1)
        number = torch.full((), len(mask), device=mask.device)
        if self.loss_type == "grpo":
            return ((losses * mask).sum(dim=1) / tokens).sum(), number, logged
        if self.loss_type == "dr_grpo":
            return (losses * mask).sum(), number * self.max_new_tokens, logged
        return (losses * mask).sum(), mask.sum(), logged
