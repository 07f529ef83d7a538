"""A model whose last projection, from hidden states to logits, is left out of a call."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from hydralight.shards import is_sharded
from hydralight.tasks.projection import Unprojected, are_many, projected

AFTER = "final_logits_bias"  # of BART and its kin, added to what their head gives


@dataclass(frozen=True)
class Head:
    """The projection of a model that makes its logits.

    Args:
        model: A model of transformers.
        linear: Its output embedding.
    """

    model: Any
    linear: nn.Linear

    @contextmanager
    def left_out(self, times: float = 1.0) -> Iterator[None]:
        """Let calls of the model give hidden states, perhaps times something, as `logits`."""
        after = getattr(self.model, AFTER, None)
        instead: Any = same if times == 1 else lambda hidden: hidden * times
        self.linear.forward = instead  # type: ignore[method-assign]
        if after is not None:
            setattr(self.model, AFTER, after.new_zeros(1, 1))
        try:
            yield
        finally:
            del self.linear.forward
            if after is not None:
                setattr(self.model, AFTER, after)

    def before(self, hidden: Tensor) -> Unprojected:
        """Return what stands in the place of the logits of hidden states (…, width)."""
        bias, after = self.linear.bias, getattr(self.model, AFTER, None)
        if after is not None:
            bias = after[0] if bias is None else bias + after[0]
        return Unprojected(hidden, self.linear.weight, bias)


_known: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()  # whether models can do without


def logits_for(model: Any, inputs: Any, labels: Tensor) -> Tensor | Unprojected:
    """Return a model's logits, or what stands in their place where they would take much memory.

    Args:
        model: A language model that is not trained with what is returned.
        inputs: Keyword arguments of its `forward`.
        labels: What log-probabilities are wanted of (batch, length).
    """
    if not are_many(labels, model.get_output_embeddings()):
        return model(**inputs).logits
    if model not in _known:  # the answer alone is kept: a head would keep its model in memory
        _known[model] = isinstance(head_of(model), Head)
    if not _known[model]:
        return model(**inputs).logits
    head = Head(model, model.get_output_embeddings())
    with head.left_out():
        hidden = model(**inputs).logits
    return head.before(hidden)


def same(hidden: Tensor) -> Tensor:
    """Return hidden states as they are."""
    return hidden


def head_of(model: Any) -> Head | str:
    """Return the projection that makes a model's logits; or why it cannot be left out.

    It is tried on a few tokens: a model may do something else to its logits behind the projection,
    as Gemma 2 does, which bounds them. A factor, as Cohere's and Granite's, is no difference.
    """
    linear = model.get_output_embeddings()
    if type(linear) is not nn.Linear or "forward" in vars(linear):
        return f"its output embedding is a {type(linear).__name__}, and no plain linear layer"
    if is_sharded(model):
        return "its weights are in shards"
    head = Head(model, linear)
    ids = torch.arange(8, device=linear.weight.device).reshape(2, 4)
    inputs = {"input_ids": ids, "use_cache": False}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    if not hasattr(model.config, "use_cache"):
        del inputs["use_cache"]
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(ids.device.type, enabled=False):
            logits = model(**inputs).logits.float()
            with head.left_out():
                hidden = model(**inputs).logits
            with head.left_out(times=1024):
                far = model(**inputs).logits
            before = head.before(hidden)
            apart = (projected(hidden, before.weight, before.bias) - logits).abs().max()
            bent = (far / 1024 - hidden).abs().max()
    except Exception:  # a model may do anything there
        return "what comes out of its output embedding is used otherwise than as logits"
    finally:
        model.train(training)
    close = 64 * torch.finfo(hidden.dtype).eps
    if apart > close * logits.abs().max() or bent > close * hidden.abs().max():
        return "its logits are not what its output embedding gives"
    return head
