"""A corpus that is prepared once: what was typed of it, and the way from files to shards."""

import json
import logging
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import xxhash
from annotated_types import Interval
from datasets import Dataset
from datasets.fingerprint import Hasher

from hydralight.config.ranges import NotNegative
from hydralight.data.corpus.cache import Ahead, Cache, bytes_of
from hydralight.data.corpus.duplicates import Hash
from hydralight.data.corpus.filters import Filters
from hydralight.data.corpus.home import Here, There
from hydralight.data.corpus.indexing import kept_sample, write_index
from hydralight.data.corpus.inputs import Inputs, inputs_of
from hydralight.data.corpus.joined import Joined
from hydralight.data.corpus.kept import Kept
from hydralight.data.corpus.pool import do_all
from hydralight.data.corpus.rows import Local, ShardedRows, as_dataset, verify
from hydralight.data.corpus.sampling import ROWS, sample
from hydralight.data.corpus.shards import Done, Shard, read_index
from hydralight.data.corpus.told import CODE, begin, changed, compare, told_counts
from hydralight.data.corpus.work import Encode, Work
from hydralight.data.encoding import cache_folder, content_of_processor, sources_of
from hydralight.data.mix import Mix, folder_of
from hydralight.data.shape import Shape
from hydralight.data.source import Source
from hydralight.errors import UserError
from hydralight.stores.listing import scheme_of
from hydralight.tokenizers import Trained

log = logging.getLogger(__name__)

ALONE = 8_000_000  # bytes of input that are not worth starting processes for


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Training data that is prepared to shards in a folder, and read from there.

    Args:
        prepared: The folder, or the URL. Training data is encoded as a whole in the cache unless
            it is said.
        streaming: Whether training data is read and encoded as it is trained on, with no end.
        workers: Processes that prepare or stream; as many as there are cores unless said.
        deduplicate: Whether only the first of rows with equal texts is kept.
        min_chars: Of all texts of a row together; rows with fewer are left out.
        max_chars: The same; rows with more are left out.
        only: Columns of the files to values, or lists of values: other rows are left out.
        keep: A function of one's own, called with a row of the files, that says whether to keep it.
        validation_hash: Part of the rows that becomes the validation split, by hashes of their
            texts, so that a text is on the same side whatever else there is.
        cache_size: Of all shards that are kept on this machine of corpora at URLs.
    """

    prepared: str | None = None
    streaming: bool = False
    workers: Annotated[int, Interval(ge=0, le=1024)] | None = None
    deduplicate: bool = False
    min_chars: NotNegative | None = None
    max_chars: NotNegative | None = None
    only: Mapping[str, Any] | None = None
    keep: Callable[..., Any] | None = None
    validation_hash: Annotated[float, Interval(gt=0, lt=1)] | None = None
    cache_size: str = "50GB"

    def __post_init__(self) -> None:
        bytes_of(self.cache_size)  # which is used for URLs alone, and may be wrong before
        if self.streaming and (self.prepared or self.deduplicate):
            name = "prepared" if self.prepared else "deduplicate"
            why = "reads what is not prepared" if self.prepared else "sees no row before it comes"
            raise UserError(f"data.streaming {why}: leave out data.{name} or data.streaming.")
        if self.is_sampled:
            return
        for name in ("deduplicate", "min_chars", "max_chars", "only", "keep", "validation_hash"):
            if getattr(self, name):
                raise UserError(
                    f"data.{name} is for a corpus that is prepared: give data.prepared=<folder>."
                )

    @property
    def is_sampled(self) -> bool:
        """Whether no more than a sample of train is read as a table."""
        return self.streaming or self.prepared is not None

    @property
    def key(self) -> str:
        """The key of the config that says so."""
        return "data.streaming" if self.streaming else "data.prepared"

    @cached_property
    def home(self) -> Here | There:
        """Where the corpus is."""
        assert self.prepared is not None
        if scheme_of(self.prepared) is not None:
            return There(self.prepared, cache_folder("preparing"))
        return Here(Path(self.prepared.removeprefix("file://")).expanduser())

    def makes(self, split: str, validated: str, there: Collection[str]) -> bool:
        """Whether a split's encoded rows are those of the corpus.

        Args:
            split: Its name.
            validated: The split that is validated on.
            there: The splits that are read as they are.

        Raises:
            UserError: it is train, which is there to be trained on alone; or no split to validate
                on is named.
        """
        if not self.is_sampled:
            return False
        if validated == "train":
            raise UserError(
                f"{self.key} trains on train and does not evaluate it: name files to evaluate, as "
                "data.path={validation: …}."
            )
        hashed = split == "validation" and self.validation_hash is not None
        if split == "validation" and not hashed and split not in there:
            raise UserError(
                "nothing to validate on: name files as data.path={train: …, validation: …}, or "
                "take a part of the corpus by data.validation_hash=0.01."
            )
        return split == "train" or hashed

    @property
    def _cache(self) -> Cache | None:
        """What fetches the shards of a corpus at a URL; None for a folder."""
        if self.prepared is None or scheme_of(self.prepared) is None:
            return None
        return Cache(self.prepared, cache_folder("shards"), bytes_of(self.cache_size))

    def keeping(self, tokenizer: Callable[..., Any]) -> Callable[..., Any]:
        """Return a recipe of a tokenizer; one that is trained for the corpus is kept with it."""
        if self.prepared is None or not isinstance(tokenizer, Trained):
            return tokenizer
        return Kept(tokenizer, self.home)

    def sample(self, source: Source, most: int) -> Dataset | None:
        """Return some rows that are trained on: those kept with the corpus, or read anew.

        Args:
            source: Where the rows are.
            most: How many, where they are read.

        Raises:
            UserError: there are none.
        """
        index = read_index(self.home)
        if index is not None and index.get("sample"):
            shard = Shard(**index["sample"])
            try:
                verify(path := self._path_of(shard), shard)
                return kept_sample(path)
            except UserError as error:
                log.warning("%s: rows are read to take a sample", error)
        inputs = inputs_of(source, self.home, index is not None)
        rows = sample(inputs, most, False) if isinstance(inputs, Inputs) else None
        if rows is not None and most == ROWS:
            self._sampled[:] = [rows]
        return rows

    @cached_property
    def _sampled(self) -> list[Dataset]:
        """The sample, if it was read anew."""
        return []

    @property
    def _path_of(self) -> Cache | Local:
        """What returns the path of a shard on this machine."""
        return self._cache or Local(self.home.copy(""))

    def at(self, prepared: str | None) -> "Corpus":
        """Return how a set that is mixed in is prepared: as this one, in a folder of its own.

        `only` and `keep` are about files of the corpus alone.

        Args:
            prepared: The folder, or the URL; None where it is streamed.
        """
        if prepared not in self._sets:
            self._sets[prepared] = replace(self, prepared=prepared, only=None, keep=None)
        return self._sets[prepared]

    @cached_property
    def _sets(self) -> dict[str | None, "Corpus"]:
        """Those of a mixture, by their places."""
        return {}

    # ------------------------------------------------------------ from files to shards

    def mixed(self, mix: Mix, source: Source, *how: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the encoded splits that the corpus makes, and what train is joined of.

        Each set of a mixture is prepared as the corpus is, by `at`. Texts of a set that are for
        validation, by their hashes, are left out.

        Args:
            mix: The sets that are mixed in.
            source: As in `encoded`.
            how: The further arguments of `encoded`.

        Raises:
            UserError: as `encoded`; or no row is left to validate on.
        """
        found = self.encoded(source, *how)
        if self.validation_hash is not None and "validation" not in found:
            raise UserError(f"data.validation_hash={self.validation_hash} takes no row: raise it.")
        if not mix.sets:
            return found, {}
        assert self.prepared is not None
        parts = {"train": found["train"]}
        for name, one in mix.sets.items():
            part = self.at(folder_of(name, one, self.prepared))
            parts[name] = part.encoded(source.further(one), *how)["train"]
        return {**found, "train": Joined(parts)}, parts

    def encoded(
        self, source: Source, shape: Shape, processor: Any, too_long: Any, again: bool = False
    ) -> dict[str, Any]:
        """Return the encoded splits that the corpus makes; it is prepared if that was not done.

        Args:
            source: Where the rows are.
            shape: What an example is, with its labels.
            processor: The tokenizer or image processor.
            too_long: What becomes of examples that are too long.
            again: Whether inputs that have changed are prepared again, and not only told.

        Raises:
            UserError: a row cannot be used, or the folder holds another corpus.
        """
        index = read_index(self.home)
        if index is None or again:
            self.home.check_writable()
        inputs = inputs_of(source, self.home, index is not None)
        work = self.work(source, shape, processor, too_long, inputs)
        made_with = self.made_with(work)
        if index is not None:
            if inputs is not None and index["inputs"] != inputs.states() and not again:
                raise UserError(
                    f"{changed(index['inputs'], inputs.states())} since {self.home} was "
                    "prepared: run prepare.py with the same arguments, which does what is new."
                )
            compare(self.home, index["made_with"], made_with)
        if index is None or (again and inputs is not None):
            assert isinstance(inputs, Inputs)
            with self.home.preparing():
                self._prepare(inputs, work, made_with)
            index = read_index(self.home)
            assert index is not None
        return self._splits(Done.of(index), work)

    def _splits(self, done: Done, work: Work) -> dict[str, Any]:
        joined = work.shape.unjoined(work.processor) is not None
        block = getattr(work.shape, "block_size", None) if joined else None
        vocabulary = len(work.processor) if joined else 0
        path_of = self._path_of
        ahead = Ahead(path_of, done.train) if isinstance(path_of, Cache) else None
        if not done.train:
            raise UserError(f"{self.home}: no row is left to train on ({told_counts(done)}).")
        found: dict[str, Any] = {
            "train": ShardedRows(done.train, path_of, block, vocabulary, ahead)
        }
        if done.validation:
            found["validation"] = as_dataset(done.validation, path_of)
        return found

    def work(
        self, source: Source, shape: Shape, processor: Any, too_long: Any, inputs: Any
    ) -> Work:
        """Return what becomes of rows."""
        sizes = self.min_chars is not None or self.max_chars is not None
        return Work(
            shape=shape,
            processor=processor,
            columns=source.columns_of("train"),
            kind="" if inputs is None else inputs.kind,
            options={} if inputs is None else inputs.options,
            folder=source.folder("train") if shape.file_roles else "",
            filters=Filters(
                min_chars=self.min_chars,
                max_chars=self.max_chars,
                only=dict(self.only or {}),
                keep=self.keep,
            ),
            too_long=too_long,
            validation=self.validation_hash or 0.0,
            hashes=sizes or self.deduplicate or self.validation_hash is not None,
        )

    def processes(self, size: int) -> int:
        """Return how many processes encode so many bytes of input; 0 is this one alone."""
        if self.workers is not None:
            return self.workers
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        return 0 if size < ALONE else cores

    def made_with(self, work: Work) -> dict[str, Any]:
        """Return what a corpus depends on, beside its files."""
        shape = work.shape.unjoined(work.processor) or work.shape
        left_out = {*shape.not_encoded, *({"block_size", "max_length"} - {work.shape.length_limit})}
        settings = {
            f"data.{field.name}": getattr(shape, field.name)
            for field in fields(shape)
            if field.name not in left_out and (shape is work.shape or field.name != "block_size")
        }
        own = {f"data.{f.name}": getattr(self, f.name) for f in fields(self)}
        for name in ("prepared", "streaming", "workers", "cache_size"):
            del own[f"data.{name}"]
        if self.keep is not None:
            own["data.keep"] = Hasher.hash(self.keep)
        joined = "blocks" if shape is not work.shape else "rows"
        said = {
            "the kind of its rows": f"{type(shape).__name__}, {joined}",
            "the tokenizer": content_of_processor(work.processor),
            "data.columns": work.columns,
            "data.too_long": work.too_long,
            **settings,
            **own,
            CODE: xxhash.xxh3_64_hexdigest("".join(sources_of(type(shape))).encode()),
        }
        return json.loads(json.dumps(said, default=str))

    def _prepare(self, inputs: Inputs, work: Work, made_with: Mapping[str, Any]) -> None:
        home = self.home
        begin(home, made_with)
        units, states = inputs.units(), inputs.states()
        workers = self.processes(inputs.size)
        if self.deduplicate:
            hashes = Hash(work, home)
            do_all(units, hashes, home.claims("hash"), workers, "looking for duplicates")
            units = hashes.find(units)
        do_all(units, Encode(work, home), home.claims("encode"), workers, "preparing train")
        if inputs.states() != states:
            raise UserError(
                f"{changed(states, inputs.states())} while it was read: run the command again."
            )
        write_index(home, units, states, made_with, *self._sampled)
