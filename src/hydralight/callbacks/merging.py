"""An adapter that is merged into its base for the export, and verified by the task's forward."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from transformers import PreTrainedModel

from hydralight import quantization, quantized_base
from hydralight.adapters import attached_to
from hydralight.errors import UserError, told

MERGE = "callbacks.best_model.merge=true"
ULPS = 100  # what a sum in another order may be off by, in units in the last place


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


@torch.no_grad()
def merged(model: PreTrainedModel, logits: Callable[[PreTrainedModel], Tensor]) -> PreTrainedModel:
    """Return a copy of a model with the adapter added into its weights, once that is verified.

    A base in 4 bits is one of ordinary matrices by then, which hold what its 4 bits stand for.

    Args:
        model: With an adapter.
        logits: Returns what a model says of some batch.

    Raises:
        UserError: it says another thing once it is merged, by more than the precision of its
            weights explains: `ULPS` of the largest logit, or of 1. Or its base is in 8 bits.
    """
    whole: Any = copy.deepcopy(model).eval()
    before = logits(whole).double()
    how = quantization.how(model) or {}
    if how.get("quantization") == "int8":
        raise UserError(
            f"{MERGE}: in 8 bits, what goes into a matrix is rounded too, and no merged model "
            "says the same: leave it out, or take model.quantization=nf4."
        )
    if quantization.layers_of(model):
        whole = quantized_base.restored(whole)
    own = attached_to(whole)
    assert own is not None
    with told(MERGE):
        whole = own.peft.merge_and_unload(safe_merge=True)
    del vars(whole)["adapter"]
    after = logits(whole).double()
    apart = float((after - before).abs().max())
    computed = getattr(torch, how.get("compute_dtype") or str(whole.dtype).removeprefix("torch."))
    eps = max(torch.finfo(one).eps for one in (whole.dtype, computed))
    bound = ULPS * eps * max(1.0, float(before.abs().max()))
    if not apart <= bound:
        raise UserError(
            f"{MERGE}: the merged model's logits differ by {apart:.1e} from the adapter's, and "
            f"{bound:.1e} is what {computed} explains: leave it out, and the adapter is "
            "exported as it was measured."
        )
    return whole
