"""The order of the data is a function of seed, epoch and position, whatever the ranks."""

import numpy as np
import pytest

from hydralight.data.batches import Batching
from hydralight.data.budget import Budget, widest
from hydralight.data.order import Batches, LongestFirst, Order, Place, shares
from hydralight.errors import UserError


def batches(num_rows, batch_size, place=None, epoch=0, position=0, **settings):
    place = place or Place()
    plan = Order(
        num_rows=num_rows,
        batch_size=batch_size,
        world_size=place.world_size,
        batches_per_step=place.accumulate_grad_batches,
        **settings,
    )
    return Batches(plan, place, epoch, position)


def indices(sampler):
    """The rows of one epoch's batches, without the epoch that goes with each."""
    return [[index for _, index in batch] for batch in sampler]


def test_order_is_a_function_of_seed_and_epoch():
    def epochs(seed, number=3):
        sampler = batches(10, 4, seed=seed)
        return [indices(sampler) for _ in range(number)]

    first, second, third = epochs(seed=0)
    assert epochs(seed=0) == [first, second, third]
    assert first != second != third
    assert epochs(seed=1)[0] != first
    for epoch in (first, second, third):
        assert sorted(i for batch in epoch for i in batch) == list(range(10))
        assert [i for batch in epoch for i in batch] != list(range(10))
    assert indices(batches(5, 2, shuffle=False)) == [[0, 1], [2, 3], [4]]


def test_order_goes_on_from_any_position():
    sampler = batches(10, 4, seed=3)
    whole = [list(sampler) for _ in range(3)]
    assert {epoch for batch in whole[1] for epoch, _ in batch} == {1}
    resumed = batches(10, 4, seed=3, epoch=1, position=2)
    assert list(resumed) == whole[1][2:]
    assert list(resumed) == whole[2]


def test_batches_of_like_lengths():
    lengths = np.random.default_rng(0).integers(5, 500, 1003)
    sampler = batches(1003, 8, seed=2, lengths=lengths)
    first, second = indices(sampler), indices(sampler)
    for epoch in (first, second):
        assert sorted(i for batch in epoch for i in batch) == list(range(1003))
        assert len(epoch[-1]) == 3
        assert lengths.argmax() in epoch[0]
    together = lambda epoch: {frozenset(batch) for batch in epoch}  # noqa: E731
    assert len(together(first) & together(second)) < 3

    def padded(epoch):
        return sum(len(batch) * lengths[batch].max() for batch in epoch) / lengths.sum()

    plain = indices(batches(1003, 8, seed=2))
    assert padded(plain) > 1.6
    assert padded(first) < 1.1
    longest = [lengths[batch].max() for batch in first[1:-1]]
    assert abs(np.corrcoef(longest, range(len(longest)))[0, 1]) < 0.2  # not from long to short

    resumed = batches(1003, 8, seed=2, lengths=lengths, epoch=1, position=60)
    assert indices(resumed) == second[60:]
    ranks = [
        indices(batches(1003, 4, Place(rank, 2), seed=2, lengths=lengths)) for rank in range(2)
    ]
    steps = [sorted(one + other) for one, other in zip(*ranks, strict=True)]
    assert steps == [sorted(batch) for batch in first]


@pytest.mark.parametrize(
    ("num_rows", "world_size", "max_tokens"),
    [(1003, 1, 2048), (1003, 2, 1024), (17, 3, 600), (500, 1, 512), (4, 2, 4000)],
)
def test_batches_of_a_token_budget(num_rows, world_size, max_tokens):
    lengths = np.random.default_rng(num_rows).integers(5, 513, num_rows)

    def ranks(epoch, position=0):
        samplers = [
            Batches(
                Budget(lengths, max_tokens, seed=2, world_size=world_size), Place(rank, world_size)
            )
            for rank in range(world_size)
        ]
        for sampler in samplers:
            sampler.epoch, sampler.position = epoch, position
        found = [indices(sampler) for sampler in samplers]
        assert {len(part) + position for part in found} == {len(sampler) for sampler in samplers}
        return found

    epochs = [ranks(epoch) for epoch in range(3)]
    assert len({len(part) for parts in epochs for part in parts}) == 1
    for parts in epochs:
        rows = sorted(row for part in parts for batch in part for row in batch)
        assert len(rows) == len(set(rows)) > num_rows - world_size
        sizes = [len(batch) * lengths[batch].max() for part in parts for batch in part]
        assert max(sizes) <= max_tokens
        if num_rows > 100:
            assert len(rows) == num_rows
            assert lengths.max() in [lengths[part[0]].max() for part in parts]
            assert sum(sizes) < 1.1 * lengths.sum()
    together = [{frozenset(b) for b in parts[0] if len(b) > 3} for parts in epochs]
    if num_rows > 100:
        assert len(together[0] & together[1]) < len(together[0]) / 4
        longest = [lengths[batch].max() for batch in epochs[0][0][1:]]
        assert abs(np.corrcoef(longest, range(len(longest)))[0, 1]) < 0.2
    assert ranks(1, position=1) == [part[1:] for part in epochs[1]]


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize(("longest", "max_tokens"), [((400, 112), 1000), ((40, 12), 99)])
def test_a_token_budget_holds_for_sources_and_targets(longest, max_tokens, world_size):
    rng = np.random.default_rng(4)
    parts = np.stack([rng.integers(5, length, 800) for length in longest], axis=1)
    sampler = Batches(
        Budget(parts, max_tokens, seed=2, world_size=world_size), Place(0, world_size)
    )
    for _ in range(3):
        found = [parts[batch] for batch in indices(sampler)]
        sizes = [len(batch) * batch.max(axis=0).sum() for batch in found]
        assert max(sizes) <= max_tokens
        assert sum(sizes) < 1.4 * sum(batch.sum() for batch in found)
        assert len(found) == len(sampler)


def test_rows_of_one_length_may_change_places():
    parts = np.array([[5, 1], [3, 3], [1, 5], [2, 1]])
    bounds = ((0, 1), (1, 2), (2, 4), (3, 9))
    assert [widest(parts, parts.sum(axis=1), *pair) for pair in bounds] == [10, 10, 10, 3]


@pytest.mark.parametrize("num_rows", [8, 9, 11, 16, 17])
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_global_batches(num_rows, world_size):
    alone = indices(batches(num_rows, 3 * world_size, seed=1))
    ranks = [
        indices(batches(num_rows, 3, Place(rank, world_size), seed=1)) for rank in range(world_size)
    ]
    assert len({len(found) for found in ranks}) == 1
    steps = [sorted(i for part in step for i in part) for step in zip(*ranks, strict=True)]
    assert sorted(i for step in steps for i in step) == list(range(num_rows))
    assert all(part for found in ranks for part in found)
    if num_rows % (3 * world_size) >= world_size or num_rows % (3 * world_size) == 0:
        assert steps == [sorted(batch) for batch in alone]


@pytest.mark.parametrize(("num_rows", "whole"), [(64, 4), (61, 3), (50, 2)])
def test_micro_batches_of_a_step_are_those_of_any_number_of_ranks(num_rows, whole):
    """A step of 16 rows in micro-batches of 2: accumulated by one, or shared by two or four.

    The last step may be short, and then it may borrow rows from the one before.
    """

    def steps(world_size, size=8):
        found = []
        for rank in range(world_size):
            place = Place(rank, world_size, size // world_size)
            found.append(indices(batches(num_rows, 2, place, seed=4)))
        count = size // world_size
        return [
            [micro for rank in found for micro in rank[start : start + count]]
            for start in range(0, len(found[0]), count)
        ]

    alone = steps(1)
    for world_size in (2, 4):
        shared = steps(world_size)
        assert shared[:whole] == alone[:whole]  # in this order, too
        assert len(shared) == len(alone)
        assert sorted(row for step in shared for micro in step for row in micro) == list(
            range(num_rows)
        )


def test_a_resumed_rank_goes_on_within_a_step():
    place = Place(1, 2, 4)
    whole = indices(batches(64, 2, place, seed=4))
    for position in range(16):
        assert indices(batches(64, 2, place, seed=4, position=position)) == whole[position:]


def test_shares_of_unequal_batches_are_cut_each_by_itself():
    step = [np.arange(6), np.arange(6, 9)]
    assert [list(part) for part in shares(step, 0, 2)] == [[0, 1, 2], [6, 7]]
    assert [list(part) for part in shares(step, 1, 2)] == [[3, 4, 5], [8]]
    assert [list(part) for part in shares([np.arange(8)] * 2, 1, 2)] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_evaluation_goes_by_the_last_part_first():
    sizes = np.array([[5, 1], [3, 3], [9, 1], [4, 3]])
    order = LongestFirst(num_rows=4, batch_size=2, sizes=sizes)
    assert order.rows(0).tolist() == [3, 1, 2, 0]


def test_batches_are_of_like_lengths_where_asked():
    sizes = np.random.default_rng(0).integers(5, 500, (400, 2))
    lengths = sizes.sum(axis=1)

    def padding(**settings):
        found = indices(Batching(batch_size=8, **settings).training(sizes, Place()))
        assert sorted(row for batch in found for row in batch) == list(range(400))
        return sum(len(batch) * lengths[batch].max() for batch in found) / lengths.sum()

    assert padding(group_by_length=True) < 1.1 < 1.4 < padding()


def test_settings_of_batches_are_refused():
    with pytest.raises(UserError, match="no room for a training example of 9 tokens"):
        Batching(max_tokens=8).training(np.array([[4], [9]]), Place())
    with pytest.raises(UserError, match="1 training examples are too few for 2 devices"):
        Batching().training(np.array([[4]]), Place(0, 2))
