"""Kernels are tried before they are trained with: here stand-ins that a CPU runs."""

import logging

import pytest
import torch

import hydralight
from hydralight.errors import UserError
from hydralight.tasks import kernels
from hydralight.tasks.gradient import Gradient


def rms(scale):
    """What a kernel for the norms of Llama computes, in an order of its own."""

    def forward(self, hidden):
        size = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True) ** 2 / hidden.shape[-1]
        return hidden * (self.weight * scale) / (size + self.variance_epsilon).sqrt()

    return forward


@pytest.fixture
def standing_in(monkeypatch):
    """Let a kernel stand in for Liger's, as if there were a GPU; return which models have it."""

    def stand_in(scale=1.0):
        given = []

        def apply(model):
            given.append(model)
            for module in model.modules():
                if type(module).__name__ == "LlamaRMSNorm":
                    module.forward = rms(scale).__get__(module)

        monkeypatch.setattr(kernels, "check_there", lambda task: None)
        monkeypatch.setattr(kernels, "apply_liger", apply)
        return given

    return stand_in


@pytest.fixture
def chat(recipe):
    few = ["trainer.max_epochs=1", "trainer.accumulate_grad_batches=1", "callbacks.samples=null"]
    return [*recipe("qwen_sft_chat"), *few, "model.kernels=liger"]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_kernels_are_trained_with_where_they_do_the_same(chat, precision, standing_in, caplog):
    given = standing_in()
    with caplog.at_level(logging.INFO, "hydralight"):
        run = hydralight.train([*chat, f"precision={precision}"])
    assert len(given) == 1
    assert "on 2 batches, losses and gradients part by" in caplog.text
    plain = hydralight.train([*chat, f"precision={precision}", "model.kernels=null"])
    ours, theirs = (one.history["train/loss"].dropna().to_numpy() for one in (run, plain))
    assert len(ours) == len(theirs)
    assert abs(ours - theirs).max() < (1e-5 if precision == "32-true" else 1e-2)
    assert len(given) == 1


@pytest.mark.parametrize(("precision", "scale"), [("32-true", 1.001), ("bf16-mixed", 1.2)])
def test_kernels_that_do_another_thing_are_refused(
    chat, precision, scale, standing_in, monkeypatch
):
    standing_in(scale)
    steps = []
    monkeypatch.setattr(Gradient, "finish", lambda *a, **k: steps.append(1))
    with pytest.raises(UserError, match=r"on 2 batches, losses and gradients part by \d\.\de-0\d"):
        hydralight.train([*chat, f"precision={precision}"])
    assert not steps


def test_what_is_not_there_is_said(chat, recipe, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'hydralight\[kernels\]'"):
        hydralight.train(chat)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="needs a GPU"):
        hydralight.train(chat)
    with pytest.raises(UserError, match="is for tasks that predict tokens"):
        hydralight.train([*recipe("bert_mrpc"), "model.kernels=liger"])
