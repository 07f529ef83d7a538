"""Tokenizers: a checkpoint's own, or one trained on the spot."""

import glob
import hashlib
import io
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hydralight.cached import intact, locked, seal, told_if_full
from hydralight.config.ranges import NotNegative, Positive
from hydralight.errors import UserError, did_you_mean, told
from hydralight.hub import only_cached
from hydralight.model_configs import read_config
from hydralight.packed import opened
from hydralight.progress import waiting
from hydralight.runs.files import clear_partials, new_folder

log = logging.getLogger(__name__)

PARALLELISM = os.environ.get("TOKENIZERS_PARALLELISM")  # the user's own, before ours

# Options of `from_pretrained` that leave no trace on a tokenizer.
OF_LOADING = frozenset({"subfolder", "use_fast", "from_slow", "tokenizer_type", "gguf_file"})
OF_LOADING |= {"extra_special_tokens", "legacy", "fix_mistral_regex", "mistral_format"}

LONGEST_WORD = 1_000_000  # characters; a second's work


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A recipe that loads a checkpoint's tokenizer.

    Args:
        checkpoint: Hub id or local folder.
        revision: Branch, tag or commit on the hub.
        trust_remote_code: Run code that comes with the checkpoint.
        options: Further arguments of `from_pretrained`, such as `{add_prefix_space: true}`.
    """

    checkpoint: str | None
    revision: str | None = None
    trust_remote_code: bool = False
    options: Mapping[str, Any] | None = None

    def __call__(
        self, texts: Callable[[], Iterable[str]], cache_key: str, cache_dir: Path
    ) -> PreTrainedTokenizerBase:
        """Load it; the texts to train on, and their cache, are not needed.

        One without a padding token, as GPT-2's, pads with its end token.

        Raises:
            UserError: the checkpoint is missing, or has no tokenizer, or that has no padding.
        """
        if self.checkpoint is None:
            raise UserError("checkpoint has no value: give checkpoint=<hub id or folder>.")
        read_config(self.checkpoint, self.revision, self.trust_remote_code)
        with told(f"checkpoint={self.checkpoint} has no tokenizer that can be loaded"):
            tokenizer = AutoTokenizer.from_pretrained(
                self.checkpoint,
                revision=self.revision,
                trust_remote_code=self.trust_remote_code,
                local_files_only=only_cached(self.checkpoint),
                **(self.options or {}),
            )
        check_options(tokenizer, self.options or {})
        check_vocabulary(tokenizer, self.checkpoint)
        if cache_key:  # there are texts
            check_knows(tokenizer, texts())
        if tokenizer.pad_token is None:
            if tokenizer.eos_token is None:
                raise UserError(
                    f"the tokenizer of checkpoint={self.checkpoint} has no token to pad with, and "
                    "no end token in its place: name one of its tokens, as in "
                    "'tokenizer.options={pad_token: …}'."
                )
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A recipe that trains a byte-level BPE, Unigram or WordPiece tokenizer, or finds it cached.

    Args:
        model: The algorithm.
        vocab_size: Upper bound, special tokens included.
        min_frequency: A pair of symbols seen less often is not merged (BPE, WordPiece).
        bos_token: First token of every sequence, id 0; then padding, end, unknown and mask.
        pad_token: Padding.
        eos_token: Last token of every sequence.
        unk_token: Unknown symbol.
        mask_token: For masked language modelling.
        lowercase: Fold case first.
        add_special_tokens: Put `bos_token` before and `eos_token` behind each sequence.
        append: A marker that ends texts, as one more special token, which is never split.
        model_max_length: Recorded in the tokenizer.
        files: A glob of text files, packed or not, read by lines, instead of the data's own texts.
        sample_texts: How many rows of a corpus that is prepared or streamed it learns from, 10,000
            unless said.
    """

    model: Literal["bpe", "unigram", "wordpiece"] = "bpe"
    vocab_size: Positive = 32_000
    min_frequency: NotNegative = 2
    bos_token: str = "<s>"
    pad_token: str = "<pad>"
    eos_token: str = "</s>"
    unk_token: str = "<unk>"
    mask_token: str = "<mask>"
    lowercase: bool = False
    add_special_tokens: bool = True
    append: str | None = None
    model_max_length: Positive | None = None
    files: str | None = None
    sample_texts: Positive | None = None

    def __call__(
        self, texts: Callable[[], Iterable[str]], cache_key: str, cache_dir: Path
    ) -> PreTrainedTokenizerBase:
        """Train it, unless the cache has one of the same arguments and texts.

        Args:
            texts: Returns the data's own training texts.
            cache_key: Identifies those texts.
            cache_dir: Folder of the cache.

        Raises:
            UserError: `files` matches nothing.
        """
        found = glob.glob(os.path.expanduser(self.files or ""), recursive=True)
        paths = sorted(path for path in found if os.path.isfile(path))
        if self.files and not paths:
            raise UserError(f"tokenizer.files={self.files} matches no file.")
        if paths:
            cache_key = str([(p, os.path.getsize(p), os.path.getmtime(p)) for p in paths])
        name = hashlib.sha256(f"{self}{cache_key}".encode()).hexdigest()[:16]
        folder = cache_dir / name
        if not intact(folder):
            with told_if_full(cache_dir), locked(folder):
                if not intact(folder):  # another process may have been quicker
                    if folder.exists():
                        log.warning("%s is damaged; the tokenizer is trained again", folder)
                    clear_partials(folder)
                    partial = new_folder(folder)
                    self.train(_lines(paths) if paths else texts()).save_pretrained(partial)
                    seal(partial, folder)
        return AutoTokenizer.from_pretrained(folder)

    def train(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """Train a tokenizer on texts.

        Raises:
            UserError: they have more characters than the vocabulary has room for.
        """
        specials = {
            "bos_token": self.bos_token,
            "pad_token": self.pad_token,
            "eos_token": self.eos_token,
            "unk_token": self.unk_token,
            "mask_token": self.mask_token,
        }
        markers = [self.append] if self.append and self.append not in specials.values() else []
        backend, trainer = self._backend([*specials.values(), *markers])
        if self.lowercase:
            backend.normalizer = normalizers.Lowercase()
        size = f"tokenizer.vocab_size={self.vocab_size}"
        with waiting("training the tokenizer"), all_cores(), told(size):
            backend.train_from_iterator(_learnable(texts), trainer)
        if (needed := backend.get_vocab_size()) > self.vocab_size:
            raise UserError(
                f"{size} is too small: the special tokens and the characters of the texts alone "
                f"are {needed}."
            )
        if self.add_special_tokens:
            bos, eos = self.bos_token, self.eos_token
            backend.post_processor = processors.TemplateProcessing(
                single=f"{bos} $A {eos}",
                pair=f"{bos} $A {eos} {eos} $B {eos}",
                special_tokens=[(token, backend.token_to_id(token)) for token in (bos, eos)],
            )
        length = {"model_max_length": self.model_max_length} if self.model_max_length else {}
        more = {"extra_special_tokens": markers} if markers else {}
        return PreTrainedTokenizerFast(tokenizer_object=backend, **specials, **more, **length)

    def _backend(self, specials: list[str]) -> tuple[Tokenizer, trainers.Trainer]:
        options: dict[str, Any] = {"special_tokens": specials, "show_progress": False}
        options["vocab_size"] = self.vocab_size
        if self.model == "bpe":
            backend = Tokenizer(models.BPE())
            backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
            backend.decoder = decoders.ByteLevel()
            options["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
            return backend, trainers.BpeTrainer(min_frequency=self.min_frequency, **options)
        if self.model == "unigram":
            backend = Tokenizer(models.Unigram())
            backend.pre_tokenizer = pre_tokenizers.Metaspace()
            backend.decoder = decoders.Metaspace()
            return backend, trainers.UnigramTrainer(unk_token=self.unk_token, **options)
        backend = Tokenizer(models.WordPiece(unk_token=self.unk_token))
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece()
        return backend, trainers.WordPieceTrainer(min_frequency=self.min_frequency, **options)


@contextmanager
def all_cores() -> Iterator[None]:
    """Let tokenizers use all cores here, but not in what is forked later, where it could hang."""
    os.environ["TOKENIZERS_PARALLELISM"] = PARALLELISM or "true"
    try:
        yield
    finally:
        os.environ["TOKENIZERS_PARALLELISM"] = PARALLELISM or "false"


def check_options(tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any]) -> None:
    """Refuse options that `from_pretrained` takes, keeps and never uses.

    Raises:
        UserError: the tokenizer has no such argument.
    """
    inits = [vars(one).get("__init__", object) for one in type(tokenizer).__mro__]
    made = {name for init in inits for name in signature(init).parameters}
    known = {*made, *vars(tokenizer), *tokenizer.SPECIAL_TOKENS_ATTRIBUTES, *OF_LOADING}
    for name in options:
        if not (name in known or hasattr(tokenizer, name) or name.endswith("_token")):
            raise UserError(
                f"tokenizer.options.{name}: {type(tokenizer).__name__} has no such argument"
                f"{did_you_mean(name, known)}"
            )


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, checkpoint: str) -> None:
    """Refuse a tokenizer that knows no more than special tokens.

    `transformers` makes one for a folder that has no tokenizer's files.

    Raises:
        UserError: it does.
    """
    added = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    if set(tokenizer.get_vocab()) <= {*map(str, tokenizer.all_special_tokens), *added}:
        raise UserError(
            f"checkpoint={checkpoint} has no tokenizer's files: put them (tokenizer.json, …) "
            "beside the model, or name another tokenizer.checkpoint."
        )


def check_knows(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> None:
    """Refuse a tokenizer to which all of the first texts are unknown symbols.

    Raises:
        UserError: they are.
    """
    unknown = tokenizer.unk_token_id
    sample = [text[:1000] for text in islice(texts, 20)]
    ids = [i for text in sample for i in tokenizer(text, add_special_tokens=False)["input_ids"]]
    if unknown is not None and ids and set(ids) == {unknown}:
        raise UserError(
            f"the tokenizer knows no symbol of the texts ({sample[0][:40]!r}, …): take a "
            "checkpoint of their language, or tokenizer=train."
        )


def check_words(text: str, row: int, longest: int = LONGEST_WORD) -> None:
    """Refuse a word that no tokenizer takes in reasonable time.

    Args:
        text: One text.
        row: Its number, from 0, for the message.
        longest: Characters of a word.

    Raises:
        UserError: there is one.
    """
    if len(text) > longest and (found := re.search(rf"\S{{{longest},}}", text)):
        raise UserError(
            f"row {row + 1}: there is a word of {len(found[0]):,} characters ({found[0][:20]!r}…), "
            f"and a tokenizer takes {longest:,}: cut it, or leave the row out"
        )


def _learnable(texts: Iterable[str]) -> Iterator[str]:
    """Yield texts to learn from; what a word takes grows with the square of its length."""
    for number, text in enumerate(texts):
        try:
            check_words(text, number, LONGEST_WORD // 10)
        except UserError as error:
            raise UserError(f"a tokenizer cannot be trained on these texts, {error}.") from error
        yield text


def _lines(paths: list[str]) -> Iterator[str]:
    for path in paths:
        try:
            with io.TextIOWrapper(opened(path), encoding="utf-8") as file:
                yield from file
        except UnicodeDecodeError as error:
            raise UserError(f"tokenizer.files: {path} is not UTF-8 text.") from error
