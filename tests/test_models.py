"""Models from a checkpoint and from a config; tokenizers that are trained."""

from dataclasses import replace

import pytest
import torch
from conftest import article
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)

from hydralight.errors import UserError
from hydralight.models import Pretrained, Scratch
from hydralight.optim.groups import parameter_groups
from hydralight.tokenizers import Pretrained as PretrainedTokenizer
from hydralight.tokenizers import Trained

TEXTS = [text for i in range(40) for text in article(i).values()]
TINY = {
    "bart": {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16}
    | {"decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2},
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2},
}


@pytest.mark.parametrize("model_type", TINY)
@pytest.mark.parametrize("algorithm", ["bpe", "unigram", "wordpiece"])
def test_scratch_takes_its_vocabulary_from_the_tokenizer(model_type, algorithm):
    tokenizer = Trained(model=algorithm, vocab_size=300).train(TEXTS)
    ids = tokenizer("The mayor saw a storm.")["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 2)
    assert "mayor saw" in tokenizer.decode(ids, skip_special_tokens=True)
    recipe = Scratch(config={"model_type": model_type, **TINY[model_type]}, dtype="float32")
    model = recipe(AutoModelForSeq2SeqLM, tokenizer)
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    assert model.config.decoder_start_token_id == 2
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id == 1
    assert model.training
    out = model.generate(torch.tensor([ids]), max_new_tokens=3)
    assert out.shape[1] <= 4


def test_a_word_that_takes_too_long_to_learn_from_is_refused():
    with pytest.raises(UserError, match=r"row 2: there is a word of 100,001 characters"):
        Trained(vocab_size=300).train(["a b", "a" * 100_001])


def test_trained_tokenizer_is_cached_by_texts_and_arguments(tmp_path):
    def train(key, **arguments):
        calls = []
        texts = lambda: calls.append(1) or TEXTS  # noqa: E731
        tokenizer = Trained(vocab_size=280, **arguments)(texts, key, tmp_path)
        return len(calls), tokenizer.get_vocab()

    trained, vocabulary = train("a")
    assert trained == 1
    assert train("a") == (0, vocabulary)
    assert train("b")[0] == 1
    assert train("a", min_frequency=5)[0] == 1


def test_a_tokenizer_pads_with_its_end_token_or_is_refused(tiny_bart, tmp_path):
    own = AutoTokenizer.from_pretrained(tiny_bart)
    recipe = PretrainedTokenizer(checkpoint=str(tmp_path))
    AutoConfig.from_pretrained(tiny_bart).save_pretrained(tmp_path)
    own.pad_token = None
    own.save_pretrained(tmp_path)
    assert recipe(lambda: [], "", tmp_path).pad_token == own.eos_token
    own.eos_token = None
    own.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has no token to pad with"):
        recipe(lambda: [], "", tmp_path)
    named = replace(recipe, options={"pad_token": "<unk>"})
    assert named(lambda: [], "", tmp_path).pad_token == "<unk>"


def test_weights_are_float32_whatever_the_checkpoint_holds(tiny_bart, tmp_path):
    half = AutoModelForSeq2SeqLM.from_pretrained(tiny_bart, dtype=torch.bfloat16)
    half.save_pretrained(tmp_path)
    assert AutoModelForSeq2SeqLM.from_pretrained(tmp_path).dtype == torch.bfloat16
    assert Pretrained(checkpoint=str(tmp_path))(AutoModelForSeq2SeqLM).dtype == torch.float32


def test_config_values_and_frozen_parameters(tiny_bart):
    recipe = Pretrained(checkpoint=str(tiny_bart), config={"dropout": 0.3}, freeze=["*encoder.*"])
    model = recipe(AutoModelForSeq2SeqLM)
    assert model.config.dropout == 0.3
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if "encoder." in name}
    with pytest.raises(UserError, match="matches no parameter"):
        Pretrained(checkpoint=str(tiny_bart), freeze=["nothing.*"])(AutoModelForSeq2SeqLM)
    with pytest.raises(UserError, match="did you mean 'dropout'"):
        Pretrained(checkpoint=str(tiny_bart), config={"dropuot": 0})(AutoModelForSeq2SeqLM)
    with pytest.raises(UserError, match="no architecture of transformers; did you mean 'bart'"):
        Scratch(config={"model_type": "bartt"})(AutoModelForSeq2SeqLM)


SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
NORMED = {
    "bart": (AutoModelForSeq2SeqLM, TINY["bart"]),  # self_attn_layer_norm, layernorm_embedding
    "t5": (AutoModelForSeq2SeqLM, TINY["t5"]),  # T5LayerNorm, which is not torch's: layer_norm
    "bert": (AutoModelForMaskedLM, {**SIZES, "intermediate_size": 16}),  # LayerNorm
    "gpt2": (AutoModelForCausalLM, {"n_embd": 16, "n_layer": 1, "n_head": 2}),  # ln_1
    "llama": (AutoModelForCausalLM, {**SIZES, "intermediate_size": 16}),  # input_layernorm, norm
    "mamba": (AutoModelForCausalLM, {"hidden_size": 16, "num_hidden_layers": 1}),  # norm_f
    "resnet": (
        AutoModelForImageClassification,
        {"depths": [1], "hidden_sizes": [8]},
    ),  # BatchNorm2d
}


@pytest.mark.parametrize("model_type", NORMED)
def test_no_weight_decay_on_biases_and_norms(model_type):
    """What is a norm is asked of the model, whatever it calls it."""
    auto_class, values = NORMED[model_type]
    if model_type != "resnet":
        values = {**values, "vocab_size": 50}
    model = auto_class.from_config(AutoConfig.for_model(model_type, **values))
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, spared = ([names[id(p)] for p in g["params"]] for g in parameter_groups(model))
    assert sorted(decayed + spared) == sorted(names.values())
    norms = [
        f"{name}.{own}"
        for name, module in model.named_modules()
        if type(module).__name__.rstrip("2d").endswith("Norm")
        for own, _ in module.named_parameters(recurse=False)
    ]
    biases = [name for name in names.values() if name.split(".")[-1] == "bias"]
    assert norms
    assert set(spared) >= {*norms, *biases}
    # nothing else but vectors (Mamba's D), and T5's table of position biases, which
    # transformers' Trainer spares too
    vectors = [name for name, p in model.named_parameters() if p.ndim < 2]
    more = set(spared) - {*norms, *biases, *vectors}
    assert {name for name in more if "relative_attention_bias" not in name} == set()
    assert [g["weight_decay"] for g in parameter_groups(model)[1:]] == [0]
    frozen = model.requires_grad_(False)
    with pytest.raises(UserError, match="leaves no parameter to train"):
        parameter_groups(frozen)
