"""Bases in 4 and 8 bits under an adapter: what is loaded, trained, resumed, read again, merged."""

import shutil
import sys

import bitsandbytes as bnb
import pytest
import torch
from compared import differences
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
)

import hydralight
from hydralight import adapters, quantization
from hydralight.errors import UserError
from hydralight.models import Pretrained

SHORT = ["trainer.max_epochs=2", "data.batch_size=4", "callbacks.samples=null"]
SHORT += ["optimizer.lr=1e-2", "trainer.val_check_interval=1.0"]
SINGLE = "model.double_quantization=false"
IDS = torch.arange(3, 40)[None]


def load(checkpoint, **options):
    torch.manual_seed(0)
    adapter = LoraConfig(target_modules="all-linear")
    return Pretrained(checkpoint=str(checkpoint), adapter=adapter, **options)(AutoModelForCausalLM)


@pytest.fixture
def trained(recipe, tmp_path):
    def train(experiment, *further):
        chat = ["data.chat_template=zephyr"] if experiment == "qwen_sft_chat" else []
        return hydralight.train([*recipe(experiment), "adapter=qlora", *SHORT, *chat, *further])

    return train


@pytest.mark.parametrize(
    ("experiment", "kind"),
    [
        ("qwen_sft_chat", ["model.quantization=nf4"]),
        ("distilgpt2_sonnets", ["model.quantization=fp4", SINGLE]),
        ("bert_mrpc", ["model.quantization=int8", SINGLE]),
        ("t5_xsum", ["model.quantization=nf4", "model.adapter_dtype=bfloat16"]),
    ],
)
def test_an_adapter_is_trained_on_it_saved_and_read_again(experiment, kind, trained):
    run = trained(experiment, *kind)
    state = torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert state
    assert all("lora_" in name or "modules_to_save" in name for name in state)
    assert "quantization_config" not in (run.model_dir / "config" / "config.json").read_text()
    assert len(quantization.layers_of(run.model)) >= 4  # as it was trained
    best = {name: value for name, value in run.metrics["best"].items() if name != "step"}
    assert hydralight.evaluate([f"run={run.path}"]) == best
    whole = hydralight.evaluate([f"run={run.path}", "model.quantization=none"])
    assert 0 < abs(whole["val/loss"] - best["val/loss"]) < 0.05


def test_matrices_are_those_of_bitsandbytes_and_gradients_those_of_plain_torch(checkpoints):
    folder = checkpoints("llama")
    ours = load(folder, quantization="nf4", double_quantization=True)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    layers = quantization.layers_of(ours)
    assert len(layers) == 7  # and not the output's
    for name, layer in layers.items():
        matrix = plain.get_submodule(name.removesuffix(".base_layer")).weight.data
        kept, state = bnb.functional.quantize_nf4(matrix, compress_statistics=True)
        assert torch.equal(layer.weight, kept)
        matrix.copy_(bnb.functional.dequantize_nf4(kept, state))
    linear = sorted({name.split(".")[-2] for name in layers})
    torch.manual_seed(0)
    reference = get_peft_model(plain, LoraConfig(target_modules=linear))
    theirs = dict(plain.named_parameters())
    for name, p in ours.named_parameters():
        if p.requires_grad:
            torch.nn.init.normal_(p, std=0.02)
            theirs[name].data.copy_(p)
    one, other = ours(IDS).logits, reference(input_ids=IDS).logits
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    one.square().mean().backward()
    other.square().mean().backward()
    for name, p in ours.named_parameters():
        assert (p.grad is None) is ("lora_" not in name)
        if p.grad is not None:
            torch.testing.assert_close(p.grad, theirs[name].grad, rtol=1e-4, atol=1e-8)


def test_an_evaluation_leaves_the_weights_as_they_are(checkpoints):
    model = load(checkpoints("llama"), quantization="nf4", double_quantization=True)

    def kept():
        layers = quantization.layers_of(model).values()
        states = [one.weight.quant_state for one in layers]
        return [(q.absmax.clone(), q.state2.absmax.clone(), q.dtype) for q in states]

    before = kept(), model(IDS).logits
    with torch.inference_mode():
        asked = model.eval()(IDS).logits
    after = kept(), model.train()(IDS).logits
    assert all(torch.equal(a, c) and torch.equal(b, d) for (a, b, _), (c, d, _) in zip(
        before[0], after[0], strict=True
    ))  # fmt: skip
    assert torch.equal(before[1], after[1])
    torch.testing.assert_close(asked, after[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [["model.quantization=nf4"], ["model.quantization=int8", SINGLE]])
def test_a_run_goes_on_to_the_bit(kind, trained, tmp_path):
    """With evaluations between, and states in 8 bits."""
    whole, other = tmp_path / "whole", tmp_path / "other"
    steps = ["trainer.max_epochs=-1", "trainer.max_steps=7", "trainer.val_check_interval=2"]
    steps += [
        "trainer.accumulate_grad_batches=1",
        "callbacks.last_checkpoint.save_total_limit=null",
    ]
    states = ["optimizer=paged_adamw", "optimizer.lr=1e-2", "++optimizer.min_8bit_size=16"]
    trained("qwen_sft_chat", *kind, *steps, *states, f"hydra.run.dir={whole}")
    saved = torch.load(whole / "checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]
    assert "torch.uint8" in str({t.dtype for one in saved["state"].values() for t in tensors(one)})
    shutil.copytree(whole, other)
    for path in (other / "checkpoints").iterdir():
        if path.stem == "last" or int(path.stem.removeprefix("step-")) > 4:
            path.unlink()
    (other / "metrics.json").unlink()
    hydralight.train([f"resume={other}"])
    assert [place for place in differences(whole, other) if ".yaml" not in place] == []


def tensors(values):
    for value in values.values():
        if isinstance(value, dict):
            yield from tensors(value)
        elif isinstance(value, torch.Tensor):
            yield value


@pytest.mark.parametrize("experiment", ["distilgpt2_sonnets", "bert_mrpc"])
def test_a_merged_model_holds_what_the_bits_stand_for(experiment, trained):
    """GPT-2's matrices are transposed on disk."""
    merge = "callbacks.best_model.merge=true"
    run = trained(experiment, merge)
    auto = AutoModelForSequenceClassification if "bert" in experiment else AutoModelForCausalLM
    plain = auto.from_pretrained(run.model_dir)
    assert getattr(plain, "hf_quantizer", None) is None
    assert not any("lora" in name for name, _ in plain.named_parameters())
    found = hydralight.evaluate([f"run={run.path}"])
    assert found["val/loss"] == pytest.approx(run.metrics["best"]["val/loss"], abs=1e-6)
    if "bert" in experiment:
        with pytest.raises(UserError, match="in 8 bits, what goes into a matrix is rounded too"):
            trained(experiment, merge, "model.quantization=int8", SINGLE)


def test_a_checkpoint_in_4_bits_is_a_base_too(checkpoints, tmp_path):
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = AutoModelForCausalLM.from_pretrained(checkpoints("llama"), quantization_config=four)
    model.save_pretrained(tmp_path / "four")
    again = load(tmp_path / "four")
    ours = load(checkpoints("llama"), quantization="nf4")
    assert torch.equal(again(IDS).logits, ours(IDS).logits)
    assert not any("absmax" in name for name in again.state_dict())


def test_another_base_is_refused(trained, checkpoints, tmp_path):
    base = shutil.copytree(checkpoints("llama"), tmp_path / "base")
    run = trained("qwen_sft_chat", f"checkpoint={base}")
    state = load_file(base / "model.safetensors")
    for name, further in [
        ("model.layers.0.mlp.up_proj.weight", []),
        ("model.norm.weight", ["model.quantization=none"]),
    ]:
        changed = {**state, name: state[name] * 1.5}
        save_file(changed, base / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(UserError, match="was trained on other weights than those of"):
            hydralight.evaluate([f"run={run.path}", *further])
    with pytest.raises(UserError, match="was trained on other weights than those of"):
        hydralight.train([f"resume={run.path}", "trainer.max_epochs=3"])


def test_what_does_not_go_together(trained, recipe, monkeypatch):
    nf4 = "model.quantization=nf4"
    with pytest.raises(UserError, match=r"are quantized, and nothing in them can be trained: add"):
        hydralight.train([*recipe("bert_mrpc"), *SHORT, nf4])
    with pytest.raises(UserError, match="callbacks=ema averages all weights, and those of a quan"):
        trained("bert_mrpc", "callbacks=ema")
    with pytest.raises(UserError, match="double_quantization=true is of 4 bits"):
        trained("bert_mrpc", "model.quantization=int8")
    with pytest.raises(UserError, match=r"model.quantization.*nf5"):
        trained("bert_mrpc", "model.quantization=nf5")
    with pytest.raises(UserError, match="quantization=nf4 does not go with sharded training"):
        trained("bert_mrpc", "trainer=fsdp_cpu", "trainer.devices=1")
    # a model that nobody trains may be
    found = hydralight.evaluate([*recipe("bert_mrpc"), nf4, "data.batch_size=4"])
    assert found["val/loss"] > 0
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    sentence = r"needs a package that is not installed .*: pip install 'hydralight\[quantization\]'"
    with pytest.raises(UserError, match=sentence):
        trained("bert_mrpc")
    with pytest.raises(UserError, match="8bit needs a package that is not installed: pip"):
        hydralight.train([*recipe("bert_mrpc"), *SHORT, "optimizer=paged_adamw"])


def test_parameters_are_counted_as_they_are_meant(trained, capsys):
    trained("bert_mrpc", "check=true")
    checked = capsys.readouterr().out
    trained("bert_mrpc", "check=true", "model.quantization=null", SINGLE)
    line = next(line for line in checked.splitlines() if "BertForSequence" in line)
    assert line in capsys.readouterr().out


def test_matrices_are_multiplied_in_the_type_of_the_precision(trained):
    run = trained("qwen_sft_chat", "precision=bf16-mixed")
    (layer, *_) = quantization.layers_of(run.model).values()
    assert layer.compute_dtype == torch.bfloat16
    best = run.metrics["best"]["val/loss"]
    assert hydralight.evaluate([f"run={run.path}"])["val/loss"] == best
    merged = trained("qwen_sft_chat", "precision=bf16-mixed", "callbacks.best_model.merge=true")
    assert hydralight.evaluate([f"run={merged.path}"])["val/loss"] == pytest.approx(best, abs=1e-3)


def test_the_adapters_own_type(checkpoints):
    model = load(checkpoints("llama"), quantization="nf4", adapter_dtype="bfloat16")
    trained_in = {p.dtype for p in model.parameters() if p.requires_grad}
    assert trained_in == {torch.bfloat16}
    assert adapters.attached_to(model).source.quantization["quantization"] == "nf4"
    model = load(checkpoints("llama"), quantization="nf4", dtype="bfloat16")
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert model(IDS).logits.dtype == torch.bfloat16
