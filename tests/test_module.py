"""The data module and its parts, without a trainer."""

import random
from dataclasses import dataclass, replace

import datasets
import numpy as np
import pytest
import torch
from standins import article, tokenizer, write_jsonl

from hydralight.data import encoding
from hydralight.data.batches import Batching
from hydralight.data.encoding import Encoding, sources_of
from hydralight.data.mix import Mix
from hydralight.data.module import DataModule
from hydralight.data.rows import read_rows
from hydralight.data.same import rows_of
from hydralight.data.shapes.causal_lm import CausalLM
from hydralight.data.shapes.seq2seq import Summarization
from hydralight.data.source import Source
from hydralight.data.splits import Splits
from hydralight.errors import UserError

COLUMNS = {"text": "article", "summary": "highlights"}


def recipe(texts, cache_key, cache_dir):
    return tokenizer()


@pytest.fixture
def articles(tmp_path):
    return write_jsonl(tmp_path / "train.jsonl", [article(i) for i in range(20)])


def module(path, **parts):
    shape = parts.pop("shape", Summarization(max_source_length=64))
    columns = COLUMNS if isinstance(shape, Summarization) else {"text": "article"}
    source = Source(path=str(path), columns=columns)
    return DataModule(shape=shape, source=source, tokenizer=recipe, **parts)


def test_a_data_module_needs_no_trainer(articles):
    data = module(articles, batching=Batching(batch_size=4, seed=3))
    data.prepare_data()
    (validation,) = data.val_dataloader()
    batches = [*data.train_dataloader(), *validation]
    rows = sorted(row for batch in batches[:5] for row in batch["row"].tolist())
    assert len(rows) == 18
    assert batches[5]["summary"][0] in {article(i)["highlights"] for i in range(20)}
    ids = batches[0]["input_ids"]
    assert ids.shape[1] == int((ids != tokenizer().pad_token_id).sum(dim=1).max())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_its_loaders_leave_the_global_random_streams_alone(articles, num_workers):
    """A plain loader draws its workers' seed from torch's whenever an iterator is made."""
    data = module(articles, batching=Batching(batch_size=4, num_workers=num_workers))
    data.prepare_data()
    torch.manual_seed(0)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    for loader in (data.train_dataloader(), *data.val_dataloader()):
        list(loader)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), np.random.get_state()[1].tolist())


def test_a_place_in_the_data_is_gone_on_from(articles):
    whole = module(articles, batching=Batching(batch_size=4))
    whole.prepare_data()
    loader = whole.train_dataloader()
    epochs = [[batch["row"].tolist() for batch in loader] for _ in range(2)]
    resumed = module(articles, batching=Batching(batch_size=4))
    resumed.prepare_data()
    place = {"consumed": 7, "batches_per_epoch": 5, "batches_per_step": 1}
    place["accumulate_grad_batches"] = 1
    settings = {**resumed.batching.order_settings(), "data.mix": None, "stream": None}
    resumed.load_state_dict({**place, **settings})
    assert [batch["row"].tolist() for batch in resumed.train_dataloader()] == epochs[1][2:]
    assert resumed.state_dict() == {**place, **settings, "trained_on": whole.trained_on}
    for changed, sentence in (
        ({"rows": 19}, "was trained on 19 rows, and now there are 18"),
        ({"labels": ["no", "yes"]}, r"its labels were \['no', 'yes'\], and now there are None"),
        ({"content": "0"}, "their lengths or values are not those of the 18"),
    ):
        other = {**place, **settings, "trained_on": {**whole.trained_on, **changed}}
        with pytest.raises(UserError, match=sentence):
            resumed.load_state_dict(other)
    with pytest.raises(UserError, match=r"trained with data\.seed=1, and another"):
        resumed.load_state_dict({**place, **settings, "data.seed": 1})
    with pytest.raises(UserError, match=r"trained with data\.batch_size=8, and another"):
        resumed.load_state_dict({**place, **settings, "data.batch_size": 8})
    with pytest.raises(UserError, match=r"trained with trainer\.accumulate_grad_batches=2, and an"):
        resumed.load_state_dict(
            {**place, **settings, "accumulate_grad_batches": 2, "batches_per_step": 2}
        )
    with pytest.raises(UserError, match="of an earlier version"):
        resumed.load_state_dict({"consumed": 7, "batches_per_epoch": 5, "global_batch_size": 4})
    resumed.load_state_dict({**place, **settings, "batches_per_epoch": 6})
    with pytest.raises(UserError, match="had 6 batches an epoch, and now there are 5"):
        resumed.train_dataloader()


# ---------------------------------------------------------------- the cache


@pytest.fixture
def encoded(articles, monkeypatch):
    """A function that encodes by a shape, and returns how many rows were not found in the cache."""
    calls = []

    def counted(rows, indices, **kwargs):
        calls.extend(indices)
        return original(rows, indices, **kwargs)

    original = encoding._encode
    monkeypatch.setattr(encoding, "_encode", counted)

    def encode(shape, split="train", parts=None):
        calls.clear()
        module(articles, shape=shape, **(parts or {})).encoded(split)
        return len(calls)

    return encode


def test_what_was_encoded_is_found_again(encoded):
    shape = CausalLM(max_length=61)
    assert encoded(shape) == 18
    assert encoded(shape) == 0
    assert encoded(replace(shape, packing=True)) == 0  # which encoding does not read
    assert encoded(replace(shape, append="!")) == 18
    assert encoded(shape, "validation") == 2
    assert encoded(shape, parts={"splits": Splits(split_seed=1)}) == 18


def test_another_shape_of_the_same_fields_is_encoded_anew(encoded):
    @dataclass(frozen=True, kw_only=True)
    class Whispering(CausalLM):
        pass

    @dataclass(frozen=True, kw_only=True)
    class Shouting(CausalLM):
        pass

    assert [encoded(kind(max_length=62)) for kind in (CausalLM, Whispering, Shouting)] == [18] * 3


def test_the_key_holds_the_sources_that_encoding_uses():
    found = "".join(sources_of(CausalLM))
    for text in ("class CausalLM", "class Documents", "def encode_texts", "def pack"):
        assert text in found
    assert "class DataModule" not in found


def test_too_long_is_truncated_dropped_or_refused(articles):
    shape = Summarization(max_source_length=64, max_target_length=12)
    counts, sizes = [], []
    for policy in ("truncate", "drop"):
        data = module(articles, shape=shape, encoding=Encoding(too_long=policy))
        sizes.append(len(data.encoded("train")))
        counts.append(data.too_long_counts["train"])
        assert max(data.encoded("train")["target_length"]) <= 12
    assert sizes == [18, 18 - counts[0]]
    assert counts[0] == counts[1] > 0
    with pytest.raises(UserError, match=f"{counts[0]} of 18 train examples are longer"):
        module(articles, shape=shape, encoding=Encoding(too_long="refuse")).encoded("train")


# ---------------------------------------------------------------- rows


def test_rows_of_all_splits(articles, tmp_path):
    other = write_jsonl(tmp_path / "other.jsonl", [article(i) for i in range(50, 53)])
    mix = Mix(extra_eval={"other": str(other)})
    source = Source(path=str(articles), columns=COLUMNS)
    rows = read_rows(source, Splits(test_fraction=0.2), mix, Summarization())
    sizes = {split: len(one) for split, one in rows.splits.items()}
    assert sizes == {"train": 14, "validation": 2, "test": 4, "other": 3}
    assert rows.cut == {"train", "validation", "test"}
    assert all(one.column_names == ["text", "summary"] for one in rows.splits.values())
    texts = list(rows.texts())
    assert len(texts) == 28
    assert set(texts[:14]) < {article(i)["article"] for i in range(20)}


def test_training_rows_are_known_by_what_is_in_them():
    def known(rows, labels=None, **table):
        table = {"input_ids": rows, "length": [len(row) for row in rows], **table}
        return rows_of(datasets.Dataset.from_dict(table), labels)

    rows = [[number, *range(number % 7)] for number in range(2000)]
    assert known(rows) == known(rows, text=[f"/place/{n}" for n in range(2000)])
    assert known(rows)["rows"] == 2000
    others = [rows[:-1], rows[::-1], [*rows[:777], [*rows[777], 1], *rows[778:]]]
    assert len({str(known(one)) for one in [rows, *others]}) == 4
    assert known(rows, labels=["a", "b"]) != known(rows, labels=["b", "a"])
    assert known(rows, labels=None, label=[n % 2 for n in range(2000)]) != known(rows)
