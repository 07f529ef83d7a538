"""The base LightningModule of the tasks: a model, losses as sums and weights, and an evaluation."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Interval
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric

from hydralight import adalora, adapters, sharding
from hydralight.errors import UserError
from hydralight.models import check_positions, compiled
from hydralight.optim.averaged import EvaluationWeights
from hydralight.optim.build import trained
from hydralight.progress import waiting
from hydralight.quantization import check_callbacks
from hydralight.tasks.data import Batch, PredictedRows, TaskData
from hydralight.tasks.evaluation import Evaluation, Scores, check_monitors, rows_of
from hydralight.tasks.fits import check_loaded, trained_by
from hydralight.tasks.generation import check_generation, settle_generation
from hydralight.tasks.gradient import Gradient
from hydralight.tasks.losses import custom_loss
from hydralight.tasks.optimization import configured, follow_evaluation, optimized, rate_of
from hydralight.tasks.randomness import seed_optimizer, seed_training
from hydralight.tasks.same_bits import begin_tree, divided_by, reduction
from hydralight.tasks.steps import evaluated_batches, micro_batches
from hydralight.tasks.together import check_before_reading, evaluate_in_step


@dataclass(kw_only=True, eq=False, repr=False)
class Task(LightningModule):
    """What the tasks share; a subclass says what its model, its loss and its predictions are.

    Its options are dataclass fields, and those of a subclass too: decorate it as this class is,
    check the options in `__post_init__`, after `super().__post_init__()`. An ordinary
    `__init__(self, **kwargs)` that calls `super().__init__(**kwargs)` does as well.

    A subclass says its columns once: `decode` makes those of the predictions, and the metrics
    (`score`), the samples, `predictions/*.jsonl` and `predict.py` all read them. Values are logged
    as `val/<name>`, `val/<set>/<name>` for the sets of `data.extra_eval`, and `test/<name>`.

    Args:
        model: Recipe: called with the task's `auto_class`, the tokenizer (or image processor)
            and `model_arguments`. The attribute is the model, once `configure_model` has built it.
        optimizer: Recipe: called with the parameter groups.
        scheduler: Recipe: called with the optimizer and the number of optimizer steps.
        generation: Values of the generation config that replace the checkpoint's.
        loss: Replaces the task's own loss: a function of the model's outputs and the batch that
            returns `(loss_sum, weight)`.
        label_smoothing: Part of the probability that is spread over all classes, or tokens.
        non_finite: What a loss or gradient that is NaN or infinite does: `stop` the run, or `skip`
            the optimizer step; `train/skipped` counts these. (Infinite gradients of 16-mixed are
            its scaler's business.) On a GPU, `stop` learns of it one step later, and before
            anything is made of the weights; `skip` waits for the device in every step.
        torch_compile: Whether training calls the model through `torch.compile`; or its arguments.
        metrics: Further metrics by name, updated with the `further` of `score`.

    Raises:
        UserError: the options do not go together.
    """

    model: Any
    optimizer: Callable[..., Optimizer]
    scheduler: Callable[..., Any] | None = None
    generation: Mapping[str, Any] | None = None
    loss: Callable[[Any, Batch], tuple[Tensor, Tensor]] | None = None
    label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    non_finite: Literal["stop", "skip"] = "stop"
    torch_compile: bool | Mapping[str, Any] = False
    metrics: Mapping[str, Metric] | None = None

    auto_class: ClassVar[type]
    inputs: ClassVar[
        Sequence[str]
    ] = ()  # the roles that predictions repeat, where a batch has them
    sample_columns: ClassVar[Sequence[str]] = ("prediction", "reference")
    same_bits: ClassVar[bool] = False  # on any number of devices (`trainer.same_bits`)
    _compiled: ClassVar[Callable[..., Any] | None] = None

    def __post_init__(self) -> None:
        assert type(self).__hash__ is not None, "decorate with dataclass(kw_only=True, eq=False)"
        super().__init__()
        self.make_model, self.model = self.model, None
        self.evaluation = Evaluation(self.metrics)
        self.gradient: Gradient | None = None  # of a training
        self.evaluated = EvaluationWeights([])  # of its optimizer
        self.positions: int | None = None  # of the model, where they are limited
        self._restored: dict[str, Any] = {}
        self._loaded: dict[str, Any] | None = None  # until it is known to fit
        self._step_metrics: dict[str, Tensor | float] = {}
        self.generating = {k: v for k, v in (self.generation or {}).items() if v is not None}
        check_generation(self.generating)
        if self.loss is not None and self.label_smoothing:
            raise UserError(
                "task.loss is a loss of its own: task.label_smoothing does nothing to it."
            )

    # ------------------------------------------------------------ what a subclass says

    def own_loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed loss of a batch and its weight, the number of targets (scalars)."""
        raise NotImplementedError

    def decode(self, outputs: Any, batch: Batch) -> dict[str, list]:
        """Return the columns of a batch's predictions, a value each for each row of it.

        A batch of an evaluation has labels, one of a prediction need not.
        """
        raise NotImplementedError

    def build_metrics(self) -> dict[str, Metric]:
        """Return the task's metrics; the data module and the model are there by now.

        A metric whose value is a dict is logged under the names in it, which it says as `names`.
        """
        return {}

    def score(self, outputs: Any, batch: Batch, columns: Mapping[str, list]) -> Scores:
        """Return what the metrics of `build_metrics` are updated with, by name.

        And as `further` a pair for those of `task.metrics`: scores, or texts, and what is right.
        """
        raise NotImplementedError

    def model_arguments(self) -> dict[str, Any]:
        """Return what the model's config takes from the data, such as `num_labels`."""
        return {}

    def default_generation(self) -> dict[str, Any]:
        """Return generation values for where neither config nor checkpoint has one."""
        return {}

    # ------------------------------------------------------------ the model

    @property
    def datamodule(self) -> TaskData:
        """The data module in use."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def configure_model(self) -> None:
        """Build the model, once, and the metrics; the data module is set up by now."""
        if self.model is not None:
            return
        processor = self.datamodule.load_processor()
        with waiting("loading the model"):
            recipe = partial(self.make_model, self.auto_class, processor, **self.model_arguments())
            self.model = sharding.built(self.trainer.strategy, recipe)
        check_callbacks(self.model, self.trainer.callbacks)  # type: ignore[attr-defined]
        settle_generation(self.model, self.default_generation, self.generating)
        accepted = inspect.signature(self.model.forward).parameters
        self._forward_names = frozenset(accepted)
        limit = f"data.{self.datamodule.shape.length_limit}"
        self.positions = check_positions(self.model, self.datamodule.longest(), limit)
        if self.torch_compile:
            # past the module's own attributes: its parameters are there once
            self.__dict__["_compiled"] = compiled(self.model, self.torch_compile)
        self.evaluation.metrics = nn.ModuleDict(self.build_metrics()).to(self.device)
        check_monitors(self.trainer.callbacks, self)  # type: ignore[attr-defined]

    def forward(self, batch: Batch) -> Any:
        """Call the model with those entries of the batch that its `forward` names, but labels.

        Without labels it returns logits and leaves the loss to the task.
        """
        compiled = self._compiled if self.training else None
        model = self.model if compiled is None else compiled
        names = self._forward_names - {"labels"}
        return model(**{name: batch[name] for name in names & batch.keys()})

    # ------------------------------------------------------------ evaluation and prediction

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Update loss and metrics, and return the predictions."""
        self.evaluation.end_sets(dataloader_idx)
        return evaluate_in_step(self, batch, batch_idx, dataloader_idx)

    def test_step(self, batch: Batch, batch_idx: int) -> Any:
        """Update loss and metrics, and return the predictions."""
        return evaluate_in_step(self, batch, batch_idx)

    def evaluation_step(self, batch: Batch) -> PredictedRows:
        """Update loss and metrics, and return the predictions."""
        outputs = self(batch)
        loss_sum, weight = self.loss_and_weight(outputs, batch)
        columns = self.decode(outputs, batch)
        self.evaluation.update(loss_sum, weight, self.score(outputs, batch, columns))
        return self.rows(batch, columns)

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> PredictedRows:
        """Return the predictions."""
        return self.rows(batch, self.decode(self(batch), batch))

    def rows(self, batch: Batch, columns: Mapping[str, Sequence[Any]]) -> PredictedRows:
        """Lay columns out as one dict a row, beside the row's number and the `inputs` of it."""
        table = {"row": batch["row"].tolist()}
        table |= {role: batch[role] for role in self.inputs if role in batch}
        return rows_of({**table, **columns})

    def validation_prefixes(self) -> list[str]:
        """Return what stands before the names of each set that a validation evaluates."""
        return ["val/", *(f"val/{name}/" for name in self.datamodule.validation_sets[1:])]

    def evaluated_names(self) -> tuple[list[str], bool]:
        """Return the names that a validation logs, and whether there may be others."""
        names, others = self.evaluation.names()
        return [prefix + name for prefix in self.validation_prefixes() for name in names], others

    def on_validation_epoch_start(self) -> None:
        """Let each process see the batches of all, where evaluations are to have the same bits."""
        if self.same_bits and self.trainer.world_size > 1:
            self.evaluation.share(evaluated_batches(self.trainer))

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        """Log `val/…`, and `val/<name>/…` for each set of `data.extra_eval`."""
        prefixes = self.validation_prefixes()
        sets = self.evaluation.take_sets(len(prefixes))
        for prefix, values in zip(prefixes, sets, strict=True):
            self.log_evaluation(prefix, values)

    def on_test_epoch_end(self) -> None:
        """Log `test/…`."""
        self.log_evaluation("test/", self.evaluation.compute())

    def log_evaluation(self, prefix: str, values: Mapping[str, Tensor]) -> None:
        """Log the values of one set."""
        self.log_dict({f"{prefix}{name}": value.float() for name, value in values.items()})
        if self.trainer.state.fn != "validate":
            self.log("step", float(self.trainer.global_step))  # loggers count optimizer steps

    # ------------------------------------------------------------ training

    def loss_and_weight(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the configured loss's sum and weight for a batch."""
        if self.loss is None:
            return self.own_loss(outputs, batch)
        return custom_loss(self.loss, outputs, batch)

    def on_fit_start(self) -> None:
        """Begin the gradients; what was saved of them is restored by now."""
        self.evaluated = EvaluationWeights(self.trainer.optimizers)
        self.gradient = Gradient(
            capacity=self.datamodule.target_capacity,
            non_finite=self.non_finite,
            scaler=self.trainer.precision == "16-mixed",
            deferred=self.device.type != "cpu",
            checkpoint=Path(self.trainer.default_root_dir) / "checkpoints" / "last.ckpt",
            skipped=self._restored.get("skipped", 0),  # older runs did not count
            tree=begin_tree(self),
        )
        self._step_metrics = self._restored.get("step_metrics", {})

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return what backward runs on, the summed loss over a constant (`tasks/gradient.py`)."""
        assert self.gradient is not None
        seed_training(self.datamodule.seed, self.trainer, batch_idx)
        loss = adalora.penalized(self.model, *self.loss_and_weight(self(batch), batch))
        return self.gradient.add(*loss, batch["row"], micro_batches(self.trainer, batch_idx))

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Make the gradients those of the mean over the step's targets, and clip them."""
        assert self.gradient is not None
        seed_optimizer(self.datamodule.seed, self.trainer)
        by_value = gradient_clip_algorithm == "value"
        values = self.gradient.finish(
            trained(optimizer),
            step=self.trainer.global_step + 1,
            divisor=divided_by(self),
            reduce=reduction(self),
            clip_norm=None if by_value else gradient_clip_val,
            clip_value=gradient_clip_val if by_value else None,
        )
        lr = rate_of(optimizer)
        self._step_metrics = {"train/loss": values["train/loss"], **lr, **values}

    @property
    def step_metrics(self) -> dict[str, Tensor | float]:
        """What the last optimizer step logs: loss, learning rate, gradient norm, steps left out.

        The loss is the mean over all the targets of the step, on all devices.

        Raises:
            UserError: the step's loss or gradient is not finite, and the run is to stop there.
        """
        self.check_gradient()
        return self._step_metrics

    @property
    def shown_metrics(self) -> dict[str, Tensor | float]:
        """The same values, finite or not: for one process alone, where all have to raise alike."""
        return self._step_metrics

    def check_gradient(self) -> None:
        """Raise a `UserError` if the last step was not finite and the run is to stop there.

        No weights that a step has spoilt are to be evaluated, or exported at the end.
        """
        if self.gradient is not None:
            self.gradient.check()

    on_train_epoch_end = check_gradient

    def on_validation_start(self) -> None:
        """Put in the weights that a schedule-free optimizer evaluates."""
        self.check_gradient()
        self.evaluated.put()

    def on_validation_end(self) -> None:
        """Take back the weights that are trained, and let a schedule follow the evaluation."""
        self.evaluated.take_back()
        follow_evaluation(self.trainer)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the last step has logged, and the count of steps that were left out."""
        checkpoint["step_metrics"] = {n: float(value) for n, value in self.step_metrics.items()}
        checkpoint["skipped"] = 0 if self.gradient is None else self.gradient.skipped
        checkpoint["trained"] = trained_by(self, *optimized(self.trainer))
        adapters.leave_base_out(checkpoint, self.model)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was saved until training begins; a `UserError` where it does not fit."""
        adapters.put_base_back(checkpoint, self.model)
        if self.trainer.strategy.lightning_restore_optimizer:  # and not the strategy its own
            check_loaded(checkpoint, self.state_dict(), self.trainer.callbacks)  # type: ignore[attr-defined]
            self._loaded = checkpoint
        self._restored = {n: checkpoint[n] for n in ("skipped", "step_metrics") if n in checkpoint}

    check_checkpoint = check_before_reading

    def configure_optimizers(self, steps: int | None = None) -> OptimizerLRScheduler:
        """Build the optimizer and its schedule, of as many steps as the trainer's unless said."""
        return configured(self, steps)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Let a schedule take its step; one that goes by evaluations has done so."""
        if not hasattr(scheduler, "monitor"):
            scheduler.step()
