"""Two hundred kills, twenty in each of ten settings: all files are those of a run without."""

import random
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from compared import differences
from soaked import Attempts
from test_kill import started

pytestmark = pytest.mark.soak
KILLS = 20

EVERY = "callbacks.last_checkpoint.every_n_train_steps"
LIMIT = "callbacks.last_checkpoint.save_total_limit"
WINDOWS = "trainer.accumulate_grad_batches=2"
TWO_PROCESSES = "trainer=ddp_cpu"
BY_VALUE = ("+trainer.gradient_clip_algorithm=value", "trainer.gradient_clip_val=0.01")
EMA = ("callbacks=ema", "callbacks.ema.decay=0.9")
BART = "{model_type: bart, d_model: 32, encoder_layers: 1, decoder_layers: 1, "
BART += "encoder_ffn_dim: 64, decoder_ffn_dim: 64}"

# 13 rows to train on and 7 to evaluate, in batches of two unless a setting says otherwise; dropout
SETTINGS = {
    "pairs in windows, grouped": [
        *("bert_mrpc", "data.group_by_length=true", WINDOWS, f"{EVERY}=1"),
        *("trainer.max_epochs=9.5", "trainer.val_check_interval=5"),
    ],
    "masks, 2 workers, a number of steps": [
        *("roberta_mlm_wikitext", "data.num_workers=2", f"{LIMIT}=3", f"{EVERY}=2"),
        *("trainer.max_steps=45", "trainer.val_check_interval=7"),
    ],
    "words, 2 processes, grouped": [
        *("bert_ner_conll2003", TWO_PROCESSES, "data.group_by_length=true"),
        *("trainer.max_epochs=10", "trainer.val_check_interval=6", f"{EVERY}=1"),
    ],
    "blocks from scratch, averaged weights": [
        *("gpt2_scratch", *EMA, WINDOWS, f"{LIMIT}=null", f"{EVERY}=4"),
        *("data.batch_size=4", "trainer.max_epochs=12", "trainer.val_check_interval=9"),
    ],
    "summaries, a budget of tokens, by value": [
        *("bart_cnn", "data.max_tokens=200", *BY_VALUE, f"{EVERY}=2"),
        *("trainer.max_epochs=8", "test=true"),
    ],
    "summaries from scratch, parts of epochs": [
        *("bart_cnn", "model=scratch", f"model.config={BART}", "tokenizer=train"),
        *("checkpoint=null", "tokenizer.vocab_size=300", "data.num_workers=2"),
        *("trainer.max_epochs=6.3", "trainer.val_check_interval=0.5", f"{LIMIT}=3"),
    ],
    "documents packed, sampled, save_last": [
        *("distilgpt2_sonnets", "data.batch_size=1", f"{EVERY}=3", f"{LIMIT}=2"),
        *("data.max_length=32", "trainer.max_epochs=4", "trainer.val_check_interval=6"),
        "callbacks.best_model.save_last=true",
    ],
    "pairs by a budget, averaged, by value": [
        *("bert_mrpc", "data.max_tokens=128", "data.num_workers=2", *EMA, *BY_VALUE),
        *("trainer.max_steps=40", "trainer.val_check_interval=4", "test=true"),
    ],
    "masks, 2 processes, windows": [
        *("roberta_mlm_wikitext", TWO_PROCESSES, WINDOWS, f"{LIMIT}=null"),
        *("data.batch_size=1", "trainer.max_steps=33", "trainer.val_check_interval=5"),
        f"{EVERY}=1",
    ],
    "T5, early stopping at hand, windows of three": [
        *("t5_xsum", "callbacks=early_stopping", "data.num_workers=2"),
        *("callbacks.early_stopping.patience=99", "trainer.accumulate_grad_batches=3"),
        *("data.batch_size=1", "trainer.max_epochs=7", "trainer.val_check_interval=3"),
        "data.group_by_length=true",
    ],
}


def plan_of(number: int, typed: list[str]) -> list[tuple]:
    """Return the kills of a setting, in their order: a moment, its number, and what is waited for.

    Some are twice in a row. Without a moment, a wait is counted from the start of the process.
    """
    rng = random.Random(number)
    first = [
        (None, 0, rng.uniform(0, 3)),
        ("records", 1 + number % 5, None),
        ("batch", 1, None),
        (rng.choice(["log", "checkpoint", "checkpoint's record"]), 1, None),
        ("metrics", 1, None),
    ]
    some = ["checkpoint", "checkpoint's record", "checkpoint's name", "old checkpoints", "log"]
    some += ["samples", "metrics", "export", "model's name", "between epochs", "validation"]
    middle = [(moment, rng.randint(1, 2), None) for moment in rng.sample(some, 4)]
    middle += [middle[0], ("validation", 1, None), ("validation", 1, rng.uniform(0, 0.1))]
    middle += [(None, 0, rng.uniform(0, 3))]
    middle += [("batch", rng.randint(1, 4), rng.uniform(0, 0.1)) for _ in range(4)]
    rng.shuffle(middle)
    after = "test" if "test=true" in typed else rng.choice(["curves", "finished"])
    last = [("last evaluation", 1, None), ("last evaluation", 2, None), (after, 1, None)]
    return [*first, *middle, *last]


@pytest.fixture(scope="module")
def attempts(tmp_path_factory):
    server = Attempts(tmp_path_factory.mktemp("said") / "said")
    yield server
    server.close()


@pytest.mark.parametrize("setting", SETTINGS)
def test_files_after_twenty_kills_are_those_of_a_run_without(setting, attempts, recipe, tmp_path):
    experiment, *typed = SETTINGS[setting]
    typed = [*recipe(experiment), "data.batch_size=2", "optimizer.lr=1e-3", *typed]
    whole, other, before = (tmp_path / name for name in ("whole", "other", "before"))
    assert attempts.train([*typed, f"hydra.run.dir={whole}"]) == 0, attempts.said.read_text()
    number = list(SETTINGS).index(setting)
    plan = plan_of(number, typed)
    tally, missed, own = Counter(), 0, False
    while plan:
        moment, count, wait = plan.pop(0)
        copy(other, before)
        if len(plan) < 12 and wait is None and not own:
            own = True
            code, said = killed_in_its_own_process(moment, count, begun(typed, other))
        else:
            code = attempts.train(begun(typed, other), moment=moment, number=count, wait=wait)
            said = attempts.said.read_text()
        if code == 0:  # its end came before the moment: as if it had not been tried
            missed += 1
            assert missed < 20
            copy(before, other)
            plan.insert(0, ("validation", 1, None))  # which always comes
            continue
        assert code == -signal.SIGKILL, said
        tally[f"{moment or 'start'}{', some time later' if wait else ''}"] += 1
    print(f"{setting}: {sum(tally.values())} kills ({missed} were too late): {dict(tally)}")
    assert sum(tally.values()) == KILLS
    assert attempts.train(begun(typed, other)) == 0, attempts.said.read_text()
    assert list(differences(whole, other)) == []


def begun(typed: list[str], folder: Path) -> list[str]:
    """Return how a run is begun, or gone on with."""
    if (folder / ".hydra/config.yaml").exists():
        return [f"resume={folder}"]
    return [*typed, f"hydra.run.dir={folder}"]


def killed_in_its_own_process(moment: str, count: int, overrides: list[str]) -> tuple[int, str]:
    process = started(["tests/killed.py", moment, str(count)], overrides)
    _, said = process.communicate(timeout=400)
    return process.returncode, said


def copy(folder: Path, target: Path) -> None:
    """Copy a run's directory, its hard links too; or remove the copy where there is none."""
    shutil.rmtree(target, ignore_errors=True)
    if folder.exists():
        subprocess.run(["cp", "-a", folder, target], check=True)
