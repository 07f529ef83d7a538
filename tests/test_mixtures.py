"""Mixtures: how much of a step is of which source, which rows, and that both can be sought."""

import gc
import itertools
from collections import Counter
from fractions import Fraction
from functools import cached_property
from itertools import chain

import numpy as np
import pandas as pd
import pytest
import test_streaming
import torch
from standins import article, write_jsonl
from test_corpus import module, rows
from test_corpus import recipe as tokenizer_of
from test_corpus_training import Crash, overrides  # noqa: F401

import hydralight
from hydralight.config.trust import Leaf, writes_elsewhere
from hydralight.data.batches import Batching
from hydralight.data.corpus import inputs
from hydralight.data.corpus.corpus import Corpus
from hydralight.data.corpus.windows import Windows
from hydralight.data.draws import UNIT, Draws
from hydralight.data.mix import Mix
from hydralight.data.mixture import RUN, Mixture
from hydralight.data.module import DataModule
from hydralight.data.order import Batches, Order, Place
from hydralight.data.shapes.masked_lm import MaskedLM
from hydralight.data.source import Source
from hydralight.data.stream import windows
from hydralight.errors import UserError
from hydralight.tasks.task import Task

SIZES = {"train": 91, "books": 10, "code": 40}
LEVEL = [{0: 0.3}, {0: 0.21}]
CURRICULUM = [{0: 0.02, 30: 0.6}, {5: 0.3, 20: 0.0, 40: 0.11}]


def weight_at(schedule, step):
    """A weight between the steps that are named, in fractions."""
    named = sorted(schedule)
    if step <= named[0] or step >= named[-1]:
        return Fraction(str(schedule[named[0] if step <= named[0] else named[-1]]))
    low = max(one for one in named if one <= step)
    high = min(one for one in named if one > step)
    first, last = Fraction(str(schedule[low])), Fraction(str(schedule[high]))
    return first + (last - first) * Fraction(step - low, high - low)


def walked(weights, rows, steps):
    """The draws before each step, by one step after the other, in fractions."""
    found, summed = [[0] * (len(weights) + 1)], [Fraction(1, 2)] * len(weights)
    for step in range(steps):
        left, free, drawn = Fraction(1), rows, []
        for number, schedule in enumerate(weights):
            weight = weight_at(schedule, step)
            share = Fraction(round(weight / left * UNIT), UNIT)  # as exact as `Draws` is
            before = int(summed[number])
            summed[number] += free * share
            drawn.append(int(summed[number]) - before)
            free, left = free - drawn[-1], left - weight
        found.append([was + now for was, now in zip(found[-1], [free, *drawn], strict=True)])
    return found


@pytest.mark.parametrize("rows", [1, 2, 8, 32])
@pytest.mark.parametrize("weights", [LEVEL, [{0: 0.01}], CURRICULUM], ids=["level", "1%", "steps"])
def test_draws_are_those_of_a_walk_and_keep_to_their_weights(weights, rows):
    draws, steps = Draws(weights, rows), 120
    found = [draws.before(step) for step in range(steps + 1)]
    assert found == walked(weights, rows, steps)
    assert all(sum(one) == rows * step for step, one in enumerate(found))
    assert (np.diff(found, axis=0) >= 0).all()
    due = np.cumsum([[float(weight_at(w, s)) * rows for w in weights] for s in range(steps)], 0)
    off = np.abs(np.array(found)[1:, 1:] - due)
    assert off.max() <= len(weights) / 2 + 1e-6


def test_draws_far_away_are_summed_without_a_loss():
    """Of 8 billion rows; and beyond the last step of a schedule as within a longer one."""
    assert Draws([{0: 0.5}, {0: 0.125}], 8).before(10**9) == [3 * 10**9, 4 * 10**9, 10**9]
    longer = Draws([{**one, 400: one[max(one)]} for one in CURRICULUM], 8)
    assert [Draws(CURRICULUM, 8).before(step) for step in range(400)] == [
        longer.before(step) for step in range(400)
    ]


# ---------------------------------------------------------------- rows


def sources_of(sizes=SIZES, batch_size=4, seed=3):
    """The data itself in shards, the sets in a table."""
    first, *others = sizes.values()
    shards = tuple(len(part) for part in np.array_split(np.arange(first), 7))
    windows = Windows(sizes=shards, batch_size=batch_size, seed=seed, window_shards=3)
    orders = [Order(num_rows=n, batch_size=batch_size, seed=seed + n) for n in others]
    return [windows, *orders]


def plan_of(kind=Mixture, sizes=SIZES, **settings):
    common = {"weights": LEVEL, "batch_size": 4, "batches_per_step": 2, "seed": 3}
    return kind(sources=sources_of(sizes), sizes=sizes, **{**common, **settings})


def steps_of(plan, number):
    """The first steps of all epochs, as pairs of a pass and a row."""
    found, epoch = [], 0
    while len(found) < number:
        batches = np.concatenate(list(plan.batches(epoch))).reshape(plan.steps, -1, 2)
        found += [[tuple(pair) for pair in step] for step in batches.tolist()]
        epoch += 1
    return found[:number]


def test_rows_are_the_next_ones_of_their_sources():
    """Beside plain iterators over the passes of each source, over several epochs of the mixture."""
    plan = plan_of()
    starts = dict(zip(SIZES, (0, 91, 101), strict=True))

    def endless(name, order):
        for number in itertools.count():
            rows = (
                np.concatenate(list(order.batches(number)))
                if isinstance(order, Windows)
                else np.random.default_rng([order.seed, number]).permutation(SIZES[name])
            )
            yield from ((number, starts[name] + int(row)) for row in rows)

    iterators = [endless(*pair) for pair in zip(SIZES, sources_of(), strict=True)]
    steps = 3 * plan.steps
    draws = np.diff(walked(LEVEL, 8, steps), axis=0).tolist()
    found = steps_of(plan, steps)
    for step, numbers in enumerate(draws):
        due = [next(one) for one, n in zip(iterators, numbers, strict=True) for _ in range(n)]
        assert sorted(found[step]) == sorted(due)
    firsts = Counter(starts["books"] <= step[0][1] < starts["code"] for step in found)
    assert firsts[True] > 0  # the rows of a step are shuffled: a set's come first in some
    assert firsts[False] > 0


@pytest.mark.parametrize("weights", [LEVEL, CURRICULUM], ids=["level", "steps"])
def test_rows_of_a_source_come_equally_often(weights):
    """In each pass once, also over the epochs of the mixture."""
    plan = plan_of(weights=weights)
    pairs = Counter(pair for step in steps_of(plan, 5 * plan.steps) for pair in step)
    assert max(pairs.values()) == 1
    for start, size in zip((0, 91, 101), SIZES.values(), strict=True):
        rows = Counter(row for _, row in pairs if start <= row < start + size)
        often = [rows[row] for row in range(start, start + size)]
        assert max(often) - min(often) <= 1


def sought(make):
    """Whether a plan that is made anew gives from each position what one gives from the start."""
    alone = [list(Batches(make(), epoch=epoch)) for epoch in range(2)]
    return all(
        list(Batches(make(), epoch=epoch, position=position)) == alone[epoch][position:]
        for epoch in range(2)
        for position in (0, 1, 2, 5, len(alone[epoch]) - 1)
    )


def shared_alike(make):
    """Whether ranks that share the steps of a plan have between them what one alone has."""
    alone = list(Batches(make(0), Place(0, 1, 4)))
    for world_size in (2, 4):
        own = 4 // world_size
        ranks = [list(Batches(make(r), Place(r, world_size, own))) for r in range(world_size)]
        found = [
            batch
            for step in range(len(alone) // 4)
            for rank in ranks
            for batch in rank[step * own : (step + 1) * own]
        ]
        if found != alone:
            return False
    return True


class Running(Mixture):
    """Draws by a generator that runs on, as a buffer of examples does."""

    @cached_property
    def step(self):
        rng, first = np.random.default_rng(self.seed), super().step
        return lambda step: rng.permutation(first(step))


@pytest.mark.parametrize("weights", [LEVEL, CURRICULUM], ids=["level", "steps"])
@pytest.mark.parametrize("grouped", [False, True], ids=["plain", "by length"])
def test_each_position_is_found_alone_by_any_rank(weights, grouped):
    lengths = np.random.default_rng(0).integers(1, 50, sum(SIZES.values())) if grouped else None
    settings = {"weights": weights, "lengths": lengths}
    assert sought(lambda: plan_of(**settings))
    assert not sought(lambda: plan_of(Running, **settings))
    settings |= {"batch_size": 2, "batches_per_step": 4}
    assert shared_alike(lambda rank: plan_of(**settings))
    assert not shared_alike(lambda rank: plan_of(**settings, seed=3 + rank))


def test_a_step_does_not_depend_on_how_it_is_split():
    whole, split = (
        plan_of(batch_size=8, batches_per_step=1),
        plan_of(batch_size=2, batches_per_step=4),
    )
    assert steps_of(whole, 30) == steps_of(split, 30)


def test_grouped_steps_have_like_lengths_and_the_same_rows():
    lengths = np.random.default_rng(0).integers(1, 100, sum(SIZES.values()))
    plain, grouped = (steps_of(plan_of(lengths=one), 2 * RUN) for one in (None, lengths))
    for start in (0, RUN):
        runs = [sorted(chain(*steps[start : start + RUN])) for steps in (plain, grouped)]
        assert runs[0] == runs[1]
    spread = [
        np.mean([np.ptp(lengths[[row for _, row in step]]) for step in s]) for s in (plain, grouped)
    ]
    assert spread[1] < spread[0] / 5


def test_the_same_steps_come_again_where_nothing_is_shuffled():
    sources = [Order(num_rows=n, batch_size=4, shuffle=False) for n in SIZES.values()]
    plan = Mixture(sources=sources, sizes=SIZES, weights=LEVEL, batch_size=4, shuffle=False)
    epochs = [np.concatenate(list(plan.batches(epoch))).tolist() for epoch in range(2)]
    assert epochs[0] == epochs[1]


# ---------------------------------------------------------------- epochs, weights


@pytest.mark.parametrize("weights", [LEVEL, CURRICULUM, [{0: 0.01}]], ids=["level", "steps", "1%"])
def test_an_epoch_ends_with_the_first_or_the_last_source(weights):
    sizes = dict(list(SIZES.items())[: len(weights) + 1])
    drawn = walked(weights, 8, 300)
    first = next(s for s, one in enumerate(drawn) if any(map(int.__gt__, one, sizes.values()))) - 1
    last = next(s for s, one in enumerate(drawn) if all(map(int.__ge__, one, sizes.values())))
    ends = [
        plan_of(sizes=sizes, weights=weights, stopping_strategy=strategy).steps
        for strategy in ("first_exhausted", "all_exhausted")
    ]
    assert ends == [first, last]


def test_a_set_that_is_never_used_up_is_told():
    plan = plan_of(weights=[{0: 0.5, 2: 0.0}, {0: 0.1}], stopping_strategy="all_exhausted")
    with pytest.raises(UserError, match="a set whose weight ends at 0 is never used up"):
        len(plan)
    tiny = plan_of(sizes={"train": 2, "books": 1, "code": 3})
    assert tiny.steps == 1  # a source is used up within the first step


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 1e9])
def test_a_temperature_weighs_by_powers_of_sizes(temperature):
    sizes = {"train": 900, "books": 100, "code": 25}
    mix = Mix(mix={"books": "b.txt", "code": "c.txt"}, mix_temperature=temperature)
    total = sum(size ** (1 / temperature) for size in sizes.values())
    due = [{0: pytest.approx(sizes[n] ** (1 / temperature) / total)} for n in ("books", "code")]
    assert mix.weights(sizes) == due


@pytest.mark.parametrize(
    ("mix", "said"),
    [
        ({"weight": 0}, r"books\.weight=0: the weights are the probabilities"),
        ({"weight": {0: 0.0, 9: 0.0}}, "above 0 each"),
        ({"weight": "much"}, r"weight=much: the weights are the prob"),
        ({}, r"weight=None: the weights are the probabilities"),
        ({"weight": {0: 0.1, 100: 1.5}}, r"a mapping from optimizer steps \(up to 10,000,000\)"),
        ({"weight": {"soon": 0.5}}, r"weight=\{'soon': 0\.5\} should be a number, or a mapping"),
        ({"weight": {-1: 0.5}}, "should be a number, or a mapping"),
        ({"weight": {0: 0.1, 100: 0.9}}, r"not 0\.9, 0\.2 at step 100"),
        ({"weight": 0.8}, r"below 1 in all, not 0\.8, 0\.2\."),
        ({"weight": 0.1, "wieght": 1}, "no 'wieght'; did you mean 'weight'"),
    ],
)
def test_weights_that_are_none_are_told(mix, said):
    other = {"path": "c.txt", "weight": 0.2}
    with pytest.raises(UserError, match=said):
        Mix(mix={"books": {"path": "b.txt", **mix}, "code": other})


def test_what_does_not_go_together_is_told():
    with pytest.raises(UserError, match=r"leave out data\.mix\.books\.weight"):
        Mix(mix={"books": {"path": "b.txt", "weight": 0.1}}, mix_temperature=2.0)
    with pytest.raises(UserError, match="and there are none"):
        Mix(mix_temperature=2.0)
    with pytest.raises(UserError, match="not for a mixture: leave it out"):
        Batching(max_tokens=99).check_mixture()
    for folder, name, one, said in [
        (None, "a", {"prepared": "b"}, r"give data\.prepared=<folder> too"),
        ("s", "a", {"split": "c"}, r"data\.mix\.a\.split=c is for data sets of the hub"),
        ("s", "a/b", {}, r"a/b: a set that is prepared is a folder; rename it"),
        ("s", "..", {}, "rename it"),
    ]:
        with pytest.raises(UserError, match=said):
            Mix(mix={name: {"path": "b", "weight": 0.1, **one}}).check_prepared(folder)


# ---------------------------------------------------------------- from files to batches


def masked(folder, mix):
    """Masked texts of a file of 12 rows, with sets; and the data module's batches."""
    write_jsonl(folder / "own.jsonl", [{"text": article(i)["article"]} for i in range(12)])
    write_jsonl(folder / "few.jsonl", [{"text": article(90 + i)["article"]} for i in range(2)])

    data = DataModule(
        shape=MaskedLM(max_length=32, mlm_probability=0.5),
        source=Source(path={s: str(folder / "own.jsonl") for s in ("train", "validation")}),
        mix=mix,
        batching=Batching(batch_size=4),
        tokenizer=tokenizer_of,
    )
    data.prepare_data()
    return data


def test_a_row_that_comes_again_is_another_example(tmp_path):
    """Its mask is drawn from the pass through its own source."""
    few = {"few": {"path": str(tmp_path / "few.jsonl"), "weight": 0.5}}
    data = masked(tmp_path, Mix(mix=few, stopping_strategy="all_exhausted"))
    assert len(data.encoded("train")) == 14
    seen = []
    for batch in data.train_dataloader():
        texts = torch.where(batch["labels"] < 0, batch["input_ids"], batch["labels"])
        seen += zip(map(tuple, texts.tolist()), map(tuple, batch["labels"].tolist()), strict=True)
    again = [one for one, number in Counter(text for text, _ in seen).items() if number > 2]
    assert len(again) == 2  # six times each
    for text in again:
        masks = [labels for one, labels in seen if one == text]
        assert len(set(masks)) == len(masks)


@pytest.fixture
def mixed(overrides, tmp_path):  # noqa: F811
    """The corpus of the other tests, and a set of 12 short texts."""
    rows = [{"content": f"{i}: {article(i)['highlights']}"} for i in range(12)]
    write_jsonl(tmp_path / "books.jsonl", rows)
    books = f"{{path: {tmp_path}/books.jsonl, weight: {{0: 0.1, 6: 0.5}}}}"
    return [*overrides, f"data.mix={{books: {books}}}", "trainer.log_every_n_steps=1"]


def test_a_resumed_mixture_is_the_uninterrupted_one(mixed, tmp_path, monkeypatch, capsys):
    """Of prepared corpora, by a schedule; shares and passes are those of a count of the rows."""
    seen: list = []
    crashes: list = []

    def note(task, batch, *args):
        if task.global_step == 3 and len(crashes) == 1:
            raise Crash
        seen.append(batch["input_ids"].tolist())

    monkeypatch.setattr(Task, "on_train_batch_start", note, raising=False)
    hydralight.train([*mixed, "check=true"])
    screen = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "mix/books 10 examples; 23.8% of what 5 steps train on, 1.90 times each" in screen
    whole = hydralight.train(mixed)
    order = [*seen]
    assert len(order) == 20
    crashes.append(1)
    with pytest.raises(Crash):
        hydralight.train([*mixed, f"paths.log_dir={tmp_path / 'crashed'}"])
    crashes.append(2)
    seen.clear()
    (crashed,) = (tmp_path / "crashed/train/runs").iterdir()
    with pytest.raises(UserError, match=r"data\.mix\.books\.weight=\{0: 0\.1, 6: 0\.5\}, and ano"):
        hydralight.train([f"resume={crashed}", "data.mix.books.weight=0.3"])
    with pytest.raises(UserError, match=r"with data\.mix=books, and another value would change"):
        hydralight.train([f"resume={crashed}", "data.mix=null"])
    resumed = hydralight.train([f"resume={crashed}", "data.num_workers=2"])
    assert seen == order[12:]
    states = [
        torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in (whole, resumed)
    ]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    tables = [pd.read_csv(run.path / "metrics.csv") for run in (whole, resumed)]
    pd.testing.assert_frame_equal(*tables)
    logged = tables[0].dropna(subset=["mix/books"])
    drawn = np.array(walked([{0: 0.1, 6: 0.5}], 16, 5))[1:, 1]
    assert logged["mix/books"].tolist() == pytest.approx(drawn / (16 * np.arange(1, 6)))
    assert logged["mix/books_epochs"].tolist() == pytest.approx(drawn / 10)
    assert logged["mix/train"].tolist() == pytest.approx(1 - logged["mix/books"])
    evaluated = hydralight.evaluate([f"run={resumed.path}"])
    assert evaluated["val/loss"] == pytest.approx(resumed.metrics["best"]["val/loss"], abs=1e-6)


# ---------------------------------------------------------------- corpora


def corpora(folder, mix, **parts):
    """A corpus of 40 texts in blocks, and sets beside it."""
    if not (folder / "own.jsonl").exists():
        write_jsonl(folder / "own.jsonl", rows(0, 40))
    data = module(folder / "own.jsonl", folder / "shards", **parts)
    data.mix = Mix(mix={n: {"path": str(folder / f"{n}.jsonl"), **one} for n, one in mix.items()})
    return data


def blocks(data):
    """The tokens of each block, once."""
    train = data.encoded("train")
    return {tuple(train[i]["input_ids"]) for i in range(len(train))}


def test_each_set_is_a_corpus_of_its_own(tmp_path):
    """In the corpus' folder or its own; then without its files. The mixture has all their rows."""
    write_jsonl(tmp_path / "few.jsonl", rows(50, 54))
    write_jsonl(tmp_path / "more.jsonl", rows(70, 90))
    alone = [module(tmp_path / f"{n}.jsonl", tmp_path / n) for n in ("few", "more")]
    own = module(tmp_path / "own.jsonl", tmp_path / "own")
    elsewhere = {"weight": 0.2, "prepared": str(tmp_path / "more")}
    data = corpora(tmp_path, {"few": {"weight": 0.3}, "more": elsewhere})
    due = [blocks(one) for one in (own, *alone)]
    assert blocks(data) == set().union(*due)
    assert (tmp_path / "shards/mix/few/index.json").is_file()
    assert not (tmp_path / "shards/mix/more").exists()
    loader = data.train_dataloader()
    drawn = np.array([row for batch in loader.batch_sampler for _, row in batch])
    ends = np.cumsum([len(one.encoded("train")) for one in (own, *alone)])
    seen = np.bincount(np.searchsorted(ends, drawn, side="right"))
    assert seen == pytest.approx(len(drawn) * np.array([0.5, 0.3, 0.2]), abs=1)
    assert seen[1] == pytest.approx(ends[1] - ends[0], abs=1)  # the smallest, once
    some = drawn[-5:].tolist()
    train = data.encoded("train")
    assert train.__getitems__(some) == [train[row] for row in some]
    for name in ("few", "more"):
        (tmp_path / f"{name}.jsonl").unlink()
    again = corpora(tmp_path, {"few": {"weight": 0.3}, "more": elsewhere})
    assert blocks(again) == set().union(*due)
    assert again.trained_on == data.trained_on
    other = corpora(tmp_path, {"few": {"weight": 0.3}})
    with pytest.raises(UserError, match="the training data is not the run's"):
        other.load_state_dict({**data.state_dict(), **other.mix.order_settings()})


def test_a_text_to_validate_on_is_trained_on_nowhere(tmp_path):
    write_jsonl(tmp_path / "same.jsonl", rows(0, 40))
    write_jsonl(tmp_path / "few.jsonl", rows(60, 61))  # none of them is to validate on
    parts = {"shape": MaskedLM(max_length=64), "corpus": {"validation_hash": 0.2, "workers": 0}}
    data = corpora(tmp_path, {"same": {"weight": 0.5}, "few": {"weight": 0.1}}, **parts)
    train, validation = blocks(data), blocks_of(data.encoded("validation"))
    assert validation
    assert not train & validation
    assert len(train | validation) == 41


def blocks_of(rows):
    return set(map(tuple, rows["input_ids"][:]))


def test_a_further_set_of_a_prepared_corpus_is_evaluated(tmp_path):
    write_jsonl(tmp_path / "other.jsonl", rows(60, 63))
    data = corpora(tmp_path, {})
    data.mix = Mix(extra_eval={"other": str(tmp_path / "other.jsonl")})
    alone = corpora(tmp_path, {})
    alone.source = Source(path={"validation": str(tmp_path / "other.jsonl")})
    alone.corpus = Corpus()
    assert data.encoded("other")["input_ids"][:] == alone.encoded("validation")["input_ids"][:]


def test_sets_with_other_columns_are_refused(tmp_path):
    write_jsonl(tmp_path / "few.jsonl", [{"words": "a b c"}] * 3)
    data = corpora(tmp_path, {"few": {"weight": 0.3}})
    with pytest.raises(
        UserError, match=r"data\.mix\.few.* try 'data\.mix\.few\.columns=\{text: words"
    ):
        data.encoded("train")
    assert not (tmp_path / "shards/index.json").exists()


def test_a_config_that_was_read_does_not_prepare_sets_elsewhere(tmp_path):
    path, value = "data.mix.few.prepared", str(tmp_path / "few")
    leaf = Leaf(path, "prepared", value, value, "", "data")
    assert writes_elsewhere(leaf, tmp_path / "run")


# ---------------------------------------------------------------- streams


def streamed(folder):
    """Two streams: 60 texts, and 8 that a quarter of the rows are drawn from."""
    if not (folder / "few.jsonl").exists():
        write_jsonl(folder / "own.jsonl", rows(0, 60))
        write_jsonl(folder / "few.jsonl", rows(100, 108))
    data = test_streaming.module(folder / "own.jsonl")
    data.mix = Mix(mix={"few": {"path": str(folder / "few.jsonl"), "weight": {0: 0.25, 20: 0.5}}})
    data.encoded("train")
    return data


def drawn(data, number, place=None, consumed=0):
    """The first batches of a stream: of each row the pass, and its number in the text."""
    train, found = data.encoded("train"), []
    batches = data.taken.stream.batches(place or Place(), None, consumed)
    for batch in itertools.islice(batches, number):
        read = train.__getitems__([index for _, index in batch])
        words = [test_streaming.texts_of([row])[0] for row in read]
        numbers = [int(word.rpartition("Number ")[2].rstrip(".")) for word in words]
        found.append([(epoch, one) for (epoch, _), one in zip(batch, numbers, strict=True)])
    return found


def test_streams_are_mixed_and_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "PART_BYTES", 1000)
    monkeypatch.setattr(windows, "FIRST_BYTES", 500)
    monkeypatch.setattr(windows, "BYTES", 2000)
    data = streamed(tmp_path)
    seen = drawn(data, 40)
    due = np.diff(walked([{0: 0.25, 20: 0.5}], 4, 40), axis=0)[:, 1].tolist()
    assert [sum(number >= 100 for _, number in batch) for batch in seen] == due
    pairs = Counter(chain(*seen))
    assert max(pairs.values()) == 1
    often = Counter(number for _, number in pairs if number >= 100)
    assert len(often) == 8
    assert max(often.values()) - min(often.values()) <= 1
    figures = data.taken.stream.figures(40)
    assert figures["mix/few"] == pytest.approx(sum(due) / 160)
    assert figures["mix/few_epochs"] == sum(due) // 8
    states = {}
    fresh = streamed(tmp_path)
    for number in (3, 21):
        drawn(fresh, number)
        states[number] = fresh.taken.stream.state(number)
    for number, state in states.items():
        other = streamed(tmp_path)
        other.taken.stream.go_on(state)
        assert drawn(other, 40 - number, consumed=number) == seen[number:]
    alone = drawn(streamed(tmp_path), 16, Place(0, 1, 4))
    ranks = [drawn(streamed(tmp_path), 8, Place(rank, 2, 2)) for rank in range(2)]
    shared = [b for step in range(4) for r in ranks for b in r[2 * step : 2 * step + 2]]
    assert shared == alone
    del data, fresh, other
    gc.collect()  # a stream's folder goes with it


def test_a_temperature_of_streams_is_refused(tmp_path):
    write_jsonl(tmp_path / "few.jsonl", rows(0, 3))
    data = test_streaming.module(tmp_path / "few.jsonl")
    data.mix = Mix(mix={"few": str(tmp_path / "few.jsonl")}, mix_temperature=2.0)
    with pytest.raises(UserError, match="sizes of all sets, which are not known of streams"):
        data.encoded("train")
