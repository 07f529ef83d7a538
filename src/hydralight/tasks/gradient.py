"""The gradient of an optimizer step: the mean over all of its targets."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from hydralight.errors import UserError
from hydralight.shards import local, total_norm
from hydralight.tasks.gradient_tree import GradientTree

log = logging.getLogger(__name__)

Part = tuple[Tensor, Tensor]  # a micro-batch's summed loss (scalar), and its rows (batch,)


@dataclass
class Gradient:
    """Turns gradients of summed losses into that of the mean over a step's targets.

    Call `add` for each micro-batch and run backward on what it returns; then, once a step, call
    `finish`. However the targets are split over micro-batches and devices, the gradient is that of
    their sum of losses over their number. Losses and numbers are added up in 64 bits.

    A step whose loss or gradient is not finite stops the run, or is left out. Whether it is, a
    device tells only when it has computed it. Where the check is `deferred`, a step is finished
    without waiting for that, and what it told is looked at when the next one is finished, or in
    `check`, which is to be called before anything is made of the weights (a checkpoint, an
    evaluation). `skip` must know it before the optimizer steps, and so waits in every step.

    Args:
        capacity: About how many targets a micro-batch holds. Backward runs on the sum over this,
            so that 16 bits can hold it; it cancels out.
        non_finite: Whether such a step stops the run, or is left out.
        scaler: Whether a gradient scaler (16-mixed) leaves out steps of infinite gradients; only
            the loss is checked then.
        deferred: Whether a step is checked when the next one is finished.
        checkpoint: Named where the run stops, if the file is there.
        skipped: How many steps have been left out so far.
        tree: In which order gradients are added up; unless given, one after the other.
    """

    capacity: float
    non_finite: Literal["stop", "skip"] = "stop"
    scaler: bool = False
    deferred: bool = False
    checkpoint: Path | None = None
    skipped: int = 0
    tree: GradientTree | None = None
    _window: list[Tensor] = field(default_factory=list, init=False)  # (loss sum, weight) of each
    _parts: list[Part] = field(default_factory=list, init=False)
    _pending: "Verdict | None" = field(default=None, init=False)

    def add(self, loss_sum: Tensor, weight: Tensor, rows: Tensor, number: int = 1) -> Tensor:
        """Note a micro-batch, and return what backward is to run on (a scalar).

        Args:
            loss_sum: The sum of its losses, with its graph (scalar).
            weight: The number of its targets, or the sum of their weights (scalar); 0 for none.
            rows: Their numbers in the training data (batch,), to name where a loss is not finite.
            number: Micro-batches of this process in the step.
        """
        if self.tree is not None:
            self.tree.begin(len(self._parts), number)
        exact = torch.float32 if loss_sum.device.type == "mps" else torch.float64  # it has no other
        self._window.append(torch.stack([loss_sum.detach().to(exact), weight.to(exact)]))
        self._parts.append((loss_sum.detach(), rows))
        return loss_sum / self.capacity

    def finish(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        step: int,
        divisor: float = 1.0,
        reduce: Callable[[Tensor], Tensor] | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> dict[str, Tensor | float]:
        """Scale and clip the gradients in place, in one pass, and begin a new step.

        Args:
            parameters: Of the optimizer; their `grad` has all micro-batches of all devices.
            step: The number of this optimizer step, from 1.
            divisor: What the gradients have been divided by since backward: the number of
                micro-batches where the trainer takes their mean, times that of the devices.
            reduce: Adds up the loss sums and weights of all devices: of those of this one
                (micro-batches, 2) it makes (2,). None where there is one device.
            clip_norm: The norm that the gradient is cut down to, if it is larger.
            clip_value: What no entry's size exceeds.

        Returns:
            `train/loss`, the mean over the targets (NaN without any), `train/grad_norm`, that
            before clipping, and `train/skipped`, where steps have been left out.

        Raises:
            UserError: this step is not finite, or, deferred, the one before, and `non_finite` is
                `stop`.
        """
        assert self._window, "finish() comes after add()"
        window, parts, self._window, self._parts = torch.stack(self._window), self._parts, [], []
        loss_sum, weight = window.sum(dim=0) if reduce is None else reduce(window)
        if self.tree is not None:
            self.tree.finish()
        factor = self.factor(weight, divisor).float()
        trained = [p for p in parameters if p.grad is not None]
        gradients = [p.grad for p in trained if p.grad is not None]
        norm = total_norm(gradients).to(factor.device) * factor
        self.check()
        finite = torch.isfinite(loss_sum if self.scaler else loss_sum + norm)
        self._pending = Verdict(step, finite, parts)
        values: dict[str, Tensor | float] = {
            "train/loss": (loss_sum / weight).float(),
            "train/grad_norm": norm,
        }
        left_out = not self._is_deferred and not self.check()
        if self.skipped:
            values["train/skipped"] = self.skipped
        if left_out:
            if not self.scaler:  # which leaves the step out itself
                for parameter in trained:
                    parameter.grad = None  # without gradients, an optimizer changes nothing
            return values
        if clip_norm:
            factor = factor * (clip_norm / (norm + 1e-6)).clamp(max=1.0)  # as torch does
        own = local(gradients)  # perhaps in the host's memory
        torch._foreach_mul_(own, factor.to(own[0].device) if own else factor)
        if clip_value:
            for one in own:
                one.clamp_(-clip_value, clip_value)
        return values

    def factor(self, weight: Tensor, divisor: float) -> Tensor:
        """Return what turns gradients of scaled sums into that of the mean; 0 without a target."""
        return torch.where(weight > 0, self.capacity * divisor / weight, 0.0)

    @property
    def _is_deferred(self) -> bool:
        return self.deferred and self.non_finite == "stop"

    def check(self) -> bool:
        """Return whether the last finished step was finite, waiting for the device to tell.

        Each step is looked at once; a later call returns True.

        Raises:
            UserError: it was not, and `non_finite` is `stop`.
        """
        verdict, self._pending = self._pending, None
        if verdict is None or verdict.is_finite():
            return True
        rows = named(verdict.parts)
        if self.non_finite == "stop":
            last = ""
            if self.checkpoint is not None and self.checkpoint.exists():
                last = f"; the last checkpoint is {self.checkpoint}"
            raise UserError(
                f"the loss or its gradient is not finite at step {verdict.step} (in the loss of "
                f"{rows} of the training data, counted from 0){last}. task.non_finite=skip leaves "
                "such steps out."
            )
        self.skipped += 1
        log.warning(
            "step %d is left out: its loss or gradient is not finite (%s)", verdict.step, rows
        )
        return False


class Verdict:
    """Whether a step is finite, on its way from the device.

    Args:
        step: The optimizer step.
        finite: The answer (scalar, bool), on the device.
        parts: The step's micro-batches.
    """

    def __init__(self, step: int, finite: Tensor, parts: Sequence[Part]) -> None:
        self.step = step
        self.parts = parts
        self._event: torch.cuda.Event | None = None
        if finite.device.type == "cuda":
            # into pinned memory, or the copy waits for all that the device has still to do
            host = torch.empty((), dtype=torch.bool, pin_memory=True)
            finite = host.copy_(finite, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        self._finite = finite

    def is_finite(self) -> bool:
        """Wait for the answer, and return it."""
        if self._event is not None:
            self._event.synchronize()
        # of a tensor on the host this is a look at its memory, while bool() asks its device
        return bool(self._finite.cpu().numpy())


def named(parts: Sequence[Part]) -> str:
    """Name the rows of the micro-batches whose loss is not finite."""
    bad = [row for loss_sum, rows in parts if not torch.isfinite(loss_sum) for row in rows.tolist()]
    return f"rows {', '.join(map(str, bad))}" if bad else "no row of its own"
