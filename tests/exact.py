"""Whether a training was exact in its rows: each once a pass, in one order, whatever happened."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from hydralight.data.order import Place

STEP = 4  # micro-batches of an optimizer step, over all ranks
Rank = Callable[[Place, int], Iterator[Sequence[int]]]


def trained(begun: Rank, parts: Sequence[tuple[int, int]]) -> list[int]:
    """Return the rows that a run trains on, in their order, which is begun anew for each part.

    Args:
        begun: Returns the micro-batches of a rank, from a number of its own on.
        parts: With how many ranks, and for how many steps, before it is killed.
    """
    rows: list[int] = []
    taken = 0
    for world_size, steps in parts:
        own = STEP // world_size
        places = [Place(rank, world_size, own) for rank in range(world_size)]
        ranks = [begun(place, taken // world_size) for place in places]
        for _ in range(steps):
            for rank in ranks:
                for batch in islice(rank, own):
                    rows += batch
        taken += steps * STEP
    return rows


def check_passes(rows: Sequence[int], number: int) -> None:
    """Assert that each of so many rows comes once in each pass, and not twice in the last one."""
    for start in range(0, len(rows), number):
        times = Counter(rows[start : start + number])
        lost = number - len(times) if start + number <= len(rows) else 0
        twice = sum(count > 1 for count in times.values())
        assert (lost, twice) == (0, 0), f"{lost} rows never came, {twice} came twice"
        assert set(times) <= set(range(number))


def check_order(whole: Sequence[int], other: Sequence[int]) -> None:
    """Assert that two runs trained on the same rows in the same order."""
    pairs = zip(whole, other, strict=False)
    apart = next((place for place, (a, b) in enumerate(pairs) if a != b), None)
    assert apart is None, f"the orders part at row {apart}"
    assert len(whole) == len(other)
