"""What answers without training: `--cfg job`, `--help` and a mistyped key.

Wall seconds of the whole process. Target: at most 0.6 s.
"""

from functools import partial
from typing import Any

from benchmarks import command
from benchmarks.measure import Line, alternate, line

TINY: dict[str, Any] = {}
COMMANDS = {
    "--cfg job": (["train.py", "experiment=bart_cnn", "--cfg", "job"], 0),
    "--help": (["train.py", "--help"], 0),
    "a mistyped key": (["train.py", "optimzer.lr=1e-3"], 1),
}


def run(rounds: int = 5) -> list[Line]:
    """Return a line for each."""
    sides = {
        what: partial(command.run, arguments, exit_code=code)
        for what, (arguments, code) in COMMANDS.items()
    }
    alternate(sides, 1)  # for the files to be in memory
    times = alternate(sides, rounds)
    return [line(what, "s", {"ours": values}, at_most=0.6) for what, values in times.items()]
