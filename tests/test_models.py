"""Models from a checkpoint and from a config; tokenizers that are trained."""

import pytest
import torch
from conftest import article
from transformers import AutoModelForSeq2SeqLM

from hydralight.errors import UserError
from hydralight.models import Pretrained, Scratch
from hydralight.optim import parameter_groups
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


def test_no_weight_decay_on_biases_and_norms(tiny_bart):
    model = Pretrained(checkpoint=str(tiny_bart))(AutoModelForSeq2SeqLM)
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, spared = ([names[id(p)] for p in g["params"]] for g in parameter_groups(model))
    assert sorted(decayed + spared) == sorted(names.values())
    assert all(name.endswith("bias") or "norm" in name for name in spared)
    assert not [name for name in decayed if name.endswith("bias") or "norm" in name]
    assert parameter_groups(model)[1]["weight_decay"] == 0
