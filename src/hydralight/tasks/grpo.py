"""Group-relative policy optimisation: a language model learns from rewards of what it writes."""

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import Metric

from hydralight.adapters import attached_to, checksum_of
from hydralight.config.ranges import Positive
from hydralight.devices import gathered
from hydralight.errors import UserError
from hydralight.metrics.rewards import Rewards
from hydralight.shards import is_sharded
from hydralight.tasks.causal_lm import CausalLMTask
from hydralight.tasks.data import Batch, PredictedRows
from hydralight.tasks.head import logits_for
from hydralight.tasks.log_probs import target_log_probs
from hydralight.tasks.policy_loss import LossType, PolicyLoss, advantages_of
from hydralight.tasks.projection import Unprojected
from hydralight.tasks.randomness import number_in_step, seed_training, seeds_of_rows
from hydralight.tasks.rewards import judge, made, names_of, none_for_nan, total, warn_unjudged
from hydralight.tasks.rollout_log import means_of, sums_of
from hydralight.tasks.rollouts import Rollout, Written, laid_out, read
from hydralight.tasks.sampling import Generator, Policy, Sampling, evaluating

NO_COLUMNS = "{}"  # of prompts that are to be predicted


@dataclass(kw_only=True, eq=False, repr=False)
class GRPOTask(CausalLMTask):
    """Group-relative policy optimisation (Shao et al., 2024).

    For each prompt the model writes several completions, reward functions judge them, and what is
    better than the others of its prompt becomes more likely. A completion is a function of (seed,
    step, prompt). Rewards of an evaluation are of one completion of each prompt, of the most
    likely token each time; `val/loss` is minus the reward.

    Args:
        rewards: Functions of `prompts`, `completions` and columns of the data, with a value or None
            for each completion (`tasks/rewards.py`).
        reward_weights: Of the functions in the sum; 1 each unless said.
        num_generations: Completions of a prompt.
        temperature: What logits are divided by, as they are drawn from and as they are trained.
        top_k: How many tokens are drawn from; all unless said.
        top_p: Part of the probability that is drawn from.
        loss_type: What the loss is the mean of: `grpo`, of completions; `dr_grpo`, of completions
            over the most tokens that they may have; `dapo`, of tokens.
        epsilon: How far the ratio of probabilities to those before counts, downwards.
        epsilon_high: The same upwards; `epsilon` unless said.
        importance_sampling_level: Whether that is of each token, or of a completion (GSPO).
        beta: Weight of the divergence from the model before training; 0 does without it.
        use_bias_correction_kl: Whether the divergence is multiplied by the ratio.
        scale_rewards: Whether advantages are divided by the standard deviation in their group.
        num_iterations: Optimizer steps on the same completions. `data.num_iterations` repeats the
            prompts as often.
        mask_truncated_completions: Whether completions that were cut off are not trained on.
        generator: What writes completions in the place of the model (`tasks/sampling.py`).

    Raises:
        UserError: the options do not go together.
    """

    rewards: Sequence[Callable[..., Any]] | None = None
    reward_weights: Sequence[float] | None = None
    num_generations: Annotated[int, Ge(2)] = 8
    temperature: Annotated[float, Gt(0)] = 1.0
    top_k: Positive | None = None
    top_p: Annotated[float, Interval(gt=0, le=1)] = 1.0
    loss_type: LossType = "dapo"
    epsilon: Annotated[float, Interval(gt=0, lt=1)] = 0.2
    epsilon_high: Annotated[float, Gt(0)] | None = None
    importance_sampling_level: Literal["token", "sequence"] = "token"
    beta: Annotated[float, Ge(0)] = 0.0
    use_bias_correction_kl: bool = True
    scale_rewards: Literal["group", "none"] = "group"
    num_iterations: Positive = 1
    mask_truncated_completions: bool = False
    generator: Generator | None = None

    sample_columns = ("prompt", "prediction", "reward")
    reference: ClassVar[Any] = None  # the model before training, where it is a copy

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rewards:
            raise UserError("task.rewards is empty: name a function, as {_target_: …}, in a list.")
        self.rewards = [made(one) for one in self.rewards]
        self.functions = names_of(self.rewards)
        if self.reward_weights is not None and len(self.reward_weights) != len(self.rewards):
            raise UserError(
                f"task.reward_weights={list(self.reward_weights)}: give one for each of "
                f"{', '.join(self.functions)}."
            )
        for name, said in (("loss", self.loss), ("label_smoothing", self.label_smoothing)):
            if said:
                raise UserError(f"task.{name} is no part of learning from rewards: leave it out.")
        self.kept: dict[int, Rollout] = {}  # by the number of the micro-batch in its step
        self._saved: dict[int, dict[str, Any]] = {}
        self._sums: list[Tensor] = []  # what is logged of each micro-batch of a step

    # ------------------------------------------------------------ the model

    def build_metrics(self) -> dict[str, Metric]:
        """Return what is said of an evaluation's rewards."""
        return {"rewards": Rewards(self.functions)}

    def configure_model(self) -> None:
        """Build the model, and keep a copy of it where rewards are weighed against one."""
        if self.model is not None:
            return
        if not getattr(self.datamodule.shape, "keeps_columns", False):
            raise UserError("task=grpo learns from prompts: take data=prompts.")
        super().configure_model()
        if is_sharded(self.model):
            raise UserError(
                "trainer=fsdp does not go with task=grpo, as each device would write with a part "
                "of the model: take trainer=ddp, or a smaller model."
            )
        if self.beta and self.trainer.training and not self.is_adapter_new():
            # not as a module of the task: it is nowhere saved, and never trained
            frozen: Any = copy.deepcopy(self.model)
            self.__dict__["reference"] = frozen.eval().requires_grad_(False)

    def is_adapter_new(self) -> bool:
        """Whether the model without its adapter is the one before training."""
        begun = isinstance(getattr(self.make_model, "adapter", None), str)
        return attached_to(self.model) is not None and not begun

    @property
    def sampling(self) -> Sampling:
        """How completions are drawn."""
        new = self.model.generation_config.max_new_tokens
        if new is None:
            raise UserError("generation.max_new_tokens has no value: say how long completions are.")
        return Sampling(new, self.temperature, self.top_k, self.top_p)

    @property
    def policy_loss(self) -> PolicyLoss:
        """The loss that the options make."""
        high = self.epsilon if self.epsilon_high is None else self.epsilon_high
        return PolicyLoss(
            loss_type=self.loss_type,
            epsilon=self.epsilon,
            epsilon_high=high,
            beta=self.beta,
            use_bias_correction_kl=self.use_bias_correction_kl,
            importance_sampling_level=self.importance_sampling_level,
            max_new_tokens=self.sampling.max_new_tokens,
        )

    # ------------------------------------------------------------ what is written, and judged

    def with_room(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the prompts and their mask; of a long one the end that leaves room to write."""
        room = 0 if self.positions is None else self.positions - self.sampling.max_new_tokens
        return batch["input_ids"][:, -room:], batch["attention_mask"][:, -room:]

    def write(self, batch: Batch, number: int, seeds: Sequence[int] | None) -> Written:
        """Return so many completions of each prompt."""
        tokenizer, sampling = self.datamodule.processor, self.sampling
        ids, mask = self.with_room(batch)
        generator = self.generator or Policy(tokenizer)
        written = generator.generate(
            self.model, ids, mask, num_generations=number, seeds=seeds, sampling=sampling
        )
        config = self.model.generation_config
        return read(written.cpu(), tokenizer, config, sampling.max_new_tokens)

    def judged(self, batch: Batch, written: Written) -> tuple[Tensor, Tensor]:
        """Return the reward of each completion, and what each function gives it."""
        each = len(written.texts) // len(batch["said"])
        said, rest = (
            [one for one in batch[name] for _ in range(each)] for name in ("said", "rest")
        )
        assert self.rewards is not None
        table = judge(self.rewards, said, rest, written.texts, written.ids)
        if table.isnan().all():
            warn_unjudged(", ".join(self.functions))
        return total(table, self.reward_weights), table

    def log_probs(self, logits: Tensor | Unprojected, labels: Tensor) -> Tensor:
        """Return those of the targets at the temperature (completions, length - 1)."""
        return target_log_probs(
            logits if self.temperature == 1.0 else logits.float() / self.temperature, labels
        )

    @torch.no_grad()
    def reference_log_probs(self, laid: Mapping[str, Tensor]) -> Tensor | None:
        """Return those of the model before training; None where nothing is weighed against it."""
        if not self.beta:
            return None
        own = attached_to(self.model)
        model = self.model if self.reference is None else self.reference
        off = own.peft.disable_adapter() if self.reference is None and own else nullcontext()
        read = {name: laid[name] for name in ("input_ids", "attention_mask")}
        with evaluating(model), off:
            logits = logits_for(model, {**read, "use_cache": False}, laid["labels"])
            return self.log_probs(logits, laid["labels"])

    # ------------------------------------------------------------ training

    def on_fit_start(self) -> None:
        """Take up the completions that a checkpoint has, which steps are still to be made of."""
        super().on_fit_start()
        repeats = self.datamodule.num_iterations
        if repeats != self.num_iterations:
            raise UserError(
                f"task.num_iterations={self.num_iterations} and data.num_iterations={repeats} "
                "should be the same: leave the second out."
            )
        if self.reference is not None:
            self.reference.to(self.device)
        saved, self._saved = self._saved, {}
        self.kept = {n: Rollout.restored(one, self.device) for n, one in saved.items()}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Write completions, or take those of the step before, and learn from them."""
        seed_training(self.datamodule.seed, self.trainer, batch_idx)  # for what functions draw
        number = number_in_step(self.trainer, batch_idx)
        kept = self.kept.get(number)
        if kept is None or kept.uses >= self.num_iterations or not kept.is_of(batch["row"]):
            kept = self.rollout(batch)
        self.kept[number] = replace(kept, uses=kept.uses + 1)
        laid = {n: getattr(kept, n) for n in ("input_ids", "attention_mask", "labels")}
        more = {"rollout": number, "row": batch["row"]}
        return super().training_step({**laid, **more}, batch_idx)

    def rollout(self, batch: Batch) -> Rollout:
        """Write completions of prompts, and have them judged."""
        seeds = seeds_of_rows(self.datamodule.seed, self.trainer, batch["row"])
        written = self.write(batch, self.num_generations, seeds)
        rewards, table = self.judged(batch, written)
        pad = self.datamodule.processor.pad_token_id
        laid = laid_out(*self.with_room(batch), written.ids, pad)
        if self.mask_truncated_completions:
            cut = ~torch.tensor(written.ended, device=laid["labels"].device)
            laid["labels"] = laid["labels"].masked_fill(cut.unsqueeze(1), -100)
        reference = self.reference_log_probs(laid)
        advantages = advantages_of(rewards, self.num_generations, self.scale_rewards)
        return Rollout(
            rows=batch["row"],
            **laid,
            advantages=advantages.to(self.device),
            reference=reference,
            sums=sums_of(written, rewards, table, self.num_generations).to(self.device),
        )

    def loss_and_weight(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the clipped loss of a rollout's completions and its weight."""
        number = batch["rollout"]
        kept, log_probs = self.kept[number], self.log_probs(outputs.logits, batch["labels"])
        if kept.old is None:
            kept = self.kept[number] = replace(kept, old=log_probs.detach())
        assert kept.old is not None
        mask = batch["labels"][:, 1:] != -100
        loss_sum, weight, sums = self.policy_loss(
            log_probs, kept.old, kept.reference, kept.advantages, mask
        )
        self._sums.append(torch.cat([kept.sums, sums.to(kept.sums)]))
        return loss_sum, weight

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Finish the step's gradient, and say what its completions are like."""
        super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        sums, self._sums = torch.stack(self._sums), []
        if self.trainer.world_size > 1:  # in the order of the micro-batches
            sums = self.trainer.strategy.all_gather(sums).reshape(-1, *sums.shape[1:])
        values = means_of(sums.sum(dim=0), self.functions, bool(self.beta))
        self._step_metrics |= {f"train/{name}": value for name, value in values.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the completions that steps are still to be made of, those of all devices."""
        super().on_save_checkpoint(checkpoint)
        left = {n: one.saved() for n, one in self.kept.items() if one.uses < self.num_iterations}
        if self.trainer.world_size > 1 and self.num_iterations > 1:
            left = {n: one for part in gathered(left) for n, one in part.items()}
        checkpoint["rollouts"] = left
        if self.reference is not None:
            checkpoint["reference"] = self.reference_checksum

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was saved; the reference has to be the one that there was."""
        super().on_load_checkpoint(checkpoint)
        self._saved = checkpoint.get("rollouts", {})
        before = checkpoint.get("reference")
        if None not in (before, self.reference) and before != self.reference_checksum:
            raise UserError(
                "the checkpoint's run was weighed against other weights than those that the model "
                "begins with now (task.beta): resume it with the checkpoint that it began with."
            )

    @cached_property
    def reference_checksum(self) -> str:
        """What tells the weights of the copy from others."""
        return checksum_of(self.reference.state_dict())

    # ------------------------------------------------------------ evaluation and prediction

    def evaluation_step(self, batch: Batch) -> PredictedRows:
        """Write one completion of each prompt, of the most likely tokens, and judge it."""
        written = self.write(batch, 1, None)
        rewards, table = self.judged(batch, written)
        there = rewards[~rewards.isnan()].double()
        scores = (rewards, table, torch.tensor(written.lengths), torch.tensor(written.ended))
        self.evaluation.update(
            -there.sum().to(self.device),
            torch.full((), len(there), device=self.device),
            {
                "rewards": tuple(one.to(self.device) for one in scores),
                "further": (written.texts, batch["prompt"]),
            },
        )
        return self.rows(batch, self.columns(batch, written.texts, rewards, table))

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> PredictedRows:
        """Continue prompts; those of an evaluated split as an evaluation does, with rewards."""
        if all(one == NO_COLUMNS for one in batch["rest"]):
            return super().predict_step(batch, batch_idx)
        written = self.write(batch, 1, None)
        return self.rows(batch, self.columns(batch, written.texts, *self.judged(batch, written)))

    def columns(
        self, batch: Batch, texts: list[str], rewards: Tensor, table: Tensor
    ) -> dict[str, list]:
        """Return the columns of predictions that have been judged."""
        by_function = {
            f"reward/{name}": none_for_nan(values)
            for name, values in zip(self.functions, table.T, strict=True)
        }
        first = {"prompt": batch["prompt"], "prediction": texts, "reward": none_for_nan(rewards)}
        return {**first, **(by_function if len(self.functions) > 1 else {})}
