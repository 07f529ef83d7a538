"""Exceptions in the one sentence that a user is shown."""

import re
from collections.abc import Iterable, Iterator

from hydra.errors import ConfigCompositionException, HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydralight.config.blame import blamed, key_of, refused
from hydralight.config.project import choices_of
from hydralight.errors import UserError, did_you_mean

OUT_OF_MEMORY = (
    "there is not enough memory: lower data.batch_size (with a higher "
    "trainer.accumulate_grad_batches the optimizer sees as many examples) or the lengths in "
    "data.*, or set model.gradient_checkpointing=true."
)
# Of what reads files, and not of `data` itself.
OF_THE_READER = ("format", "sep", "delimiter", "quoting", "encoding", "column_names", "sample_by")


def explain(error: BaseException, cfg: DictConfig | None = None) -> str | None:
    """Put an exception into the one sentence a user is shown, or None where it is our own bug.

    Args:
        error: The exception.
        cfg: The config, once it is there: what it names may have refused.
    """
    errors = list(chain(error))
    if any(map(_is_memory, errors)):
        return OUT_OF_MEMORY
    for cause in errors:
        # a loader's worker sends its whole traceback
        if isinstance(cause, UserError) or "UserError: " in str(cause):
            return str(cause).strip().split("UserError: ")[-1]
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ValueError) and "/hydra/" in _raised_in(error):
        return " ".join(str(error).split())
    if type(error).__module__.startswith("wandb."):
        return f"W&B: {error} (or keep the run here: logger.wandb.offline=true)"
    if isinstance(error, OverrideParseException) and "=" not in error.override:
        recipe = any(path.stem == error.override for path in choices_of("experiment"))
        written = f"experiment={error.override}" if recipe else "key=value"
        return f"'{error.override}' is no key with a value: write {written}"
    if isinstance(error, OverrideParseException):
        return (
            f"'{error.override}' is not a valid override; a value with brackets, colons, commas, "
            "spaces or signs in it needs quotes of its own, as in 'data.path=\"my.csv[:100]\"'"
        )
    if isinstance(error, ConfigCompositionException):
        return _composition_error(error)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return " ".join(str(error).split())
    if cfg is not None:
        key = next((key for one in errors if (key := key_of(one))), None) or blamed(error, cfg)
        if key is not None:
            return f"{refused(key, error)} (HYDRA_FULL_ERROR=1 shows where)"
    return None


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and what it came from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _is_memory(error: BaseException) -> bool:
    """Whether there was too little memory, on a GPU or on the host."""
    if isinstance(error, RuntimeError) and re.search("can't allocate memory", str(error)):
        return True
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _composition_error(error: ConfigCompositionException) -> str:
    missing = getattr(error, "missing_cfg_file", None)
    if missing is not None:
        group, _, choice = missing.rpartition("/")
        if not group:
            return _line(str(error))
        there = getattr(error, "options", None) or {path.stem for path in choices_of(group)}
        options = sorted(there)
        near = did_you_mean(choice, options)
        return f"there is no '{choice}' in configs/{group}{near} (there are: {', '.join(options)})"
    unmatched = re.match(r"Could not override '([^'@]+)'\.\s+No match", str(error))
    if unmatched:
        group = unmatched[1]
        return (
            f"a run's own config takes {group}.<key>=<value>, or a whole group as +{group}=<name>"
        )
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        parent = cause.parent_node
        where = f"'{cause.full_key}'"
        if cause.key is not None and parent is not None and hasattr(parent, "keys"):
            known = [str(key) for key in parent]
            key = str(cause.key)
            if key not in known:
                at = parent._get_full_key(None)
                return no_key(key, at, known, f"to add one, write +{cause.full_key}=…")
        return f"{where}: {_line(str(cause))}"
    return " ".join(str(error).split())


def no_key(key: str, at: str, known: Iterable[str], advice: str = "") -> str:
    """Return the sentence for a key that is not there.

    Args:
        key: The key.
        at: What it is not in; nothing for the root.
        known: The keys that there are.
        advice: What to do; nothing where "did you mean" is all.
    """
    advice = _where_it_is(f"{at}.{key}") or advice
    where = f" in '{at}'" if at else ""
    return f"there is no key '{key}'{where}{did_you_mean(key, known)}" + (
        f" ({advice})" if advice else ""
    )


def _where_it_is(key: str) -> str:
    """Say which recipes, or which file of the group, have a key."""
    group, _, name = key.removeprefix(".").partition(".")
    files = choices_of(group)
    if group in ("data", "task") and any(name in OmegaConf.load(path) for path in files):
        recipes = sorted({path.stem for path in choices_of("experiment")})
        return f"other recipes have it: choose one by experiment=…, of {', '.join(recipes)}"
    if group == "data" and name in OF_THE_READER:
        return f"it is an option of the reader of files: data.reader.{name}=…"
    if group in ("callbacks", "logger") and any(path.stem == name for path in files):
        return f"{group}={name} adds it"
    if files and not name:  # a group of which nothing is chosen
        known = sorted({path.stem for path in files})
        return f"{group}=… adds it, one of {', '.join(known)}"
    return ""


def _raised_in(error: BaseException) -> str:
    """Return the file whose code raised an exception."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return "" if traceback is None else traceback.tb_frame.f_code.co_filename


def _line(text: str) -> str:
    return text.strip().split("\n")[0]
