"""The tokenizer that was trained for a corpus: kept beside its shards, for as long as it grows."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import xxhash
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hydralight.cached import intact, locked, seal, told_if_full
from hydralight.data.corpus.shards import INDEX
from hydralight.data.corpus.told import MADE_WITH, compare
from hydralight.errors import UserError, first_line
from hydralight.runs.files import clear_partials, new_folder, write_text
from hydralight.runs.sealed import sealed_json, unsealed_json
from hydralight.tokenizers import Trained

if TYPE_CHECKING:
    from hydralight.data.corpus.shards import Home

TOKENIZER = "tokenizer.json"  # one file, so that it is there whole or not at all


@dataclass(frozen=True)
class Kept:
    """A recipe that trains a tokenizer for a new corpus, and takes that of one that has it.

    Args:
        recipe: Trains it.
        home: Of the corpus.
    """

    recipe: Trained
    home: "Home"

    @property
    def sample_texts(self) -> int | None:
        """How many rows of the corpus it learns from."""
        return self.recipe.sample_texts

    def __call__(
        self, texts: Callable[[], Iterable[str]], cache_key: str, cache_dir: Path
    ) -> PreTrainedTokenizerBase:
        """Return the tokenizer.

        Args:
            texts: As of the recipe.
            cache_key: The same.
            cache_dir: The same.

        Raises:
            UserError: the corpus has one of other arguments, or it is damaged.
        """
        said = {f"tokenizer.{name}": value for name, value in asdict(self.recipe).items()}
        if (text := self.home.read(TOKENIZER)) is None:
            made = self.recipe(texts, cache_key, cache_dir)
            if any(self.home.read(name) is not None for name in (MADE_WITH, INDEX)):
                return made  # it was prepared with another one
            self.home.check_writable()
            self.home.create(TOKENIZER, sealed_json({"recipe": said, "files": files_of(made)}))
            text = self.home.read(TOKENIZER)  # of the first one, where several train it
        try:
            kept = unsealed_json(str(text))
            recipe, files = kept["recipe"], kept["files"]
        except (ValueError, KeyError) as error:
            raise UserError(
                f"{self.home}/{TOKENIZER} is damaged ({first_line(error)}): prepare another folder."
            ) from error
        compare(self.home, recipe, said)
        return loaded(files, cache_dir)


def files_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Return the files of a tokenizer, as texts by their names."""
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_text(encoding="utf-8") for path in Path(folder).iterdir()}


def loaded(files: dict[str, str], cache_dir: Path) -> Any:
    """Return the tokenizer of some files, which are put into the cache."""
    content = repr(sorted(files.items())).encode()
    folder = cache_dir / xxhash.xxh3_64_hexdigest(content)
    with told_if_full(cache_dir), locked(folder):
        if not intact(folder):
            clear_partials(folder)
            partial = new_folder(folder)
            for name, text in files.items():
                write_text(partial / Path(name).name, text)
            seal(partial, folder)
    return AutoTokenizer.from_pretrained(folder)
