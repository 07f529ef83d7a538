"""Runs and sweeps on a SLURM of two nodes, both on this machine (slurm.sh): make test-cluster."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from safetensors.torch import load_file

import hydralight
from hydralight.runs.run import Run

pytestmark = pytest.mark.cluster
SCRIPT = Path(__file__).with_name("slurm.sh")
NEEDED = "SLURM is needed, as root: apt-get install slurm-wlm munge"
TWO = ["trainer=ddp_cpu", "trainer.devices=1", "trainer.num_nodes=2"]
# the nodes' names are known to SLURM alone
JOB = f"""#!/bin/bash
export MASTER_ADDR=127.0.0.1
cd {ROOT}
srun {sys.executable} train.py "$@"
"""


@pytest.fixture(scope="module")
def cluster():
    """The folder of a SLURM that is up while these tests are."""
    assert shutil.which("slurmctld"), NEEDED
    assert shutil.which("munged"), NEEDED
    assert os.getuid() == 0, NEEDED
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    (folder / "job.sh").write_text(JOB)
    subprocess.run([SCRIPT, "start", folder], check=True)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    until(lambda: asked("sinfo", "--noheader", "--format=%T %D") == "idle 2")
    yield folder
    subprocess.run(["scancel", "--user=root", "--signal=KILL"])
    subprocess.run([SCRIPT, "stop", folder], check=True)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def of_the_cluster(cluster, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", str(cluster / "slurm.conf"))


@pytest.fixture
def words(recipe):
    """13 rows in 4 steps an epoch, of two micro-batches."""
    own = ["data.batch_size=2", "data.batches_per_step=2", "trainer.max_epochs=1"]
    return [*recipe("bert_mrpc"), *own, "callbacks.samples=null"]


@pytest.fixture
def long(words):
    """The same for 400 steps."""
    return [*words, "trainer.max_epochs=100", "trainer.val_check_interval=200"]


def asked(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def submitted(cluster, words, *options):
    """Submit a job of two nodes, and return its number and what it is going to say."""
    said = cluster / f"{time.monotonic_ns()}.txt"
    fixed = ["--parsable", "--nodes=2", "--ntasks-per-node=1", "--open-mode=append"]
    typed = [*fixed, f"--output={said}", *options, cluster / "job.sh", *words, *TWO]
    return asked("sbatch", *typed), said


def state_of(job):
    found = re.search(r"JobState=(\w+)", asked("scontrol", "show", "job", job))
    assert found is not None
    return found[1]


def is_over(job):
    return state_of(job) not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING")


def ended(job, said):
    until(lambda: is_over(job), 300)
    return state_of(job), said.read_text()


def rows_in(folder):
    """How many rows the runs in a folder have logged."""
    return sum(len(p.read_text().splitlines()) for p in folder.glob("train/runs/*/metrics.csv"))


def only_run(folder):
    (path,) = (folder / "train/runs").iterdir()
    return Run(path)


def test_two_nodes_do_what_one_process_does(cluster, words, tmp_path):
    job, said = submitted(cluster, [*words, f"paths.log_dir={tmp_path / 'two'}"])
    one = hydralight.train(words)
    assert ended(job, said)[0] == "COMPLETED", said.read_text()
    two = only_run(tmp_path / "two")
    np.testing.assert_allclose(one.history, two.history[one.history.columns], atol=1e-5)
    weights = [load_file(run.path / "model/model.safetensors") for run in (one, two)]
    assert all(np.allclose(weights[0][name], weights[1][name], atol=1e-5) for name in weights[0])
    assert [path.name for path in two.path.glob("*.log")] == ["train.log"]


def test_a_job_that_is_preempted_goes_on_to_the_same_bits(cluster, long, tmp_path):
    folder = tmp_path / "preempted"
    job, said = submitted(cluster, [*long, f"paths.log_dir={folder}"], "--requeue")
    until(lambda: rows_in(folder) > 20)
    asked("scontrol", "requeue", job)
    until(lambda: state_of(job) == "PENDING")
    asked("scontrol", "update", f"JobId={job}", "StartTime=now")  # or it waits for two minutes
    state, text = ended(job, said)
    assert state == "COMPLETED", text
    assert "asked to end (SIGTERM)" in text
    assert "this job was requeued, and goes on with" in text
    preempted = only_run(folder)

    whole, said = submitted(cluster, [*long, f"paths.log_dir={tmp_path / 'whole'}"])
    state, text = ended(whole, said)
    assert state == "COMPLETED", text
    files = ("metrics.csv", "model/model.safetensors")
    contents = [
        [(run.path / name).read_bytes() for name in files]
        for run in (preempted, only_run(tmp_path / "whole"))
    ]
    assert contents[0] == contents[1]
    assert len(json.loads((preempted.path / "environment.json").read_text())["resumed"]) == 1


def test_a_sweep_of_four_jobs(cluster, words, tmp_path):
    launcher = {"gpus_per_node": "null", "cpus_per_task": 1, "mem_gb": 1, "timeout_min": 10}
    typed = [f"hydra.launcher.{name}={value}" for name, value in launcher.items()]
    command = [sys.executable, "train.py", "-m", *words, "seed=1,2,3,4", "hydra/launcher=slurm"]
    done = subprocess.run([*command, *typed], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "logs/train/multiruns").iterdir()
    trials = [json.loads((sweep / str(n) / "trial.json").read_text()) for n in range(4)]
    assert [trial["state"] for trial in trials] == ["complete"] * 4

    alone = hydralight.train([*words, "seed=3"])
    assert trials[2]["metrics"]["val/loss"] == pytest.approx(alone.metrics["best"]["val/loss"])


def test_a_node_that_dies_is_told_and_the_run_goes_on(cluster, long, tmp_path):
    folder = tmp_path / "died"
    own = [f"paths.log_dir={folder}", "callbacks.last_checkpoint.every_n_train_steps=5"]
    job, said = submitted(cluster, [*long, *own], "--no-requeue")
    until(lambda: rows_in(folder) > 20)
    for pid in [*tasks_on("node2"), int((cluster / "slurmd.node2.pid").read_text())]:
        os.kill(pid, signal.SIGKILL)
    until(lambda: "nothing is heard from process 1 on node2" in said.read_text(), 60)
    assert ended(job, said)[0] in ("FAILED", "NODE_FAIL")
    run = only_run(folder)
    hydralight.train([f"resume={run.path}", "trainer.devices=1", "trainer.num_nodes=1"])
    assert run.metrics["status"] == "finished"
    assert list(run.history["step"].drop_duplicates()) == list(range(1, 401))


def tasks_on(node):
    """The processes of a job on a node, with what SLURM has started them by."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            variables = (path / "environ").read_bytes().split(b"\0")
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if f"SLURMD_NODENAME={node}".encode() in variables:
            step = Path(f"/proc/{parent}/cmdline").read_bytes()
            found += [int(path.name), *([parent] if step.startswith(b"slurmstepd") else [])]
    return found
