"""One module a row: its docstring says what it measures, its `run` does it."""

import importlib
import inspect
from pathlib import Path
from typing import Any

from benchmarks.measure import Line
from hydralight.errors import UserError, did_you_mean

NAMES = (
    "same_batches",
    "overhead",
    "same_bits",
    "recipe_mrpc",
    "summarization",
    "causal_lm",
    "generation",
    "chunked_loss",
    "eval_memory",
    "sharded_load",
    "first_start",
    "second_start",
    "encoding",
    "command_line",
    "sweep",
    "resume_late",
)
# what a GPU has a part in
GPU_NAMES = tuple(n for n in NAMES[: NAMES.index("chunked_loss")] if n != "same_bits")


def run_row(
    name: str, rounds: int | None, checkpoint: str | None, tiny: bool, values: dict[str, Any]
) -> tuple[list[Line], int]:
    """Run one row in this process; return its lines, and how many rounds they are of.

    Raises:
        UserError: the row has no such argument.
    """
    module = importlib.import_module(f"benchmarks.rows.{name}")
    parameters = inspect.signature(module.run).parameters
    for key in values:
        if key not in parameters:
            near = did_you_mean(key, parameters)
            raise UserError(f"--set {key}: {name} has no such argument{near}")
    arguments = {**(module.TINY if tiny else {}), **values}
    if checkpoint is not None and "checkpoint" in parameters:
        arguments["checkpoint"] = str(Path(checkpoint).expanduser().resolve())
    arguments["rounds"] = rounds or (1 if tiny else parameters["rounds"].default)
    return module.run(**arguments), arguments["rounds"]
