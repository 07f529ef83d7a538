"""Causal language modelling with segment-level recurrence."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge
from transformers import Cache, DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

from hydralight.config.ranges import NotNegative
from hydralight.errors import UserError
from hydralight.shards import is_sharded
from hydralight.tasks.causal_lm import CausalLMTask
from hydralight.tasks.data import Batch


@dataclass(kw_only=True, eq=False, repr=False)
class RecurrentLMTask(CausalLMTask):
    """Reads a document segment by segment, and remembers the one before (Dai et al., 2019).

    The memory is a key/value cache of limited length through which no gradient flows. Any model
    with rotary positions carries it: a text of any length is read with the same distances. The
    segments of a batch of documents are one training batch; its activations are kept until its
    backward pass.

    Args:
        segment_length: Tokens that are read at once.
        memory_length: Tokens before them that can be looked back to; 0 turns the memory off.
    """

    segment_length: Annotated[int, Ge(2)] = 128
    memory_length: NotNegative = 128

    def configure_model(self) -> None:
        """Build the model, and see that it can be recurrent."""
        super().configure_model()
        if getattr(self.datamodule.shape, "packing", False):
            raise UserError(
                "data.packing does not go with segment-level recurrence, which reads each text "
                "from its beginning: leave it out."
            )
        kind = self.model.config.model_type
        if getattr(self.model.config, "rope_parameters", None) is None:
            raise UserError(
                f"segment-level recurrence needs rotary positions, which {kind} does not have: "
                "take a model like llama."
            )
        if is_sharded(self.model):
            raise UserError(
                "trainer=fsdp does not go with segment-level recurrence: devices would read "
                "different numbers of segments, and wait for one another; take trainer=ddp."
            )
        if self.model.is_activation_checkpointing:
            raise UserError(
                "model.gradient_checkpointing does not go with segment-level recurrence, which "
                "needs the model's cache: lower data.max_length or data.batch_size instead."
            )

    def forward(self, batch: Batch) -> CausalLMOutputWithPast:
        """Return the logits (batch, length, vocabulary) of whole documents.

        Padding stands at the end, where no token that counts can see it.
        """
        return self.before_logits(batch, self.read)

    def read(self, batch: Batch) -> CausalLMOutputWithPast:
        """Return what the model gives for the segments, side by side."""
        ids, memory, logits = batch["input_ids"], None, []
        if self.memory_length:
            memory = DynamicCache(config=self.model.config)
        for start in range(0, ids.shape[1], self.segment_length):
            segment = ids[:, start : start + self.segment_length]
            positions = torch.arange(start, start + segment.shape[1], device=ids.device)
            outputs = self.model(
                input_ids=segment,
                position_ids=positions.expand_as(segment),
                past_key_values=memory,
                use_cache=memory is not None,
            )
            logits.append(outputs.logits)
            if memory is not None:
                forget(memory, self.memory_length)
        return CausalLMOutputWithPast(logits=torch.cat(logits, dim=1))


def forget(memory: Cache, length: int) -> None:
    """Keep the last tokens of a cache, without their gradients."""
    layers: list[Any] = memory.layers
    for layer in layers:
        layer.keys = layer.keys[:, :, -length:].detach()
        layer.values = layer.values[:, :, -length:].detach()
