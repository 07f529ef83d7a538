"""A stream as the data module holds it: what it encodes, in which batches, from which place on."""

import json
import os
import re
import secrets
import shutil
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import xxhash
from lightning.pytorch import Trainer

from hydralight.cached import cache_folder, told_if_full
from hydralight.data.batches import Batching
from hydralight.data.corpus.inputs import inputs_of
from hydralight.data.corpus.pieces import Piece
from hydralight.data.corpus.rows import Local, as_dataset, rows_in
from hydralight.data.corpus.shards import RowWriter, Shard
from hydralight.data.order import Place
from hydralight.data.shape import Shape
from hydralight.data.stream.chunks import Encode
from hydralight.data.stream.making import Makers, get_ready, make, mark, new_folder, window_in
from hydralight.data.stream.passes import Endless, Passes, endless
from hydralight.data.stream.rows import StreamedRows
from hydralight.data.stream.windows import Cursor, Window, Windows
from hydralight.errors import UserError

if TYPE_CHECKING:
    from hydralight.data.corpus.corpus import Corpus
    from hydralight.data.source import Source


LIMIT = re.compile("max_.*length")  # the fields of a shape that bound the tokens of a row
Some = tuple[Piece, int, pa.Table]  # rows of a piece, and how many come before them


class Stream:
    """Training rows that are read and encoded ahead of training, and kept no longer than needed.

    Args:
        corpus: What is left out, and how many processes encode.
        source: Where the rows are.
        shape: What an example is, with its labels.
        processor: The tokenizer or image processor.
        too_long: What becomes of examples that are too long.
        batching: How they come together.

    Raises:
        UserError: there are no files, or no row of them is left.
    """

    def __init__(
        self,
        corpus: "Corpus",
        source: "Source",
        shape: Shape,
        processor: Any,
        too_long: Any,
        batching: Batching,
    ) -> None:
        inputs = inputs_of(source)
        work = corpus.work(source, shape, processor, too_long, inputs)
        assert inputs is not None
        self.inputs, self.work, self.batching = inputs, work, batching
        self.corpus, self.source = corpus, source
        self.units = inputs.parts()
        self.windows = Windows(len(self.units), batching.seed, batching.window_shards)
        self.workers = min(
            corpus.processes(inputs.size), self.windows.side_by_side, len(self.units)
        )
        if self.workers and os.environ.get("LOCAL_RANK", "0") == "0":
            get_ready()
        self.made_with = corpus.made_with(work)
        joined = work.shape.unjoined(work.processor) is not None
        self.block_size = getattr(work.shape, "block_size", None) if joined else None
        self.made_with["data.block_size"] = self.block_size
        self.made_with["the number of parts of files"] = len(self.units)
        self.files = [
            xxhash.xxh3_64_hexdigest(repr(sorted(state.items())).encode())
            for state in inputs.states()
        ]
        self._start = Cursor(), 0
        self._batches: Endless | None = None
        self._makers: Makers | None = None
        self._root = cache_folder("streams")
        with told_if_full(self._root):
            self._look = new_folder(self._root, f"{os.getpid()}-{secrets.token_hex(4)}")
            mark(self._look, 0, 0)
        weakref.finalize(self, shutil.rmtree, self._look, ignore_errors=True)
        self.first = self._first()
        self.rows = self._rows()

    def beside(self, name: str, one: Mapping[str, Any]) -> "Stream":
        """Return the stream of a set that is mixed in, in an order of its own."""
        corpus = replace(self.corpus, only=None, keep=None)
        seed = xxhash.xxh32_intdigest(name.encode(), self.batching.seed)
        work, batching = self.work, replace(self.batching, seed=seed)
        source = self.source.further(one)
        return Stream(corpus, source, work.shape, work.processor, work.too_long, batching)

    def _first(self) -> Window:
        """Make the first window that has any rows."""
        task, cursor = Encode(self.units, self.work, self._look), Cursor()
        while cursor.epoch == 0:
            make(task, self._look, self.windows, cursor)
            window = window_in(self._look, self.windows, cursor)
            assert window is not None
            if sum(map(self._size_of, window.shards)):
                return window
            cursor = window.after
        raise UserError("no row of the stream is left to train on: see what is left out of it.")

    def _rows(self) -> StreamedRows:
        said = json.dumps([self.made_with, self.files], sort_keys=True)
        limits = (value for name, value in vars(self.work.shape).items() if LIMIT.fullmatch(name))
        most = self.block_size or max(limits, default=0)
        return StreamedRows(
            self.first.shards,
            self.first.cursor.number,
            self._look,
            self.block_size,
            0 if self.block_size is None else len(self.work.processor),
            most,
            xxhash.xxh3_128_hexdigest(said.encode()),
        )

    def _size_of(self, shard: Shard) -> int:
        return rows_in(shard, self.block_size)

    # ------------------------------------------------------------ splits

    def encoded(self, sample: Callable[..., Iterable[Some]]) -> dict[str, Any]:
        """Return the splits: the rows to train on; and of a sample, those to validate on.

        Args:
            sample: Called with units and inputs, yields rows from all over them.

        Raises:
            UserError: no row of the sample is to be validated on.
        """
        if not self.work.validation:
            return {"train": self.rows}
        writer, counts = RowWriter(self._look, "validation"), Counter[str]()
        for piece, seen, table in sample(self.units, self.inputs):
            _, found = self.work.of_table(table, piece, seen, 0, counts)
            if found is not None and (apart := self.work.apart(found.hashes)).any():
                some = found.prepared.select(np.flatnonzero(apart))
                columns = self.work.encoded(some, piece, "evaluate", counts)
                if columns["length"]:
                    writer.add(columns)
        if not (shards := writer.finish()):
            raise UserError(
                f"data.validation_hash={self.work.validation} takes no row of a sample of the "
                "stream: raise it, or name files as data.path={train: …, validation: …}."
            )
        return {"train": self.rows, "validation": as_dataset(shards, Local(self._look))}

    # ------------------------------------------------------------ batches

    def batches(self, place: Place, trainer: Trainer | None, consumed: int) -> Endless:
        """Return the training batches from where the run is.

        Args:
            place: This process.
            trainer: Where there is one.
            consumed: Micro-batches that this process has had.
        """
        passes = self.passes(trainer)
        self._batches = endless(passes, self.batching, place, trainer, consumed)
        return self._batches

    def passes(self, trainer: Trainer | None) -> Passes:
        """Return the rows by their positions, and begin to make windows of them."""
        if self._makers is not None:
            self._makers.close()
        if trainer is not None:
            check_end(trainer)
        cursor, start = self._start
        self._makers = makers = self._begin(trainer)
        makers.start(cursor)
        self.rows.read_from(makers.folder)
        return Passes(makers, self._size_of, self.batching.seed, cursor, start)

    def _begin(self, trainer: Trainer | None) -> Makers:
        """Return what makes windows: of the processes of a machine, the first one starts others."""
        name, readers, leads = f"{os.getpid()}-{secrets.token_hex(4)}", 1, True
        if trainer is not None and self.workers:
            name = trainer.strategy.broadcast(name)
            readers, leads = trainer.num_devices, trainer.local_rank == 0
        folder = new_folder(self._root, name)
        task = Encode(self.units, self.work, folder)
        workers = self.workers if leads else 0
        return Makers(task, folder, self.windows, workers, self.first, readers)

    # ------------------------------------------------------------ the place in a run

    def state(self, consumed: int) -> dict[str, Any]:
        """Return what a checkpoint keeps: the window to begin with, and what the stream is of."""
        return self.said(self._beginning(consumed))

    def said(self, beginning: tuple[Cursor, int]) -> dict[str, Any]:
        """Return what a checkpoint keeps of a beginning."""
        said = {"files": self.files, "made_with": self.made_with}
        return {"cursor": beginning[0].state(), "start": beginning[1], **said}

    def figures(self, consumed: int) -> dict[str, float]:
        """Return what is logged when this process has had so many micro-batches: the pass."""
        return {"data_epoch": self._beginning(max(0, consumed - 1))[0].epoch}

    def _beginning(self, consumed: int) -> tuple[Cursor, int]:
        return self._start if self._batches is None else self._batches.beginning(consumed)

    def go_on(self, state: Mapping[str, Any] | None) -> None:
        """Begin where `state` says.

        Raises:
            UserError: the run was trained on another stream.
        """
        if state is None:
            raise UserError("the run was not trained with data.streaming: resume without it.")
        if self.files != state["files"]:
            raise UserError(
                f"the training data is not the run's: {self._changed(state['files'])}; resume "
                "with the same files."
            )
        before, now = state["made_with"], self.made_with
        for name in {**before, **now}:
            if name != "code" and before.get(name) != now.get(name):
                values = f" ({before.get(name)}, and now {now.get(name)})" if "." in name else ""
                raise UserError(
                    f"the run was trained with another value of {name}{values}: resume without it."
                )
        self._start = Cursor.of(state["cursor"]), state["start"]

    def _changed(self, before: Sequence[str]) -> str:
        known = set(before)
        names = zip(self.inputs.files, self.files, strict=True)
        new = [name for name, own in names if own not in known]
        if new:
            return f"{new[0]} has changed, or is new"
        return f"there were {len(before)} files, and now there are {len(self.files)}"

    def close(self) -> None:
        """End the processes, and remove what they have made."""
        if self._makers is not None:
            self._makers.close()


def check_end(trainer: Trainer) -> None:
    """See that a training on a stream, which has no end of its own, has one.

    Raises:
        UserError: it has none, or evaluates after parts of an epoch.
    """
    limited = isinstance(trainer.limit_train_batches, int)
    if trainer.max_steps < 0 and not limited:
        raise UserError(
            "data.streaming has no end of its own: give trainer.max_steps=<optimizer steps>."
        )
    if getattr(trainer, "overfit_batches", 0):
        raise UserError("data.streaming never comes back to the same batches: set it to false.")
    interval = trainer.val_check_interval
    if isinstance(interval, float) and interval != 1.0 and not limited:
        raise UserError(
            "data.streaming has no epochs, of which trainer.val_check_interval could be a part: "
            "give it as a number of optimizer steps."
        )
