"""Two hundred flipped bits, in all that a run leaves and is read again: each is found."""

import random
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import standins

import hydralight
from hydralight.errors import UserError
from hydralight.runs.checkpoints import intact_checkpoint
from hydralight.runs.run import Run, begun_at, model_folder, read_metrics

pytestmark = pytest.mark.soak

# what is damaged, the flips that the function which reads it first is given, and those that a
# whole command is
PLAN = {
    "checkpoints/last.ckpt": (20, 4),
    "checkpoints/step-*.ckpt": (20, 3),
    "checkpoints/*.json": (14, 2),
    "metrics.json": (10, 1),
    "environment.json": (10, 1),
    "resume.json": (0, 10),
    ".hydra/*": (0, 24),
    "config.yaml": (0, 10),
    "model/*": (25, 15),
    "metrics.csv": (8, 3),
    "encoded": (0, 10),
    "tokenizers": (0, 10),
}


@pytest.fixture(scope="module")
def trained(checkpoints, tmp_path_factory):
    """A run of two epochs, the second of which is a resume, and how it was begun."""
    folder = tmp_path_factory.mktemp("flips")
    typed = [
        "experiment=gpt2_scratch",
        *standins.overrides_for("gpt2_scratch", folder / "data", checkpoints),
        *("trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.log_every_n_steps=1"),
        *("data.batch_size=8", "callbacks.rich_progress=null", "callbacks.samples=null"),
        "callbacks.last_checkpoint.save_total_limit=2",
        f"paths.log_dir={folder / 'logs'}",
    ]
    run = hydralight.train(typed)
    hydralight.train([f"resume={run.path}", "trainer.max_epochs=2"])
    return run.path, typed


def longer(path):
    """Go on with a run for an epoch, and return what it comes to."""
    run = hydralight.train([f"resume={path}", "trainer.max_epochs=3"])
    metrics = run.metrics
    return (run.path / "metrics.csv").read_bytes(), metrics["best"], metrics["last"]


def evaluated(path):
    return hydralight.evaluate([f"run={path}"])


def predicted(path):
    return hydralight.predict([f"run={path}", "input=a storm"])


def known_of(path, names):
    """What the first readers of some files return."""
    readers = {
        "checkpoints": lambda: intact_checkpoint(path / "checkpoints")[1],
        "metrics.json": lambda: read_metrics(path),
        "environment.json": lambda: begun_at(path),
        "model": lambda: model_folder(path) and None,
        "metrics.csv": lambda: Run(path).history.to_csv(),
    }
    return readers[names.partition("/")[0]]()


def whole_command(names, number):
    """The command that reads some files."""
    if names == "model/*" and number % 3 == 0:
        return predicted
    return evaluated if names in ("config.yaml", "model/*") else longer


def flip(path, rng):
    data = bytearray(path.read_bytes())
    place = rng.randrange(len(data) * 8)
    data[place // 8] ^= 1 << place % 8
    path.write_bytes(data)
    return f"bit {place} of {path}"


def found(read, expected, damaged, whole, caplog):
    """How a flip was found: by a sentence that refuses, by a warning, or by being made again.

    What a whole command comes to is the same in any case.
    """
    caplog.clear()
    name = Path(damaged.rpartition(" ")[2]).name
    said = ""
    try:
        returned = read()
    except UserError as error:
        said = str(error)
    if said:
        assert name in said, damaged
        assert "\n" not in said
        return "refused"
    warned = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    was_told = any(name in said for said in warned)
    assert returned == expected or (was_told and not whole), f"{damaged} was not found"
    return "warned of" if was_told else "with equal results"


@pytest.mark.parametrize("names", [n for n in PLAN if "/" in n or "." in n])
def test_flipped_bits_in_a_run(trained, names, tmp_path, caplog):
    path, _ = trained
    rng, tally = random.Random(names), Counter()
    run = tmp_path / "run"
    quick, slow = PLAN[names]
    whole = {}
    for number in range(quick + slow):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(path, run)
        if number < quick:
            command = None
            expected = known_of(run, names)
        else:
            command = whole_command(names, number)
            if command not in whole:
                whole[command] = command(run)
                shutil.rmtree(run)
                shutil.copytree(path, run)
            expected = whole[command]
        if names.endswith("step-*.ckpt"):  # as it lies where a kill came before it was the last
            (run / "checkpoints/last.ckpt").unlink()
            chosen = sorted(run.glob(names))[-1:]
        else:
            chosen = sorted(run.glob(names))
        damaged = flip(chosen[number % len(chosen)], rng)
        read = partial(known_of, run, names) if command is None else partial(command, run)
        tally[found(read, expected, damaged, command is not None, caplog)] += 1
    print(f"{names}: {sum(tally.values())} flips ({slow} by whole commands): {dict(tally)}")
    assert sum(tally.values()) == quick + slow


@pytest.mark.parametrize("names", ["encoded", "tokenizers"])
def test_flipped_bits_in_a_cache(trained, names, tmp_path, monkeypatch, caplog):
    """Each is named, and what it is in is made again, with the same results."""
    _, typed = trained
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    cache = tmp_path / "cache" / "hydralight" / names
    rng, tally = random.Random(names), Counter()

    def train(number):
        caplog.clear()
        run = hydralight.train([*typed, f"hydra.run.dir={tmp_path / str(number)}"])
        return (run.path / "metrics.csv").read_bytes(), run.metrics["best"], run.metrics["last"]

    expected = train("whole")
    files = sorted(p for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock")
    for number in range(PLAN[names][1]):
        file = files[number % len(files)]
        whole = file.read_bytes()
        damaged = flip(file, rng)
        returned = train(number)
        assert returned == expected, damaged
        assert file.read_bytes() == whole, f"{damaged} was not made again"
        assert "is damaged; " in caplog.text, damaged
        tally["made again"] += 1
    print(f"{names}: {sum(tally.values())} flips, by whole commands: {dict(tally)}")


def test_there_are_two_hundred():
    assert sum(map(sum, PLAN.values())) == 200
    assert sum(slow for _, slow in PLAN.values()) >= 40
