"""Run benchmarks: `python -m benchmarks [row ...]`; `--list` shows the rows."""

import argparse
import ast
import shlex
import sys
import traceback
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import hardware, results
from benchmarks.measure import Line, apart, line, variables
from benchmarks.rows import GPU_NAMES, NAMES, run_row
from hydralight.errors import UserError, did_you_mean, first_line


def main(argv: Sequence[str]) -> int:
    """Run the rows that are named, print their table, and keep the results.

    Returns:
        The exit code: 1 where a row failed, or for a mistake in the arguments.
    """
    options = parsed(argv)
    if options.list:
        print("\n".join(f"{name:15} {title(name)}" for name in NAMES))
        return 0
    try:
        names = chosen(options.rows, options.gpu)
        values = dict(setting(text) for text in options.set)
        if options.gpu:
            see_gpu()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    with (
        TemporaryDirectory(prefix="benchmarks-") as folder,
        variables(
            BENCHMARKS_DEVICE="gpu" if options.gpu else "cpu",
            HF_HOME=folder,
            TQDM_DISABLE="1",
        ),
    ):
        rows, failed = run_rows(names, options, values)
    lines = [one for row in rows.values() for one in row["lines"]]
    print("\n".join(["", results.table([*lines, *failed]), "", *results.notes([*lines, *failed])]))
    return 1 if failed else 0


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="row", help="all of them unless said")
    parser.add_argument("--list", action="store_true", help="show the rows, and stop")
    parser.add_argument("--rounds", type=int, help="of each row; its own number unless said")
    parser.add_argument("--gpu", action="store_true", help="on the GPU, in bf16-mixed")
    parser.add_argument("--tiny", action="store_true", help="try the rows out; nothing is kept")
    parser.add_argument("--checkpoint", help="a pretrained encoder's folder, for recipe_mrpc")
    parser.add_argument(
        *("--set", "-s"),
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an argument of the row's `run`, such as shape=bart-6+6x384",
    )
    parser.add_argument("--results", type=Path, default=results.FOLDER, help="folder of results")
    return parser.parse_args(argv)


def chosen(rows: Sequence[str], gpu: bool) -> Sequence[str]:
    """Return the rows to run, those that were named or all.

    Raises:
        UserError: there is no such row.
    """
    for name in rows:
        if name not in NAMES:
            near = did_you_mean(name, NAMES)
            raise UserError(f"there is no row '{name}'{near} (there are: {', '.join(NAMES)})")
    return rows or (GPU_NAMES if gpu else NAMES)


def setting(text: str) -> tuple[str, Any]:
    """Return the name and the value of `--set`; what is no Python literal is a string.

    Raises:
        UserError: there is no equals sign.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set {text} should be a name and a value: --set {text}=….")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def see_gpu() -> None:
    """Raise a `UserError` where there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        raise UserError("there is no CUDA GPU on this machine.")


def title(name: str) -> str:
    """Return the first line of a row's docstring, without importing it."""
    source = (Path(__file__).parent / "rows" / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]


def run_rows(
    names: Sequence[str], options: argparse.Namespace, values: dict[str, Any]
) -> tuple[dict[str, results.Row], list[Line]]:
    """Run rows, each in a process of its own; return what they came to, and those that failed.

    Each is kept as soon as it is there.
    """
    rows: dict[str, results.Row] = {}
    failed: list[Line] = []
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            lines, rounds = apart(
                run_row, name, options.rounds, options.checkpoint, options.tiny, values
            )
        except Exception as error:  # the other rows go on
            reason = first_line(error)
            if not isinstance(error, UserError):
                traceback.print_exception(error)
            failed.append(line(name, "", {}, also=False, note=f"failed: {reason}"))
            continue
        print(results.table(lines), file=sys.stderr, flush=True)
        rows[name] = {
            "lines": lines,
            "rounds": rounds,
            "command": command(name, rounds, options, values),
            "time": datetime.now().astimezone().isoformat(timespec="seconds"),
            "environment": hardware.described(),
        }
        if not options.tiny:
            kept = results.update({name: rows[name]}, hardware.device_name(), options.results)
            print(f"kept in {kept}", file=sys.stderr, flush=True)
    return rows, failed


def command(name: str, rounds: int, options: argparse.Namespace, values: dict[str, Any]) -> str:
    """Return the command that runs a row again, without paths of this machine."""
    parts = ["python", "-m", "benchmarks", name, "--rounds", str(rounds)]
    parts += ["--gpu"] if options.gpu else []
    parts += ["--checkpoint", Path(options.checkpoint).name] if options.checkpoint else []
    for key, value in values.items():
        parts += ["--set", f"{key}={value}"]
    return shlex.join(parts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
