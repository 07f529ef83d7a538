"""Failures at the user's door: one sentence, exit code 1, nothing half-written."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT, article, write_jsonl

import hydralight
from hydralight.errors import UserError


@pytest.fixture
def refused(tmp_path):
    """Run a script that has to fail, through the command line; return its sentence."""

    def run(script, *arguments, **environment):
        before = files(tmp_path)
        done = subprocess.run(
            [sys.executable, script, f"paths.log_dir={tmp_path / 'logs'}", *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 1, done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        sentence = done.stderr.strip().splitlines()[-1]
        assert sentence.startswith("error: ")
        assert files(tmp_path) == before
        return sentence

    return run


@pytest.fixture
def refused_here(tmp_path):
    """The same in this process, which saves the imports."""

    def run(*arguments):
        before = files(tmp_path)
        with pytest.raises(UserError) as caught:
            hydralight.train([f"paths.log_dir={tmp_path / 'logs'}", *arguments])
        assert files(tmp_path) == before
        return str(caught.value)

    return run


def files(folder):
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("trainr.max_epochs=3", "no key 'trainr'; did you mean 'trainer'?"),
        ("trainer.max_epoch=3", "no key 'max_epoch' in 'trainer'; did you mean 'max_epochs'?"),
        ("experiment=bart_cn", "no 'bart_cn' in configs/experiment; did you mean 'bart_cnn'?"),
        ("trainer=gpus", "no 'gpus' in configs/trainer; did you mean 'gpu'?"),
        ("data.path=a.csv[:3]", "needs quotes of its own"),
        ("resume=nowhere", "there is no run at nowhere"),
        ("resume=latest", "there is no run in"),
    ],
)
def test_composition(refused, argument, sentence):
    assert sentence in refused("train.py", argument)


def test_mistyped_key_imports_nothing_heavy():
    """What keeps the answer quick; how quick it is, the benchmarks measure."""
    code = (
        "import sys; sys.argv = ['train.py', 'trainr=1']\n"
        "import atexit; atexit.register(lambda: print(sorted(set(sys.modules) & heavy)))\n"
        "heavy = {'torch', 'lightning', 'transformers', 'datasets', 'pandas', 'numpy'}\n"
        "from hydralight.cli import main; main('train')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert "did you mean" in done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("trainer.max_epochs=abc", "trainer.max_epochs=abc should be float or -1 or None."),
        ("+trainer.max_epoch=3", "Trainer has no argument 'max_epoch'; did you mean 'max_epochs'?"),
        ("seed=many", "seed=many should be int."),
        ("+optimzer.lr=3", "no key 'optimzer'; did you mean 'optimizer'?"),
    ],
)
def test_arguments_before_data(refused_here, argument, sentence):
    # the data and the checkpoint are not there either: they have not been looked at yet
    arguments = ["experiment=bart_cnn", "checkpoint=./nowhere", "data.path=./nowhere.csv"]
    assert sentence in refused_here(*arguments, argument)


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("optimized_metric=val/rouge", "'val/rouge' (optimized_metric), which is never logged"),
        ("checkpoint=./nowhere", "checkpoint=./nowhere does not exist"),
        ("checkpoint={empty}", "is no Hugging Face folder: it has no config.json"),
        ("data.path={empty}/none.csv", "There is no file or folder"),
        ("data.path={broken}", "Line 3 of"),
        ("data.columns.text=body", "has no column 'body'"),
        ("data.path={none}", "has no rows"),
        ("data.path={blank}", "(train), row 2: the text (column 'article') is empty"),
        ("data.path={number}", "column 'article' holds int64, and the text is text"),
        ("data.max_source_length=2000", "the model takes 256: set data.max_source_length=256"),
        ("+generation.num_beam=3", "no 'num_beam'; did you mean 'num_beams'?"),
        ("generation.num_beam_groups=3", "generation.num_beam_groups: transformers has moved it"),
        ("data.columns.text=0", "data.columns.text=0 should be the name of a column (data.reader"),
        (
            "data.columns={text: [article, highlights]}",
            "'data.columns={text: \"{article} {highlights}\"}' joins them",
        ),
    ],
)
def test_data_and_checkpoint(refused_here, tmp_path, tiny_bart, articles, argument, sentence):
    rows = [article(i) for i in range(3)]
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.jsonl").write_text("")
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "broken.jsonl").write_text("\n".join([*lines[:2], '{"article": "cut', ""]))
    write_jsonl(tmp_path / "blank.jsonl", [rows[0], {**rows[1], "article": "  "}, rows[2]])
    if "2000" in argument:
        rows[1]["article"] = "The storm saw the mayor. " * 100
        write_jsonl(tmp_path / "long.jsonl", rows)
    write_jsonl(tmp_path / "number.jsonl", [{**row, "article": 7} for row in rows])
    names = {"empty": tmp_path / "empty"}
    names |= {n: tmp_path / f"{n}.jsonl" for n in ("none", "broken", "blank", "number")}
    arguments = ["experiment=bart_cnn", "trainer.accelerator=cpu"]
    if "checkpoint" not in argument:
        arguments.append(f"checkpoint={tiny_bart}")
    if "data.path" not in argument:
        arguments.append(f"data.path={articles / 'train.jsonl'}")
    if "2000" in argument:
        arguments[-1] = f"data.path={tmp_path / 'long.jsonl'}"
    for name, path in names.items():
        argument = argument.replace(f"{{{name}}}", str(path))
    assert sentence in refused_here(*arguments, argument)


def test_corrupt_image(refused, recipe, tmp_path):
    """A worker of the loader sends its whole traceback."""
    overrides = recipe("vit_cxr14")
    image = tmp_path / "data/validation/2.png"
    image.write_bytes(image.read_bytes()[:40])
    sentence = refused("train.py", *overrides, "data.num_workers=2", "check=true")
    assert sentence.startswith(f"error: {image} cannot be read as an image")


def test_no_network(refused, tiny_bart):
    """A closed port of this machine stands for a hub that cannot be reached."""
    closed = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    sentence = refused("train.py", "experiment=bart_cnn", **closed)
    assert "facebook/bart-large-cnn is no folder here, the hub cannot be reached" in sentence
    assert "HF_ENDPOINT" in sentence
    sentence = refused("train.py", "experiment=bart_cnn", f"checkpoint={tiny_bart}", **closed)
    assert "abisee/cnn_dailymail" in sentence
    assert "name local files in data.path" in sentence


def test_eval_and_predict(refused):
    assert "there is no run at nowhere" in refused("eval.py", "run=nowhere")
    assert "input has no value" in refused("predict.py")
    assert "name a model: run=" in refused("eval.py")
