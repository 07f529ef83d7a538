"""Liger's kernels, after a try of what they do to losses and gradients (`model.kernels=liger`)."""

import importlib.util
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hydralight.errors import UserError
from hydralight.optim.build import trained
from hydralight.shards import is_sharded
from hydralight.tasks.data import Batch

log = logging.getLogger(__name__)

Outcome = tuple[Tensor, list[Tensor]]  # a loss (scalar), and its gradients
# what losses and gradients part by, relative to their size, where sums are in another order
FLOOR = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3, torch.float64: 1e-10}


def check_there(task: Any) -> None:
    """See that there are kernels, and a device that runs them; no data has to be there yet.

    Raises:
        UserError: there are none, or something else does not go with them.
    """
    if importlib.util.find_spec("liger_kernel") is None:
        raise UserError(
            "model.kernels=liger needs a package that is not installed: "
            "pip install 'hydralight[kernels]'"
        )
    if not torch.cuda.is_available():
        raise UserError("model.kernels=liger needs a GPU, and there is none: leave it out.")
    if task.torch_compile:
        raise UserError(
            "task.torch_compile makes kernels of its own: leave it out, or model.kernels."
        )


def apply_liger(model: Any) -> None:
    """Put Liger's kernels into a model, except for those of losses, which are the task's.

    Raises:
        UserError: there are none for it.
    """
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN
    from transformers.integrations.liger import apply_liger_kernel

    kind = model.config.model_type
    if kind not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        known = ", ".join(sorted(MODEL_TYPE_TO_APPLY_LIGER_FN))
        raise UserError(f"model.kernels=liger: Liger has none for {kind} (it has for {known}).")
    apply_liger_kernel(model, {"cross_entropy": False, "fused_linear_cross_entropy": False})


def try_kernels(task: Any, loss_of: Callable[[Batch], Tensor]) -> None:
    """Put kernels into a task's model, and compare two batches' losses and gradients.

    They may part from those of the plain model by twice what these part from 32 bits', and by what
    another order of a sum explains.

    Args:
        task: Whose training begins.
        loss_of: Returns the loss of a batch (scalar).

    Raises:
        UserError: they part by more.
    """
    if is_sharded(task.model):
        raise UserError("model.kernels does not go with sharded training: leave it out.")
    parameters = trained(*task.trainer.optimizers)
    batches = list(first_batches(task))
    devices = [task.device] if task.device.type == "cuda" else []

    def outcomes() -> list[Outcome]:
        found = []
        for batch in batches:
            with torch.random.fork_rng(devices):  # the same dropout
                torch.manual_seed(0)
                loss = loss_of(batch)
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            found.append((loss.detach(), [one for one in gradients if one is not None]))
        return found

    with task.trainer.precision_plugin.forward_context():
        plain = outcomes()
        noise = 0.0
        kind = task.device.type
        if torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                noise = apart(plain, outcomes())
        apply_liger(task.model)
        found = apart(plain, outcomes())
    bound = max(2 * noise, FLOOR.get(task.model.dtype, 1e-4))
    said = (
        f"on {len(batches)} batches, losses and gradients part by {found:.1e} from those without "
        f"(the precision explains {bound:.1e})"
    )
    if not found <= bound:
        raise UserError(f"model.kernels=liger: {said}: leave it out.")
    log.info("model.kernels=liger: %s", said)


def first_batches(task: Any, number: int = 2) -> Iterator[Batch]:
    """Yield this process's first batches of the epoch; reading them moves nothing on."""
    loader = task.trainer.train_dataloader
    for places in loader.batch_sampler.of_epoch(task.trainer.current_epoch, 0, number):
        batch = loader.collate_fn(loader.dataset.__getitems__(places))
        yield task.transfer_batch_to_device(batch, task.device, 0)


def apart(one: Sequence[Outcome], other: Sequence[Outcome]) -> float:
    """Return how far outcomes part, relative to the first: losses, or gradients as a whole."""
    largest = 0.0
    for (loss, gradients), (its_loss, its_gradients) in zip(one, other, strict=True):
        size = torch.stack([g.float().norm() for g in gradients]).norm()
        pairs = zip(gradients, its_gradients, strict=True)
        difference = torch.stack([(a.float() - b.float()).norm() for a, b in pairs]).norm()
        parts = (float((loss - its_loss).abs() / loss.abs()), float(difference / size))
        largest = max(largest, *(p if p == p else float("inf") for p in parts))
    return largest
