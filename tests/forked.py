"""Command lines in processes that share their imports: each is a fork of one that has them all.

Run as a program, it reads command lines from standard input, one JSON object a line, and writes
what came of each. Functions are called in such processes too.
"""

import atexit
import base64
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

COMMAND, FUNCTION = 180, 1200  # seconds that one may take
DIES = "DIES_IN_A_STEP"
KILLED = "KILLED_AT"  # a moment of `killed.py`, and at which of its times


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
        return self.together([arguments], cwd, [environment])[0]

    def together(
        self, arguments: Sequence[Sequence[str]], cwd: Path, environments: Sequence[dict[str, str]]
    ) -> list[Outcome]:
        """Run several at the same time, as processes of one run, and wait for their ends."""
        return self._ask(
            {"arguments": list(own), "cwd": str(cwd), "environment": environment}
            for own, environment in zip(arguments, environments, strict=True)
        )

    def call(self, function: Callable[..., object], arguments: tuple[Any, ...], world: int) -> None:
        """Call a function of a module in several processes; none may raise."""
        outcomes = self.calls(function, arguments, world)
        assert [one.code for one in outcomes] == [0] * world, "".join(o.err for o in outcomes)

    def calls(
        self, function: Callable[..., object], arguments: tuple[Any, ...], world: int
    ) -> list[Outcome]:
        """Call a function, which is imported there, with each process's rank before the rest."""
        packed = base64.b64encode(pickle.dumps((function, arguments))).decode()
        asked = {"arguments": [], "cwd": str(Path.cwd()), "environment": {}, "function": packed}
        return self._ask({**asked, "rank": rank} for rank in range(world))

    def _ask(self, requests: Iterable[dict[str, Any]]) -> list[Outcome]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(list(requests)) + "\n")
        self._process.stdin.flush()
        return [Outcome(**one) for one in json.loads(self._process.stdout.readline())]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@cache
def served() -> Commands:
    """Return those of this process, which end with it."""
    made = Commands()
    atexit.register(made.close)
    return made


def serve() -> None:
    """Answer each line of standard input."""
    import hydralight.preloaded  # noqa: I001
    from transformers.models import bart, bert, gpt2, vit  # noqa: F401
    import hydralight.cli
    import hydralight.evaluation
    import hydralight.prediction  # noqa: F401
    import kept_configs

    kept_configs.keep_configs()
    kept_configs.read_ours()
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


def answer(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fork, run command lines, and return their exit codes and what they wrote."""
    children, answers = [], []
    with ExitStack() as open_files:
        for request in requests:
            files = [open_files.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2)]
            child = os.fork()
            if child == 0:
                os._exit(begin(request, *(file.fileno() for file in files)))
            children.append((child, files, FUNCTION if "function" in request else COMMAND))
        for child, files, timeout in children:
            code, texts = ended(child, timeout), []
            for file in files:
                file.seek(0)
                texts.append(file.read())
            answers.append({"code": code, "out": texts[0], "err": texts[1]})
    return answers


def ended(child: int, timeout: float) -> int:
    """Wait for a process, and return its exit code; one that takes too long is killed."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG | os.WUNTRACED)
        if pid and os.WIFSTOPPED(status):
            break  # those before it have ended by now
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
    if DIES in os.environ:
        die_in_a_step()
    if KILLED in os.environ:
        from killed import kill_at

        moment, _, number = os.environ[KILLED].rpartition(" ")
        kill_at(moment, int(number))
    try:
        if "function" in request:
            function, arguments = pickle.loads(base64.b64decode(request["function"]))
            function(request["rank"], *arguments)
        else:
            command_line()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def die_in_a_step() -> None:
    """Let this process end in a step, as the environment says: `<step> <how>`."""
    from hydralight.nodes import heartbeat
    from hydralight.tasks.task import Task

    step, how = os.environ[DIES].split()
    heartbeat.BEAT, heartbeat.SILENCE = 0.2, 3.0
    original = Task.training_step

    def training_step(task: Task, *args: Any) -> Any:
        if task.global_step == int(step):
            if how == "raise":
                raise InterruptedError("on purpose")
            if how != "never":
                os.kill(os.getpid(), getattr(signal, how))
        return original(task, *args)

    Task.training_step = training_step  # type: ignore[method-assign]


if __name__ == "__main__":
    serve()
