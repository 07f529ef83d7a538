"""Sweeps on a local Ray cluster of two nodes, each of which has a CPU and says it has a GPU."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import raying
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext
from hydra.utils import execution_whitelist
from sweeping import begun, finished, is_gone, retried, study_of, swept, until

from hydralight.cli import Job
from hydralight.commands import start
from hydralight.config.composition import composing
from hydralight.config.project import CONFIG_DIR
from hydralight.config.typed import Typed
from hydralight.config.whitelist import whitelist_of_hydra
from hydralight.errors import UserError
from hydralight.runs.run import Run
from hydralight.sweeps import space
from hydralight.sweeps.ray_launcher import RayLauncher
from hydralight.sweeps.sweeper import StudySweeper

NODE = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 80_000_000}


def two_nodes():
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    paths = [str(Path(__file__).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # of its workers
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    cluster.add_node(**NODE)
    return cluster


@pytest.fixture(scope="module")
def cluster():
    import ray

    made = two_nodes()
    yield made.address
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def sweep(cluster, tmp_path, monkeypatch):
    """Sweep in this process over the cluster, with a function as what a trial does, or training."""
    monkeypatch.setattr("hydralight.sweeps.report.draw", lambda *_: None)

    def swept(function, *typed):
        folder = tmp_path / "sweep"
        own = [f"hydra.sweep.dir={folder}", "hydra.mode=MULTIRUN", "hydra/launcher=ray"]
        own.append(f"hydra.launcher.address='{cluster}'")
        own += [argument for argument in typed if argument.startswith("hydra.")]
        swept = [argument for argument in typed if argument not in own]
        fixed, _ = space.split(swept, {})
        whitelist = whitelist_of_hydra()
        with (
            execution_whitelist(whitelist),
            composing(Typed((*swept, *own))),
            initialize_config_dir(str(CONFIG_DIR)),
        ):
            config = compose("train", [*fixed, *own], return_hydra_config=True)
            loader = GlobalHydra.instance().config_loader()
            sweeper = StudySweeper()
            context = HydraContext(
                config_loader=loader, callbacks=Callbacks(), execution_whitelist=whitelist
            )
            job = function or Job("train", False, Typed((*swept, *own)))
            sweeper.setup(hydra_context=context, task_function=job, config=config)
            sweeper.sweep(swept)
        return folder

    return swept


@pytest.fixture
def mrpc(recipe):
    own = ["trainer.max_epochs=1", "optimizer.lr=0.01", "optimized_metric=val/loss"]
    return [*recipe("bert_mrpc"), *own]


def of_trials(folder, name, number):
    return [(folder / str(trial) / name).read_text() for trial in range(number)]


@pytest.mark.thorough
def test_a_trial_begins_as_soon_as_a_node_is_free(sweep):
    """The second node runs three trials while the first is at work on one."""
    folder = sweep(raying.first_is_slow, "seed=1,2,3,4", "optimized_metric=val/f1")
    study = study_of(folder)
    assert [trial.value for trial in study.trials] == [1 / 8, 2 / 8, 3 / 8, 4 / 8]
    one, *other = of_trials(folder, "node", 4)
    assert other == [other[0]] * 3
    assert one != other[0]
    assert of_trials(folder, "gpu", 4) == ["0"] * 4  # a whole one, as there are any


def test_trials_share_a_gpu(sweep):
    half = ["hydra.launcher.num_cpus=0.5", "hydra.launcher.num_gpus=0.5"]
    folder = sweep(raying.all_meet, "seed=1,2,3,4", "optimized_metric=val/f1", *half)
    nodes = of_trials(folder, "node", 4)
    assert sorted(map(nodes.count, nodes)) == [2] * 4
    assert len(finished(study_of(folder))) == 4


def test_a_trial_whose_worker_dies_is_tried_again_and_one_that_fails_is_not(sweep):
    folder = sweep(raying.first_is_killed, "seed=1,2,3", "optimized_metric=val/f1")
    study = study_of(folder)
    assert [trial.number for trial in retried(study)] == [0]
    assert study.trials[0].user_attrs["lost"] == "its Ray worker was lost (WorkerCrashedError)"
    done = {trial.params["seed"]: trial for trial in finished(study)}
    assert {seed: trial.value for seed, trial in done.items()} == {1: 1 / 8, 2: 2 / 8, 3: None}
    assert done[3].user_attrs["reason"] == "no such thing"


def test_a_trial_on_a_cluster_is_the_run_that_it_is_alone(sweep, mrpc, tmp_path):
    """To the bit; beside one whose values make no config."""
    folder = sweep(None, *mrpc, "seed=2", "trainer=default,none_of_them")
    trial, none = study_of(folder).trials
    assert "there is no 'none_of_them' in configs/trainer" in none.user_attrs["reason"]
    assert [none.state.name, trial.state.name] == ["FAIL", "COMPLETE"]
    alone = Run(start("train", [*mrpc, "seed=2", f"paths.log_dir={tmp_path / 'alone'}"]))
    assert Run(folder / "0").metrics["best"] == alone.metrics["best"]
    assert trial.value == alone.metrics["best"]["val/loss"]


def test_what_no_node_has_is_said(sweep):
    with pytest.raises(
        UserError, match=r"what a trial takes, 1 CPU, 2 GPU \(its nodes have 1 CPU, 1"
    ):
        sweep(raying.all_meet, "seed=1,2", "hydra.launcher.num_gpus=2")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_cpus": 0, "num_gpus": 0}, "should be at least 0, and one of them more"),
        ({"num_gpus": -1}, r"num_gpus=-1 should be at least 0"),
        ({"max_concurrent": 0}, r"max_concurrent=0 should be at least 1"),
    ],
)
def test_wrong_options_are_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        RayLauncher(**options)


def test_without_ray_a_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'ray>=2"):
        RayLauncher()


def at_work(folder, process):
    """Wait until a trial trains, and return its number and its process."""
    found = []

    def trains():
        for path in folder.glob("[0-9]*/metrics.csv"):
            with suppress(FileNotFoundError):  # it has just ended
                pid = (path.parent / ".lock").read_text().split()[1]
                if not is_gone(pid):
                    found.append((path.parent.name, pid))
        return found

    until(trains, process)
    return found[0]


def kill(node):
    """Let all processes of a node end at once, as where a machine loses its power."""
    pids = [info.process.pid for infos in node.all_processes.values() for info in infos]
    for pid in pids:  # which grows
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            pids += map(int, path.read_text().split())
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.soak
def test_a_sweep_outlives_its_workers_its_nodes_and_its_head(mrpc, tmp_path):
    """And its own end by SIGTERM, for which trials write a checkpoint, and by SIGKILL."""
    folder, said = tmp_path / "sweep", tmp_path / "said.log"
    cluster = two_nodes()
    address = f"hydra.launcher.address='{cluster.address}'"
    typed = [*mrpc, "trainer.max_epochs=60", "data.batch_size=2", "seed=range(3)"]
    process = begun([*typed, "hydra/launcher=ray", address, f"hydra.sweep.dir={folder}"], tmp_path)
    until(lambda: all((folder / number / "metrics.csv").exists() for number in "01"), process)
    kill(next(iter(cluster.worker_nodes)))
    until(lambda: "is tried again: its Ray worker was lost" in said.read_text(), process)
    lost = said.read_text().partition(" is tried again")[0].rpartition("trial ")[2]
    until(lambda: is_gone((folder / lost / ".lock").read_text().split()[1]))
    number, pid = at_work(folder, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 143
    until(lambda: is_gone(pid))
    assert "asked to end (SIGTERM): left after" in (folder / f"{number}/output.log").read_text()

    another = cluster.add_node(**NODE)
    process = begun([f"sweep={folder}", address], tmp_path)
    at_work(folder, process)
    kill(cluster.head_node)
    assert process.wait(120) == 1
    assert "error: the head of the Ray cluster (" in said.read_text()
    kill(another)  # which ends by itself within a minute

    cluster = two_nodes()
    address = f"hydra.launcher.address='{cluster.address}'"
    process = begun([f"sweep={folder}", address], tmp_path)
    _, pid = at_work(folder, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    until(lambda: is_gone(pid))
    swept([f"sweep={folder}", address], tmp_path)
    cluster.shutdown()
    study = study_of(folder)
    states = [(trial.params["seed"], trial.state.name) for trial in finished(study)]
    assert sorted(states) == [(seed, "COMPLETE") for seed in range(3)]
    assert len(retried(study)) == len(study.trials) - 3 >= 3
