"""How far training is: a bar for who looks on, lines for a file; and a line for each evaluation."""

import logging
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from hydralight.callbacks.best_model import BestModel
from hydralight.callbacks.lightning_seams import logging_is_due
from hydralight.devices import replica_of
from hydralight.progress import clock, interactive, listed, one_line, short, width

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

log = logging.getLogger(__name__)


class Progress(ProgressBar):
    """Shows a bar of one line on a terminal, and says a line from time to time elsewhere.

    A line is said at the first and the last step, and between them as often as the first of the two
    arguments asks for it. Loss and learning rate are read then, and on a terminal every
    `log_every_n_steps`: a step does not wait for the device. The time left is that of the steps
    that are left at the pace of this process so far, its evaluations included.

    Args:
        every_percent: Of the optimizer steps, between two lines.
        every_seconds: Between two lines.
    """

    def __init__(self, every_percent: float = 5, every_seconds: float = 30) -> None:
        super().__init__()
        self.every_percent = every_percent
        self.every_seconds = every_seconds
        self._enabled = True
        self._bar: Bar | None = None
        self._steps: float = 0  # of the whole run; may be infinite
        self._step = 0  # the last one whose end was seen
        self._said = -1  # the step of the last line
        self._said_at = 0.0  # when
        self._examples = 0  # since the loss was read last
        self._read_at = 0.0
        self._first = (0, 0.0)  # the first step of this process, and when it ended

    def enable(self) -> None:
        """Show."""
        self._enabled = True

    def disable(self) -> None:
        """Show nothing, as on processes that are not the first."""
        self._enabled = False

    # ------------------------------------------------------------ training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self._steps = trainer.estimated_stepping_batches
        self._step = self._said = trainer.global_step
        self._examples, self._read_at, self._said_at = 0, monotonic(), monotonic()
        self._first = (self._step, 0.0)
        self._show(self._epoch(trainer), self._step, self._steps)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a step that has ended, and show it where it is due."""
        self._examples += len(batch["row"])
        step, before = trainer.global_step, self._step
        self._step = step
        if step == before or not self._enabled:
            return
        if not self._first[1]:
            self._first = (step, monotonic())
        is_end = step in (self._first[0], self._steps)
        text = None
        if self._bar is not None and (is_end or logging_is_due(trainer)):
            text = f"loss {self._loss(pl_module)}{self._speed(trainer)}"
        elif self._bar is None and (is_end or self._line_is_due(step)):
            self._say(trainer, pl_module)
        self._show(self._epoch(trainer), step, self._steps, text)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say the last line, where the run ends earlier than it was to."""
        if self._enabled and self._bar is None and self._said < self._step:
            self._say(trainer, pl_module)
        self._hide()

    def _line_is_due(self, step: int) -> bool:
        part = (step - self._said) * 100 / self._steps >= self.every_percent
        return part or monotonic() - self._said_at >= self.every_seconds

    def _say(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total = "" if self._steps == float("inf") else f"/{self._steps:.0f}"
        shown: Any = pl_module.shown_metrics
        loss = self._loss(pl_module)
        lr = f"  lr {float(shown['lr']):.2e}" if "lr" in shown else ""  # an optimizer's own is not
        place = f"step {self._step}{total}  {self._epoch(trainer)}"
        log.info("%s  loss %s%s%s", place, loss, lr, self._speed(trainer))
        self._said, self._said_at = self._step, monotonic()

    def _loss(self, pl_module: Any) -> str:
        return short(float(pl_module.shown_metrics["train/loss"]))

    def _speed(self, trainer: Trainer) -> str:
        """Return speed and time left; the loss has been read, so that the device is done."""
        now = monotonic()
        rate = self._examples * replica_of(trainer)[1] / max(now - self._read_at, 1e-6)
        self._examples, self._read_at = 0, now
        done, left = self._step - self._first[0], self._steps - self._step
        speed = f"  {rate:,.{0 if rate >= 10 else 1}f} examples/s"
        if done and 0 < left < float("inf"):
            speed += f"  {clock((now - self._first[1]) / done * left)} left"
        return speed

    def _epoch(self, trainer: Trainer) -> str:
        whole = f"/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
        return f"epoch {trainer.current_epoch + 1}{whole}"

    # ------------------------------------------------------------ evaluation and prediction

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the evaluation in the place of training."""
        self._begin("evaluating", trainer.num_val_batches)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the evaluation."""
        self._begin("evaluating", trainer.num_test_batches)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the prediction."""
        self._begin("predicting", trainer.num_predict_batches)

    def _begin(self, what: str, batches: Any) -> None:
        total = sum(batches) if isinstance(batches, list) else batches
        self._what, self._batches, self._done, self._said_at = what, total, 0, monotonic()
        self._show(what, 0, total)

    def on_validation_batch_end(self, *args: Any) -> None:
        """Count a batch; a line is said each `every_seconds`."""
        self._done += 1
        self._show(self._what, self._done, self._batches)
        long = monotonic() - self._said_at >= self.every_seconds
        if self._enabled and self._bar is None and long:
            log.info("%s  batch %d/%.0f", self._what, self._done, self._batches)
            self._said_at = monotonic()

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end  # type: ignore[assignment]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what came out, and go on with training."""
        if trainer.state.fn != "fit":
            self._hide()
            return
        if self._enabled and not trainer.sanity_checking:
            log.info("%s", evaluated(trainer))
        self._examples, self._read_at, self._said_at = 0, monotonic(), monotonic()
        self._show(self._epoch(trainer), self._step, self._steps)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave no bar."""
        self._hide()

    on_predict_end = on_test_end

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave no bar above what is said of it."""
        self._hide()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave no bar."""
        self._hide()

    # ------------------------------------------------------------ the bar

    def _show(self, what: str, done: int, total: float, text: str | None = None) -> None:
        if not self._enabled or not interactive():
            return
        if self._bar is None:
            self._bar = one_line()
            self._bar.add_task(what, text="")
            self._bar.start()
        known = None if total == float("inf") else total
        task = self._bar.task_ids[0]
        self._bar.update(task, description=what, completed=done, total=known)
        if text is not None:
            self._bar.update(task, text=text)

    def _hide(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def evaluated(trainer: Trainer) -> str:
    """Return the line of an evaluation: its step, its metrics, and whether it is the best so far.

    The line fits the terminal; in a file it may be longer. What is left out is in `metrics.csv`.
    """
    values = {n: float(v) for n, v in trainer.callback_metrics.items() if n.startswith("val/")}
    keepers = [c for c in trainer.callbacks if isinstance(c, BestModel)]  # type: ignore[attr-defined]
    monitor = keepers[0].monitor if keepers else None
    best = any(is_best(keeper, values, trainer.global_step) for keeper in keepers)
    step, mark = f"step {trainer.global_step}  ", "  (best so far)" if best else ""
    return f"{step}{listed(values, monitor, width() - len(step) - len(mark))}{mark}"


def is_best(keeper: BestModel, values: Mapping[str, float], step: int) -> bool:
    """Whether an evaluation is the best so far, also where the keeper has not looked at it yet."""
    value, before = values.get(keeper.monitor, float("nan")), keeper.best_value
    if before is None or keeper.best_step == step:
        return value == value
    return value < before if keeper.mode == "min" else value > before
