"""A pseudo-random permutation that can be asked for any place of it."""

import numpy as np

ROUNDS = 8


class Permutation:
    """A permutation of `range(number)`: position in, index out, with no table of all of them.

    It is a Feistel network on as many bits as the number has, whose halves may be unequal; what
    falls outside of the range is sent through it again, until it falls inside (cycle walking:
    Black and Rogaway, 2002). As the network is a bijection, so is the walk. A place takes fewer
    than two walks on average.

    Args:
        number: Of what is permuted.
        seeds: Numbers that choose the permutation.
    """

    def __init__(self, number: int, *seeds: int) -> None:
        self.number = number
        bits = max(2, (number - 1).bit_length())
        self._low = np.uint64(bits // 2)
        self._masks = [np.uint64((1 << part) - 1) for part in (bits // 2, bits - bits // 2)]
        # NumPy keeps these from version to version; zeros behind the seeds alone would not count
        entropy = np.random.SeedSequence([len(seeds), *seeds])
        self._keys = entropy.generate_state(ROUNDS, np.uint64)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Return the indices at these positions.

        Args:
            positions: From 0, each below the number; of any shape.
        """
        found = self._once(np.asarray(positions, dtype=np.uint64))
        outside = found >= self.number
        while outside.any():
            found[outside] = self._once(found[outside])
            outside = found >= self.number
        return found.astype(np.int64)

    def _once(self, values: np.ndarray) -> np.ndarray:
        low, high = values & self._masks[0], values >> self._low
        for number in range(0, ROUNDS, 2):
            low = (low ^ mixed(high, self._keys[number])) & self._masks[0]
            high = (high ^ mixed(low, self._keys[number + 1])) & self._masks[1]
        return (high << self._low) | low


def mixed(values: np.ndarray, key: np.uint64) -> np.ndarray:
    """Return 64 bits that each depend on all bits of a value and of a key (splitmix64's finish)."""
    mix = (values ^ key) * np.uint64(0x9E3779B97F4A7C15)
    mix = (mix ^ (mix >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mix = (mix ^ (mix >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mix ^ (mix >> np.uint64(31))
