"""Runs that are killed with SIGKILL and resumed end with the bits of one that was not."""

import shutil
import signal
import subprocess
import sys

import pytest
from compared import differences
from conftest import ROOT
from forked import KILLED, Outcome, served

import hydralight

EPOCHS = (
    8  # of 7 batches, or of 4 with two processes; each window of two is a step and a checkpoint
)


def overrides_of(recipe, experiment, workers, trainer, grouped):
    """Dropout is on; 13 rows, so that the last window is short, and 7 to evaluate."""
    overrides = [
        *recipe(experiment),
        "data.batch_size=2",
        f"data.num_workers={workers}",
        f"data.group_by_length={str(grouped).lower()}",
        f"trainer.max_epochs={EPOCHS - 0.5}",  # and an evaluation in the middle of the last
        "trainer.val_check_interval=5",
        "trainer.accumulate_grad_batches=2",
        "callbacks.samples=null",
        "callbacks.last_checkpoint.every_n_train_steps=1",
        "optimizer.lr=1e-3",
    ]
    return [*overrides, f"trainer={trainer}"]


def started(script, overrides):
    return subprocess.Popen(
        [sys.executable, *script, *overrides],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # with all its workers and ranks
    )


def ended(overrides, *moment) -> Outcome:
    """Train to the end, or to the moment at which the run is killed, by the script."""
    script = ["tests/killed.py", *map(str, moment)] if moment else ["train.py"]
    process = started(script, overrides)
    _, said = process.communicate(timeout=180)
    return Outcome(process.returncode, "", said)


def forked(overrides, *moment) -> Outcome:
    """The same of a run of one process, which is a fork of one that has imported all."""
    environment = {KILLED: "{} {}".format(*moment)} if moment else {}
    return served().run(["train", *overrides], ROOT, **environment)


@pytest.mark.parametrize(
    ("experiment", "workers", "trainer", "grouped", "moments"),
    [
        # 2: before the first checkpoint; 9: in a window; 4: between the names of a checkpoint
        ("bert_mrpc", 0, "cpu", True, [("batch", 2), ("batch", 9), ("checkpoint's record", 4)]),
        # 7: between two steps that are made of the same completions
        pytest.param(
            "grpo_sort", 0, "cpu", False, [("batch", 7), ("batch", 2)], marks=pytest.mark.thorough
        ),
        pytest.param(
            "bert_mrpc_lora", 0, "cpu", True, [("batch", 9), ("export", 2)], marks=pytest.mark.soak
        ),
        pytest.param(
            *("llama_lora_alpaca", 0, "cpu", True),
            [("batch", 9), ("checkpoint's record", 4)],
            marks=pytest.mark.soak,
        ),
        pytest.param(
            "qwen_dpo", 0, "cpu", True, [("batch", 2), ("batch", 9)], marks=pytest.mark.soak
        ),
        pytest.param(
            *("roberta_mlm_wikitext", 2, "cpu", False),
            [("validation", 3), ("between epochs", 3), ("checkpoint's record", 5)],
            marks=pytest.mark.soak,
        ),
        pytest.param(
            *("bert_ner_conll2003", 0, "ddp_cpu", True),
            [("export", 1), ("checkpoint's name", 4), ("old checkpoints", 2)],
            marks=pytest.mark.soak,
        ),
        pytest.param(
            *("bert_mrpc", 0, "fsdp_cpu", True),
            [
                ("export", 1),
                ("checkpoint", 3),
                ("checkpoint's name", 3),
                ("checkpoint's record", 4),
                ("old checkpoints", 2),
            ],
            marks=pytest.mark.soak,
        ),
        pytest.param(
            *("bert_mrpc_lora", 0, "fsdp_cpu", True),
            [("batch", 9), ("checkpoint", 3)],
            marks=pytest.mark.soak,
        ),
    ],
    ids=[
        *("pairs", "rewards", "adapter", "adapter on answers", "preferences"),
        *("masks, 2 workers", "words, 2 processes", "pairs, sharded"),
        "adapter, sharded",
    ],
)
def test_killed_again_and_again(experiment, workers, trainer, grouped, moments, recipe, tmp_path):
    overrides = overrides_of(recipe, experiment, workers, trainer, grouped)
    whole, other = tmp_path / "whole", tmp_path / "logs/train/runs/other"
    train = forked if trainer == "cpu" else ended  # ranks are started by the script
    outcome = train([*overrides, f"hydra.run.dir={whole}"])
    assert outcome.code == 0, outcome.err
    typed = [*overrides, f"hydra.run.dir={other}"]
    for moment in moments:
        outcome = train(typed, *moment)
        assert outcome.code == -signal.SIGKILL, outcome.err
        typed = ["resume=latest", f"paths.log_dir={tmp_path / 'logs'}"]
    outcome = train(typed)
    assert outcome.code == 0, outcome.err
    assert list(differences(whole, other)) == []


@pytest.mark.parametrize("step", [4, 6])
def test_a_run_goes_on_with_all_of_a_checkpoints_state(recipe, tmp_path, step):
    """From an epoch's end and from its middle, where an evaluation is due; in one process."""
    whole, other = tmp_path / "whole", tmp_path / "other"
    typed = [*recipe("bert_mrpc"), "data.batch_size=4", "trainer.val_check_interval=2"]
    typed += ["trainer.max_epochs=1.75", "callbacks.last_checkpoint.save_total_limit=null"]
    hydralight.train([*typed, f"hydra.run.dir={whole}"])
    shutil.copytree(whole, other)
    for path in (other / "checkpoints").iterdir():
        if path.stem == "last" or int(path.stem.removeprefix("step-")) > step:
            path.unlink()
    (other / "metrics.json").unlink()
    hydralight.train([f"resume={other}"])
    found = [place for place in differences(whole, other) if ".yaml" not in place]
    assert found == []  # the copied configs name the directory that they were copied from
