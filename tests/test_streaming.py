"""Training rows that are read as they go: each once a pass, in one order, from any place on."""

import gc
import gzip
import json
from collections import Counter
from itertools import chain, islice

import pandas as pd
import pytest
import torch
from standins import article, tokenizer, write_jsonl

import hydralight
from hydralight import cached
from hydralight.data.batches import Batching
from hydralight.data.corpus import inputs, reading, shards
from hydralight.data.corpus.corpus import Corpus
from hydralight.data.module import DataModule
from hydralight.data.order import Place
from hydralight.data.shapes.causal_lm import CausalLM
from hydralight.data.source import Source
from hydralight.data.stream import chunks, windows
from hydralight.data.stream.passes import BITS
from hydralight.errors import UserError
from hydralight.tasks.task import Task

NUMBER = 60  # rows: 20 a file
FORMATS = ["*.jsonl", "a.jsonl.gz", "a.csv", "a.parquet", "a.arrow", "a.txt"]


def recipe(texts, cache_key, cache_dir):
    return tokenizer()


def rows(start, stop):
    return [{"text": article(i)["article"] + f" Number {i}.", "id": i} for i in range(start, stop)]


def texts():
    return [row["text"] for row in rows(0, NUMBER)]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Units of 1 KB, tables of 7 rows, and windows of 500 to 2,000 bytes."""
    monkeypatch.setattr(inputs, "PART_BYTES", 1000)
    monkeypatch.setattr(shards, "SHARD_BYTES", 600)
    monkeypatch.setattr(reading, "ROWS", 7)
    monkeypatch.setattr(windows, "FIRST_BYTES", 500)
    monkeypatch.setattr(windows, "BYTES", 2000)


@pytest.fixture
def files(tmp_path):
    """The rows in files of each format."""
    for number in range(3):
        write_jsonl(tmp_path / f"{number}.jsonl", rows(20 * number, 20 * number + 20))
    frame = pd.DataFrame(rows(0, NUMBER))
    whole = b"".join(path.read_bytes() for path in sorted(tmp_path.glob("*.jsonl")))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(whole))
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet", row_group_size=9)
    frame.to_feather(tmp_path / "a.arrow", compression="uncompressed")
    (tmp_path / "a.txt").write_text("".join(f"{text}\n\n" for text in texts()))
    return tmp_path


def module(path, shape=None, corpus=None, columns=None, **batching):
    return DataModule(
        shape=shape or CausalLM(max_length=200),
        source=Source(path={"train": str(path)}, columns=columns),
        tokenizer=recipe,
        corpus=Corpus(streaming=True, **{"workers": 0, **(corpus or {})}),
        batching=Batching(**{"batch_size": 4, "window_shards": 3, **batching}),
    )


def stream(data, place=None, consumed=0):
    """The batches of a module, and its rows."""
    data.encoded("train")
    return data.taken.stream.batches(place or Place(), None, consumed)


def passes(data, number, size=4):
    """What is decoded of the first passes, pass by pass."""
    found = {}
    batches, train = stream(data), data.encoded("train")
    for batch in batches:
        for (epoch, _), row in zip(batch, train.__getitems__([i for _, i in batch]), strict=True):
            found.setdefault(epoch, []).append(row)
        if len(found) > number:
            break
    return [found[epoch] for epoch in range(number)]


def texts_of(rows):
    return [tokenizer().decode(row["input_ids"], True).strip() for row in rows]


@pytest.mark.parametrize("name", FORMATS)
def test_each_row_comes_once_a_pass_whatever_the_format(files, name):
    first, second = map(texts_of, passes(module(files / name), 2))
    assert Counter(first) == Counter(second) == Counter(texts())
    assert first != second
    assert first != texts()


def test_blocks_have_all_tokens_of_a_pass(files):
    """Texts are joined within what a window has of a file; none of their tokens is lost."""
    shape = CausalLM(block_size=16)
    (blocks,) = passes(module(files / "*.jsonl", shape), 1)
    found = Counter(chain.from_iterable(row["input_ids"] for row in blocks))
    expected = Counter(chain.from_iterable(tokenizer()(texts())["input_ids"]))
    end = tokenizer().eos_token_id  # of which one alone, behind the last block, is no row
    assert NUMBER - 6 <= found.pop(end) <= expected.pop(end) == NUMBER
    assert found == expected
    assert {len(row["input_ids"]) for row in blocks} <= {*range(2, 17)}


# ---------------------------------------------------------------- one order


def order(data, number, place=None, consumed=0):
    """The first batches of a process, as the texts of their rows."""
    batches, train = stream(data, place, consumed), data.encoded("train")
    return [
        texts_of(train.__getitems__([i for _, i in batch])) for batch in islice(batches, number)
    ]


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_steps_of_one_order(files, world):
    whole = order(module(files / "*.jsonl"), 24, Place(0, 1, 4))
    ranks = [
        order(module(files / "*.jsonl"), 24 // world, Place(rank, world, 4 // world))
        for rank in range(world)
    ]
    own = 4 // world
    shared = [
        batch
        for step in range(6)
        for rank in ranks
        for batch in rank[step * own : (step + 1) * own]
    ]
    assert shared == whole


@pytest.mark.parametrize("loaders", [0, 2])
def test_loader_workers_bring_the_same_batches(files, loaders):
    """Read by the loader, whose workers are ahead of it, while windows are removed behind them."""
    data = module(files / "*.jsonl", num_workers=loaders)
    data.encoded("train")
    loader = data.train_dataloader()
    found = [batch["input_ids"].tolist() for batch in islice(loader, 40)]
    folder = data.taken.stream.rows.folder
    numbers = {path.name[:8] for path in folder.glob("*.json")}
    assert "00000002" not in numbers
    assert len(numbers) < 8 + loaders
    other = module(files / "*.jsonl")
    other.encoded("train")
    assert found == [batch["input_ids"].tolist() for batch in islice(other.train_dataloader(), 40)]


@pytest.mark.parametrize("name", ["*.jsonl", "a.jsonl.gz", "a.parquet"])
def test_a_resume_goes_on_anywhere_and_makes_no_window_before_its_own(files, name, monkeypatch):
    whole = module(files / name)
    batches = stream(whole)
    rows_of = whole.encoded("train").__getitems__
    seen, states = [], []
    for number, batch in enumerate(islice(batches, 30)):
        states.append(json.loads(json.dumps(batches.state(number))))
        seen.append(texts_of(rows_of([i for _, i in batch])))
    assert max(epoch for epoch, _ in batch) == 1
    for place in (1, 7, 13, 22, 29):
        data = module(files / name)
        data.encoded("train")
        state = {**data.taken.stream.state(0), **states[place]}
        made = []
        encode = chunks.Encode.__call__

        def noted(self, number, *rest, made=made, encode=encode):
            made.append(number)
            encode(self, number, *rest)

        monkeypatch.setattr(chunks.Encode, "__call__", noted)
        data.taken.stream.go_on(state)
        assert order(data, 30 - place, consumed=place) == seen[place:]
        assert min(made) >= max(state["cursor"]["number"], 1)  # the first one was looked at before
        monkeypatch.setattr(chunks.Encode, "__call__", encode)


def test_rows_of_a_window_are_mixed_and_a_buffer_would_lose_its_place(files):
    """The negative control: an order that holds rows back cannot say where it stands."""
    data = module(files / "a.jsonl.gz")
    batches = stream(data)
    indices = [index for batch in islice(batches, 12) for _, index in batch]
    by_window = {}
    for index in indices:
        by_window.setdefault(index >> BITS, []).append(index & ((1 << BITS) - 1))
    inside = list(by_window.values())[1:-1]
    assert all(sorted(one) == list(range(len(one))) for one in inside)
    assert any(one != sorted(one) for one in inside)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"prepared": "a"}, "leave out data.prepared or data.streaming"),
        ({"deduplicate": True}, "sees no row before it comes"),
    ],
)
def test_what_does_not_go_with_a_stream(own, said):
    with pytest.raises(UserError, match=said):
        Corpus(streaming=True, **own)


def test_files_that_change_or_vanish_are_told(files):
    data = module(files / "*.jsonl")
    batches = iter(stream(data))
    next(batches)
    for path in files.glob("*.jsonl"):
        write_jsonl(path, rows(0, 30))
    with pytest.raises(UserError, match=r"\.jsonl has changed while it was read"):
        list(islice(batches, 30))
    data = module(files / "*.jsonl")
    batches = iter(stream(data))
    next(batches)
    for path in files.glob("*.jsonl"):
        path.unlink()
    with pytest.raises(UserError, match=r"\.jsonl cannot be read"):
        list(islice(batches, 30))


def test_another_stream_is_refused_by_name(files):
    data = module(files / "*.jsonl")
    batches = stream(data)
    list(islice(batches, 3))
    state = data.taken.stream.state(3)
    other = module(files / "*.jsonl", corpus={"min_chars": 5})
    other.encoded("train")
    with pytest.raises(UserError, match=r"another value of data\.min_chars \(None, and now 5\)"):
        other._stream.go_on(state)
    write_jsonl(files / "1.jsonl", rows(0, 30))
    other = module(files / "*.jsonl")
    other.encoded("train")
    with pytest.raises(UserError, match=r"1\.jsonl has changed, or is new; resume with the same"):
        other._stream.go_on(state)


# ---------------------------------------------------------------- left out, or apart


def test_filters_and_a_validation_part_leave_rows_out(files):
    own = {"min_chars": 80, "only": {"id": list(range(50))}, "validation_hash": 0.3}
    data = module(files / "*.jsonl", corpus=own)
    (trained,) = passes(data, 1)
    apart = texts_of(data.encoded("validation"))
    kept = [text for text in texts()[:50] if len(text) >= 80]
    assert 5 < len(apart) < 30
    assert {*apart} <= {*kept}
    assert not {*apart} & {*texts_of(trained)}
    hashed = module(files / "*.jsonl", corpus={**own, "validation_hash": None, "min_chars": 80})
    (everything,) = passes(hashed, 1)
    assert sorted(texts_of(everything)) == sorted(kept)


def test_nothing_left_is_a_sentence(files):
    with pytest.raises(UserError, match="no row of the stream is left to train on"):
        module(files / "*.jsonl", corpus={"min_chars": 10_000}).encoded("train")


# ---------------------------------------------------------------- trainings


class Crash(Exception):
    pass


@pytest.fixture
def overrides(recipe, files):
    """GPT-2 on blocks of 16 tokens; some of the texts to validate on."""
    return [
        *recipe("gpt2_scratch"),
        f"data.path={files}/*.jsonl",
        "data.columns=null",
        "data.streaming=true",
        "data.workers=0",
        "data.validation_hash=0.1",
        "data.window_shards=2",
        "data.batch_size=4",
        "data.batches_per_step=4",
        "trainer.accumulate_grad_batches=1",
        "trainer.max_steps=8",
        "callbacks.last_checkpoint.every_n_train_steps=1",
        "callbacks.samples=null",
        "optimizer.lr=1e-2",
        "scheduler.warmup_steps=0",
    ]


def test_a_run_that_ended_within_a_step_goes_on_with_the_same_bits(
    overrides, tmp_path, monkeypatch
):
    """Resumed with another number of loader workers, and extended."""
    seen: list = []

    def note(task, batch, *args):
        if task.global_step == 5 and len(crashes) == 1:
            raise Crash
        seen.append(batch["row"].tolist())

    crashes: list = []
    monkeypatch.setattr(Task, "on_train_batch_start", note, raising=False)
    whole = hydralight.train(overrides)
    order = [*seen]
    assert len(order) == 4 * 8
    crashes.append(1)
    with pytest.raises(Crash):
        hydralight.train([*overrides, f"paths.log_dir={tmp_path / 'crashed'}"])
    crashes.append(2)
    seen.clear()
    (crashed,) = (tmp_path / "crashed/train/runs").iterdir()
    resumed = hydralight.train([f"resume={crashed}", "data.num_workers=2"])
    assert seen == order[4 * 5 :]
    states = [
        torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in (whole, resumed)
    ]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    assert whole.metrics == resumed.metrics
    evaluated = hydralight.evaluate([f"run={resumed.path}"])
    assert evaluated["val/loss"] == pytest.approx(resumed.metrics["best"]["val/loss"], abs=1e-6)
    gc.collect()
    assert [*cached.cache_folder("streams").iterdir()] == []
