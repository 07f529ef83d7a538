"""An adapter that is merged into its base for the export, and verified by the task's forward."""

from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor

from hydralight.adapters import attached_to, merged
from hydralight.errors import UserError

MERGE = "callbacks.best_model.merge=true"


def verified(model: Any, pl_module: LightningModule, batch: Any) -> Any:
    """Return a copy of a model with its adapter in its weights.

    Args:
        model: That of the task, or the one of averaged weights.
        pl_module: The task.
        batch: The first one of the validation; None where there was none.

    Raises:
        UserError: there is no adapter, nothing to verify it by, or the logits differ.
    """
    if attached_to(model) is None:
        raise UserError(f"{MERGE}: the model has no adapter; choose one by adapter=lora, say.")
    if batch is None:
        raise UserError(
            f"{MERGE} is verified on the validation's first batch, and there was no validation: "
            "leave it out, or evaluate."
        )

    def logits(one: Any) -> Tensor:
        live, training = pl_module.model, pl_module.training
        # in evaluation nothing is called that was compiled
        pl_module.model, pl_module.training = one, False
        try:
            return next(iter(pl_module(batch).values()))
        finally:
            pl_module.model, pl_module.training = live, training

    return merged(model, logits)
