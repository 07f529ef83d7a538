"""The order of a corpus in shards: seekable, whole, well mixed, the same whoever reads it."""

import time

import numpy as np
import pytest

from hydralight.data.corpus.permutation import Permutation
from hydralight.data.corpus.windows import Bounds, Windows
from hydralight.data.order import Batches, Order, Place

SIZES = (7, 1, 12, 30, 4, 9, 25, 3)  # 91 rows


def plan_of(sizes=SIZES, **settings):
    return Windows(**{"sizes": tuple(sizes), "batch_size": 4, "window_shards": 3, **settings})


def order_of(plan, epoch=0):
    return np.concatenate(list(plan.batches(epoch)))


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 17, 64, 1000, 65_537])
def test_a_permutation_takes_each_index_once(number):
    found = Permutation(number, 3, 1)(np.arange(number))
    assert sorted(found.tolist()) == list(range(number))


def test_other_seeds_are_other_permutations_and_any_place_is_found_alone():
    whole = Permutation(1000, 3, 1)(np.arange(1000))
    assert [int(Permutation(1000, 3, 1)(np.array([i]))[0]) for i in (0, 500, 999)] == [
        *whole[[0, 500, 999]]
    ]
    for seeds in [(3, 2), (4, 1), (3, 1, 0)]:
        other = Permutation(1000, *seeds)(np.arange(1000))
        assert (other == whole).sum() < 10  # one is expected


@pytest.mark.parametrize("number", [6, 37, 1024])
def test_each_index_is_as_likely_at_each_place(number):
    """Chi-squared over 4000 permutations, to 5 sigma; and of what follows an index."""
    found = np.array([Permutation(number, seed)(np.arange(3)) for seed in range(4000)])
    after = (found[:, 1] - found[:, 0]) % number
    for values, possible in ((found[:, 0], range(number)), (after, range(1, number))):
        cells = min(len(possible), 16)
        cell = np.searchsorted(
            np.linspace(possible[0], number, cells, endpoint=False), values, "right"
        )
        edges = np.searchsorted(
            np.linspace(possible[0], number, cells, endpoint=False), possible, "right"
        )
        expected = 4000 * np.bincount(edges, minlength=cells + 1)[1:] / len(possible)
        counts = np.bincount(cell, minlength=cells + 1)[1:]
        chi = ((counts - expected) ** 2 / expected).sum()
        assert chi < cells - 1 + 5 * np.sqrt(2 * (cells - 1))


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("num_rows", [3, 8, 50, 61, 64, 71])
def test_micro_batches_are_as_large_as_those_of_a_table(num_rows, batch_size, number):
    bounds = Bounds(num_rows, batch_size, number)
    sizes = [stop - start for start, stop in (bounds[i] for i in range(len(bounds)))]
    order = Order(num_rows=num_rows, batch_size=batch_size, batches_per_step=number)
    assert sizes == order.batch_sizes()


def test_no_row_is_lost_and_each_epoch_has_an_order_of_its_own():
    epochs = [order_of(plan_of(seed=5), epoch) for epoch in range(3)]
    for order in epochs:
        assert sorted(order.tolist()) == list(range(91))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[0], order_of(plan_of(seed=6)))
    assert np.array_equal(order_of(plan_of(shuffle=False)), np.arange(91))


def test_a_window_is_of_so_many_shards_and_is_mixed():
    plan = plan_of([50] * 12, window_shards=4, batch_size=10)
    order = order_of(plan)
    shards = [set((order[start : start + 200] // 50).tolist()) for start in range(0, 600, 200)]
    assert [len(found) for found in shards] == [4, 4, 4]
    assert set().union(*shards) == set(range(12))
    batches = [len({*(rows // 50).tolist()}) for rows in plan.batches(0)]
    assert min(batches) > 1  # each batch is of several shards


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_the_steps_of_one_order(world_size):
    plan = plan_of(batches_per_step=4, batch_size=2, seed=1)
    alone = [[row for _, row in batch] for batch in Batches(plan, Place(0, 1, 4))]
    ranks = [
        [[row for _, row in batch] for batch in Batches(plan, Place(rank, world_size, own))]
        for own in [4 // world_size]
        for rank in range(world_size)
    ]
    own, steps = 4 // world_size, len(alone) // 4
    shared = [b for step in range(steps) for r in ranks for b in r[step * own : (step + 1) * own]]
    assert shared == alone
    for position in range(len(alone)):
        left = Batches(plan, Place(0, 1, 4), 0, position)
        assert [[row for _, row in batch] for batch in left] == alone[position:]


def test_shards_are_announced_a_window_ahead():
    said = []
    plan = plan_of(ahead=said.append)
    epoch = plan.batches(0)
    assert list(epoch) is not None
    shards = epoch.shards.tolist()
    assert said == [shards[0:6], shards[3:9], shards[6:12]]


def test_a_hundred_million_rows_take_no_table():
    """32 thousand shards; the first batch, one in the middle and the last."""
    start = time.process_time()
    plan = plan_of([3125] * 32_000, batch_size=8, batches_per_step=4, window_shards=8)
    batches = Batches(plan, Place(0, 2, 2), 3, position=len(plan) // 4)
    first = next(iter(batches))
    assert len(first) == 8
    assert len(plan.batches(0)[len(plan) - 1]) == 8
    assert time.process_time() - start < 5  # a table of all takes 20 s and 4 GB


def test_neighbours_come_as_far_apart_as_in_a_full_shuffle_within_a_window():
    """The distance in the order of rows that were neighbours, in parts of a window."""
    number, window = 64 * 500, 8 * 500
    order = order_of(plan_of([500] * 64, window_shards=8, batch_size=100))
    places = np.empty(number, dtype=int)
    places[order] = np.arange(number)
    apart = np.abs(np.diff(places))[np.arange(number - 1) % 500 != 499]  # within a shard
    full = np.random.default_rng(0).permutation(window)
    expected = np.quantile(np.abs(np.diff(full)), [0.1, 0.5, 0.9])
    np.testing.assert_allclose(np.quantile(apart, [0.1, 0.5, 0.9]), expected, rtol=0.1)
    assert apart.max() < window
