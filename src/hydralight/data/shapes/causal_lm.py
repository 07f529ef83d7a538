"""Texts of which every token is to be predicted from those before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydralight.data.documents import Documents
from hydralight.data.packing import pack
from hydralight.data.shape import Batch, Purpose, Row
from hydralight.errors import UserError


@dataclass(frozen=True, kw_only=True)
class CausalLM(Documents):
    """Causal language modelling: every token is a target.

    Args:
        packing: Lay the texts of a training batch side by side into rows without padding, instead
            of one below the other; the loss is the same. Then there are `position_ids` instead
            of `attention_mask`.
    """

    packing: bool = False

    ends = True
    not_encoded = ("packing",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.packing and self.block_size is not None:
            raise UserError("data.packing is for texts that are not joined: leave out block_size.")

    def extra_columns(self, processor: Any, purpose: Purpose) -> Sequence[str]:
        """Return `num_bytes` for evaluation, where the tokenizer can tell them."""
        return ["num_bytes"] if purpose == "evaluate" and processor.is_fast else []

    def pad(
        self,
        rows: Sequence[Row],
        processor: Any,
        pad_to_multiple_of: int | None = None,
        purpose: Purpose = "evaluate",
    ) -> Batch:
        """Pad; or pack training batches where asked."""
        if self.packing and purpose == "train":
            documents = [row["input_ids"] for row in rows]
            return pack(documents, processor.pad_token_id, pad_to_multiple_of)
        return super().pad(rows, processor, pad_to_multiple_of, purpose)
