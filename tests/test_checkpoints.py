"""Checkpoints and their records: whole or not there at every moment, and checked bit by bit."""

import json
import os
import random
import shutil
import sys
import tempfile
from dataclasses import replace

import pytest
import torch

import hydralight
from hydralight.errors import UserError
from hydralight.runs.checkpoints import (
    PARTIAL,
    Record,
    intact_checkpoint,
    put_in_place,
    read_record,
)
from hydralight.runs.checksums import checksum
from hydralight.runs.files import remove


class Killed(BaseException):
    """As by SIGKILL: nothing tidies up after it."""


# operations on files still allowed before the process dies; None: it lives. An audit hook stays.
allowed: list[int | None] = [None]
OPERATIONS = ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir")


def die(event, arguments):
    if allowed[0] is None or event not in OPERATIONS:
        return
    if event == "open" and not {"w", "x"} & set(str(arguments[1])):
        return
    if allowed[0] == 0:
        raise Killed
    allowed[0] -= 1


sys.addaudithook(die)


def write(folder, step, sharded=False):
    """Write a checkpoint of a step, whose bytes tell it; as a folder of two files, if sharded."""
    content = f"step {step}".encode() * 100
    if sharded:
        (folder / PARTIAL).mkdir()
        (folder / PARTIAL / "other").write_bytes(content[1:])
    (folder / PARTIAL / "one" if sharded else folder / PARTIAL).write_bytes(content)
    return Record(step, step // 4, step, 4, checksum(folder / PARTIAL)), content


@pytest.fixture(params=[True, False], ids=["hard links", "copies"])
def links(request, monkeypatch):
    if not request.param:

        def refuse(*args):
            raise PermissionError("no hard links here")

        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("links")
@pytest.mark.parametrize("forms", ["ffff", "dddd", "fddf", "ffdd", "ddff"])
@pytest.mark.parametrize("limit", [1, 2, None])
def test_a_kill_between_any_two_steps_leaves_a_pair_that_fits(tmp_path, limit, forms, caplog):
    """Of files, of folders (sharded), and where a run has gone on as the other."""
    moments = 0
    sharded = {step: form == "d" for step, form in enumerate(forms, 1)}
    while allowed[0] is None:
        folder = tmp_path / str(moments)
        folder.mkdir()
        for step in (1, 2):
            put_in_place(folder, write(folder, step, sharded[step])[0], limit)
        record, _ = write(folder, 3, sharded[3])
        allowed[0] = moments
        try:
            put_in_place(folder, record, limit)
            break
        except Killed:
            moments += 1
        finally:
            allowed[0] = None
        path, found = intact_checkpoint(folder)
        assert found.step in (2, 3)
        content = f"step {found.step}".encode() * 100
        if path.is_dir():
            assert (path / "other").read_bytes() == content[1:]
        assert (path / "one" if path.is_dir() else path).read_bytes() == content
        assert not caplog.messages  # nothing is damaged
        remove(folder / PARTIAL)
        for step in (3, 4):  # what is left behind goes, in time
            put_in_place(folder, write(folder, step, sharded[step])[0], limit)
        assert intact_checkpoint(folder)[1].step == 4
        # what was being written is left to the next start
        names = {p.name for p in folder.iterdir() if not p.name.endswith(".partial")}
        kept = {1: [], 2: [3, 4], None: [1, 2, 3, 4]}[limit]
        numbered = {f"step-{n:08d}.{e}" for n in kept for e in ("ckpt", "json")}
        assert names == {"last.ckpt", "last.json"} | numbered
    assert moments >= 8 - (limit is None) * 2


def test_a_first_checkpoint_can_be_resumed_from_before_it_is_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *args: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        put_in_place(tmp_path, write(tmp_path, 1)[0], 1)
    assert intact_checkpoint(tmp_path)[0].name == "step-00000001.ckpt"


def test_the_same_step_again(tmp_path):
    """A damaged one is written anew by the run that began before it."""
    for step in (1, 2):
        put_in_place(tmp_path, write(tmp_path, step)[0], 2)
    (tmp_path / "last.ckpt").write_bytes(b"damaged")  # and step 2, which is the same file
    assert intact_checkpoint(tmp_path)[1].step == 1
    record, content = write(tmp_path, 2)
    put_in_place(tmp_path, replace(record, consumed=7), 2)
    path, found = intact_checkpoint(tmp_path)
    assert (path.read_bytes(), found.consumed) == (content, 7)


@pytest.fixture(scope="module")
def run(tiny_bart, articles, tmp_path_factory):
    files = ",".join(f"{s}:{articles / s}.jsonl" for s in ("train", "validation"))
    return hydralight.train(
        [
            "experiment=bart_cnn",
            f"checkpoint={tiny_bart}",
            f"data.path={{{files}}}",
            f"paths.log_dir={tmp_path_factory.mktemp('runs')}",
            "data.max_source_length=128",
            "generation.max_new_tokens=4",
            "trainer.max_epochs=1",
            "trainer.accelerator=cpu",
            "callbacks.rich_progress=null",
            "callbacks.samples=null",
            "callbacks.last_checkpoint.save_total_limit=1",
        ]
    )


@pytest.fixture
def last(run):
    """The run's `last.ckpt`, as it was after the test too."""
    folder = run.path / "checkpoints"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    yield folder / "last.ckpt"
    for path in folder.iterdir():
        path.unlink()
    for path, content in before.items():
        path.write_bytes(content)


def test_a_record_says_where_the_run_is(last):
    state = torch.load(last, weights_only=True)
    record = json.loads(last.with_suffix(".json").read_text())
    assert record.pop("own_checksum")
    assert record == {
        "step": state["global_step"],
        "epoch": state["epoch"],
        "consumed": 4,
        "batches_per_epoch": 4,
        "checksum": checksum(last),
        "accumulate_grad_batches": 1,
    }
    assert record["checksum"].startswith("xxh3_128:")
    assert {path.name for path in last.parent.iterdir()} == {"last.ckpt", "last.json"}


def test_nothing_of_a_checkpoint_goes_elsewhere(run, tmp_path, monkeypatch):
    """Lightning's own way goes through the system's temporary folder, which may be small."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    path = shutil.copytree(run.path, tmp_path / "run")
    hydralight.train([f"resume={path}", "trainer.max_epochs=2"])
    assert intact_checkpoint(path / "checkpoints")[1].step == 8


def test_every_flipped_bit_is_found(run, last):
    content, rng = last.read_bytes(), random.Random(0)
    resume = [f"resume={run.path}", "trainer.max_epochs=2"]
    for _ in range(20):
        place, bit = rng.randrange(len(content)), rng.randrange(8)
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        last.write_bytes(flipped)
        with pytest.raises(UserError, match=r"last\.ckpt is damaged .* no other checkpoint"):
            hydralight.train(resume)


def test_every_flipped_bit_of_a_record_is_found(last):
    path = last.with_suffix(".json")
    content = path.read_bytes()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(UserError, match=r"cannot be checked|is damaged"):
            intact_checkpoint(last.parent)


@pytest.mark.parametrize("wrong", [{"batches_per_epoch": 0}, {"step": "a"}, {"consumed": -1}])
def test_a_record_whose_numbers_are_none_is_none(tmp_path, wrong):
    record = Record(1, 0, 1, 4, "xxh3_128:0")
    (tmp_path / "last.json").write_text(record.text)
    assert read_record(tmp_path / "last.json") == record
    (tmp_path / "last.json").write_text(replace(record, **wrong).text)
    assert read_record(tmp_path / "last.json") is None


@pytest.mark.parametrize("size", [0, 1, 1000, -1])
def test_a_truncated_checkpoint_is_found(last, size):
    last.write_bytes(last.read_bytes()[:size])
    with pytest.raises(UserError, match=r"last\.ckpt is damaged"):
        intact_checkpoint(last.parent)


def test_a_foreign_checkpoint_is_not_opened(run, last, monkeypatch):
    """It would do as it likes: no pickle is read, not even with `weights_only`."""
    torch.save({"state_dict": {}, "global_step": 3, "exact_resume": {}}, last)
    opened: list = []
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: opened.append(args))
    with pytest.raises(UserError, match=r"last\.ckpt is damaged"):
        hydralight.train([f"resume={run.path}", "trainer.max_epochs=2"])
    assert not opened


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"step": 4}', "null"])
def test_a_checkpoint_without_a_record_is_not_taken(run, last, content):
    """As an older version's, which wrote none."""
    if content is None:
        last.with_suffix(".json").unlink()
    else:
        last.with_suffix(".json").write_text(content)
    with pytest.raises(UserError, match=r"last\.ckpt cannot be checked \(there is no intact last"):
        hydralight.train([f"resume={run.path}", "trainer.max_epochs=2"])


def test_a_checkpoint_is_opened_once(run, last, monkeypatch):
    opened, load = [], torch.load

    def counted(file, *args, **kwargs):
        opened.append(kwargs["weights_only"])
        return load(file, *args, **kwargs)

    monkeypatch.setattr(torch, "load", counted)
    with pytest.raises(UserError, match="has nothing left to do: it is at epoch 1, step 4"):
        hydralight.train([f"resume={run.path}"])
    assert opened == []
    assert hydralight.train([f"resume={run.path}", "trainer.max_epochs=2"]).metrics["last"]
    assert opened == [True]
