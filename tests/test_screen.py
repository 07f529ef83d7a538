"""What the program shows: to somebody who looks on, and to a file."""

import io
import json
import re
import shlex
import sys
import time

import pytest
from conftest import ROOT
from rich.console import Console
from rich.progress import Progress as Bar

import hydralight
from hydralight import progress
from hydralight.callbacks import progress as callback
from hydralight.callbacks import samples
from hydralight.commands import start
from hydralight.runs.overrides import quoted
from hydralight.runs.run import Run


def test_what_takes_long_is_said(caplog):
    """In a pipe: a line once it takes long, and one at its end; nothing of what is quick."""
    caplog.set_level("INFO")
    with progress.waiting("reading a small file", patience=5):
        pass
    with progress.waiting("reading a large file", patience=0.02):
        time.sleep(0.2)
        assert caplog.messages == ["reading a large file …"]
    assert caplog.messages[1:] == ["reading a large file: 0:00"]


def with_progress(overrides):
    return [o for o in overrides if not o.startswith("callbacks.rich_progress")]


def test_a_file_gets_lines(bart_cnn, caplog):
    """Of the first step, of each tenth of the steps, of the last; and one for each evaluation."""
    caplog.set_level("INFO", logger="hydralight")
    settings = ["data.batch_size=2", "trainer.max_epochs=2", "callbacks.samples=null"]
    settings += ["callbacks.rich_progress.every_percent=25"]
    run = hydralight.train([*with_progress(bart_cnn), *settings])
    lines = [m for m in caplog.messages if m.startswith("step ")]
    assert [int(line.split()[1].split("/")[0]) for line in lines] == [1, 5, 7, 9, 13, 14, 14]
    shown = re.compile(r"step 9/14  epoch 2/2  loss (\S+)  lr \S+  [\d.,]+ examples/s  0:0\d left")
    loss = shown.fullmatch(lines[3])[1]
    history = run.history.set_index("step")
    assert float(loss) == pytest.approx(history.loc[9, "train/loss"], abs=1e-4)
    assert lines[0].endswith("examples/s")  # no pace yet
    assert lines[2].startswith(f"step 7  val/loss {run.history['val/loss'].dropna().iloc[0]:.4f}")
    best = run.metrics["best"]["step"]
    assert [line.endswith("  (best so far)") for line in (lines[2], lines[-1])] == [
        True,
        best == 14,
    ]


@pytest.mark.parametrize(("seconds", "lines"), [(30, 2), (1e-6, 4)])
def test_a_line_is_due_after_seconds_too(bart_cnn, caplog, seconds, lines):
    """Of 4 steps, the first and the last have one in any case."""
    caplog.set_level("INFO", logger="hydralight")
    often = [f"callbacks.rich_progress.every_seconds={seconds}"]
    often += ["callbacks.rich_progress.every_percent=100", "+trainer.limit_val_batches=0"]
    short = ["callbacks.samples=null", "trainer.max_epochs=1"]
    hydralight.train([*with_progress(bart_cnn), *often, *short])
    assert sum(message.startswith("step ") for message in caplog.messages) == lines


def test_a_rate_that_the_optimizer_makes_itself_is_not_said(bart_cnn, caplog):
    caplog.set_level("INFO", logger="hydralight")
    own = ["optimizer=adafactor_hf", "optimizer.lr=null", "optimizer.relative_step=true"]
    own += ["scheduler=null", "trainer.max_steps=1", "callbacks.samples=null"]
    hydralight.train([*with_progress(bart_cnn), *own, "+trainer.limit_val_batches=0"])
    (line,) = (m for m in caplog.messages if m.startswith("step "))
    assert re.fullmatch(r"step 1/1  epoch 1/?\d*  loss \S+  [\d.,]+ examples/s", line)


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 80 columns; what it was sent is returned."""
    sent = io.StringIO()
    console = Console(file=sent, force_terminal=True, width=80, _environ={})
    monkeypatch.setattr(progress, "console", lambda: console)
    monkeypatch.setattr(samples, "console", lambda: console)
    for module in (callback, progress):
        monkeypatch.setattr(module, "interactive", lambda: True)
    update = Bar.update

    def drawn(bar, *args, **kwargs):  # at each change, and not when there has been time for it
        update(bar, *args, **kwargs)
        bar.refresh()

    monkeypatch.setattr(Bar, "update", drawn)
    return sent


def test_the_bar_is_one_line(bart_cnn, terminal, caplog):
    """A bar of several lines is drawn anew by moving the cursor up; a table goes above the bar."""
    caplog.set_level("INFO", logger="hydralight")
    hydralight.train([*with_progress(bart_cnn), "data.batch_size=1", "trainer.max_epochs=2"])
    sent = terminal.getvalue()
    assert "\x1b[2K\x1b[1A" not in sent
    frames = re.split(r"\r\x1b\[2K", sent)
    plain = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", frame) for frame in frames]
    assert all(len(line) <= 80 for frame in plain for line in frame.splitlines())
    assert any(re.match(r"epoch 2/2 .* \d+/26 loss \S+  .* left", frame) for frame in plain)
    assert any(frame.startswith("Samples after step 26") for frame in plain)
    evaluations = [m for m in caplog.messages if m.startswith("step ")]
    assert len(evaluations) == 2  # no lines beside the bar
    assert all(len(line) <= 80 and "val/rougeL" in line for line in evaluations)


def test_a_run_ends_with_five_lines_and_what_they_say_can_be_pasted(
    bart_cnn, tmp_path, caplog, capsys, monkeypatch
):
    """Also where the path needs quotes. With `test=true` the test metrics are printed."""
    caplog.set_level("INFO", logger="hydralight")
    place = tmp_path / "it's here, $HOME"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "train.py")])
    few = ["callbacks.samples=null", "trainer.max_epochs=1", f"paths.log_dir={quoted(place)}"]
    run = hydralight.train([*bart_cnn, *few])
    said = [r.getMessage() for r in caplog.records if r.name == "hydralight.training"]
    assert len(said) == 5
    best = run.metrics["best"]
    assert said[0] == f"best val/rougeL: {best['val/rougeL']:.4f}, at step {best['step']}"
    assert (tmp_path / said[1].removeprefix("run directory: ")).samefile(run.path)
    assert (tmp_path / said[2].removeprefix("model: ")).samefile(run.path / "model")
    capsys.readouterr()
    for text, command in zip(said[3:], ("eval", "predict"), strict=True):
        words = shlex.split(text)
        assert words[1] == str(ROOT / f"{command}.py")
        start(command, words[2:])
        printed = json.loads(capsys.readouterr().out)
        assert "test/rougeL" in printed if command == "eval" else "prediction" in printed

    caplog.clear()
    run = hydralight.train([*bart_cnn, *few, "test=true"])
    assert json.loads(capsys.readouterr().out) == run.metrics["test"]
    said = [r.getMessage() for r in caplog.records if r.name == "hydralight.training"]
    assert f"; test/loss {run.metrics['test']['test/loss']:.4f}  test/rougeL" in said[0]
    again = shlex.split(said[-1])
    assert again[1] == str(ROOT / "train.py")
    extended = Run(start("train", again[2:]))
    assert extended.metrics["last"]["step"] == 2 * run.metrics["best"]["step"]


def test_a_run_without_a_metric_says_so(bart_cnn, caplog):
    caplog.set_level("INFO", logger="hydralight")
    hydralight.train([*bart_cnn, "trainer.max_epochs=1", "+trainer.limit_val_batches=0"])
    assert any(message.startswith("no metric: ") for message in caplog.messages)
