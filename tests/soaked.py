"""Trainings in processes that share their imports, each of which is killed or comes to its end.

Run as a program, it reads requests from standard input, one JSON object a line, and writes the
exit code of each. A process leads a group of its own, with its loader workers and its second rank,
which is a fork too: SIGKILL goes to all of it.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TIMEOUT = 400  # seconds of an attempt, on a machine with much else to do


class Attempts:
    """Forks trainings of a process that has imported everything.

    Args:
        said: File for what the last one prints.
    """

    def __init__(self, said: Path) -> None:
        self.said = said
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(said)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def train(self, overrides: Sequence[str], **kill: str | float | None) -> int:
        """Return the exit code of a training.

        Args:
            overrides: As on the command line.
            kill: When it is killed, if at all: its `moment` and `number` (as of `killed.py`), and
                how many seconds later (`wait`; None: in that moment, by itself). Without a moment,
                seconds are counted from its start. `ranks`: how many processes it may take, 2
                unless said. `noted`: what begins the names of files for the rows that each trains
                on; then units of corpora are small.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"overrides": overrides, **kill}), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve(said: str) -> None:
    """Answer each line of standard input."""
    import hydralight.preloaded  # noqa: I001
    from transformers.models import bart, bert, gpt2, roberta, t5  # noqa: F401
    import hydralight.cli  # noqa: F401
    import killed  # noqa: F401

    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), said)), flush=True)


def answer(request: dict[str, Any], said: str) -> int:
    """Fork a training, kill it when it is time, and return its exit code."""
    come, tell = os.pipe()
    wait, moment = request.get("wait"), request.get("moment")
    child = os.fork()
    if child == 0:
        os.close(come)
        os._exit(begin(request, said, tell))
    os.close(tell)
    os.setpgid(child, child)
    end = time.monotonic() + TIMEOUT
    if moment is None and wait is not None:
        end = time.monotonic() + wait
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if wait is not None and moment is not None and select.select([come], [], [], 0)[0]:
            end, moment = time.monotonic() + wait, None
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.002)
    os.close(come)
    with suppress(ProcessLookupError):  # ranks and workers that were about to go
        os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(ended[1])


def begin(request: dict[str, Any], said: str, tell: int) -> int:
    """Become a training, and return its exit code."""
    from killed import kill_at

    os.setpgid(0, 0)
    with open(said, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if request.get("noted") is not None:
        note_rows(request["noted"])
    ranks_are_forks(request.get("ranks", 2) - 1)
    if request.get("moment") is not None:
        told = None if request.get("wait") is None else lambda: os.write(tell, b"!")
        kill_at(request["moment"], request["number"], told)
    return become([str(ROOT / "train.py"), *request["overrides"]])


def become(argv: list[str]) -> int:
    """Do what `train.py` does with its arguments."""
    from hydralight.cli import command_line

    os.chdir(ROOT)
    os.environ["HYDRALIGHT_COMMAND"] = "train"
    sys.argv = argv
    try:
        command_line()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    return 0


def note_rows(path: str) -> None:
    """Let each rank write down the step and the rows of its micro-batches, before it trains.

    A row is written as its number, and as what tells its tokens from others.
    """
    import xxhash

    from hydralight.data.corpus import inputs
    from hydralight.tasks.task import Task

    inputs.UNIT_BYTES = inputs.PART_BYTES = 500
    original = Task.training_step

    def training_step(task: Any, batch: Any, *args: Any) -> Any:
        texts = [
            xxhash.xxh3_64_hexdigest(ids[mask.bool()].numpy())
            for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        ]
        with open(f"{path}-{task.global_rank}", "a") as file:
            print(json.dumps([task.global_step, batch["row"].tolist(), texts]), file=file)
        return original(task, batch, *args)

    Task.training_step = training_step  # type: ignore[method-assign]


def ranks_are_forks(number: int) -> None:
    """Let Lightning's launcher begin further ranks in forks of this process as it is now."""
    from lightning.pytorch.strategies.launchers import subprocess_script

    waiting = [waiting_rank() for _ in range(number)]

    class Fork:
        returncode = None

        def __init__(self, command: list[str], env: dict[str, str], cwd: Any = None) -> None:
            self.pid, send = waiting.pop(0)
            os.write(send, (json.dumps({"command": command, "env": env}) + "\n").encode())

        def poll(self) -> int | None:
            if self.returncode is None and (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
                self.returncode = os.waitstatus_to_exitcode(ended[1])
            return self.returncode

        def send_signal(self, number: int) -> None:
            if self.poll() is None:
                os.kill(self.pid, number)

    class Launching:
        Popen = Fork

        def __getattr__(self, name: str) -> Any:
            return getattr(subprocess, name)

    subprocess_script.subprocess = Launching()  # type: ignore[attr-defined]


def waiting_rank() -> tuple[int, int]:
    """Fork a process that becomes a rank when it is told which; return it, and where to tell."""
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(send)
        with open(receive) as file:
            line = file.readline()
        if not line:
            os._exit(0)
        asked = json.loads(line)
        os.environ.clear()
        os.environ.update(asked["env"])
        rank_zero_only.rank = int(os.environ["LOCAL_RANK"])  # which was read at the import
        os._exit(become(asked["command"][1:]))
    os.close(receive)
    return child, send


if __name__ == "__main__":
    serve(sys.argv[1])
