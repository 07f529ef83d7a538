"""A script's arguments from a file: JSON, YAML, or a `training_args.bin`, whose code is not run.

Trainer saves its arguments with `torch.save`, which is a pickle in a zip. A pickle is a program; of
this one only the steps are taken that put plain things together, and of the classes that it names
only those are known that arguments are made of, each as a mapping or a word.
"""

import io
import itertools
import json
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from hydralight.errors import UserError, first_line

LARGEST = 1 << 20  # bytes of a file of arguments, or of the pickle in it
MOST = 20_000  # values in it
STEPS = set(
    "PROTO STOP MARK EMPTY_DICT EMPTY_LIST EMPTY_TUPLE EMPTY_SET DICT LIST TUPLE TUPLE1 TUPLE2 "
    "TUPLE3 APPEND APPENDS SETITEM SETITEMS ADDITEMS NONE NEWTRUE NEWFALSE INT BININT BININT1 "
    "BININT2 LONG LONG1 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINPUT LONG_BINPUT "
    "MEMOIZE BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE NEWOBJ BUILD FRAME".split()
)
WORDS = {  # of one value, which stands for it
    f"transformers.trainer_utils {name}"
    for name in "SchedulerType SaveStrategy IntervalStrategy HubStrategy FSDPOption".split()
}
WORDS |= {"transformers.training_args OptimizerNames", "transformers.debug_utils DebugOption"}
WORDS |= {"accelerate.utils.dataclasses DistributedType", "torch device", "pathlib PosixPath"}
MAPPINGS = {
    "transformers.training_args TrainingArguments",
    "transformers.training_args_seq2seq Seq2SeqTrainingArguments",
    "transformers.trainer_pt_utils AcceleratorConfig",
    "transformers.generation.configuration_utils GenerationConfig",
    "accelerate.state PartialState",
    "accelerate.parallelism_config ParallelismConfig",
}
MAPPINGS |= {f"trl.trainer.{n}_config {n.upper()}Config" for n in ("sft", "dpo", "kto", "grpo")}
MAPPINGS |= {"trl.trainer.reward_config RewardConfig"}


class Mapped(dict[str, Any]):
    """An object of a pickle, as the mapping of its attributes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Take the attributes over."""
        if isinstance(state, dict):
            self.update(state)


def word(*values: Any) -> Any:
    """Return the value of an enumeration's member, or a name."""
    return values[0] if len(values) == 1 else "/".join(map(str, values))


class Plain(pickle.Unpickler):
    """Builds mappings and words, and nothing else."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Return what stands for a class.

        Raises:
            UserError: it is none of a file of arguments.
        """
        named = f"{module} {name}"
        if named in MAPPINGS:
            return Mapped
        if named in WORDS:
            return word
        if module == "torch" and name.startswith(("float", "bfloat", "int")):
            return lambda: name
        raise UserError(f"names {module}.{name}, which is no part of Trainer's arguments")

    def persistent_load(self, pid: Any) -> Any:
        """Refuse tensors.

        Raises:
            UserError: always.
        """
        raise UserError("holds tensors")


def read(path: Path) -> dict[str, Any]:
    """Return the arguments in a file, by name, as plain values.

    Args:
        path: `.json`, `.yaml` or `.yml`; or what `torch.save` has written, whatever its name.

    Raises:
        UserError: it is not there, is none of these, or holds something else.
    """
    if not path.is_file():
        raise UserError(
            f"{path} is no file: name the arguments of a script, as JSON, YAML or .bin."
        )
    if path.stat().st_size > 4 * LARGEST:
        raise UserError(f"{path} is too large for a script's arguments.")
    try:
        if zipfile.is_zipfile(path):
            found = unpickled(path)
        else:
            text = path.read_text(encoding="utf-8")
            found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        found = plain(found, itertools.count())
    except UserError as error:
        raise UserError(
            f"{path} is not read, as it {error}: where it is your own, write "
            "args.to_json_string() to a file."
        ) from None
    except UnicodeDecodeError:
        raise UserError(
            f"{path} is neither JSON, YAML nor a file of torch.save's newer kind: in the script, "
            "write args.to_json_string() to a file."
        ) from None
    except Exception as error:
        raise UserError(f"{path} is not read: {first_line(error)}.") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise UserError(f"{path} should hold a mapping of arguments to values.")
    return found


def unpickled(path: Path) -> Any:
    """Return what the pickle in a zip of torch's stands for.

    Raises:
        UserError: it does more than to put plain things together.
    """
    with zipfile.ZipFile(path) as file:
        names = [one for one in file.namelist() if one.rpartition("/")[2] == "data.pkl"]
        if len(names) != 1:
            raise UserError("has no data.pkl, as a training_args.bin has")
        with file.open(names[0]) as stream:
            content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise UserError("is too large for a script's arguments")
    for step, argument, _ in pickletools.genops(content):
        if step.name not in STEPS:
            raise UserError(f"has a step {step.name}, which Trainer's arguments have no need of")
        if "PUT" in step.name and int(argument or 0) > len(content):
            raise UserError("is damaged")
    found = Plain(io.BytesIO(content)).load()
    if not isinstance(found, Mapped):
        raise UserError("does not hold the arguments of a Trainer")
    known = {*made_by_the_library()}
    return {name: value for name, value in found.items() if name not in known}


def made_by_the_library() -> Iterator[str]:
    """Yield what is no argument, and stands beside them."""
    yield from ("distributed_state", "_setup_devices", "_n_gpu", "deepspeed_plugin")
    yield from ("fsdp_plugin_args", "mixed_precision", "hf_deepspeed_config", "device")


def plain(value: Any, number: Iterator[int], depth: int = 0) -> Any:
    """Return a value of mappings, lists, texts and numbers alone.

    Raises:
        UserError: it holds something else, or too much.
    """
    if next(number) > MOST or depth > 20:
        raise UserError("is too large for a script's arguments")
    if isinstance(value, dict):
        return {plain(k, number, depth + 1): plain(v, number, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(one, number, depth + 1) for one in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise UserError(f"holds a {type(value).__name__}")
