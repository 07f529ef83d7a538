"""A script's arguments said as keys: `python -m hydralight.from_trainer args.json experiment=…`.

Printed are the command line, an experiment file that says the same, and what could not be said.
"""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from hydralight.errors import UserError
from hydralight.manners import manners

HELP = """python -m hydralight.from_trainer <file> experiment=<recipe> [key=value …]

Says the arguments of a script with transformers' Trainer as a command line, and as an experiment
file, which alone goes to standard output.

  <file>      JSON or YAML of arguments, or a training_args.bin that Trainer has saved
  experiment  a recipe of the same task
  key=value   what the script itself says: checkpoint=… data.path=…

Example: python -m hydralight.from_trainer script_args.json experiment=bert_mrpc > moved.yaml"""


def answer(arguments: Sequence[str]) -> tuple[str, str]:
    """Return what is printed: the experiment file, and beside it what is told.

    Raises:
        UserError: the file cannot be read, or no recipe is typed.
    """
    from hydralight.from_trainer.convert import convert
    from hydralight.from_trainer.reading import read

    named, *typed = arguments
    said = convert(read(Path(named)), typed)
    name = re.sub(r"\W+", "_", Path(named).stem)
    command = shlex.join(["python", "train.py", *said.overrides()])
    told = [f"The command line:\n\n{command}\n"]
    told += [f"The same as configs/experiment/{name}.yaml:\n"]
    file = said.experiment(name)
    if said.unsaid:
        listed = "".join(f"# - {one}\n" for one in said.unsaid)
        file += f"\n# What could not be said:\n{listed}"
    return file, "\n".join(told)


def main() -> None:
    """Print the answer; exit with 1 on a user's mistake."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP)
        return
    try:
        file, told = answer(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    print(told, file=sys.stderr)
    print(file, end="")


if __name__ == "__main__":
    with manners():
        main()
