"""Losses without the logits in memory: the same values and gradients, and who gets the logits."""

import gc
import logging
import weakref

import numpy as np
import peft
import pytest
import torch
import torch.nn.functional as F
import transformers
from peft import LoraConfig
from standins import CONFIGS
from transformers import AutoConfig

import hydralight
from hydralight.errors import UserError
from hydralight.tasks import projection
from hydralight.tasks.causal_lm import CausalLMTask
from hydralight.tasks.head import Head, head_of, logits_for
from hydralight.tasks.log_probs import target_log_probs
from hydralight.tasks.losses import token_cross_entropy
from hydralight.tasks.projection import Losses, Unprojected, are_many

SMALL = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL |= {"num_key_value_heads": 2, "intermediate_size": 64, "head_dim": 16, "pad_token_id": 0}
FURTHER = {
    "cohere": ("CohereForCausalLM", {**SMALL, "logit_scale": 0.25}),
    "granite": ("GraniteForCausalLM", {**SMALL, "logits_scaling": 8.0}),
    "gemma2": ("Gemma2ForCausalLM", SMALL),
}


def model_of(kind):
    torch.manual_seed(0)
    name, values = {**CONFIGS, **FURTHER}[kind]
    values = {**values, "vocab_size": 99}
    model = getattr(transformers, name)(AutoConfig.for_model(kind, **values)).eval()
    for parameter in model.parameters():  # biases and norms, too, are something
        torch.nn.init.normal_(parameter, std=0.2)
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.normal_()
    return model


def loss_and_gradients(model, labels, smoothing, chunked):
    model.zero_grad()
    ids = labels.clamp(min=0)
    inputs = {"input_ids": ids}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    if chunked:
        found = head_of(model)
        assert isinstance(found, Head), found
        with found.left_out():
            hidden = model(**inputs).logits
        logits = found.before(hidden)
    else:
        logits = model(**inputs).logits
    loss, weight = token_cross_entropy(logits, labels, smoothing)
    (loss / weight).backward()
    return loss.detach() / weight, {n: p.grad for n, p in model.named_parameters()}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    "kind", ["gpt2", "llama", "bert", "roberta", "distilbert", "bart", "t5", "cohere", "granite"]
)
def test_losses_and_gradients_are_those_of_all_logits(kind, smoothing, monkeypatch):
    monkeypatch.setattr(projection, "AT_ONCE", 99 * 7)  # seven rows at a time, and a rest
    model = model_of(kind)
    labels = torch.randint(5, 99, (3, 12), generator=torch.Generator().manual_seed(1))
    labels[0, 4:], labels[1, ::3] = -100, -100
    plain, expected = loss_and_gradients(model, labels, smoothing, chunked=False)
    chunked, gradients = loss_and_gradients(model, labels, smoothing, chunked=True)
    assert plain > 3
    torch.testing.assert_close(chunked, plain, rtol=1e-6, atol=0)
    size = torch.cat([g.flatten() for g in expected.values() if g is not None]).norm()
    for name, gradient in gradients.items():
        assert (gradient is None) == (expected[name] is None), name
        if gradient is not None:
            assert (gradient - expected[name]).abs().max() < 1e-6 * size, name


def test_what_bends_its_logits_makes_them(caplog):
    for untouched in (True, False):
        model = model_of("gemma2")
        if untouched:  # whose logits are so small that nothing is bent yet
            model = type(model)(model.config)
        assert head_of(model) == "its logits are not what its output embedding gives"
        assert "forward" not in vars(model.lm_head)
    model.config.final_logit_softcapping = None
    assert isinstance(head_of(model), Head)


@pytest.mark.parametrize("device_like", [False, True])  # a device is given rows without target, too
def test_log_probabilities_of_targets(device_like, monkeypatch):
    """Of which each has its own gradient; in 16 bits, sums are still of 32."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 9, 16, generator=generator)
    weight, bias = torch.randn(50, 16, generator=generator), torch.randn(50, generator=generator)
    labels = torch.randint(0, 50, (2, 9), generator=generator)
    labels[0, :5] = -100
    upstream = torch.randn(2, 8, generator=generator)
    found = {}
    for name in ("plain", "chunked"):
        leaves = [one.clone().requires_grad_() for one in (hidden, weight, bias)]
        logits = F.linear(*leaves) if name == "plain" else Unprojected(*leaves)
        if name == "chunked" and device_like:
            flat = labels[:, 1:].reshape(-1)
            rows = leaves[0][:, :-1].reshape(-1, 16)
            values = -Losses.apply(rows, flat, *leaves[1:], 0.0, 4).reshape(2, 8)
        else:
            monkeypatch.setattr(projection, "AT_ONCE", 50 * 4)
            values = target_log_probs(logits, labels)
        (values * upstream).sum().backward()
        found[name] = [values.detach(), *(leaf.grad for leaf in leaves)]
    assert (found["plain"][0] == 0).sum() == 4
    for one, other in zip(*found.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_sums_of_16_bits_are_in_32():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(4096, 16, generator=generator)
    weight = torch.randn(50, 16, generator=generator).requires_grad_()
    labels = torch.randint(0, 50, (4096,), generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        plain = F.cross_entropy(F.linear(hidden, weight).float(), labels, reduction="sum")
        chunked = Unprojected(hidden, weight).losses(labels).sum()
    assert chunked.dtype == torch.float32
    torch.testing.assert_close(chunked, plain, rtol=1e-6, atol=0)
    (expected,), (found,) = (torch.autograd.grad(loss, weight) for loss in (plain, chunked))
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2 * float(expected.std()))


def test_a_reference_makes_no_logits_either(monkeypatch):
    model = model_of("llama")
    labels = torch.randint(5, 99, (3, 12), generator=torch.Generator().manual_seed(1))
    found = {}
    for bound in (10, 2**40):
        monkeypatch.setattr(projection, "AT_ONCE", bound)
        with torch.no_grad():
            logits = logits_for(model, {"input_ids": labels}, labels)
        assert isinstance(logits, Unprojected) == (bound == 10)
        found[bound] = target_log_probs(logits / 0.7, labels)
    torch.testing.assert_close(*found.values(), rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------- in a run


@pytest.fixture
def trained(recipe, monkeypatch):
    """Runs of a recipe with and without whole logits, and the most logits that were in memory."""

    def train(experiment, *overrides):
        most = {}

        def seen(chunked):
            original = F.cross_entropy

            def measured(logits, *args, **kwargs):
                most[chunked] = max(most.get(chunked, 0), logits.numel())
                return original(logits, *args, **kwargs)

            monkeypatch.setattr(F, "cross_entropy", measured)
            monkeypatch.setattr(projection, "AT_ONCE", 4000 if chunked else 2**40)
            run = hydralight.train(
                [*recipe(experiment), "trainer.max_epochs=2", f"tags=[{chunked}]", *overrides]
            )
            monkeypatch.setattr(F, "cross_entropy", original)
            return run

        return [seen(False), seen(True)], most

    return train


@pytest.mark.parametrize(
    ("experiment", "overrides"),
    [
        ("qwen_sft_chat", ["model.config={attention_dropout: 0}", "task.label_smoothing=0.1"]),
        ("roberta_mlm_wikitext", []),
        ("bart_cnn", []),
        ("transformer_xl_reviews", []),
        ("qwen_dpo", ["model.config={attention_dropout: 0}"]),
        ("qwen_dpo", ["task.loss_type=orpo", "task.nll_of=text"]),
        ("kto", ["model.config={attention_dropout: 0}"]),
        ("llama_lora_alpaca", ["model.config={attention_dropout: 0}"]),
    ],
)
def test_a_run_is_the_same(experiment, overrides, trained):
    (plain, chunked), most = trained(experiment, "callbacks.samples=null", *overrides)
    assert most[True] <= 4000 < most[False]
    table = chunked.history[plain.history.columns]
    apart = (plain.history - table).abs() / plain.history.abs().clip(lower=1)
    # at first a policy is its reference, and which of two rewards is higher is rounding
    ties = ("accuracy", "auroc")
    columns = [c for c in apart if c.startswith(("train/", "val/")) and not c.endswith(ties)]
    print(apart[columns].max())
    assert apart[columns].max(axis=None) < 2e-5
    assert len(columns) > 2


def test_who_wants_the_logits_gets_them(recipe):
    chat = [*recipe("qwen_sft_chat"), "trainer.max_epochs=1", "callbacks.samples=null"]
    metric = "task.metrics={own: {_target_: torchmetrics.classification.MulticlassAccuracy, "
    metric += "num_classes: 380, average: micro, ignore_index: -100}}"
    run = hydralight.train([*chat, metric, "task.chunked_loss=true"])
    assert np.isfinite(run.history["val/own"].dropna()).all()
    focal = "task.loss._target_=hydralight.tasks.losses.focal_loss"
    with pytest.raises(UserError, match=r"task.loss gets the logits as a whole"):
        hydralight.train([*chat, focal, "task.chunked_loss=true"])
    hydralight.train([*chat, focal])


def test_what_cannot_is_refused_or_told(caplog):
    task = CausalLMTask(model=None, optimizer=None, chunked_loss=True)
    task.model = model_of("gemma2")
    with caplog.at_level(logging.INFO, "hydralight"):
        assert task.head == task.head
    assert caplog.text.count("logits are made as a whole: its logits are not what") == 1
    for adapter in ({"target_modules": ["lm_head"]}, {"modules_to_save": ["lm_head"]}):
        model = model_of("llama")
        config = LoraConfig(**{"target_modules": ["q_proj"], **adapter})
        peft.get_peft_model(model, config)
        assert "and no plain linear layer" in head_of(model)
        labels = torch.zeros(2, 3, dtype=torch.long)
        assert not are_many(labels, model.get_output_embeddings())


def test_a_compiled_model_gives_hidden_states(recipe, monkeypatch):
    calls = []
    original = Unprojected.losses
    monkeypatch.setattr(
        Unprojected, "losses", lambda self, *a: calls.append(1) or original(self, *a)
    )
    compiled = ["task.torch_compile={backend: eager}", "data.pad_to_multiple_of=64"]
    options = [*recipe("qwen_sft_chat"), "data.packing=false", "trainer.max_epochs=1"]
    options += ["callbacks.samples=null"]
    plain = hydralight.train([*options, "task.chunked_loss=false"])
    assert not calls
    run = hydralight.train([*options, *compiled, "task.chunked_loss=true"])
    assert calls
    np.testing.assert_allclose(
        run.history["train/loss"].dropna(), plain.history["train/loss"].dropna(), rtol=1e-5
    )


def test_a_reference_is_tried_once_and_not_kept(monkeypatch):
    model, tried = model_of("llama"), []
    labels = torch.arange(5, 17).reshape(1, 12)
    monkeypatch.setattr(projection, "AT_ONCE", 10)
    monkeypatch.setattr("hydralight.tasks.head.head_of", lambda m: tried.append(1) or head_of(m))
    for _ in range(3):
        assert isinstance(logits_for(model, {"input_ids": labels}, labels), Unprojected)
    assert len(tried) == 1
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None
