"""What processes have of an evaluation, brought together in the order of its batches."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hydralight.devices import gathered


class SharedBatches:
    """Hands each process the batches of all, in the order in which one process has them.

    Process r of W evaluates the batches r, W + r, …: those of a round come together as they come.
    Of a set's last round some processes have none: it waits for the set's end, where all meet.

    Args:
        own: How many batches this process has of each set that is to be evaluated.
        device: What the batches of others are moved to.
    """

    def __init__(self, own: Sequence[int], device: torch.device) -> None:
        every = gathered(list(own))
        self._whole = iter([min(numbers) for numbers in zip(*every, strict=True)])
        self._left = next(self._whole, 0)  # rounds of this set in which each process has a batch
        self._last: Any = None
        self._device = device

    def add(self, batch: Any) -> Iterator[Any]:
        """Yield the batches of this round, one of which is given, unless it is not whole."""
        if self._left == 0:
            self._last = batch
            return
        self._left -= 1
        yield from moved(gathered(moved(batch, "cpu")), self._device)

    def end(self) -> Iterator[Any]:
        """Yield the batches of the last round of a set, and begin with the next set."""
        last, self._last = self._last, None
        self._left = next(self._whole, 0)
        for batch in gathered(moved(last, "cpu")):
            if batch is not None:
                yield moved(batch, self._device)


def moved(value: Any, device: torch.device | str) -> Any:
    """Return a structure whose tensors are on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: moved(one, device) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(moved(one, device) for one in value)
    return value
