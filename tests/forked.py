"""Command lines in processes that share their imports: each is a fork of one that has them all.

Run as a program, it reads command lines from standard input, one JSON object a line, and writes
what came of each.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT = 60  # seconds of a command


@dataclass(frozen=True)
class Outcome:
    """What a command came to."""

    code: int
    out: str
    err: str


class Commands:
    """Runs `hydralight <command> …` in forks of a process that has imported everything."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, arguments: Sequence[str], cwd: Path, **environment: str) -> Outcome:
        """Run one and wait for its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"arguments": list(arguments), "cwd": str(cwd), "environment": environment}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve() -> None:
    """Answer each line of standard input."""
    import hydralight.preloaded  # noqa: I001
    from transformers.models import bart, bert, gpt2, vit  # noqa: F401
    import hydralight.cli
    import hydralight.evaluation
    import hydralight.prediction  # noqa: F401

    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Fork, run a command line, and return its exit code and what it wrote."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if child == 0:
            os._exit(begin(request, out.fileno(), err.fileno()))
        code = ended(child)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
    return {"code": code, "out": texts[0], "err": texts[1]}


def ended(child: int) -> int:
    """Wait for a process, and return its exit code; one that takes too long is killed."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, 9)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def begin(request: dict[str, Any], out: int, err: int) -> int:
    """Become the command, as the installed program would run it, and return its exit code."""
    from hydralight.cli import command_line

    os.setsid()
    for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
        os.dup2(source, target)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(number, "w", closefd=False), write_through=True)
        for number in (1, 2)
    )
    os.chdir(request["cwd"])
    os.environ.update(request["environment"])
    sys.argv = ["hydralight", *request["arguments"]]
    try:
        command_line()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve()
