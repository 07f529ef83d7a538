"""Processes that were started together are one run, or stop together."""

import json
import re
import socket
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from forked import DIES
from lightning.pytorch import Trainer
from safetensors.torch import load_file

import hydralight
from hydralight.callbacks.lightning_seams import take_place
from hydralight.errors import UserError
from hydralight.nodes.agreement import difference
from hydralight.nodes.ranks import check_devices, is_first, place
from hydralight.runs.run import Run

TWO = ["trainer=ddp_cpu", "trainer.devices=1", "trainer.num_nodes=2"]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def variables(nodes=2, **more):
    """What a user sets on each node who starts one process there."""
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "LOCAL_RANK": "0"}
    common |= {"WORLD_SIZE": str(nodes), **more}
    return [{**common, "NODE_RANK": str(node)} for node in range(nodes)]


def runs_in(folder):
    return sorted((folder / "train/runs").glob("*")) if (folder / "train").exists() else []


@pytest.fixture
def words(recipe):
    """13 rows in 4 steps of two micro-batches."""
    own = ["data.batch_size=2", "data.batches_per_step=2", "trainer.max_epochs=1"]
    return [*recipe("bert_mrpc"), *own, "callbacks.samples=null"]


def equal(one, two):
    np.testing.assert_allclose(one.history, two.history[one.history.columns], atol=1e-5)
    weights = [load_file(run.path / "model/model.safetensors") for run in (one, two)]
    assert all(np.allclose(weights[0][name], weights[1][name], atol=1e-5) for name in weights[0])


def test_what_torchrun_sets_is_one_run(words, tmp_path, commands):
    typed, port = ["train", *words, *TWO, f"paths.log_dir={tmp_path / 'two'}"], str(free_port())
    common = {"TORCHELASTIC_RUN_ID": "x", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common |= {"WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    ranks = [{**common, "RANK": rank, "GROUP_RANK": rank} for rank in "01"]
    first, other = commands.together([typed, typed], tmp_path, ranks)
    assert (first.code, other.code) == (0, 0), first.err + other.err
    (path,) = runs_in(tmp_path / "two")
    equal(hydralight.train(words), Run(path))
    assert "run directory" in first.err
    assert "run directory" not in other.err


@pytest.mark.thorough
def test_two_agents_of_torchrun_are_one_run(words, tmp_path):
    folder, port = tmp_path / "two", free_port()
    agents = []
    for node in range(2):
        options = ["--nnodes=2", "--nproc-per-node=1", f"--node-rank={node}"]
        options += ["--master-addr=127.0.0.1", f"--master-port={port}"]
        typed = [*words, *TWO, f"paths.log_dir={folder}"]
        command = [sys.executable, "-m", "torch.distributed.run", *options, "train.py", *typed]
        agents.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True))
    one = hydralight.train(words)
    said = [agent.communicate(timeout=120)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    (path,) = runs_in(folder)
    equal(one, Run(path))
    names = {entry.name for entry in one.path.iterdir()}
    assert {entry.name for entry in path.iterdir()} == names | {"train.log", "curves.png"}
    assert "run directory" in said[0]
    assert "run directory" not in said[1]


def test_variables_alone_are_one_run_that_goes_on(words, tmp_path, commands):
    typed, log_dir = ["train", *words, *TWO], tmp_path / "logs"
    first, other = commands.together([typed, typed], tmp_path, variables())
    assert (first.code, other.code) == (0, 0), first.err + other.err
    (path,) = runs_in(log_dir)
    assert [file.name for file in path.glob("*.log")] == ["train.log"]
    assert "run directory" not in other.err

    latest = ["train", "resume=latest", f"paths.log_dir={log_dir}", "trainer.max_epochs=2"]
    done = commands.together([latest, latest], tmp_path, variables())
    assert [one.code for one in done] == [0, 0], done[0].err + done[1].err
    assert runs_in(log_dir) == [path]
    two = Run(path)
    one = hydralight.train(words)
    equal(hydralight.train([f"resume={one.path}", "trainer.max_epochs=2"]), two)

    evaluated = ["eval", f"run={path}"]
    done = commands.together([evaluated, evaluated], tmp_path, variables())
    assert [one.code for one in done] == [0, 0], done[0].err + done[1].err
    assert done[1].out == ""
    assert json.loads(done[0].out)["val/loss"] == pytest.approx(two.metrics["best"]["val/loss"])
    refused = commands.run(evaluated, tmp_path)
    assert "trainer.num_nodes=2, and this process was started alone" in refused.err


@pytest.mark.parametrize(
    ("mine", "others", "told"),
    [
        ([], ["optimizer.lr=0.5"], "optimizer.lr is 0.5 there and 5e-05 here"),
        ([], ["optimzer.lr=0.5"], "there is no key 'optimzer'"),
        (["optimzer.lr=0.5"], [], "there is no key 'optimzer'"),
        (["trainer.devices=2"], ["trainer.devices=2"], "counts 2 processes, and trainer.devices=2"),
        (["data.path.train=gone.csv"], ["data.path.train=gone.csv"], "gone.csv"),
    ],
)
def test_a_process_that_differs_stops_all(words, tmp_path, commands, mine, others, told):
    typed = [["train", *words, *TWO, *own] for own in (mine, others)]
    done = commands.together(typed, tmp_path, variables())
    assert [one.code for one in done] == [1, 1]
    for one in done:
        assert told in one.err
        assert "Traceback" not in one.err
    assert runs_in(tmp_path / "logs") == []


@pytest.mark.parametrize("command", [["train", "-m"], ["predict", "input=words"]])
def test_what_is_one_process_is_told(words, tmp_path, commands, command):
    typed = [*command, *words]
    for one in commands.together([typed, typed], tmp_path, variables()):
        assert one.code == 1
        assert "is started as one process" in one.err


@pytest.mark.parametrize(
    ("who", "how", "told"),
    [
        (1, "SIGKILL", "nothing is heard from process 0 of node 1"),
        (1, "SIGSTOP", "nothing is heard from process 0 of node 1"),
        (1, "raise", "process 0 of node 1 ({host}) has stopped: on purpose"),
        (0, "SIGKILL", "the first process cannot be reached any more"),
    ],
)
def test_a_process_that_is_lost_is_told(words, tmp_path, commands, who, how, told):
    typed = ["train", *words, *TWO, "callbacks.last_checkpoint.every_n_train_steps=1"]
    environments = variables()
    for number, environment in enumerate(environments):
        environment[DIES] = f"2 {how if number == who else 'never'}"
    done = commands.together([typed, typed], tmp_path, environments)
    assert done[who].code != 0
    assert done[1 - who].code == 1
    assert told.format(host=socket.gethostname()) in done[1 - who].err
    (path,) = runs_in(tmp_path / "logs")
    if (who, how) == (1, "SIGKILL"):
        alone = ["trainer.devices=1", "trainer.num_nodes=1"]
        equal(hydralight.train(words), hydralight.train([f"resume={path}", *alone]))


def test_a_requeued_job_goes_on_with_its_run(words, tmp_path, commands):
    """SLURM starts the same command again, in the same job."""
    job = {"SLURM_JOB_ID": "7", "SLURM_CLUSTER_NAME": "here"}
    typed = ["train", *words, "logger=csv"]
    first = commands.run(typed, tmp_path, **job, **{DIES: "2 SIGTERM"})
    assert first.code == 143, first.err
    (path,) = runs_in(tmp_path / "logs")
    assert len(Run(path).history) == 3

    other = commands.run(typed, tmp_path, **{**job, "SLURM_JOB_ID": "8"})  # begins its own
    assert other.code == 0, other.err
    again = {**job, "SLURM_RESTART_COUNT": "1"}
    requeued = commands.run(typed, tmp_path, **again)
    assert requeued.code == 0, requeued.err
    whole = next(one for one in runs_in(tmp_path / "logs") if one != path)
    assert len(runs_in(tmp_path / "logs")) == 2
    assert (path / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    weights = "model/model.safetensors"
    assert (path / weights).read_bytes() == (whole / weights).read_bytes()

    done = commands.run(typed, tmp_path, **again)
    assert done.code == 0
    assert "was finished before this job was requeued" in done.err
    assert len(runs_in(tmp_path / "logs")) == 2


TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}
TORCHRUN |= {"GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
SRUN = {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_STEP_ID": "0"}
SRUN |= {"SLURM_STEP_NUM_NODES": "2", "SLURMD_NODENAME": "b"}
ALONE = {"MASTER_ADDR": "a", "MASTER_PORT": "1", "NODE_RANK": "1", "WORLD_SIZE": "4"}


@pytest.mark.parametrize(
    ("environment", "starter", "expected"),
    [
        (TORCHRUN, "torchrun", (False, 1, 4, 2, False)),
        ({**TORCHRUN, "RANK": "0", "LOCAL_RANK": "0"}, "torchrun", (True, 0, 4, 2, False)),
        (SRUN, "srun", (False, 0, 4, 2, False)),
        ({**SRUN, "SLURM_PROCID": "0"}, "srun", (True, 0, 4, 2, False)),
        (ALONE, "the environment", (False, 0, 4, None, True)),
        ({**ALONE, "LOCAL_RANK": "1"}, "the environment", (False, 1, 4, None, False)),
        ({**ALONE, "NODE_RANK": "0"}, "the environment", (True, 0, 4, None, True)),
        ({**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"}, None, None),
        ({**SRUN, "SLURM_JOB_NAME": "bash"}, None, None),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, None, None),  # a batch script, without srun
        ({}, None, None),
    ],
)
def test_places(monkeypatch, environment, starter, expected):
    for name in {*TORCHRUN, *SRUN, *ALONE}:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    here = place()
    if starter is None or here is None:
        assert here is starter
    else:
        assert here.starter == starter
        assert (here.first, here.local, here.world, here.nodes, here.leads) == expected
        assert is_first() == here.first


@pytest.mark.parametrize(
    ("environment", "counted", "told"),
    [
        (TORCHRUN, (2, 2), None),
        (TORCHRUN, (1, 2), "type trainer.devices=2 trainer.num_nodes=2"),
        (TORCHRUN, (4, 1), "type trainer.devices=2 trainer.num_nodes=2"),
        (ALONE, (2, 2), None),
        (ALONE, (2, 1), "counts 4 processes"),
        ({}, (1, 2), "was started alone"),
        ({}, (8, 1), None),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, (2, 1), "srun --ntasks-per-node=2"),
    ],
)
def test_devices_are_those_that_were_started(monkeypatch, environment, counted, told):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if told is None:
        check_devices(*counted)
    else:
        with pytest.raises(UserError, match=re.escape(told)):
            check_devices(*counted)


def test_a_difference_is_named():
    assert difference({"a": "1", "b": "2"}, {"a": "1", "b": "2"}) == ""
    assert difference({"a": "1", "c": "3"}, {"a": "2", "b": "2"}) == (
        "a is 1 there and 2 here, b is not there there and 2 here, c is 3 there and not there here"
    )
    assert difference({str(n): 1 for n in range(7)}, {}).endswith(", and 2 more")


def test_slurm_jobs_are_ended_by_us(monkeypatch):
    for name, value in {**SRUN, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    environment = trainer._accelerator_connector.cluster_environment
    assert environment.auto_requeue
    take_place(trainer)
    assert not environment.auto_requeue
