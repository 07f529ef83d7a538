"""Tasks whose targets are tokens of a vocabulary, and the memory that their losses take."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from hydralight.errors import UserError
from hydralight.tasks import kernels
from hydralight.tasks.data import Batch
from hydralight.tasks.head import Head, head_of
from hydralight.tasks.losses import token_cross_entropy
from hydralight.tasks.projection import are_many
from hydralight.tasks.task import Task

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False, repr=False)
class LanguageTask(Task):
    """What tasks share that predict tokens.

    Args:
        chunked_loss: Whether the logits of a batch with labels are made, and their losses computed,
            for some rows at a time, so that they never are in memory as a whole. `auto` does where
            there are more than 2**25 of them (2**27 on a GPU), and the model is one whose
            logits are what its output embedding gives. A `task.loss`, and in an evaluation
            `task.metrics`, get all logits.

    Raises:
        UserError: it is true, and the logits are needed as a whole.
    """

    chunked_loss: bool | Literal["auto"] = "auto"

    _head: ClassVar[Head | str | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chunked_loss is True and self.loss is not None:
            raise UserError("task.loss gets the logits as a whole: leave task.chunked_loss out.")

    def configure_model(self) -> None:
        """Build the model, and see whether its last projection can be left out, where it has to."""
        if self.has_kernels and self.trainer.state.fn == "fit":
            kernels.check_there(self)
        super().configure_model()
        if self.chunked_loss is True and isinstance(self.head, str):
            kind = self.model.config.model_type
            raise UserError(
                f"task.chunked_loss=true does not go with this {kind}: {self.head}; leave it out."
            )

    @property
    def has_kernels(self) -> bool:
        """Whether `model.kernels` are asked for."""
        return getattr(self.make_model, "kernels", None) is not None

    def on_train_start(self) -> None:
        """Try kernels before they are trained with, where they are asked for."""
        super().on_train_start()
        if self.has_kernels:
            kernels.try_kernels(self, self.plain_loss)

    def plain_loss(self, batch: Batch) -> Tensor:
        """Return the mean loss of a batch's tokens (scalar), whatever the task's own loss is."""
        labels = batch["labels" if "labels" in batch else "input_ids"]
        outputs = LanguageTask.forward(self, {**batch, "labels": labels, "use_cache": False})
        loss_sum, weight = token_cross_entropy(outputs.logits, labels)
        return loss_sum / weight

    @property
    def head(self) -> Head | str:
        """The projection that makes the logits; or why it cannot be left out."""
        if self._head is None:
            found = head_of(self.model)
            self.__dict__["_head"] = found  # past the module's own attributes
            if isinstance(found, str):
                log.info("task.chunked_loss: logits are made as a whole: %s", found)
        assert self._head is not None
        return self._head

    def head_to_leave_out(self, batch: Batch) -> Head | None:
        """Return the projection that a call with a batch leaves out; None where logits are made."""
        if "labels" not in batch or self.chunked_loss is False or self.loss is not None:
            return None
        if not self.training and len(self.evaluation.further):
            return None
        projection = self.model.get_output_embeddings()
        if self.chunked_loss == "auto" and not are_many(batch["labels"], projection):
            return None
        return None if isinstance(self.head, str) else self.head

    def before_logits(self, batch: Batch, call: Callable[[Batch], Any]) -> Any:
        """Return the outputs of a call with a batch.

        Their `logits` are, where the logits need not be in memory as a whole, an `Unprojected`.
        """
        head = self.head_to_leave_out(batch)
        if head is None:
            return call(batch)
        with head.left_out():
            outputs = call(batch)
        outputs.logits = head.before(outputs.logits)
        return outputs

    def forward(self, batch: Batch) -> Any:
        """Call the model, up to its logits or up to what they are made of."""
        return self.before_logits(batch, super().forward)
