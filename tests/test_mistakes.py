"""Mistakes through the real command line: each is answered in one sentence, and leaves nothing.

They are in `mistakes.txt`, a line each: a command, a recipe that runs on stand-ins (or -), further
arguments, and behind an arrow the words of the sentence.
"""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import standins
from standins import write_jsonl

import hydralight

LINES = (Path(__file__).parent / "mistakes.txt").read_text().splitlines()
MISTAKES = [tuple(line.split("  ->  ")) for line in LINES if line and line[0] != "#"]


@pytest.fixture(scope="session")
def files(tmp_path_factory, checkpoints):
    """What the mistakes name: damaged checkpoints, odd data, and a run."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "empty").mkdir()
    for name, damaged in [("notok", "token*"), ("noweights", "*.safetensors"), ("torn", "")]:
        shutil.copytree(checkpoints("bert"), folder / name)
        for path in (folder / name).glob(damaged) if damaged else ():
            path.unlink()
    weights = folder / "torn" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    pairs = [{"sentence1": "a storm", "sentence2": "b", "label": i % 2} for i in range(6)]
    pairs[2]["sentence1"] = "a" * 1_200_000
    write_jsonl(folder / "word.jsonl", pairs)
    write_jsonl(folder / "chat.jsonl", [{"text": [{"role": "user", "content": "hi"}]}] * 6)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def run(tmp_path_factory, checkpoints, data):
    logs = tmp_path_factory.mktemp("logs")
    own = standins.overrides_for("bert_mrpc", data / "bert_mrpc", checkpoints)
    quick = ["trainer.accelerator=cpu", "trainer.max_epochs=1", f"paths.log_dir={logs}"]
    return hydralight.train(["experiment=bert_mrpc", *own, *quick]).path


@pytest.fixture
def answered(commands, checkpoints, files, data, tmp_path, request):
    """Run a line of the table in an empty folder."""

    def outcome(line):
        if "{run}" in line:
            line = line.replace("{run}", str(request.getfixturevalue("run")))
        line = line.replace("{files}", str(files))
        for kind in ("bert", "vit"):
            if f"{{{kind}}}" in line:
                line = line.replace(f"{{{kind}}}", str(checkpoints(kind)))
        command, recipe, *arguments = shlex.split(line)
        if recipe != "-":
            own = standins.overrides_for(recipe, data / recipe, checkpoints)
            arguments = [f"experiment={recipe}", "trainer.accelerator=cpu", *own, *arguments]
        return commands.run([command, *arguments], tmp_path)

    return outcome


def test_there_are_many():
    assert len(MISTAKES) >= 150
    assert {line.split()[0] for line, _ in MISTAKES} >= {"train", "eval", "predict", "report"}


@pytest.mark.parametrize(("line", "words"), MISTAKES)
def test_mistake(line, words, answered, files, tmp_path):
    outcome = answered(line)
    errors = [said for said in outcome.err.splitlines() if said.startswith("error: ")]
    assert len(errors) == 1, outcome.err
    assert words.replace("{files}", str(files)) in errors[0]
    assert (outcome.code, outcome.out) == (1, "")
    assert "Traceback" not in outcome.err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_command_that_is_right_goes_through(answered, tmp_path):
    """What the harness would show of one."""
    outcome = answered("train bert_mrpc trainer.max_epochs=1 callbacks.rich_progress=null")
    assert outcome.code == 0, outcome.err
    (metrics,) = tmp_path.rglob("metrics.json")
    assert json.loads(metrics.read_text())["status"] == "finished"


LATE = [
    # what only a step, or the study, shows; the run or the sweep has begun by then
    (
        "train vit_cxr14 'tokenizer.options.size={height:20,width:20}'",
        "model: Input image size (20*20) doesn't match model (16*16).",
    ),
    (
        "train bert_mrpc 'task.metrics={f:{_target_:torchmetrics.text.BLEUScore}}'",
        "task.metrics.f: iteration over a 0-d tensor.",
    ),
    (
        "train bart_cnn +generation.forced_bos_token_id=100000",
        "generation: IndexError: index 100000 is out of bounds",
    ),
    (
        "train bert_mrpc -m hparams_search=default hparams_search.storage=foo",
        "hparams_search.storage: Could not parse",
    ),
    (
        "train bert_mrpc -m hparams_search=default "
        "'+hparams_search.pruner={_target_:optuna.pruners.PercentilePruner}'",
        "hparams_search.pruner: ",
    ),
]


@pytest.mark.parametrize(("line", "words"), LATE)
def test_late_refusal(line, words, answered):
    outcome = answered(line)
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    assert outcome.err.splitlines()[-1].startswith(f"error: {words}")
