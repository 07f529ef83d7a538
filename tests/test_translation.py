"""Languages that a multilingual model is told by codes."""

import pytest
import torch
from standins import WORDS, write_jsonl
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartTokenizer,
    NllbTokenizer,
)

import hydralight
from hydralight.commands import start
from hydralight.errors import UserError
from hydralight.tasks.seq2seq import Seq2SeqTask

SIZES = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
SIZES |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
PIECES = ["<s>", "<pad>", "</s>", "<unk>", *(f"▁{word}" for word in WORDS)]


def nllb(folder):
    pieces = [*PIECES, *"▁abcdefghijklmnopqrstuvwxyz"]  # without merges, a word is its letters
    tokenizer = NllbTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])
    config = M2M100Config(vocab_size=len(tokenizer), decoder_start_token_id=2, **SIZES)
    return tokenizer, M2M100ForConditionalGeneration(config)


def mbart(folder):
    tokenizer = MBartTokenizer(vocab=[(piece, -float(i)) for i, piece in enumerate(PIECES)])
    config = MBartConfig(vocab_size=len(tokenizer), **SIZES)
    config.decoder_start_token_id = None
    return tokenizer, MBartForConditionalGeneration(config)


@pytest.mark.parametrize(
    ("make", "source", "target"), [(nllb, "eng_Latn", "deu_Latn"), (mbart, "en_XX", "de_DE")]
)
def test_language_codes(make, source, target, quick, tmp_path, monkeypatch):
    torch.manual_seed(0)
    tokenizer, model = make(tmp_path)
    for part in (tokenizer, model):
        part.save_pretrained(tmp_path / "checkpoint")
    rows = [{"source": f"{a} {b}", "target": f"{b} {a}"} for a in WORDS[:4] for b in WORDS[4:6]]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    generated, labels = [], []

    def seen(task, outputs, batch):
        labels.extend(batch["labels"].tolist() if "labels" in batch else [])
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        generated.extend(task.model.generate(**inputs).tolist())
        assert batch["input_ids"][0, 0 if make is nllb else -1] == code(source)
        return original(task, outputs, batch)

    original = Seq2SeqTask.decode
    monkeypatch.setattr(Seq2SeqTask, "decode", seen)

    def code(language):
        return tokenizer.convert_tokens_to_ids(language)

    overrides = [
        "~experiment",
        "task=translation",
        "data=translation",
        f"checkpoint={tmp_path / 'checkpoint'}",
        f"data.path={path}",
        f"data.source_lang={source}",
        "trainer.max_epochs=1",
        "generation.max_new_tokens=4",
        "generation.num_beams=1",
        *quick,
    ]
    run = hydralight.train([*overrides, f"data.target_lang={target}"])
    assert generated
    # NLLB begins with the end token and then the language, mBART with the language itself
    assert {ids[1 if make is nllb else 0] for ids in generated} == {code(target)}
    assert {code(target)} <= set(labels[0])
    assert code(source) not in labels[0]
    generated.clear()
    start("predict", [f"run={run.path}", "input=storm river", f"output={tmp_path / 'out.jsonl'}"])
    assert generated[0][1 if make is nllb else 0] == code(target)

    with pytest.raises(UserError, match=r"data\.target_lang has no value, and this tokenizer"):
        hydralight.train(overrides)
    with pytest.raises(UserError, match=r"data\.target_lang=german is no language code"):
        hydralight.train([*overrides, "data.target_lang=german"])
