"""The order of the data is a function of seed, epoch and position, whatever the ranks."""

import numpy as np
import pytest

from hydralight.data.batches import Batching
from hydralight.data.budget import Budget, widest
from hydralight.data.order import Batches, LongestFirst, Order, Place
from hydralight.errors import UserError


def batches(num_rows, batch_size, place=None, epoch=0, position=0, **settings):
    place = place or Place()
    plan = Order(
        num_rows=num_rows,
        batch_size=batch_size,
        batches_per_step=place.batches_per_step,
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
    ("num_rows", "number", "max_tokens"),
    [(1003, 1, 2048), (1003, 8, 1024), (17, 3, 600), (500, 1, 512), (500, 4, 512), (4, 2, 4000)],
)
def test_micro_batches_of_a_token_budget(num_rows, number, max_tokens):
    lengths = np.random.default_rng(num_rows).integers(5, 513, num_rows)
    plan = Budget(lengths, max_tokens, seed=2, batches_per_step=number)
    epochs = [[batch.tolist() for batch in plan.batches(epoch)] for epoch in range(3)]
    assert {len(found) for found in epochs} == {len(plan)}
    assert len(plan) % number == 0
    for found in epochs:
        rows = sorted(row for batch in found for row in batch)
        assert len(rows) == len(set(rows)) > num_rows - number
        sizes = [len(batch) * lengths[batch].max() for batch in found]
        assert max(sizes) <= max_tokens
        if num_rows > 100:
            assert lengths.max() == lengths[found[0]].max()
            assert sum(sizes) < 1.1 * lengths.sum()
    together = [{frozenset(batch) for batch in found if len(batch) > 3} for found in epochs]
    if num_rows > 100:
        assert len(together[0] & together[1]) < len(together[0]) / 4
        longest = [lengths[batch].max() for batch in epochs[0][1:]]
        assert abs(np.corrcoef(longest, range(len(longest)))[0, 1]) < 0.2


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(("longest", "max_tokens"), [((400, 112), 1000), ((40, 12), 99)])
def test_a_token_budget_holds_for_sources_and_targets(longest, max_tokens, number):
    rng = np.random.default_rng(4)
    parts = np.stack([rng.integers(5, length, 800) for length in longest], axis=1)
    plan = Budget(parts, max_tokens, seed=2, batches_per_step=number)
    for epoch in range(3):
        found = [parts[batch] for batch in plan.batches(epoch)]
        sizes = [len(batch) * batch.max(axis=0).sum() for batch in found]
        assert max(sizes) <= max_tokens
        assert sum(sizes) < 1.4 * sum(batch.sum() for batch in found)
        assert len(found) == len(plan)


def test_rows_of_one_length_may_change_places():
    parts = np.array([[5, 1], [3, 3], [1, 5], [2, 1]])
    bounds = ((0, 1), (1, 2), (2, 4), (3, 9))
    assert [widest(parts, parts.sum(axis=1), *pair) for pair in bounds] == [10, 10, 10, 3]


def per_step(found, number):
    return [found[start : start + number] for start in range(0, len(found), number)]


def shared_by(plan, world_size, number):
    """The micro-batches of each step, as the ranks have them, one rank after the other."""
    own = number // world_size
    ranks = [indices(Batches(plan, Place(rank, world_size, own))) for rank in range(world_size)]
    runs = [per_step(found, len(found) // -(-len(plan) // number)) for found in ranks]
    return [[micro for run in step for micro in run] for step in zip(*runs, strict=True)]


@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("num_rows", [8, 48, 50, 61, 64, 71])
def test_a_step_is_the_same_on_any_number_of_ranks(num_rows, batch_size):
    """8 micro-batches: accumulated by one rank, or shared by two, four or eight."""
    plan = Order(num_rows=num_rows, batch_size=batch_size, seed=4, batches_per_step=8)
    alone = shared_by(plan, 1, 8)
    assert [len(step) for step in alone] == [8] * len(alone)
    rows = [row for step in alone for micro in step for row in micro]
    left_out = num_rows % 8 if batch_size == 1 else 0
    assert len(set(rows)) == len(rows) == num_rows - left_out
    assert max(len(micro) for step in alone for micro in step) == min(batch_size, -(-num_rows // 8))
    for world_size in (2, 4, 8):
        assert shared_by(plan, world_size, 8) == alone


def test_a_step_of_a_budget_is_the_same_on_any_number_of_ranks():
    lengths = np.random.default_rng(0).integers(5, 513, 300)
    plan = Budget(lengths, 1024, seed=2, batches_per_step=4)
    alone = shared_by(plan, 1, 4)
    assert shared_by(plan, 2, 4) == shared_by(plan, 4, 4) == alone
    # the negative control: rows dealt out in turns
    rows = [row for step in alone for micro in step for row in micro]
    assert [rows[rank::2] for rank in range(2)] != [
        [row for step in alone for micro in step[rank * 2 : rank * 2 + 2] for row in micro]
        for rank in range(2)
    ]


def test_few_rows_make_a_short_step():
    plan = Order(num_rows=6, batch_size=4, seed=4, batches_per_step=8)
    assert [len(micro) for micro in plan.batches(0)] == [1] * 6
    assert shared_by(plan, 2, 8) == shared_by(plan, 1, 8)


def test_an_evaluation_is_in_whole_micro_batches():
    plan = Order(num_rows=11, batch_size=2, shuffle=False)
    ranks = [indices(Batches(plan, Place(rank, 4))) for rank in range(4)]
    assert ranks == [[[0, 1], [8, 9]], [[2, 3], [10]], [[4, 5]], [[6, 7]]]
    assert [len(Batches(plan, Place(rank, 4))) for rank in range(4)] == [2, 2, 1, 1]


def test_a_resumed_rank_goes_on_within_a_step():
    place = Place(1, 2, 4)
    whole = indices(batches(64, 2, place, seed=4))
    for position in range(16):
        assert indices(batches(64, 2, place, seed=4, position=position)) == whole[position:]


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


@pytest.mark.parametrize("num_rows", [2, 7, 8, 9, 40])
def test_an_evaluation_has_the_same_batches_on_any_number_of_ranks(num_rows):
    """Taken in turns; where there are few, some ranks have none."""
    sizes = np.arange(1, num_rows + 1)[:, None]
    batching = Batching(batch_size=8)
    alone = indices(batching.evaluation(sizes, Place()))
    for world in (2, 4):
        ranks = [indices(batching.evaluation(sizes, Place(rank, world))) for rank in range(world)]
        assert [alone[rank::world] for rank in range(world)] == ranks


def test_settings_of_batches_are_refused():
    with pytest.raises(UserError, match="no room for a training example of 9 tokens"):
        Batching(max_tokens=8).training(np.array([[4], [9]]), Place())
    with pytest.raises(UserError, match="1 training example cannot be shared by 2 devices"):
        Batching().training(np.array([[4]]), Place(0, 2))
