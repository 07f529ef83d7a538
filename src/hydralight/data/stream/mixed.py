"""Several streams by weight: each is read ahead by itself, and one plan says which row is next."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch import Trainer

from hydralight.data.corpus.joined import Joined
from hydralight.data.mix import Mix
from hydralight.data.mixture import Mixture
from hydralight.data.order import Place
from hydralight.data.stream.passes import Endless, Passes, Row, endless
from hydralight.data.stream.windows import Cursor
from hydralight.errors import UserError

if TYPE_CHECKING:
    from hydralight.data.stream.streamed import Stream

NUMBERS = 2**56  # that the rows of a stream take among those of all: window and place in it


class MixedPasses:
    """The rows of a mixture of streams, at positions of its endless sequence of steps.

    Args:
        plan: How they are drawn.
        passes: The streams.
    """

    def __init__(self, plan: Mixture, passes: Sequence[Passes]) -> None:
        self.plan, self.passes = plan, passes

    def at(self, positions: np.ndarray) -> list[Row]:
        """Return pass and index at ascending positions, as `Passes` does of one stream."""
        steps, places = np.divmod(positions, self.plan.rows_per_step)
        found = [self.plan.step(step)[places[steps == step]] for step in np.unique(steps).tolist()]
        return [(number, index) for number, index in np.concatenate(found).tolist()]

    def release(self, position: int) -> None:
        """Forget what comes before the step of a position."""
        draws = self.plan.draws.before(position // self.plan.rows_per_step)
        for one, drawn in zip(self.passes, draws, strict=True):
            one.release(drawn)

    def beginning(self, position: int) -> list[tuple[Cursor, int]]:
        """Return where each stream is to begin, to come to the step of a position."""
        draws = self.plan.draws.before(position // self.plan.rows_per_step)
        return [one.beginning(drawn) for one, drawn in zip(self.passes, draws, strict=True)]


class Streams:
    """A mixture of streams, as the data module holds one.

    Args:
        streams: The data itself, and the sets that are mixed in, by name.
        mix: Their weights.

    Raises:
        UserError: the weights are to come from sizes.
    """

    def __init__(self, streams: Mapping[str, "Stream"], mix: Mix) -> None:
        if mix.mix_temperature is not None:
            raise UserError(
                "data.mix_temperature needs the sizes of all sets, which are not known of streams: "
                "give weights."
            )
        self.streams, self.mix = dict(streams), mix
        parts = {name: stream.rows for name, stream in streams.items()}
        self.rows = Joined(parts, [NUMBERS] * len(parts))
        self._batches: Endless | None = None
        self._plan: Mixture | None = None

    @property
    def _own(self) -> "Stream":
        return next(iter(self.streams.values()))

    def encoded(self, sample: Callable[..., Iterable[Any]]) -> dict[str, Any]:
        """Return the splits, as `Stream` does; what is validated on is of the data itself."""
        return {**self._own.encoded(sample), "train": self.rows}

    def batches(self, place: Place, trainer: Trainer | None, consumed: int) -> Endless:
        """Return the training batches from where the run is, as `Stream` does."""
        passes = [stream.passes(trainer) for stream in self.streams.values()]
        batching = self._own.batching
        self._plan = Mixture(
            sources=passes,
            sizes=dict.fromkeys(self.streams, NUMBERS),
            weights=self.mix.weights({}),
            batch_size=batching.batch_size,
            seed=batching.seed,
            batches_per_step=place.batches_per_step,
        )
        mixed = MixedPasses(self._plan, passes)
        self._batches = endless(mixed, batching, place, trainer, consumed)
        return self._batches

    def state(self, consumed: int) -> dict[str, Any]:
        """Return what a checkpoint keeps of each stream."""
        if self._batches is None:
            return {name: one.state(0) for name, one in self.streams.items()}
        places = self._batches.beginning(consumed)
        pairs = zip(self.streams.items(), places, strict=True)
        return {name: one.said(place) for (name, one), place in pairs}

    def go_on(self, state: Mapping[str, Any] | None) -> None:
        """Begin where `state` says.

        Raises:
            UserError: the run was trained on other streams.
        """
        for name, stream in self.streams.items():
            stream.go_on((state or {}).get(name))

    def figures(self, consumed: int) -> dict[str, float]:
        """Return what is logged: of each stream its share so far, and the pass that it is in."""
        if self._plan is None or self._batches is None:
            return {}
        step = consumed // self._batches.place.accumulate_grad_batches
        draws = self._plan.draws.before(step)
        places = self._batches.beginning(max(0, consumed - 1))
        found: dict[str, float] = {"data_epoch": places[0][0].epoch}
        for name, drawn, (cursor, _) in zip(self.streams, draws, places, strict=True):
            found[f"mix/{name}"] = drawn / max(1, sum(draws))
            found[f"mix/{name}_epochs"] = cursor.epoch
        return found

    def close(self) -> None:
        """End the processes, and remove what they have made."""
        for stream in self.streams.values():
            stream.close()


def streams_of(own: "Stream", mix: Mix) -> "Stream | Streams":
    """Return the stream of the training rows, with those of the sets of a mixture, if any."""
    if not mix.sets:
        return own
    return Streams({"train": own, **{n: own.beside(n, one) for n, one in mix.sets.items()}}, mix)
