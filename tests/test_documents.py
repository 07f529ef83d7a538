"""Documents in rows and blocks, prompts, and masks."""

import copy
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from shaping import batch_of
from standins import article, tokenizer
from tokenizers.processors import BertProcessing, RobertaProcessing
from transformers import AutoTokenizer, GenerationConfig

from hydralight.data.ends import left_open
from hydralight.data.shapes.causal_lm import CausalLM
from hydralight.data.shapes.masked_lm import MaskedLM
from hydralight.errors import UserError
from hydralight.tasks.generation import continue_prompts
from hydralight.tokenizers import Trained

DOCUMENTS = [
    "The storm, then the river.\n\nTwo lines\nmore.\n",
    " naïve café 🎉🎉 — “Ünïcödé” 東京 ",
    "x",
    "\n",
    *(article(i)["article"] for i in range(4)),
]


def documents(texts, processor=None, shape=CausalLM, purpose="evaluate", **options):
    rows, indices = {"text": texts}, list(range(len(texts)))
    return shape(**options).encode(rows, indices, processor or tokenizer(), purpose)


def plain():
    """A tokenizer that puts nothing before and behind a text."""
    return Trained(vocab_size=400, add_special_tokens=False).train(
        [text for i in range(60) for text in article(i).values()]
    )


@pytest.mark.parametrize("specials", [True, False])
@pytest.mark.parametrize("block_size", [7, 32])
def test_blocks_hold_every_token_and_byte(specials, block_size):
    processor = tokenizer() if specials else plain()
    tokens, sizes = [], []
    for text in DOCUMENTS:
        encoded = processor(text, return_offsets_mapping=True)
        ids, seen = encoded["input_ids"], 0
        for _, stop in encoded["offset_mapping"]:
            sizes.append(len(text[seen:stop].encode()))
            seen = max(seen, stop)
        assert seen == len(text)
        if not specials:
            ids = [*ids, processor.eos_token_id]
            sizes.append(0)
        assert ids.count(processor.eos_token_id) == 1
        assert ids[-1] == processor.eos_token_id
        tokens += ids
    assert len(tokens) % block_size > 1
    found = documents(DOCUMENTS, processor, block_size=block_size)
    assert list(chain.from_iterable(found["input_ids"])) == tokens
    assert {len(block) for block in found["input_ids"][:-1]} == {block_size}
    firsts = sizes[::block_size]
    assert sum(firsts) > 0
    assert sum(found["num_bytes"]) == sum(len(t.encode()) for t in DOCUMENTS) - sum(firsts)
    parts = [sizes[i + 1 : i + block_size] for i in range(0, len(sizes), block_size)]
    assert found["num_bytes"] == [sum(part) for part in parts]
    assert found["length"] == [len(block) for block in found["input_ids"]]


def test_a_last_token_alone_is_no_block():
    length = len(tokenizer()(DOCUMENTS[0])["input_ids"])
    found = documents(DOCUMENTS[:1], block_size=length - 1)
    assert found["input_ids"] == [tokenizer()(DOCUMENTS[0])["input_ids"][:-1]]


def test_documents_as_rows():
    found = documents(DOCUMENTS)
    assert found["num_bytes"] == [
        len(text.encode()) for text in DOCUMENTS
    ]  # the first token is <s>
    assert found["input_ids"] == tokenizer()(DOCUMENTS)["input_ids"]
    limit = found["length"][1] - 1
    cut = documents(DOCUMENTS, max_length=limit)
    assert cut["too_long"] == [length > limit for length in found["length"]]
    assert {True, False} == set(cut["too_long"])
    assert cut["input_ids"] == [ids[:limit] for ids in found["input_ids"]]
    assert cut["num_bytes"][1] == len(DOCUMENTS[1].encode())  # only the end token is cut off
    # each mark of the byte-level alphabet is a byte; the first token's space is not the text's
    marks = ["".join(tokenizer().convert_ids_to_tokens(ids[1:])) for ids in cut["input_ids"][2:4]]
    assert [len(mark.removesuffix("</s>")) - 1 for mark in marks] == cut["num_bytes"][2:4]


def test_clean_and_append():
    text = "  Storm OVER the River \n"
    ids = documents([text], plain(), clean=["strip", "lower"], append=" END")["input_ids"][0]
    assert plain().decode(ids) == " storm over the river END"
    assert ids[-1] != plain().eos_token_id
    with pytest.raises(UserError, match="there is no step 'lowr'; did you mean 'lower'"):
        CausalLM(clean=["lowr"])


def test_the_end_token_is_a_target_where_it_also_pads():
    processor = copy.deepcopy(tokenizer())
    processor.pad_token = processor.eos_token
    end = processor.eos_token_id
    batch = batch_of(CausalLM(), documents(DOCUMENTS[:3], processor), processor)
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    assert lengths == [len(ids) for ids in tokenizer()(DOCUMENTS[:3])["input_ids"]]
    for ids, labels, length in zip(batch["input_ids"], batch["labels"], lengths, strict=True):
        assert torch.equal(labels[:length], ids[:length])
        assert labels[length - 1] == end
        assert (labels[length:] == -100).all()
        assert (ids[length:] == end).all()
    assert batch["num_bytes"].tolist() == [len(text.encode()) for text in DOCUMENTS[:3]]


def test_prompts_do_not_end_and_are_padded_on_the_left():
    """Those of masked models keep their end, and are padded on the right."""
    texts = ["the river and the storm of that day", "Storm"]
    options = {"purpose": "predict", "clean": ["lower"]}
    encoded = documents(texts, **options)
    whole = [ids[:-1] for ids in tokenizer()([text.lower() for text in texts])["input_ids"]]
    assert encoded["input_ids"] == whole
    batch = batch_of(CausalLM(), encoded, tokenizer(), "predict")
    padding = len(whole[0]) - len(whole[1])
    pads = [tokenizer().pad_token_id] * padding
    assert batch["input_ids"].tolist() == [whole[0], [*pads, *whole[1]]]
    assert batch["attention_mask"][1].tolist() == [0] * padding + [1] * len(whole[1])
    assert "labels" not in batch
    assert batch["text"] == [text.lower() for text in texts]
    unmasked = documents(texts, shape=MaskedLM, **options)
    batch = batch_of(MaskedLM(), unmasked, tokenizer(), "predict")
    ids = [[*ids, tokenizer().eos_token_id] for ids in whole]
    assert batch["input_ids"].tolist() == [ids[0], [*ids[1], *pads]]
    assert "labels" not in batch  # there is nothing to find but the masks


@pytest.mark.parametrize("model", ["bpe", "unigram", "wordpiece"])
def test_what_is_written_keeps_the_space_before_it(model):
    """Prompt and prediction make up the text, whatever kind of tokenizer there is."""
    texts = [text for i in range(60) for text in article(i).values()]
    trained = Trained(model=model, vocab_size=400, add_special_tokens=False).train(texts)
    whole = trained(["the storm near the mayor", "the river near the tower"])["input_ids"]
    cuts = [len(trained(text)["input_ids"]) for text in ("the storm", "the river")]
    room = max(len(ids) - cut for ids, cut in zip(whole, cuts, strict=True))
    pad = [trained.pad_token_id] * 99
    heads = [[*pad, *ids[:cut]][-20:] for ids, cut in zip(whole, cuts, strict=True)]
    tails = [[*ids[cut:], *pad][:room] for ids, cut in zip(whole, cuts, strict=True)]
    written = torch.tensor([h + t for h, t in zip(heads, tails, strict=True) for _ in range(2)])
    model = SimpleNamespace(generation_config=GenerationConfig(), generate=lambda **_: written)
    found = continue_prompts(model, trained, torch.tensor(heads), torch.tensor(heads))
    assert found == [" near the mayor"] * 2 + [" near the tower"] * 2


def test_a_marker_that_texts_have_is_told(caplog):
    train = Dataset.from_dict({"text": ["a storm END", "A STORM", "end it"]})
    CausalLM(append="end", clean=["lower"]).settled(train, ())
    assert "data.append=end ends a text, and is inside 2 of the first 3 training" in caplog.text
    caplog.clear()
    for marker in ("<|eos|>", "\n\n", "", None):
        CausalLM(append=marker).settled(train, ())
    assert not caplog.records


def test_long_prompts_lose_their_beginning():
    texts = ["the river and the storm of that day", "Storm"]
    whole = documents(texts, purpose="predict")["input_ids"]
    cut = documents(texts, purpose="predict", max_length=4)
    assert cut["input_ids"] == [ids[-4:] for ids in whole]
    assert cut["too_long"] == [len(ids) > 4 for ids in whole]
    # what is left is what the model has to have room for
    assert cut["length"] == [len(ids) for ids in cut["input_ids"]]


def masked(encoded, purpose="train", epoch=0, seed=7):
    batch = batch_of(MaskedLM(), copy.deepcopy(encoded), tokenizer(), purpose, epoch, seed)
    return batch["input_ids"].numpy(), batch["labels"].numpy()


def test_masks():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, len(tokenizer()), (60, 500))
    ids[:, ::10] = tokenizer().eos_token_id
    encoded = {"input_ids": ids.tolist()}
    inputs, labels = masked(encoded)
    chosen = labels != -100
    special = np.isin(ids, tokenizer().all_special_ids)
    assert not chosen[special].any()
    assert np.array_equal(labels[chosen], ids[chosen])
    assert np.array_equal(inputs[~chosen], ids[~chosen])
    assert chosen[~special].mean() == pytest.approx(0.15, abs=0.01)
    kinds = [inputs[chosen] == tokenizer().mask_token_id, inputs[chosen] == ids[chosen]]
    assert [kind.mean() for kind in kinds] == pytest.approx([0.8, 0.1], abs=0.025)
    others = inputs[chosen][~kinds[0] & ~kinds[1]]
    assert len(np.unique(others)) > 200  # of 400 tokens
    # a function of (seed, epoch, index); in evaluation, of seed and index
    assert np.array_equal(masked(encoded)[1], labels)
    assert (masked(encoded, epoch=1)[1] != labels).any(axis=1).all()
    assert (masked(encoded, seed=8)[1] != labels).any()
    evaluated = [masked(encoded, "evaluate", epoch) for epoch in (0, 1)]
    assert np.array_equal(*evaluated)
    assert (evaluated[0][1] != labels).any()
    same = masked({"input_ids": [ids[0].tolist()] * 2})[1]
    assert (same[0] != same[1]).any()  # rows differ, though their tokens are the same


def test_whole_words_are_masked():
    texts = [
        " ".join(article(i)["article"].upper() for i in range(5 * k, 5 * k + 5)) for k in range(9)
    ]
    encoded = documents(texts, shape=MaskedLM, purpose="train", whole_word_mask=True)
    marks = []
    for epoch in range(3):
        batch = batch_of(MaskedLM(), copy.deepcopy(encoded), tokenizer(), "train", epoch)
        for text, labels in zip(texts, batch["labels"], strict=True):
            words = tokenizer()(text).word_ids()
            assert len(words) > 2 * len(set(words))  # most words are several pieces
            for word in set(words) - {None}:
                pieces = {bool(labels[i] != -100) for i, w in enumerate(words) if w == word}
                assert len(pieces) == 1
                marks.append(pieces.pop())
    assert len(marks) > 2000
    assert np.mean(marks) == pytest.approx(0.15, abs=0.03)


@pytest.mark.parametrize("post", [None, BertProcessing, RobertaProcessing])
def test_a_prompt_is_left_open_and_a_text_ends_as_before(post, tmp_path):
    """Also after the tokenizer was saved; the one it was made from stays as it is."""
    closed = copy.deepcopy(tokenizer())
    if post is not None:
        ids = {name: (name, closed.convert_tokens_to_ids(name)) for name in ("</s>", "<s>")}
        closed.backend_tokenizer.post_processor = post(ids["</s>"], ids["<s>"])
    text, pair = DOCUMENTS[0], DOCUMENTS[:2]
    ids = closed(text)["input_ids"]
    left_open(closed).save_pretrained(tmp_path)
    for opened in (left_open(closed), AutoTokenizer.from_pretrained(tmp_path)):
        assert opened(text)["input_ids"] == ids[:-1]
        assert opened(*pair) == closed(*pair)
        for options in ({}, {"append": "<|eos|>"}):
            found = documents(DOCUMENTS, CausalLM(**options).ready(opened), **options)
            assert found == documents(DOCUMENTS, closed, **options)
            assert {row[-1] for row in found["input_ids"]} == {closed.eos_token_id}
            assert len(found["num_bytes"]) == len(DOCUMENTS)
        prompt = documents([text], opened, purpose="predict")["input_ids"]
        assert prompt == [ids[:-1]]
    assert closed(text)["input_ids"] == ids
    assert left_open(plain()).tokenize("a") == plain().tokenize("a")
