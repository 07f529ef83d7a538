"""The table of what Trainer's arguments and methods are here, and the converter that reads it."""

import dataclasses
import importlib
import inspect
import json
import pickle
import re
import shlex
import zipfile

import pytest
import torch
import yaml
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from test_sentences import composed, is_choice, typed
from transformers import (
    GenerationConfig,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
)

from hydralight.config.project import CONFIG_DIR
from hydralight.errors import UserError
from hydralight.from_trainer.__main__ import answer, main
from hydralight.from_trainer.convert import convert
from hydralight.from_trainer.reading import read
from hydralight.from_trainer.table import in_markdown, lines_of, rows
from hydralight.from_trainer.together import ADAMW, OPTIMIZERS

RECIPE = "experiment=bart_cnn"
KINDS = ("key", "line", "python", "so", "why")
PARTS = ("arguments", "scripts", "constructor", "methods")
ALL = [(part, name) for part in PARTS for name in rows(part)]
WITH_LINES = [(part, n) for part, n in ALL if {"key", "line"} & rows(part)[n].keys()]
EXAMPLES = [(part, n) for part, n in WITH_LINES if part in ("arguments", "scripts")]
LACKING = {name for name, row in rows("arguments").items() if "lacking" in row}
# of a run that goes on, or is evaluated: the line is no key of a training
OTHERS = {"do_train", "do_eval", "bf16_full_eval", "fp16_full_eval", "resume_from_checkpoint"}


def public(kind):
    return {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}


def lacking(part, names):
    """Names that the table lacks, and those that it has and the library has not."""
    return sorted(rows(part).keys() ^ names)


def test_the_table_is_whole():
    fields = {f.name for kind in (TrainingArguments, Seq2SeqTrainingArguments) for f in of(kind)}
    assert len(fields) == 119
    assert lacking("arguments", fields) == []
    arguments = {
        n for kind in (Trainer, Seq2SeqTrainer) for n in inspect.signature(kind).parameters
    }
    assert lacking("constructor", arguments) == []
    assert lacking("methods", public(Trainer) | public(Seq2SeqTrainer)) == []


def of(kind):
    return dataclasses.fields(kind)


def test_what_the_table_lacks_is_found():
    fields = {f.name for f in of(Seq2SeqTrainingArguments)}
    assert lacking("arguments", {*fields, "a_new_one"}) == ["a_new_one"]


def test_each_row_says_one_thing():
    for part, name in ALL:
        row = rows(part)[name]
        kinds = [kind for kind in KINDS if kind in row]
        assert len(kinds) == 1 or ("lacking" in row and not kinds), name
        if "test" in row:
            assert (ROOT / "tests" / row["test"]).is_file(), name
        assert ("so" in row) == ("test" in row), name
    reasons = {row["why"] for part in PARTS for row in rows(part).values() if "why" in row}
    assert reasons == rows("reasons").keys()
    assert len(reasons) <= 16
    assert sum("why" in row for row in rows("arguments").values()) <= 16


def test_the_document_has_the_table():
    text = (ROOT / "docs" / "from-trainer.md").read_text()
    for part in PARTS:
        assert in_markdown(part) + "\n\n" in text + "\n", f"{part}: python docs/trainer_tables.py"


def test_names_of_python_are_there():
    for part, name in ALL:
        if "python" in rows(part)[name]:
            module, _, attribute = rows(part)[name]["python"].rpartition(".")
            try:
                found = importlib.import_module(module)
            except ModuleNotFoundError:
                module, _, kind = module.rpartition(".")
                found = getattr(importlib.import_module(module), kind)
            assert hasattr(found, attribute), name


@pytest.mark.parametrize("part", PARTS)
def test_lines_compose(part):
    tried = 0
    for name in [name for where, name in WITH_LINES if where == part]:
        row = rows(part)[name]
        lines = [*row.get("choice", "").split(), *lines_of(row)]
        lines = [*wanted_by(name, lines, row), *lines]
        if row.get("command", "train") != "train" or any(only_whole(line) for line in lines):
            with initialize_config_dir(str(CONFIG_DIR), job_name="train"):
                command = row.get("command", "train")
                compose(command, [RECIPE, *lines], return_hydra_config=True)
        else:
            choices = [line for line in lines if is_choice(line)]
            values = [line for line in lines if line not in choices]
            typed(composed(recipe_for(lines), *choices), *values)
        tried += 1
    assert tried == len([one for where, one in WITH_LINES if where == part])


def wanted_by(name, lines, row):
    """Choices of groups that the line of another row makes."""
    beside = row.get("with", {})
    said = {"report_to": "logger=wandb", "push_to_hub": "callbacks=push"}
    found = [said[key] for key in beside if key in said]
    if beside.get("optim") == "galore_adamw":
        found.append("optimizer=galore")
    if beside.get("optim") == "sgd":
        found.append("optimizer=sgd")
    return [one for one in found if one not in lines]


def recipe_for(lines):
    texts = ("data.max_length", "task.loss", "task.metrics")
    return "experiment=bert_mrpc" if any(t in line for t in texts for line in lines) else RECIPE


def only_whole(line):
    return line.partition("=")[0] in ("hydra.job_logging.root.level", "debug", "hparams_search")


@pytest.mark.parametrize("name", [name for _, name in EXAMPLES])
def test_an_example_is_said_so(name):
    row = {**rows("arguments"), **rows("scripts")}[name]
    said = convert({**row.get("with", {}), name: row["example"]}, [RECIPE])
    if name in OTHERS:
        assert not set(lines_of(row)) & set(said.overrides())
    else:
        own = set(lines_of(row)) | set(row.get("choice", "").split())
        assert own <= {line.replace(" ", " ") for line in said.overrides()}


def test_what_has_no_line_is_told():
    for name, row in rows("arguments").items():
        if "why" in row or name in LACKING:
            default = defaults_of()[name]
            value = (
                (not default) if isinstance(default, bool) else {"x": 1} if "config" in name else 7
            )
            said = convert({name: value}, [RECIPE])
            assert [one for one in said.unsaid if one.startswith(name)], name


def defaults_of():
    return {
        f.name: f.default if f.default is not dataclasses.MISSING else None
        for f in of(Seq2SeqTrainingArguments)
    }


RICH = {
    "output_dir": "out",
    "disable_tqdm": False,  # else it goes by the level of messages
    "learning_rate": 1e-4,
    "lr_scheduler_type": "cosine_with_restarts",
    "lr_scheduler_kwargs": {"num_cycles": 2},
    "warmup_steps": 0.1,
    "optim": "adafactor",
    "bf16": True,
    "use_cpu": True,
    "activation_checkpointing": True,
    "report_to": ["tensorboard"],
    "run_name": "it's ${first}, {or: so}",
    "eval_strategy": "steps",
    "eval_steps": 50,
    "save_steps": 100,
    "save_total_limit": 2,
    "metric_for_best_model": "eval_rougeL",
    "logging_steps": 5,
    "generation_num_beams": 4,
    "label_smoothing_factor": 0.1,
    "push_to_hub": True,
    "hub_model_id": "me/mine",
}


@pytest.mark.parametrize("given", [{}, RICH], ids=["nothing", "much"])
def test_the_file_and_the_command_line_are_the_same(given, tmp_path):
    args = tmp_path / "moved.json"
    args.write_text(json.dumps(given))
    file, told = answer([str(args), RECIPE, "checkpoint=./my bart", "data.path={train: a.csv}"])
    command = shlex.split(told.split("\n\n")[1])
    assert command[:2] == ["python", "train.py"]
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "moved.yaml").write_text(file)
    head = shlex.split(file.splitlines()[1])
    assert head[1:4] == ["python", "train.py", "experiment=moved"]
    with initialize_config_dir(str(CONFIG_DIR), job_name="train"):
        lined = compose("train", [plus(one) for one in command[2:]])
        searched = f"hydra.searchpath=[file://{tmp_path}]"
        filed = compose("train", [searched, *head[3:]])
    lined, filed = (OmegaConf.to_container(cfg, resolve=False) for cfg in (lined, filed))
    assert lined == filed
    assert lined["optimizer"]["lr"] == given.get("learning_rate", 5e-5)
    assert filed["checkpoint"] == "./my bart"


def plus(override):
    """Keys are opened by our own loader, which is not in use here."""
    return override if is_choice(override) else f"++{override}"


def test_the_three_kinds_of_files_say_the_same(tmp_path):
    given = {**RICH, "output_dir": str(tmp_path), "generation_config": GenerationConfig(top_k=3)}
    args = Seq2SeqTrainingArguments(**given)
    torch.save(args, tmp_path / "training_args.bin")
    (tmp_path / "whole.json").write_text(
        json.dumps(args.to_dict(), default=lambda one: one.to_dict())
    )
    few = {**given, "generation_config": {"top_k": 3}}
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(few).replace("0.0001", "1e-4"))
    names = ("training_args.bin", "whole.json", "few.yaml")
    files = [convert(read(tmp_path / name), [RECIPE]) for name in names]
    assert "optimizer.lr=0.0001" in files[0].overrides()
    assert "generation.top_k=3" in files[0].overrides()
    assert set(files[0].overrides()) == set(files[1].overrides()) == set(files[2].overrides())
    assert [said.unsaid for said in files] == [[], [], []]


@pytest.mark.parametrize("seed", [0])
def test_library_defaults_leave_nothing_unsaid(seed, tmp_path):
    torch.save(TrainingArguments(str(tmp_path), use_cpu=True), tmp_path / "training_args.bin")
    assert convert(read(tmp_path / "training_args.bin"), [RECIPE]).unsaid == []


class Runs:
    """What a pickle of it does when it is read."""

    def __init__(self, function, *arguments, state=None):
        self.does = function, arguments, state

    def __reduce__(self):
        return self.does


def zipped(path, content, name="archive/data.pkl"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)
    return path


def hostile(path, here):
    """Pickles that would do something, or take very much."""
    import os

    touch = f"touch {here}"
    yield "posix.system", pickle.dumps({"seed": Runs(os.system, touch)}, 2)
    yield (
        "builtins.eval",
        pickle.dumps(Runs(eval, f"open({str(here)!r}, 'w')"), 2).replace(
            b"__builtin__", b"builtins"
        ),
    )
    yield "builtins.getattr", b"cbuiltins\ngetattr\n."
    yield "step INST", b"(V" + touch.encode() + b"\nios\nsystem\n."
    yield "step OBJ", b"(cos\nsystem\nVx\no."
    yield "step EXT1", b"\x82\x01."
    yield "step BINPERSID", b"\x80\x02K\x01Q."
    yield "damaged", b"\x80\x02Nr\xff\xff\xff\x7f."
    yield "does not hold the arguments", b"]."
    doubled = []
    for _ in range(25):
        doubled = [doubled, doubled]
    yield "too large", pickle.dumps(Runs(TrainingArguments, state={"a": doubled}), 2)
    yield "too large", b"\x80\x02X" + (2 << 20).to_bytes(4, "little") + b"a" * (2 << 20) + b"."
    yield (
        "holds a type",
        pickle.dumps(Runs(TrainingArguments, state={"a": TrainingArguments}), 2),
    )


def test_a_hostile_pickle_is_refused(tmp_path):
    here = tmp_path / "made"
    for number, (words, content) in enumerate(hostile(tmp_path, here)):
        file = zipped(tmp_path / f"{number}.bin", content)
        with pytest.raises(UserError) as raised:
            read(file)
        assert words in str(raised.value), (number, str(raised.value))
        assert "\n" not in str(raised.value)
    assert not here.exists()


def test_other_files_are_refused(tmp_path):
    (tmp_path / "legacy.bin").write_bytes(pickle.dumps({"seed": 1}))
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "code.yaml").write_text("!!python/object/apply:os.system [true]")
    zipped(tmp_path / "none.bin", b"N.", "archive/other")
    words = {"legacy.bin": "neither JSON", "list.json": "a mapping", "broken.json": "is not read"}
    words |= {"code.yaml": "is not read", "none.bin": "no data.pkl", "missing.json": "is no file"}
    for name, sentence in words.items():
        with pytest.raises(UserError, match=re.escape(sentence)):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("given", "typed", "sentence"),
    [
        ({}, [], "add experiment=<a recipe of the same task>"),
        ({"learning_rate": "much"}, [RECIPE], "learning_rate=much should be a number"),
        ({}, [RECIPE, "x"], "'x' should be group=choice or key=value"),
        ({}, [RECIPE, "seed=1,2"], "'seed=1,2' should be group=choice or key=value"),
    ],
)
def test_mistakes_are_told(given, typed, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        convert(given, typed)


def test_an_unknown_argument_is_told():
    said = convert({"learning_rte": 1e-3}, [RECIPE]).unsaid
    assert said == ["learning_rte: Trainer has no such argument; did you mean 'learning_rate'?"]


def test_the_command(tmp_path, monkeypatch, capsys):
    args = tmp_path / "args.json"
    args.write_text(json.dumps({"deepspeed": "ds.json"}))
    monkeypatch.setattr("sys.argv", ["from_trainer", str(args), RECIPE])
    main()
    printed = capsys.readouterr()
    assert yaml.safe_load(printed.out)["optimizer"]["lr"] == 5e-5
    assert "# - deepspeed: Sharding is PyTorch's own" in printed.out
    assert "python train.py experiment=bart_cnn" in printed.err
    monkeypatch.setattr("sys.argv", ["from_trainer", str(tmp_path / "none.json"), RECIPE])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_optimizers_are_those_of_the_library():
    """Each name of `optim` has a config that is there, or is told."""
    from transformers.training_args import OptimizerNames

    names = {one.value for one in OptimizerNames}
    assert {*ADAMW, *OPTIMIZERS} <= names
    for name in names:
        said = convert({"optim": name}, [RECIPE])
        if name in (*ADAMW, *OPTIMIZERS):
            assert (CONFIG_DIR / "optimizer" / f"{said.choices['optimizer']}.yaml").is_file()
        else:
            assert said.unsaid, name
