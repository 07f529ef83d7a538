"""The base LightningModule of the tasks: a model, and losses as sums and weights."""

import inspect
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric
from transformers import PreTrainedModel

from hydralight import optim
from hydralight.errors import UserError, did_you_mean, first_line
from hydralight.tasks.evaluated import Batch, EvaluatedModule

log = logging.getLogger(__name__)


class Task(EvaluatedModule):
    """What the tasks share; a subclass names its `auto_class`, its loss and its metrics.

    The gradient of an optimizer step is the mean over all the targets of that step, however they
    were split over micro-batches and devices: `training_step` returns the loss's sum over a
    constant, and `configure_gradient_clipping` multiplies the gradients by what turns that into the
    mean. Metrics are logged as `val/<name>` and `test/<name>`.

    Args:
        model: Recipe: called with the task's `auto_class`, the tokenizer (or image processor)
            and `model_arguments`.
        optimizer: Recipe: called with the parameter groups.
        scheduler: Recipe: called with the optimizer and the number of optimizer steps.
        generation: Values of the generation config that replace the checkpoint's.
        loss: Replaces the task's own loss: a function of the model's outputs and the batch that
            returns `(loss_sum, weight)`.
        label_smoothing: Part of the probability that is spread over all classes, or tokens.
        non_finite: What a loss or gradient that is NaN or infinite does: `stop` the run, or `skip`
            the optimizer step; `train/skipped` counts these. (Infinite gradients of 16-mixed are
            its scaler's business.)
        torch_compile: Whether training calls the model through `torch.compile`; or its arguments.
        metrics: Further metrics by name, updated with what the task says of itself as `preds` and
            `target` (`update_further_metrics`).
    """

    auto_class: ClassVar[type]
    _compiled: Callable[..., Any] | None = None

    def __init__(
        self,
        *,
        model: Callable[..., PreTrainedModel],
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., Any] | None = None,
        generation: Mapping[str, Any] | None = None,
        loss: Callable[[Any, Batch], tuple[Tensor, Tensor]] | None = None,
        label_smoothing: float = 0.0,
        non_finite: Literal["stop", "skip"] = "stop",
        torch_compile: bool | Mapping[str, Any] = False,
        metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        super().__init__(metrics)
        self.make_model = model
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.generation = {k: v for k, v in (generation or {}).items() if v is not None}
        self.custom_loss = loss
        self.label_smoothing = label_smoothing
        self.torch_compile = torch_compile
        self.model: PreTrainedModel | None = None
        if not 0 <= label_smoothing < 1:
            raise UserError(f"task.label_smoothing={label_smoothing} should be in 0..1.")
        if loss is not None and label_smoothing:
            raise UserError(
                "task.loss is a loss of its own: task.label_smoothing does nothing to it."
            )
        self.step_metrics: dict[str, Tensor | float] = {}
        self.non_finite = non_finite
        self.skipped = 0  # optimizer steps
        self._window: Tensor | None = None  # loss sum and weight since the last optimizer step
        self._parts: list[tuple[Tensor, Tensor]] = []  # the same time's loss sums and rows
        self.positions: int | None = None  # of the model, where they are limited

    # ------------------------------------------------------------ what a subclass says

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed loss of a batch and its weight, the number of targets (scalars)."""
        raise NotImplementedError

    def model_arguments(self) -> dict[str, Any]:
        """Return what the model's config takes from the data, such as `num_labels`."""
        return {}

    def default_generation(self) -> dict[str, Any]:
        """Return generation values for where neither config nor checkpoint has one."""
        return {}

    # ------------------------------------------------------------ the model

    def configure_model(self) -> None:
        """Build the model, once, and the metrics; the data module is set up by now."""
        if self.model is not None:
            return
        processor = self.datamodule.load_processor()
        self.model = self.make_model(self.auto_class, processor, **self.model_arguments())
        if self.model.can_generate():
            self._configure_generation(self.model)
        accepted = inspect.signature(self.model.forward).parameters
        self._forward_names = frozenset(accepted)
        self._check_positions(self.model)
        if self.torch_compile:
            options = self.torch_compile if isinstance(self.torch_compile, Mapping) else {}
            # past the module's own attributes: its parameters are there once
            self.__dict__["_compiled"] = torch.compile(self.model, **options)
        self.metrics = nn.ModuleDict(self.build_metrics()).to(self.device)

    def _check_positions(self, model: PreTrainedModel) -> None:
        """See that the model's positions are enough for the data."""
        positions = getattr(model.config, "max_position_embeddings", None)
        for name, module in model.named_modules():
            # RoBERTa and its kin count positions from behind the padding's
            if positions and name.endswith("position_embeddings"):
                padding = getattr(module, "padding_idx", None)
                positions -= 0 if padding is None else padding + 1
                break
        self.positions = positions
        longest = self.datamodule.longest()
        if positions is not None and longest > positions:
            raise UserError(
                f"the data has inputs of {longest} tokens, and the model takes {positions}: set "
                f"data.{self.datamodule.shape.length_limit}={positions}."
            )

    def _configure_generation(self, model: PreTrainedModel) -> None:
        config = model.generation_config
        config._from_model_config = False  # it is its own from here on
        values = {**self.default_generation(), **self.generation}
        if "max_new_tokens" in values:
            config.max_length = None
        if values.get("do_sample") is False:
            for name in ("temperature", "top_k", "top_p"):
                values[name] = None  # they say how to sample
        unknown = config.update(**values)
        try:
            config.validate(strict=True)
        except ValueError as error:
            raise UserError(f"generation: {first_line(error)}.") from error
        if unknown:
            key = next(iter(unknown))
            raise UserError(
                f"generation.{key}: transformers' generation config has no '{key}'"
                f"{did_you_mean(key, config.to_dict())}"
            )

    def forward(self, batch: Batch) -> Any:
        """Call the model with those entries of the batch that its `forward` names, but labels.

        Without labels it returns logits and leaves the loss to the task.
        """
        compiled = self._compiled if self.training else None
        model = self.model if compiled is None else compiled
        assert model is not None
        names = self._forward_names - {"labels"}
        return model(**{name: batch[name] for name in names & batch.keys()})

    # ------------------------------------------------------------ training

    def loss_and_weight(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the configured loss's sum and weight for a batch."""
        if self.custom_loss is None:
            return self.loss(outputs, batch)
        try:
            loss_sum, weight = self.custom_loss(outputs, batch)
            return loss_sum, weight.to(loss_sum.device)
        except Exception as error:
            name = getattr(self.custom_loss, "func", self.custom_loss).__name__
            raise UserError(
                f"task.loss: {name} does not go with this task, or does not return a sum and a "
                f"weight as tensors ({type(error).__name__}: {first_line(error)})."
            ) from error

    def on_fit_start(self) -> None:
        """Fix the constant that keeps the loss in range: a batch's capacity for targets."""
        self._capacity = self.datamodule.target_capacity

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the summed loss over the constant."""
        loss_sum, weight = self.loss_and_weight(self(batch), batch)
        window = torch.stack([loss_sum.detach().float(), weight.float()])
        self._window = window if self._window is None else self._window + window
        self._parts.append((loss_sum.detach(), batch["row"]))
        return loss_sum / self._capacity

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Find what turns the gradients of scaled sums into those of the mean over the targets."""
        window, self._window = self._window, None
        assert window is not None
        if self.trainer.world_size > 1:
            window = self.trainer.strategy.reduce(window, reduce_op="sum")
        loss_sum, weight = window
        # the trainer has divided by the micro-batches of a full window, and DDP by the ranks
        scale = self._capacity * self.trainer.accumulate_grad_batches * self.trainer.world_size
        self._factor = torch.where(weight > 0, scale / weight, 0.0)
        self.step_metrics = {
            "train/loss": loss_sum / weight,
            "lr": optimizer.param_groups[0]["lr"],
        }
        self._loss_sum = loss_sum

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Scale and clip the gradients in one pass; record their norm, which is to be finite."""
        parts, self._parts = self._parts, []
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients) * self._factor
        self.step_metrics["train/grad_norm"] = norm
        scaled = self.trainer.precision == "16-mixed"
        if not torch.isfinite(self._loss_sum if scaled else self._loss_sum + norm):
            self._refuse_step(parts)
            return
        if self.skipped:
            self.step_metrics["train/skipped"] = self.skipped
        factor = self._factor
        if gradient_clip_val and gradient_clip_algorithm != "value":
            factor = factor * (gradient_clip_val / (norm + 1e-6)).clamp(max=1.0)  # as torch does
        torch._foreach_mul_(gradients, factor)
        if gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def _refuse_step(self, parts: list[tuple[Tensor, Tensor]]) -> None:
        """Stop the run, or leave out this step: without gradients, an optimizer changes nothing."""
        step = self.trainer.global_step + 1
        bad = [row for loss_sum, rows in parts if not torch.isfinite(loss_sum) for row in rows]
        rows = f"rows {', '.join(str(int(row)) for row in bad)}" if bad else "no row of its own"
        if self.non_finite == "stop":
            checkpoint = Path(self.trainer.default_root_dir) / "checkpoints" / "last.ckpt"
            last = f"; the last checkpoint is {checkpoint}" if checkpoint.is_file() else ""
            raise UserError(
                f"the loss or its gradient is not finite at step {step} (in the loss of {rows} of "
                f"the training data, counted from 0){last}. task.non_finite=skip leaves such steps "
                "out."
            )
        self.skipped += 1
        self.step_metrics["train/skipped"] = self.skipped
        log.warning("step %d is left out: its loss or gradient is not finite (%s)", step, rows)
        if self.trainer.precision != "16-mixed":  # where the scaler leaves it out
            for parameter in self.parameters():
                parameter.grad = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the count of steps that were left out."""
        checkpoint["skipped"] = self.skipped

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped = checkpoint.get("skipped", 0)  # older runs did not count

    def configure_optimizers(self, num_training_steps: int | None = None) -> OptimizerLRScheduler:
        """Build the optimizer, without weight decay on biases and norms, and its schedule.

        Args:
            num_training_steps: Length of the schedule; the trainer's own unless said.
        """
        assert self.model is not None
        # in 16-mixed a fused optimizer gets scaled gradients, which cannot be clipped
        scaled = self.trainer.precision == "16-mixed"
        make = self.make_optimizer if scaled else optim.fused(self.make_optimizer)
        try:
            optimizer = make(optim.parameter_groups(self.model))
        except (ValueError, RuntimeError) as error:
            raise UserError(f"optimizer: {error}.") from error
        if scaled and optimizer.defaults.get("fused"):
            raise UserError(
                "optimizer.fused=true does not go with 16-mixed precision, where a fused "
                "optimizer sees scaled gradients: set optimizer.fused=false."
            )
        if self.make_scheduler is None:
            return optimizer
        steps = num_training_steps or self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise UserError("the schedule needs an end: set trainer.max_epochs or max_steps.")
        scheduler = self.make_scheduler(optimizer, int(steps))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }
