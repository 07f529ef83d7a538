"""Tasks whose loss compares a language model with a reference that stays what it is."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from hydralight.tasks.causal_lm import CausalLMTask
from hydralight.tasks.data import Batch
from hydralight.tasks.reference import add_reference, build_reference, refers_to_itself


@dataclass(kw_only=True, eq=False, repr=False)
class ReferringTask(CausalLMTask):
    """A subclass says what it asks a reference for.

    Args:
        reference: Recipe of another model to refer to than the one that training begins with.
    """

    reference: Any = None

    columns: ClassVar[tuple[str, ...]]  # of a batch, for what a reference gives

    @staticmethod
    def asked(model: Any, batch: Batch) -> Tensor:
        """Return what a model gives to the rows of a batch (rows, columns)."""
        raise NotImplementedError

    @property
    def has_reference(self) -> bool:
        """Whether the loss compares the model with a reference."""
        return True

    def configure_model(self) -> None:
        """Build the model, and see what its reference gives to the answers that are to come."""
        if self.model is not None:
            return
        asked = self.columns, self.asked
        if self.reference is not None and self.datamodule.encoded_splits():
            add_reference(self, build_reference(self), *asked)
        super().configure_model()
        if self.has_reference and self.reference is None and not refers_to_itself(self):
            add_reference(self, self.model, *asked)
