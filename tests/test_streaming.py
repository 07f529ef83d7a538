"""Training rows that are read as they go: each once a pass, in one order, from any place on."""

import gc
import gzip
import json
import signal
from collections import Counter
from functools import partial
from itertools import chain, count, islice

import numpy as np
import pandas as pd
import pytest
import torch
from compared import differences
from serving import serving
from standins import tokenizer, write_jsonl
from test_corpus import NUMBER, recipe, rows, texts
from test_corpus_urls import FORMATS, parts
from test_kill import ended

import hydralight
from hydralight import cached
from hydralight.callbacks import loops
from hydralight.data.batches import Batching
from hydralight.data.corpus import inputs, pieces, reading, shards
from hydralight.data.corpus.corpus import Corpus
from hydralight.data.module import DataModule
from hydralight.data.order import Place
from hydralight.data.shapes.causal_lm import CausalLM
from hydralight.data.source import Source
from hydralight.data.stream import chunks, windows
from hydralight.data.stream.passes import BITS
from hydralight.errors import UserError
from hydralight.stores import retries
from hydralight.tasks.task import Task
from hydralight.tokenizers import Trained

SLOW = pytest.mark.thorough
NAMES = ["a.jsonl.gz", "a.parquet"]
NAMES += [pytest.param(name, marks=SLOW) for name in ("*.jsonl", "a.csv", "a.arrow", "a.txt")]


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


@pytest.mark.parametrize("name", NAMES)
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


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=SLOW)])
def test_ranks_share_the_steps_of_one_order(files, world):
    whole = order(module(files / "*.jsonl"), 12, Place(0, 1, 4))
    ranks = [
        order(module(files / "*.jsonl"), 12 // world, Place(rank, world, 4 // world))
        for rank in range(world)
    ]
    own = 4 // world
    shared = [
        batch
        for step in range(3)
        for rank in ranks
        for batch in rank[step * own : (step + 1) * own]
    ]
    assert shared == whole


def test_loader_workers_bring_the_same_batches(files):
    """Read by the loader, whose workers are ahead of it, while windows are removed behind them."""
    data = module(files / "*.jsonl", num_workers=2)
    data.encoded("train")
    loader = data.train_dataloader()
    found = [batch["input_ids"].tolist() for batch in islice(loader, 24)]
    folder = data.taken.stream.rows.folder
    numbers = {path.name[:8] for path in folder.glob("*.json")}
    assert "00000002" not in numbers
    assert len(numbers) < 10
    other = module(files / "*.jsonl")
    other.encoded("train")
    assert found == [batch["input_ids"].tolist() for batch in islice(other.train_dataloader(), 24)]


@pytest.mark.parametrize(
    "name",
    [pytest.param("*.jsonl", marks=SLOW), "a.jsonl.gz", pytest.param("a.parquet", marks=SLOW)],
)
def test_a_resume_goes_on_anywhere_and_makes_no_window_before_its_own(files, name, monkeypatch):
    whole = module(files / name)
    batches = stream(whole)
    rows_of = whole.encoded("train").__getitems__
    seen, states = [], []
    for number, batch in enumerate(islice(batches, 30)):
        states.append(json.loads(json.dumps(whole.taken.stream.state(number))))
        seen.append(texts_of(rows_of([i for _, i in batch])))
    assert max(epoch for epoch, _ in batch) == 1
    for place in (1, 7, 13, 22, 29):
        data = module(files / name)
        data.encoded("train")
        state = states[place]
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


def test_rows_of_a_window_are_mixed(files):
    batches = stream(module(files / "a.jsonl.gz"))
    by_window: dict = {}
    for _, index in chain.from_iterable(islice(batches, 12)):
        by_window.setdefault(index >> BITS, []).append(index & ((1 << BITS) - 1))
    inside = [*by_window.values()][1:-1]
    assert all(sorted(one) == [*range(len(one))] for one in inside)
    assert any(one != sorted(one) for one in inside)


def goes_on_anywhere(begin):
    """Whether an order that begins at a place goes on as the one from the start does."""
    whole = [*islice(begin(0), 40)]
    return all([*islice(begin(at), 40 - at)] == whole[at:] for at in (4, 12, 36))


def test_an_order_with_a_buffer_does_not_go_on():
    """The negative control of the tests of a resume: rows that are held back are lost there."""
    first = own(partial(counted, 30))
    states = [
        first.taken.stream.state(number) for number, _ in enumerate(islice(stream(first), 11))
    ]

    def streamed(at):
        data = own(partial(counted, 30))
        data.encoded("train")
        data.taken.stream.go_on(states[at // 4])
        return chain.from_iterable(order(data, 10, consumed=at // 4))

    def buffered(at):
        rows, rng = iter(range(at, 100)), np.random.default_rng(0)
        held = [*islice(rows, 8)]
        for row in rows:
            place = int(rng.integers(len(held)))
            yield held[place]
            held[place] = row

    assert goes_on_anywhere(streamed)
    assert not goes_on_anywhere(buffered)


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
        other.taken.stream.go_on(state)
    write_jsonl(files / "1.jsonl", rows(0, 30))
    other = module(files / "*.jsonl")
    other.encoded("train")
    with pytest.raises(UserError, match=r"1\.jsonl has changed, or is new; resume with the same"):
        other.taken.stream.go_on(state)


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


# ---------------------------------------------------------------- rows of one's own


def counted(number=None):
    """A source of rows, which may have no end."""
    return {"train": ({"text": f"number {i}"} for i in (range(number) if number else count()))}


def own(source, **batching):
    return DataModule(
        shape=CausalLM(max_length=20),
        source=Source(source=source),
        tokenizer=recipe,
        corpus=Corpus(streaming=True, workers=0),
        batching=Batching(batch_size=4, **batching),
    )


def characters(number):
    return tokenizer().decode(tokenizer()(f"number {number}")["input_ids"], True).strip()


def test_a_source_without_an_end_is_read_once_and_mixed():
    found = list(chain.from_iterable(order(own(counted), 60)))
    assert len({*found}) == 240
    assert {*found} <= {characters(i) for i in range(400)}
    assert found != [characters(i) for i in range(240)]


def test_a_source_that_ends_is_called_again_and_goes_on_anywhere():
    whole = own(partial(counted, 30))
    (first, second) = map(texts_of, passes(whole, 2))
    assert Counter(first) == Counter(second) == Counter(map(characters, range(30)))
    batches = stream(whole)
    list(islice(batches, 11))
    state = json.loads(json.dumps(whole.taken.stream.state(9)))
    other = own(partial(counted, 30))
    other.encoded("train")
    other.taken.stream.go_on(state)
    assert order(other, 6, consumed=9) == order(own(partial(counted, 30)), 15)[9:]
    another = own(partial(counted, 31))
    another.encoded("train")
    with pytest.raises(UserError, match=r"data\.source has changed"):
        another.taken.stream.go_on(state)


def test_a_source_says_what_is_wrong_with_it():
    with pytest.raises(UserError, match="should return splits"):
        own(lambda: [1]).encoded("train")
    with pytest.raises(UserError, match="the split train has no rows"):
        own(lambda: {"train": []}).encoded("train")


# ---------------------------------------------------------------- at URLs


@pytest.mark.parametrize(
    "suffix", ["jsonl", pytest.param("jsonl.zst", marks=SLOW), pytest.param("parquet", marks=SLOW)]
)
def test_files_at_urls_are_read_a_part_at_a_time_through_faults(suffix, monkeypatch):
    monkeypatch.setattr(pieces, "AHEAD", 500)
    monkeypatch.setattr(retries, "WAITS", (0.01,) * 4)
    with serving(parts(suffix)) as server:
        server.faults += [503, "cut", "short"]
        data = module(f"{server.url}/d/*.{suffix}")
        (first,) = passes(data, 1)
        assert server.faults == []
        assert Counter(texts_of(first)) == Counter(texts())
        largest = max(map(len, server.files.values()))
        sizes = [int(stop) - int(start) for start, stop in map(range_of, server.parts())]
        if suffix != "parquet":  # whose footer is looked for in 64 KB
            assert max(sizes) < largest - 1  # no file is fetched as a whole
        path = next(iter(server.files))
        batches = iter(stream(module(f"{server.url}/d/*.{suffix}")))
        next(batches)
        for path in server.files:
            server.files[path] = FORMATS[suffix](rows(0, 25))
        with pytest.raises(UserError, match=r"/d/\d\." + suffix + " has changed"):
            list(islice(batches, 40))


def range_of(asked):
    return asked.removeprefix("bytes=").split("-")


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
        "trainer.max_steps=6",
        "callbacks.last_checkpoint.every_n_train_steps=1",
        "callbacks.samples=null",
        "optimizer.lr=1e-2",
        "scheduler.warmup_steps=0",
    ]


def test_a_run_that_ended_within_a_step_goes_on_with_the_same_bits(
    overrides, tmp_path, monkeypatch
):
    """Resumed with another number of loader workers."""
    seen: list = []

    def note(task, batch, *args):
        if task.global_step == 3 and len(crashes) == 1:
            raise Crash
        seen.append(batch["row"].tolist())

    crashes: list = []
    monkeypatch.setattr(Task, "on_train_batch_start", note, raising=False)
    whole = hydralight.train(overrides)
    order = [*seen]
    assert len(order) == 4 * 6
    crashes.append(1)
    with pytest.raises(Crash):
        hydralight.train([*overrides, f"paths.log_dir={tmp_path / 'crashed'}"])
    crashes.append(2)
    seen.clear()
    (crashed,) = (tmp_path / "crashed/train/runs").iterdir()
    resumed = hydralight.train([f"resume={crashed}", "data.num_workers=2"])
    assert seen == order[4 * 3 :]
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


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("trainer.max_steps=-1", r"has no end of its own: give trainer\.max_steps"),
        ("trainer.val_check_interval=0.5", "give it as a number of optimizer steps"),
        ("data.fold=1", r"leave out data\.streaming"),
        ("data.path=user/set", r"hf://datasets/user/set/\*\*/\*\.parquet"),
        ("data.max_tokens=4096", r"data\.max_tokens is not for a prepared corpus or a stream"),
    ],
)
def test_what_a_stream_lacks_is_said_before_anything_is_trained(overrides, typed, said):
    with pytest.raises(UserError, match=said):
        hydralight.train([*overrides, typed])


def test_it_is_checked_and_tried_as_any_other(overrides, capsys, caplog):
    hydralight.train([*overrides, "check=true", "data.group_by_length=true"])
    shown = capsys.readouterr().out
    assert "data.group_by_length makes no difference to a prepared corpus" in caplog.text
    assert "as they come" in shown
    assert "it has no end" in shown
    hydralight.train([*overrides, "debug=fdr"])


def test_evaluations_come_every_so_many_steps(overrides, files, monkeypatch):
    monkeypatch.setattr(loops, "EVERY", 3)
    own = [f"data.path={files}/0.jsonl", "data.validation_hash=0.4", "trainer.max_steps=7"]
    run = hydralight.train([*overrides, *own])
    steps = pd.read_csv(run.path / "metrics.csv").dropna(subset=["val/loss"])["step"]
    assert sorted({*steps}) == [3, 6, 7]
    passes = pd.read_csv(run.path / "metrics.csv")["data_epoch"].dropna()
    assert passes.iloc[-1] > passes.iloc[0] == 0


@pytest.mark.thorough
def test_a_number_of_batches_is_an_epoch_where_it_is_asked_for(overrides, monkeypatch):
    """Each goes on where the one before ended."""
    seen: list = []

    def note(task, batch, *args):
        seen.append((task.trainer.current_epoch, batch["row"].tolist()))

    monkeypatch.setattr(Task, "on_train_batch_start", note, raising=False)
    epochs = ["trainer.max_steps=-1", "trainer.limit_train_batches=8", "trainer.max_epochs=2"]
    hydralight.train([*overrides, *epochs, "data.num_workers=1"])
    parted, seen = [*seen], []
    assert [epoch for epoch, _ in parted] == [0] * 8 + [1] * 8
    monkeypatch.setattr(
        Task, "on_train_batch_start", lambda _, batch, *args: seen.append(batch["row"].tolist())
    )
    hydralight.train([*overrides, "trainer.max_steps=4"])
    assert [rows for _, rows in parted] == seen


@pytest.mark.thorough
def test_processes_ahead_make_the_same_windows_and_remove_them(files, monkeypatch):
    """Started as for larger files; the windows are tiny, so that all hurry."""
    monkeypatch.setattr(reading, "ROWS", 1000)  # as in those processes
    data = module(files / "*.jsonl", corpus={"workers": 2})
    found = order(data, 60)
    folder = data.taken.stream.rows.folder
    assert len({path.name[:8] for path in folder.glob("*.json")}) < 12
    assert found == order(module(files / "*.jsonl"), 60)
    processes = data.taken.stream._makers._processes
    assert all(process.is_alive() for process in processes)
    processes[0].kill()
    batches = iter(data.taken.stream._batches)
    with pytest.raises(UserError, match="a process that encodes the stream was killed"):
        list(islice(batches, 200))
    data.taken.stream._makers.close()
    assert not folder.exists()


@pytest.mark.soak
def test_killed_and_resumed_on_another_number_of_processes(overrides, tmp_path):
    """With SIGKILL, from 1 process to 2 and back: the bits of one that was not interrupted."""
    whole, other = tmp_path / "whole", tmp_path / "logs/train/runs/other"
    typed = [*overrides, "data.workers=2", "trainer.same_bits=true", "trainer.deterministic=true"]
    assert ended([*typed, "trainer=cpu", f"hydra.run.dir={whole}"]).code == 0
    killed = ended([*typed, "trainer=cpu", f"hydra.run.dir={other}"], "batch", 13)
    assert killed.code == -signal.SIGKILL
    go_on = [f"resume={other}"]
    two = ["trainer.devices=2", "trainer.strategy=ddp"]
    assert ended([*go_on, *two], "batch", 4).code == -signal.SIGKILL
    assert ended([*go_on, "trainer.devices=1", "data.num_workers=2"]).code == 0
    assert [p for p in differences(whole, other) if ".yaml" not in p] == []


def test_a_tokenizer_learns_from_as_many_texts_as_it_is_told(files):
    def vocabulary(number):
        data = module(files / "*.jsonl")
        data.make_processor = Trained(vocab_size=400, min_frequency=1, sample_texts=number)
        data.rows()
        return data.load_processor().get_vocab(), data._texts()

    many, seen = vocabulary(NUMBER)
    units = len(inputs.Inputs.of(str(files / "*.jsonl"), {}).parts())
    few, some = vocabulary(units)  # the first row of each
    assert few != many == vocabulary(NUMBER)[0]
    assert len([*some]) == units
    assert len([*seen]) > 5 * units
