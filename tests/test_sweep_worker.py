"""The process that a trial runs in."""

import os
import signal
import subprocess
import sys

import pytest
from sweeping import is_gone, until

from hydralight.sweeps import worker


@pytest.fixture
def call(tmp_path):
    """Call a function in a process of its own, which has imported nothing."""

    def called(function, *args, **environment):
        output = tmp_path / "output.log"
        return worker.call(function, *args, environment=environment, output=output, preload=None)

    return called


def test_a_call_has_a_process_environment_and_output_of_its_own(call, tmp_path, monkeypatch):
    assert call(pow, 2, 10) == 1024
    monkeypatch.setenv("GIVEN", "since the server was started")
    assert call(os.getenv, "GIVEN") == "since the server was started"
    assert call(os.getenv, "GIVEN", GIVEN="for this call") == "for this call"
    assert len({os.getpid(), call(os.getpid), call(os.getpid)}) == 3
    assert call(os.system, "echo said; echo also >&2") == 0
    assert (tmp_path / "output.log").read_text() == "said\nalso\n"


@pytest.mark.parametrize(
    ("function", "argument", "sentence"),
    [
        (signal.raise_signal, signal.SIGKILL, r"ended by SIGKILL \(often for want of memory\)$"),
        (signal.raise_signal, signal.SIGTERM, "ended by SIGTERM$"),
        (os._exit, 0, "left with exit code 0$"),
        (int, "x", "left with exit code 1$"),
    ],
)
def test_a_call_that_dies_says_how(function, argument, sentence, call):
    with pytest.raises(worker.Died, match=sentence):
        call(function, argument)


def test_what_a_call_has_started_ends_with_it(call, tmp_path):
    pids = tmp_path / "pids"
    assert call(os.system, f"sleep 1000 & echo $! >> {pids}") == 0
    with pytest.raises(worker.Died, match="SIGKILL"):
        call(os.system, f"sleep 1000 & echo $! >> {pids}; kill -9 $PPID")
    until(lambda: all(map(is_gone, pids.read_text().split())))
    assert len(pids.read_text().split()) == 2


def test_a_death_is_noticed_whatever_is_left(call, tmp_path):
    """What it has forked keeps its pipe open."""
    code = f"""
import os, time
if os.fork():
    os.kill(os.getpid(), 9)
time.sleep(20)
open({str(tmp_path / "waited for")!r}, "w")
"""
    with pytest.raises(worker.Died, match="SIGKILL"):
        call(exec, code)
    assert not (tmp_path / "waited for").exists()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_call_ends_with_its_caller(end, tmp_path):
    """Ctrl-C asks it to, so that it can write a checkpoint."""
    called = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: (open("asked", "w"), sys.exit(143)))
child = subprocess.Popen(["sleep", "1000"])
open("partial", "w").write(f"{os.getpid()} {child.pid}")
os.rename("partial", "pids")
time.sleep(1000)
"""
    caller = f"""
import signal
from pathlib import Path
from hydralight.sweeps import worker
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run behind an &
worker.call(exec, {called!r}, environment={{}}, output=Path("output.log"), preload=None)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", caller], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    until((tmp_path / "pids").exists, process)
    process.send_signal(end)
    assert process.wait(60) == -end
    until(lambda: all(map(is_gone, (tmp_path / "pids").read_text().split())))
    assert (tmp_path / "asked").exists() == (end == signal.SIGINT)
