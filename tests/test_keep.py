"""Whose weights a sweep keeps on disk, and what a preflight says of the disk."""

import json
import os
from pathlib import Path

import pytest
import standins
import torch
from hydra.utils import execution_whitelist
from optuna.distributions import IntDistribution
from sweeping import complete

import hydralight
from hydralight.commands import call
from hydralight.config.whitelist import WHITELIST
from hydralight.disk import Footprint, readable, size_of, states_of, weights_of
from hydralight.errors import UserError
from hydralight.optim.groups import parameter_groups
from hydralight.runs.lock import locked
from hydralight.runs.weights import remove_weights, weights_in
from hydralight.sweeps.check import on_disk
from hydralight.sweeps.keep import Keeper, spare
from hydralight.sweeps.request import SweepRequest, request_of
from hydralight.sweeps.space import split
from hydralight.sweeps.study import SweepStudy

SPACE = {"seed": IntDistribution(1, 400)}
RANDOM = {"_target_": "optuna.samplers.RandomSampler", "seed": 7}
WEIGHTS = {"model/model.safetensors": 600, "checkpoints/last.ckpt": 1400}


@pytest.fixture(autouse=True)
def whitelist():
    with execution_whitelist(WHITELIST):
        yield


def study_in(folder, keep=2, directions=("maximize",)):
    objectives = ("val/f1", "val/loss")[: len(directions)]
    return SweepStudy(
        folder, SweepRequest(objectives, directions, SPACE, sampler=RANDOM, keep=keep)
    )


def trained(folder, number):
    """Write what a trial leaves, with weights of 2000 bytes."""
    run_dir = folder / str(number)
    texts = {".hydra/config.yaml": 10, "metrics.csv": 20, "samples/step-1.jsonl": 30}
    for name, size in {**texts, "output.log": 5, **WEIGHTS}.items():
        (run_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (run_dir / name).write_bytes(b"x" * size)
    os.link(run_dir / "checkpoints/last.ckpt", run_dir / "checkpoints/step-00000001.ckpt")
    return run_dir


def told(study, *outcomes):
    """Ask for a trial for each outcome, which leaves weights; None is one that is at work."""
    for outcome in outcomes:
        trial = study.ask()
        trained(study.folder, trial.number)
        if outcome == "interrupted":
            study.interrupt(trial)
        elif outcome is not None:
            study.tell(trial, outcome)


def files_of(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def with_weights(folder):
    return [int(p.name) for p in sorted(folder.iterdir()) if p.is_dir() and weights_in(p)]


@pytest.mark.parametrize(("direction", "best"), [("maximize", [1, 4]), ("minimize", [0, 3])])
def test_the_best_keep_their_weights_and_all_keep_the_rest(direction, best, tmp_path, caplog):
    caplog.set_level("INFO", logger="hydralight")
    study = study_in(tmp_path, directions=(direction,))
    pruned = {"state": "pruned", "step": 1, "metrics": {}}
    told(study, *(complete(v) for v in (0.1, 0.9, 0.5, 0.2, 0.9)), pruned)
    before = files_of(tmp_path)
    keeper = Keeper(study)
    keeper.tidy()
    assert with_weights(tmp_path) == best
    gone = {name for name in before if "/model/" in name or "/checkpoints/" in name}
    gone = {name for name in gone if int(name.split("/")[0]) not in best}
    removed = {f"{number}/removed.json" for number in range(6) if number not in best}
    assert files_of(tmp_path) == before - gone | removed
    keeper.say()
    assert [said for said in caplog.messages if "deleted" in said] == [
        "deleted the weights of 4 trials, 8.0 KB: those of the best 2 are kept "
        "(hparams_search.keep=null keeps all)"
    ]
    keeper.tidy()  # nothing is left to be done
    assert sum(keeper.removed.values()) == 8000
    again = study_in(tmp_path, keep=1, directions=(direction,))  # the study goes on
    Keeper(again).tidy()
    assert with_weights(tmp_path) == best[:1]
    Keeper(study_in(tmp_path, keep=None, directions=(direction,))).tidy()
    assert with_weights(tmp_path) == best[:1]


def test_weights_that_may_be_needed_yet_stay(tmp_path, caplog):
    """Of trials at work, to be tried again, failed, gone on with by hand, or in use."""
    study = study_in(tmp_path, keep=1)
    failed = {"state": "failed", "reason": "no memory", "metrics": {}}
    told(study, complete(0.9), failed, *(complete(v) for v in (0.1, 0.2, 0.3)), "interrupted")
    (tmp_path / "2/resume.json").write_text("[]")
    study.ask()  # the fifth again, which is at work
    trained(tmp_path, 6)
    with locked(tmp_path / "3"):
        Keeper(study).tidy()
    assert with_weights(tmp_path) == [0, 1, 2, 3, 5, 6]
    assert "the weights of trial 3 stay" in caplog.text
    study = study_in(tmp_path, keep=1)  # where the sixth is known to be interrupted too
    told(study, complete(0.8))
    Keeper(study).tidy()  # what has been tried again, and is done, needs no weights
    assert with_weights(tmp_path) == [0, 1, 2]


def test_nothing_is_deleted_through_a_link(tmp_path):
    """Neither where a trial is one, nor its model, nor what lies in that."""
    folder, mine = tmp_path / "sweep", tmp_path / "mine"
    study = study_in(folder.mkdir() or folder, keep=1)
    told(study, *(complete(v) for v in (0.9, 0.1, 0.2, 0.3)))
    whole = trained(mine, 0)
    (folder / "1").rename(tmp_path / "one")
    (folder / "1").symlink_to(whole)
    (folder / "2/model").rename(tmp_path / "two")
    (folder / "2/model").symlink_to(whole / "model")
    (folder / "3/model/theirs").symlink_to(whole / "model")
    (folder / "3/model/model.safetensors").unlink()
    os.link(whole / "model/model.safetensors", folder / "3/model/model.safetensors")
    before = files_of(mine)
    Keeper(study).tidy()
    assert files_of(mine) == before
    assert {p.stat().st_size for p in mine.rglob("*.safetensors")} == {600}
    assert [(folder / name).is_symlink() for name in ("1", "2/model")] == [True, True]
    assert not (folder / "2/checkpoints").exists()
    assert not (folder / "3/model").exists()


def test_a_pareto_front_keeps_its_weights(tmp_path):
    study = study_in(tmp_path, keep=1, directions=("maximize", "minimize"))
    values = [(0.9, 0.5), (0.8, 0.1), (0.7, 0.3), (0.5, 0.05), (0.4, 0.4)]
    outcomes = [{"val/f1": f1, "val/loss": loss} for f1, loss in values]
    told(study, *({"state": "complete", "metrics": metrics} for metrics in outcomes))
    assert set(spare(study, 1)) == {2, 4}
    assert set(spare(study, 4)) == {4}


@pytest.mark.parametrize(
    ("typed", "search", "keep"),
    [
        ("optimizer.lr=0.1,0.2", {}, 3),
        ("optimizer.lr=0.1,0.2 seed=1,2", {}, 3),
        ("seed=1,2 data.fold=0,1", {}, None),
        ("seed=1,2", {"keep": 2}, 2),
        ("seed=range(1,9)", {"sampler": RANDOM}, 3),
        ("optimizer.lr=0.1,0.2", {"keep": None}, None),
        ("experiment=bert_mrpc,bert_stsb seed=1,2", {}, None),
    ],
)
def test_whose_weights_stay_where_nothing_is_said(typed, search, keep):
    """All, where trials are not there to be chosen among."""
    _, swept = split(typed.split(), {})
    assert request_of(search, swept, "val/f1", lambda _: "max").keep == keep


@pytest.mark.parametrize("keep", [0, -1, 1.5, True, "all"])
def test_a_wrong_number_to_keep(keep):
    with pytest.raises(UserError, match=rf"hparams_search\.keep={keep} should be a whole number"):
        SweepRequest(("val/f1",), ("maximize",), SPACE, sampler=RANDOM, keep=keep)


# ---------------------------------------------------------------- what a run takes


def test_a_number_of_bytes_is_said_shortly():
    numbers = [0, 999, 1000, 9949, 9950, 350_000, 2_800_000_000, 999_600, 5e15]
    said = ["0 bytes", "999 bytes", "1.0 KB", "9.9 KB", "10 KB", "350 KB", "2.8 GB", "1.0 MB"]
    assert list(map(readable, numbers)) == [*said, "5000 TB"]


@pytest.mark.parametrize(
    "recipe",
    [
        torch.optim.AdamW,
        lambda groups: torch.optim.SGD(groups, lr=0.1),
        lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
        lambda groups: torch.optim.Adam(groups, amsgrad=True),
    ],
)
def test_the_states_of_an_optimizer_are_known_without_their_memory(recipe):
    model = torch.nn.Sequential(torch.nn.Linear(30, 20), torch.nn.LayerNorm(20))
    known = states_of(recipe, parameter_groups(model))
    assert all(p.grad is None and p.device.type == "cpu" for p in model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer = recipe(parameter_groups(model))
    optimizer.step()
    states = [one for state in optimizer.state.values() for one in state.values()]
    tensors = [one for one in states if isinstance(one, torch.Tensor)]
    assert known == sum(one.numel() * one.element_size() for one in tensors)


def test_tied_weights_are_counted_once():
    model = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 5, bias=False))
    model[1].weight = model[0].weight
    assert weights_of(model.half()) == 5 * 4 * 2


@pytest.fixture(scope="module")
def words(checkpoints, tmp_path_factory):
    """A model of 10 MB in its checkpoint, so that what is small does not count."""
    folder = tmp_path_factory.mktemp("disk")
    size = "hidden_size: 128, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 2000"
    wide = ["model=scratch", f"model.config={{model_type: bert, {size}}}"]
    return [
        *("experiment=bert_mrpc", f"paths.log_dir={folder / 'logs'}", "trainer.max_steps=3"),
        *standins.overrides_for("bert_mrpc", folder / "data", checkpoints),
        *("trainer.accelerator=cpu", "callbacks.rich_progress=null", "callbacks.samples=null"),
        "callbacks.last_checkpoint.every_n_train_steps=1",
        *wide,
    ]


def test_a_preflight_says_what_a_run_leaves(words, capsys):
    """Two checkpoints and two models; then the run is one of a sweep that lets its weights go."""
    more = ["callbacks.last_checkpoint.save_total_limit=2", "callbacks.best_model.save_last=true"]
    _, footprint = call("train", [*words, *more, "check=true"])
    assert (footprint.models, footprint.checkpoints) == (2, 2)
    said = " ".join(capsys.readouterr().out.split())
    assert f"about {readable(footprint.total)}" in said
    run = hydralight.train([*words, *more])
    left = {path.name: size_of([path]) for path in weights_in(run.path)}
    assert left["model"] == pytest.approx(footprint.model, rel=0.1)
    assert left["checkpoints"] == pytest.approx(2 * footprint.checkpoint, rel=0.1)
    assert size_of([run.path]) == pytest.approx(footprint.total, rel=0.15)

    assert remove_weights(run.path, "hparams_search.keep=3") == sum(left.values())
    assert json.loads((run.path / "removed.json").read_text())["removed"] == list(left)
    gone = r"has no weights any more: its sweep has kept those of its best trials"
    for use in (
        lambda: hydralight.evaluate([f"run={run.path}"]),
        lambda: hydralight.predict([f"run={run.path}", "input=x"]),
        lambda: hydralight.train([f"resume={run.path}", "trainer.max_steps=9"]),
        lambda: run.model,
    ):
        with pytest.raises(UserError, match=gone):
            use()
    assert run.metrics["best"]["step"] > 0


@pytest.mark.parametrize(
    ("footprint", "said"),
    [
        (Footprint(1000, 3000), "about 4.0 KB (1 model of 1.0 KB, 1 checkpoint of 3.0 KB)"),
        (Footprint(1000, 3000, checkpoints=0), "about 1.0 KB (1 model of 1.0 KB)"),
        (Footprint(10, 30, models=0, checkpoints=0), "about 0 bytes (no weights)"),
        (
            Footprint(1000, 3000, models=2, checkpoints=None),
            "about 5.0 KB (2 models of 1.0 KB, each checkpoint 3.0 KB, of which all are kept)",
        ),
    ],
)
def test_a_footprint_in_a_line(footprint, said):
    assert str(footprint) == said


@pytest.mark.parametrize(
    ("n_trials", "keep", "at_work", "said"),
    [
        (20, 3, 1, "20 trials take about 4.0 MB on disk: weights of the best 3, and 1 at work"),
        (20, 3, 4, "20 trials take about 7.0 MB on disk: weights of the best 3, and 4 at work"),
        (4, 3, 1, "4 trials take about 4.0 MB on disk: weights of 4 trials"),
        (20, None, 1, "20 trials take about 20 MB on disk: weights of 20 trials"),
    ],
)
def test_what_a_sweep_takes_in_a_line(n_trials, keep, at_work, said):
    request = SweepRequest(
        ("val/f1",), ("maximize",), SPACE, sampler=RANDOM, n_trials=n_trials, keep=keep
    )
    assert on_disk(request, at_work, 1_000_000) == f"{said}, 1.0 MB each (hparams_search.keep)"


def test_links_and_second_names_take_no_room_of_their_own(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 1000)
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").symlink_to(Path("/usr"))
    assert size_of([tmp_path]) == 1000
