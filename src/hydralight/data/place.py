"""Which part of the data is this process's."""

from typing import Any

from hydralight.data.order import Place
from hydralight.devices import replica_of
from hydralight.sharding import Sharded


def place_of(trainer: Any) -> Place:
    """Return this process among those of a trainer; alone where there is no trainer."""
    if trainer is None:
        return Place()
    together = isinstance(trainer.strategy, Sharded)
    return Place(*replica_of(trainer), trainer.accumulate_grad_batches, together)
