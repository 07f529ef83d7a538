"""Two hundred kills, twenty in each of ten settings: all files are those of an uninterrupted run."""

import collections
import json
import random
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch
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
        *("experiment=bert_mrpc", "data.group_by_length=true", WINDOWS, f"{EVERY}=1"),
        *("trainer.max_epochs=9.5", "trainer.val_check_interval=5"),
    ],
    "masks, 2 workers, a number of steps": [
        *("experiment=roberta_mlm_wikitext", "data.num_workers=2", f"{LIMIT}=3", f"{EVERY}=2"),
        *("trainer.max_steps=45", "trainer.val_check_interval=7"),
    ],
    "words, 2 processes, grouped": [
        *("experiment=bert_ner_conll2003", TWO_PROCESSES, "data.group_by_length=true"),
        *("trainer.max_epochs=10", "trainer.val_check_interval=6", f"{EVERY}=1"),
    ],
    "blocks from scratch, averaged weights": [
        *("experiment=gpt2_scratch", *EMA, WINDOWS, f"{LIMIT}=null", f"{EVERY}=4"),
        *("data.batch_size=4", "trainer.max_epochs=4", "trainer.val_check_interval=9"),
    ],
    "summaries, a budget of tokens, by value": [
        *("experiment=bart_cnn", "data.max_tokens=200", *BY_VALUE, f"{EVERY}=2"),
        *("trainer.max_epochs=8", "test=true"),
    ],
    "summaries from scratch, parts of epochs": [
        *("experiment=bart_cnn", "model=scratch", f"model.config={BART}", "tokenizer=train"),
        *("checkpoint=null", "tokenizer.vocab_size=300", "data.num_workers=2"),
        *("trainer.max_epochs=6.3", "trainer.val_check_interval=0.5", f"{LIMIT}=3"),
    ],
    "documents packed, sampled, save_last": [
        *("experiment=distilgpt2_sonnets", "data.batch_size=1", f"{EVERY}=3", f"{LIMIT}=2"),
        *("data.max_length=32", "trainer.max_epochs=4", "trainer.val_check_interval=6"),
        "callbacks.best_model.save_last=true",
    ],
    "pairs by a budget, averaged, by value": [
        *("experiment=bert_mrpc", "data.max_tokens=128", "data.num_workers=2", *EMA, *BY_VALUE),
        *("trainer.max_steps=40", "trainer.val_check_interval=4", "test=true"),
    ],
    "masks, 2 processes, windows": [
        *("experiment=roberta_mlm_wikitext", TWO_PROCESSES, WINDOWS, f"{LIMIT}=null"),
        *("data.batch_size=1", "trainer.max_steps=33", "trainer.val_check_interval=5"),
        f"{EVERY}=1",
    ],
    "T5, early stopping at hand, windows of three": [
        *("experiment=t5_xsum", "callbacks=early_stopping", "data.num_workers=2"),
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

    def early() -> tuple:
        return None, 0, rng.uniform(0, 3)

    def at_random() -> tuple:
        return "batch", rng.randint(1, 4), rng.uniform(0, 0.1)

    first = [early(), ("records", 1 + number % 5, None), ("batch", 1, None)]
    first += [
        rng.choice([("log", 1, None), ("checkpoint", 1, None), ("checkpoint's record", 1, None)])
    ]
    first += [("metrics", 1, None)]
    some = ["checkpoint", "checkpoint's record", "checkpoint's name", "old checkpoints", "log"]
    some += ["samples", "metrics", "export", "model's name", "between epochs", "validation"]
    rng.shuffle(some)
    middle = [(moment, rng.randint(1, 2), None) for moment in some[:4]]
    middle += [("validation", 1, rng.uniform(0, 0.1)), ("validation", 1, None), middle[0], early()]
    middle += [at_random() for _ in range(4)]
    rng.shuffle(middle)
    last = ["last evaluation", "test" if "test=true" in typed else "last evaluation", "finished"]
    last = [*last[:2], rng.choice(["curves", "finished"])]
    return [*first, *middle, *((moment, 1, None) for moment in last)]


@pytest.fixture(scope="module")
def attempts(tmp_path_factory):
    said = tmp_path_factory.mktemp("said") / "said"
    server = Attempts(said)
    server.said = said
    yield server
    server.close()


@pytest.mark.parametrize("setting", SETTINGS)
def test_files_after_twenty_kills_are_those_of_a_run_without(setting, attempts, recipe, tmp_path):
    typed = SETTINGS[setting]
    name = typed[0].partition("=")[2]
    typed = [*recipe(name), "data.batch_size=2", *typed[1:], "optimizer.lr=1e-3"]
    whole, other, before = (tmp_path / place for place in ("whole", "other", "before"))
    assert attempts.train([*typed, f"hydra.run.dir={whole}"]) == 0, attempts.said.read_text()
    number = list(SETTINGS).index(setting)
    rng = random.Random(setting)
    plan, tally, missed = plan_of(number, typed), collections.Counter(), 0
    real = rng.randrange(len(plan))  # by `train.py` itself
    while plan:
        shutil.rmtree(before, ignore_errors=True)
        if other.exists():
            subprocess.run(["cp", "-a", other, before], check=True)
        moment, count, wait = plan.pop(0)
        kill = {"moment": moment, "number": count, "wait": wait}
        if sum(tally.values()) == real and wait is None:
            process = started(["tests/killed.py", moment, str(count)], begun(typed, other))
            _, said = process.communicate(timeout=400)
            code = process.returncode
            moment = f"{moment} (train.py)"
        else:
            code = attempts.train(begun(typed, other), **kill)
            said = attempts.said.read_text()
        if code == 0:  # the moment has not come: as if it had not been tried
            missed += 1
            assert missed < 30
            shutil.rmtree(other)
            if before.exists():
                before.rename(other)
            plan.insert(0, ("batch", 1, rng.uniform(0, 0.1)))
            continue
        assert code == -signal.SIGKILL, said
        tally[f"{moment or 'start'}{' +' if wait else ''}"] += 1
    print(f"\n{setting}: {sum(tally.values())} kills ({missed} came too late): {dict(tally)}")
    assert sum(tally.values()) == KILLS
    finished_by(attempts, begun(typed, other))
    assert list(differences(whole, other)) == []


def begun(typed: list[str], folder: Path) -> list[str]:
    """Return how a run is begun, or gone on with."""
    if (folder / ".hydra/config.yaml").exists():
        return [f"resume={folder}"]
    return [*typed, f"hydra.run.dir={folder}"]


def finished_by(attempts: Attempts, overrides: list[str]) -> None:
    assert attempts.train(overrides) == 0, attempts.said.read_text()


# Logs of what was done to a run, and not of what it came to.
NOT_COMPARED = re.compile(r"train\S*\.log|resume\.json")


def differences(whole: Path, other: Path):
    """Yield the files that are not the same in both, or only in one of them."""
    files = [
        {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
        for folder in (whole, other)
    ]
    files = [{name for name in names if not NOT_COMPARED.fullmatch(name)} for names in files]
    assert {
        "metrics.csv",
        "metrics.json",
        "model/model.safetensors",
        "checkpoints/last.ckpt",
    } <= files[0]
    yield from (f"{name} is in one" for name in files[0] ^ files[1])
    for name in sorted(files[0] & files[1]):
        one, two = whole / name, other / name
        if name.endswith(".ckpt"):
            states = [torch.load(path, weights_only=True) for path in (one, two)]
            yield from (f"{name}: {place}" for place in unequal(*states))
        elif name.startswith("checkpoints/"):
            one, two = (json.loads(path.read_text()) | {"checksum": ""} for path in (one, two))
            yield from (f"{name}: {place}" for place in unequal(one, two))
        elif name == "environment.json":
            one, two = (json.loads(path.read_text()) for path in (one, two))
            own = ("time", "resumed", "command")
            yield from (
                f"{name}: {p}"
                for p in unequal(
                    *({k: v for k, v in c.items() if k not in own} for c in (one, two))
                )
            )
        elif name.endswith(".yaml"):
            texts = [
                path.read_text().replace(str(path.parents[len(Path(name).parts) - 1]), "RUN")
                for path in (one, two)
            ]
            if re.sub("resume: .*", "", texts[0]) != re.sub("resume: .*", "", texts[1]):
                yield name
        elif one.read_bytes() != two.read_bytes():
            yield name


def unequal(one, two, place=""):
    """Yield where two nested states differ."""
    if isinstance(one, dict) and isinstance(two, dict):
        for key in {**one, **two}:
            if key in one and key in two:
                yield from unequal(one[key], two[key], f"{place}.{key}")
            else:
                yield f"{place}.{key} is in one"
    elif isinstance(one, list | tuple) and len(one) == len(two):
        for index, pair in enumerate(zip(one, two, strict=True)):
            yield from unequal(*pair, f"{place}.{index}")
    elif torch.is_tensor(one):
        if not torch.equal(one, two):
            yield place
    elif one != two:
        yield f"{place}: {one} {two}"
