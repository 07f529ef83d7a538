"""Run directories: begun once, one process at a time, and read as if they might be damaged."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import standins
import torch
from conftest import CONFIG_DIR
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import hydralight
from hydralight.callbacks.best_model import BestModel
from hydralight.commands import start
from hydralight.errors import UserError
from hydralight.loggers import CSVLogger
from hydralight.runs.checkpoints import Record, intact_checkpoint, read_record
from hydralight.runs.checksums import checksum, verify
from hydralight.runs.files import refuse_links, write_text
from hydralight.runs.lock import locked
from hydralight.runs.run import Run, latest_run
from hydralight.tasks.task import Task


@pytest.fixture(scope="module")
def trained(checkpoints, tmp_path_factory):
    """13 rows in 4 batches an epoch, with a checkpoint after each second step; and the run."""
    folder = tmp_path_factory.mktemp("trained")
    words = [
        "experiment=bert_mrpc",
        *standins.overrides_for("bert_mrpc", folder / "data", checkpoints),
        "trainer.accelerator=cpu",
        "trainer.max_epochs=1",
        "trainer.log_every_n_steps=1",
        "data.batch_size=4",
        "callbacks.rich_progress=null",
        "callbacks.samples=null",
        "callbacks.last_checkpoint.every_n_train_steps=2",
    ]
    return words, hydralight.train([*words, f"paths.log_dir={folder / 'logs'}"])


@pytest.fixture
def words(trained, tmp_path):
    return [*trained[0], f"paths.log_dir={tmp_path / 'logs'}"]


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run, to do with as a test likes."""
    return Run(shutil.copytree(trained[1].path, tmp_path / "logs/train/runs/run"))


def ended_at(monkeypatch, step):
    """End a training in a step as an error of its own would."""

    def training_step(task, *args):
        if task.global_step == step:
            raise InterruptedError
        return original(task, *args)

    original = Task.training_step
    monkeypatch.setattr(Task, "training_step", training_step)


def put(path: Path, state) -> None:
    """Write a checkpoint with the record that fits it, as somebody would who re-makes it."""
    torch.save(state, path)
    for other in path.parent.glob("step-*"):
        other.unlink()
    record = read_record(path.with_suffix(".json"))
    assert record is not None
    content = {**vars(record), "checksum": checksum(path)}
    path.with_suffix(".json").write_text(Record(**content).text)


# ---------------------------------------------------------------- beginning


def test_a_directory_that_holds_a_run_is_left_alone(run, words):
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file() and p.suffix != ".log"}
    with pytest.raises(UserError, match="holds a run already: go on with it by resume="):
        hydralight.train([*words, f"hydra.run.dir={run.path}", "seed=3"])
    assert before == {p: p.read_bytes() for p in before}
    assert not (run.path / ".lock").exists()


@pytest.mark.parametrize("how", ["typed again", "resumed"])
def test_where_nothing_was_trained_a_run_begins_anew(
    trained, words, tmp_path, monkeypatch, how, caplog
):
    """The files are those of a run that was never interrupted."""
    whole = trained[1]
    folder = tmp_path / "other"
    typed = [*words, f"hydra.run.dir={folder}"]
    with monkeypatch.context() as patch:
        ended_at(patch, 1)
        with pytest.raises(InterruptedError):
            hydralight.train(typed)
    assert (folder / "metrics.csv").is_file()
    (folder / "metrics.csv.0123abcd.partial").write_text("torn")
    (folder / "notes.txt").write_text("mine")
    other = hydralight.train(typed if how == "typed again" else [f"resume={folder}"])
    assert ("begun anew" in caplog.text) == (how == "resumed")
    assert (other.path / "metrics.csv").read_bytes() == (whole.path / "metrics.csv").read_bytes()
    assert other.metrics == whole.metrics
    assert (folder / "notes.txt").read_text() == "mine"
    assert not list(folder.rglob("*.partial"))


def test_checkpoints_that_were_deleted_are_missed(run):
    for path in (run.path / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="there is nothing to resume from"):
        hydralight.train([f"resume={run.path}", "trainer.max_epochs=2"])


def test_a_directory_inside_of_a_model_is_refused(words, run):
    with pytest.raises(UserError, match="model is an exported model: name a directory outside"):
        hydralight.train([*words, f"hydra.run.dir={run.path / 'model/more'}"])
    verify(run.path / "model")


@pytest.mark.parametrize("name", ["config.yaml", "model/mine.bin", "samples/mine.txt"])
@pytest.mark.parametrize("hydras", [False, True])
def test_a_folder_of_the_users_is_not_written_over(words, tmp_path, name, hydras):
    if hydras:  # of another program
        (tmp_path / "mine/.hydra").mkdir(parents=True)
        (tmp_path / "mine/.hydra/config.yaml").write_text("lr: 1\nmodel: {}\ntrainer: {}\n")
    path = tmp_path / "mine" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")

    def files():
        return {p: p.read_text() for p in (tmp_path / "mine").rglob("*") if p.is_file()}

    before = files()
    with pytest.raises(UserError, match="is not a run's, and would be written over"):
        hydralight.train([*words, f"hydra.run.dir={tmp_path / 'mine'}"])
    assert files() == before


def test_an_export_replaces_only_exports(words, tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("years of work")
    typed = [*words, f"callbacks.best_model.dirpath={folder}"]
    with pytest.raises(UserError, match="holds other files, which an export would replace"):
        hydralight.train(typed)
    assert (folder / "chapter.txt").read_text() == "years of work"
    (folder / "chapter.txt").unlink()
    for seed in (1, 2):  # empty, and then its own
        hydralight.train([*typed, f"seed={seed}"])
    assert (folder / "checksums.json").is_file()
    with pytest.raises(UserError, match="holds other files"):
        BestModel(str(tmp_path), "val/loss", "min")


def test_a_composed_config_is_written_as_hydra_has_it(run):
    config = OmegaConf.load(run.path / ".hydra/config.yaml")
    assert OmegaConf.to_container(config, resolve=False)["trainer"]["precision"] == "${precision}"
    assert config.precision == "auto"
    assert "optimizer: adamw" in (run.path / ".hydra/hydra.yaml").read_text()
    assert "data.batch_size=4" in OmegaConf.load(run.path / ".hydra/overrides.yaml")


def test_a_directory_is_a_runs_once_what_it_was_composed_from_is_there(words, monkeypatch):
    """A resume, which writes none of these files, never finds only some of them."""
    found = []

    def write(path, text):
        write_text(path, text)
        found.append({file.name for file in path.parent.iterdir()})

    monkeypatch.setattr("hydralight.runs.environment.write_text", write)
    hydralight.train([*words, "trainer.max_steps=1"])
    whole = {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert [names == whole for names in found[:3]] == ["config.yaml" in n for n in found[:3]]
    assert found[2] == whole


# ---------------------------------------------------------------- one at a time


def test_a_lock_is_the_owners_alone_and_ends_with_it(tmp_path):
    code = (
        "import os, sys, time; from pathlib import Path\n"
        "from hydralight.runs.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    if os.fork() == 0: time.sleep(30); os._exit(0)\n"
        "    print('locked', flush=True); time.sleep(30)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "locked\n"
        with (
            pytest.raises(UserError, match=f"in use by process {owner.pid} on "),
            locked(tmp_path),
        ):
            pass
        owner.kill()  # not the process that it has forked
        owner.wait()
        with locked(tmp_path), pytest.raises(UserError, match="this very process"):
            locked(tmp_path).__enter__()
    finally:
        os.killpg(owner.pid, 9)
    assert not (tmp_path / ".lock").exists()


def test_a_live_run_is_not_resumed(run):
    with locked(run.path), pytest.raises(UserError, match="in use by"):
        hydralight.train([f"resume={run.path}", "trainer.max_epochs=2"])
    with locked(run.path):  # reading is fine
        assert hydralight.evaluate([f"run={run.path}"])


# ---------------------------------------------------------------- what is damaged


FOUND = "is damaged|is not there|is not the text that was exported|is not among the files"


def test_every_flipped_bit_of_a_model_is_found(run, words, tmp_path, caplog):
    folder, rng = run.path / "model", random.Random(0)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for _ in range(6):
            flipped = bytearray(content)
            flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            path.write_bytes(flipped)
            caplog.clear()
            said = ""
            try:
                verify(folder)
            except UserError as error:
                said = str(error)
            if path.name in ("README.md", "checksums.json"):  # the card, or its checksum
                said += caplog.text
            assert re.search(FOUND, said)
        path.write_bytes(content)
    verify(folder)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for use in (
        lambda: hydralight.evaluate([f"run={run.path}"]),
        lambda: hydralight.predict([f"run={run.path}", "input=a"]),
        lambda: hydralight.Run(run.path).model,
        lambda: hydralight.Run(run.path).tokenizer,
        lambda: hydralight.train([*words, f"checkpoint={folder}"]),
    ):
        with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
            use()
    (folder / "checksums.json").unlink()  # it was on purpose
    assert AutoModelForSequenceClassification.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder)
    assert hydralight.evaluate([f"run={run.path}"])


TORN = {"empty": b"", "torn": b'{"a": [1', "bytes": b"\xff\xfe\x00", "of another type": b"3"}


@pytest.mark.parametrize("content", TORN.values(), ids=TORN)
def test_a_damaged_record_is_a_sentence(run, content, caplog):
    def damaged(name):
        path = run.path / name
        before = path.read_bytes() if path.is_file() else None
        path.write_bytes(content)
        return path, before

    resume = [f"resume={run.path}", "trainer.max_epochs=2"]
    for name in (".hydra/config.yaml", ".hydra/hydra.yaml", "resume.json"):
        path, before = damaged(name)
        for use in (lambda: hydralight.train(resume), lambda: start("eval", [f"run={run.path}"])):
            with pytest.raises(UserError, match=f"{name} is damaged"):
                use()
        path.unlink() if before is None else path.write_bytes(before)
    path, before = damaged("config.yaml")
    with pytest.raises(UserError, match=r"config\.yaml is damaged"):
        hydralight.evaluate([f"run={run.path}"])
    for name in ("metrics.json", "environment.json"):
        damaged(name)
    hydralight.train(resume)  # what can be had again is
    for name in ("metrics.json", "environment.json"):
        assert f"{name} is damaged" in caplog.text
        assert (run.path / f"{name}.damaged").read_bytes() == content
    assert run.metrics["last"]["step"] == 8
    damaged("metrics.csv")
    with pytest.raises(UserError, match=r"metrics\.csv is damaged"):
        _ = run.history


def test_a_torn_row_is_no_row(tmp_path):
    log = CSVLogger(str(tmp_path))
    for step in (1, 2):
        log.log_metrics({"loss": 0.123}, step)
    log.path.write_bytes(log.path.read_bytes()[:-4])  # in its last value
    again = CSVLogger(str(tmp_path))
    again.cut_after(2)
    assert log.path.read_bytes() == b"step,loss\r\n1,0.123\r\n"


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (["optimizer._target_=torch.optim.Adam"], "its optimizer is torch.*AdamW, and now .*Adam"),
        (["optimizer.lr=1e-9"], "its optimizer.lr is .*, and now it is 1e-09"),
        (["++optimizer.weight_decay=0.3"], "its optimizer.weight_decay is .*, and now it is 0.3"),
        (["++optimizer.betas=[0.5,0.6]"], r"optimizer.betas is \[0.9, 0.999\], .* \[0.5, 0.6\]"),
        (["scheduler.warmup_steps=3"], "its scheduler.warmup_steps is 0, and now it is 3"),
        (["trainer.accumulate_grad_batches=2"], "with trainer.accumulate_grad_batches=1, and"),
        (["scheduler.name=cosine"], "its scheduler is .*linear.*, and now it is .*cosine"),
        (
            ["+model.freeze=[bert.embeddings.*]"],
            "bert.embeddings.* was trained, and now",
        ),
        (["callbacks.best_model=null"], "the state of BestModel, which is no callback now"),
        (["callbacks.exact_resume=null"], "the state of ExactResume, which is no callback now"),
        (["hydra.run.dir=/else"], "hydra.run.dir=/else: a run goes on in its own directory"),
        (["+model.config.intermediate_size=48"], "dense.weight is .* by .* in it, and 48 by"),
    ],
)
def test_a_resume_as_another_training_is_refused(run, typed, sentence):
    typed = [word.replace("+model.freeze", "++model.freeze") for word in typed]
    with pytest.raises(UserError, match=sentence):
        hydralight.train([f"resume={run.path}", "trainer.max_epochs=2", *typed])
    assert run.metrics["last"]["step"] == 4


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda state: state.pop("optimizer_states"), "has no optimizer_states"),
        (lambda state: state["optimizer_states"][0].update(state={}), "states of the optimizer"),
        (lambda state: state["state_dict"].popitem(), "it has no weight .*, and the model has"),
        (lambda state: state["state_dict"].update(more=torch.ones(2)), "it has a weight more"),
        (lambda state: state.pop("lr_schedulers"), "has no lr_schedulers"),
        (lambda state: state.pop("exact_resume"), "has no exact_resume"),
    ],
)
def test_a_checkpoint_that_was_re_made_is_looked_through(run, harm, sentence):
    last = run.path / "checkpoints/last.ckpt"
    state = torch.load(last, weights_only=True)
    harm(state)
    put(last, state)
    with pytest.raises(UserError, match=sentence):
        hydralight.train([f"resume={run.path}", "trainer.max_epochs=2"])


def test_strays_go_and_a_step_is_resumed_without_a_last(run):
    folder = run.path / "checkpoints"
    path, _ = intact_checkpoint(folder)
    path.rename(folder / "step-00000004.ckpt")
    (folder / "last.json").rename(folder / "step-00000004.json")
    for number in (1, 2):
        (folder / f"step-0000000{number}.ckpt").write_bytes(b"old")
    for name in ("checkpoint.partial", "../model.partial", "../model.previous", "../x.partial"):
        (folder / name).mkdir()
    resumed = hydralight.train([f"resume={run.path}", "trainer.max_epochs=2"])
    assert resumed.metrics["last"]["step"] == 8
    kept = {"last", "step-00000008"} if len(list(folder.glob("step-*"))) else {"last"}
    assert {p.stem for p in folder.iterdir()} <= kept | {"step-00000006"}
    assert not [p for p in run.path.rglob("*") if p.suffix in (".partial", ".previous")]


# ---------------------------------------------------------------- which run, and several


def test_latest_is_the_run_that_was_begun_last(tmp_path):
    runs = tmp_path / "train/runs"
    for name, time in [
        ("z", "2026-01-01T00:00:00+00:00"),
        ("a", "2026-01-01T00:00:00.000001+00:00"),
    ]:
        write_run(runs / name, {"time": time})
    write_run(tmp_path / "newer", {"time": "2027-01-01T00:00:00+00:00"})
    (runs / "zz").symlink_to(tmp_path / "newer")
    (runs / "no run").mkdir()
    assert latest_run(tmp_path) == runs / "a"
    write_run(runs / "b", {})
    os.utime(runs / "b/.hydra/config.yaml", (2e9, 2e9))
    assert latest_run(tmp_path) == runs / "b"


def write_run(folder, environment):
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/config.yaml").write_text("seed: 1")
    (folder / "environment.json").write_text(json.dumps(environment))


def test_debug_runs_are_never_the_latest(words, tmp_path):
    run = hydralight.train([*words, "debug=limit"])
    assert run.path.parent == tmp_path / "logs/debug/runs"
    with pytest.raises(UserError, match="there is no run in"):
        start("eval", ["run=latest", f"paths.log_dir={tmp_path / 'logs'}"])


def test_all_kinds_of_debug_runs_have_that_folder():
    for path in (CONFIG_DIR / "debug").glob("*.yaml"):
        with initialize_config_dir(str(CONFIG_DIR)):
            hydra = compose("train", [f"debug={path.stem}"], return_hydra_config=True).hydra
        for node in (hydra.run._get_node("dir"), hydra.sweep._get_node("dir")):
            begins = node._value().startswith("${paths.log_dir}/debug/")
            assert begins or path.stem == "fdr", path  # which writes nothing


@pytest.mark.parametrize(
    ("command", "typed"),
    [
        ("train", ["-m", "resume={}", "seed=1,2"]),
        ("train", ["--multi", "resume={}"]),
        ("train", ["hydra.mode=MULTIRUN", "resume={}"]),
        ("eval", ["-m", "run={}", "split=test,train"]),
        ("predict", ["-m", "checkpoint={}", "input=a,b"]),
    ],
)
def test_a_run_is_not_swept(command, typed, run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="-m is for"):
        start(command, [word.format(run.path) for word in typed])
    assert sorted(tmp_path.rglob("*")) == before


# ---------------------------------------------------------------- what others have put there


@pytest.mark.parametrize(
    "name", ["config.yaml", "model", "train.log", "checkpoints/x", "metrics.csv"]
)
def test_a_link_that_leads_out_is_refused(run, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    path = run.path / name
    if path.exists():
        path.rename(tmp_path / "moved")
    path.symlink_to(elsewhere)
    for command, key in (("train", "resume"), ("eval", "run"), ("predict", "run")):
        with pytest.raises(UserError, match="is a link that leads out of"):
            start(command, [f"{key}={run.path}", *["input=a"] * (command == "predict")])
    assert elsewhere.read_text() == "mine"


def test_a_new_run_follows_no_link_either(words, tmp_path):
    """Into a folder that somebody has made ready for it."""
    folder, elsewhere = tmp_path / "ready", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / "samples").symlink_to(elsewhere)
    with pytest.raises(UserError, match="samples is a link that leads out of"):
        hydralight.train([*words, f"hydra.run.dir={folder}"])
    assert not list(elsewhere.iterdir())


def test_what_is_no_file_is_refused_and_links_inside_are_fine(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "best").symlink_to("model")
    refuse_links(tmp_path)
    os.mkfifo(tmp_path / "model/weights")
    with pytest.raises(UserError, match="is neither a file nor a folder"):
        refuse_links(tmp_path)


def test_the_one_link_of_wandb_that_leads_out_is_to_a_file_in_its_place(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "core.log").touch()

    def look(name, target):
        link = run / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
        try:
            refuse_links(run)
        finally:
            link.unlink()

    look("wandb/run-1/logs/debug-core.log", elsewhere / "core.log")
    look("3/wandb/run-1/logs/debug-core.log", elsewhere / "core.log")
    for name, target in (
        ("wandb/run-1/logs/debug-core.log", elsewhere),
        ("wandb/run-1/logs/debug-core.log", elsewhere / "new"),
        ("model/wandb/run-1/logs/debug-core.log", elsewhere / "core.log"),
    ):
        with pytest.raises(UserError, match="is a link that leads out of"):
            look(name, target)


def test_writers_follow_no_link(tmp_path):
    (tmp_path / "mine").write_text("mine")
    for name in ("config.yaml", "metrics.csv"):
        (tmp_path / name).symlink_to(tmp_path / "mine")
    write_text(tmp_path / "config.yaml", "new")
    assert (tmp_path / "config.yaml").read_text() == "new"
    log = CSVLogger(str(tmp_path))
    log._columns = ["step", "loss"]
    with pytest.raises(UserError, match=r"metrics\.csv cannot be written"):
        log.log_metrics({"loss": 1.0}, 1)
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_file_in_the_place_of_a_folder_is_no_want_of_room(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file" / "new", tmp_path / "file" / "folder" / "new"):
        with pytest.raises(UserError, match=r"new cannot be written \(.*\): name another place\.$"):
            write_text(path, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
