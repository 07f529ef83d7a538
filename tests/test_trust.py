"""What is read is not trusted: hostile recipes, runs, sweeps and checkpoints leave no trace."""

import json
import os
import shutil
import struct
import sys
import zlib
from contextlib import nullcontext

import pytest
import torch
import yaml
from conftest import CONFIG_DIR, EXPERIMENTS
from datasets import Dataset, DatasetDict
from hydra import compose, initialize_config_dir
from hydra._internal import hydra as hydra_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from optuna.samplers import CmaEsSampler
from transformers import AutoModelForSeq2SeqLM

import hydralight
from hydralight.commands import prepare, start
from hydralight.config import project
from hydralight.config.composition import Loader, composing
from hydralight.config.resolvers import register_resolvers
from hydralight.config.trust import check_trust, origins
from hydralight.config.typed import Typed
from hydralight.data.read.files import read_local
from hydralight.data.shapes.image_classification import open_image
from hydralight.errors import UserError
from hydralight.metrics.evaluate import Evaluate
from hydralight.models import Pretrained, Scratch
from hydralight.runs.files import append_text
from hydralight.runs.lock import locked
from hydralight.runs.logs import RunLog
from hydralight.runs.overrides import with_groups_off
from hydralight.runs.secrets import redact
from hydralight.tasks.generation import configure_generation

SECRET = "n0t-for-y0ur-eyes"
PROGRAM = "is taken only from what is typed|is not taken from a run|only supported"
CODE = r"type trust=\[remote_code\]"
LISTED = "whitelist|Whitelist"
PLACE = "outside of the run's directory"
SENDS = "would change what is sent"
VARIABLE = r"trust=\[environment\]"


@pytest.fixture
def guarded(tmp_path, monkeypatch):
    """A folder beside the runs whose files, like the environment, stay as they are."""
    folder = tmp_path / "guarded"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    (folder / "canary.py").write_text(
        f"open({str(folder / 'ran')!r}, 'w').close()\ndef run(*a, **k): pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GUARDED", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TEST_TOKEN", SECRET)
    before, variables = {p: p.read_bytes() for p in folder.rglob("*")}, dict(os.environ)
    yield folder
    assert {p: p.read_bytes() for p in folder.rglob("*") if "__pycache__" not in str(p)} == before
    variables["PYTEST_CURRENT_TEST"] = os.environ["PYTEST_CURRENT_TEST"]
    assert not {n for n in variables if os.environ.get(n) != variables[n]}
    assert "HOSTILE" not in os.environ
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            assert SECRET not in path.read_text(errors="ignore"), path


def written(text, guarded):
    return text.replace("GUARDED", str(guarded))


# ---------------------------------------------------------------- recipes

RECIPES = {
    "a PATH with a false git": ("hydra: {job: {env_set: {PATH: GUARDED}}}", PROGRAM),
    "an endpoint that gets the token": ("hydra: {job: {env_set: {HF_ENDPOINT: a}}}", PROGRAM),
    "git's own config": ("hydra: {job: {env_set: {GIT_CONFIG_COUNT: '1'}}}", PROGRAM),
    "a compiler": ("hydra: {job: {env_set: {CXX: GUARDED/canary.py}}}", PROGRAM),
    "copied variables": ("hydra: {job: {env_copy: [TEST_TOKEN]}}", PROGRAM),
    "another working directory": ("hydra: {job: {chdir: true}}", PROGRAM),
    "a run's directory": ("hydra: {run: {dir: GUARDED/run}}", PROGRAM),
    "a sweep's directory": ("hydra: {sweep: {dir: GUARDED/run}}", PROGRAM),
    "a folder for configs": ("hydra: {output_subdir: ../../../guarded}", PROGRAM),
    "a log file": ("hydra: {job_logging: {handlers: {file: {filename: GUARDED/log}}}}", PROGRAM),
    "a log handler": ("hydra: {job_logging: {handlers: {x: {class: os.system}}}}", PROGRAM),
    "a formatter": ("hydra: {job_logging: {formatters: {x: {(): canary.run}}}}", PROGRAM),
    "Hydra's callbacks": ("hydra: {callbacks: {x: {_target_: canary.run}}}", PROGRAM),
    "a launcher": ("hydra: {launcher: {_target_: canary.run}}", PROGRAM),
    "a sweeper": ("hydra: {sweeper: {_target_: canary.run}}", PROGRAM),
    "a search path": ("hydra: {searchpath: [file://GUARDED]}", PROGRAM),
    "another logging": ("hydra: {hydra_logging: {root: {handlers: []}}}", PROGRAM),
    "a chosen launcher": ("defaults: [bart_cnn, override /hydra/launcher: joblib]", PROGRAM),
    "a config in Hydra's place": ("defaults: [bart_cnn, /logger@hydra.job.env_set: csv]", PROGRAM),
    "a group by its package": ("defaults: [bart_cnn, /paths@hydra.job.env_set: default]", PROGRAM),
    "a log folder": ("paths: {log_dir: GUARDED}", PROGRAM),
    "an output folder": ("paths: {output_dir: GUARDED}", PROGRAM),
    "its own trust": ("trust: [remote_code]", PROGRAM),
    "a run to resume": ("resume: GUARDED", PROGRAM),
    "a model's code": ("model: {trust_remote_code: true}", CODE),
    "a model's code by a word": ("model: {trust_remote_code: 'yes'}", CODE),
    "a tokenizer's code": ("tokenizer: {trust_remote_code: true}", CODE),
    "a tokenizer's code in options": ("tokenizer: {options: {trust_remote_code: 1}}", CODE),
    "code by reference": ("x: &a true\nmodel: {trust_remote_code: *a}", CODE),
    "code by interpolation": ("model: {trust_remote_code: '${not:${check}}'}", "Unsupported"),
    "code by another value": ("model: {trust_remote_code: '${model.freeze}', freeze: [a]}", CODE),
    "a metric's script": (
        "task: {metrics: {x: {_target_: hydralight.metrics.evaluate.Evaluate, path: canary.py}}}",
        CODE,
    ),
    "a metric's script by an alias": (
        "task: {metrics: {x: {_target_: hydralight.metrics.evaluate.Evaluate,"
        " path: GUARDED/canary.py}}}",
        CODE,
    ),
    "a metric that trusts by name": (
        "task: {metrics: {x: {_target_: torchmetrics.multimodal.CLIPScore,"
        " model_name_or_path: jinaai/x}}}",
        CODE,
    ),
    "a metric's model": (
        "task: {metrics: {x: {_target_: torchmetrics.text.BERTScore, model_name_or_path: a/b}}}",
        CODE,
    ),
    "arguments without names": (
        "task: {metrics: {x: {_target_: torchmetrics.multimodal.CLIPScore, _args_: [jinaai/x]}}}",
        "name the arguments",
    ),
    "arguments without names in a callback": (
        "callbacks: {x: {_target_: lightning.pytorch.callbacks.ModelCheckpoint,"
        " _args_: [GUARDED]}}",
        "name the arguments",
    ),
    "a compiler's options": ("task: {torch_compile: {options: {cpp.cxx: [GUARDED/x]}}}", CODE),
    "a compiler's options nested": ("task: {torch_compile: {options: {cpp: {cxx: x}}}}", CODE),
    "kernels of the hub": ("model: {attn_implementation: evil/kernels}", CODE),
    "kernels in a config": ("model: {config: {_attn_implementation: evil/kernels}}", CODE),
    "a way to generate": ("generation: {custom_generate: evil/x}", CODE),
    "a sampler that unpickles": (
        "hparams_search: {sampler: {_target_: optuna.samplers.CmaEsSampler}}",
        CODE,
    ),
    "a sampler that unpickles, by another name": (
        "hparams_search: {sampler: {_target_: optuna.samplers._qmc.optuna.samplers.CmaEsSampler}}",
        CODE,
    ),
    "a shell": ("callbacks: {x: {_target_: os.system, command: id}}", LISTED),
    "a log file as a callback": (
        "callbacks: {x: {_target_: hydralight.runs.logs.RunLog, filename: x}}", LISTED
    ),
    "a log handler by another name": (
        "callbacks: {x: {_target_: hydralight.callbacks.progress.Messages}}", LISTED + "|imported"
    ),
    "a record of what was typed": ("hydra: {overrides: {task: [seed=7]}}", "a record of what is"),
    "a shell in a module of ours": (
        "callbacks: {x: {_target_: hydralight.data.read.files.os.system, command: id}}",
        LISTED,
    ),
    "a pickle in a module of torch": (
        "optimizer: {_target_: torch.optim.adam.torch.load, weights_only: false}",
        LISTED,
    ),
    "a module loader": (
        "callbacks: {x: {_target_: hydralight.callbacks.best_model.json.codecs.open, mode: w}}",
        LISTED,
    ),
    "a checkpoint's pickle": (
        "task: {loss: {_target_: hydralight.tasks.task.Task.load_from_checkpoint, strict: x}}",
        LISTED,
    ),
    "Hydra's finder": ("callbacks: {x: {_target_: hydra.utils.get_method, way: x}}", LISTED),
    "a target put together": ("tags: [os]\ncallbacks: {x: {_target_: '${tags.0}.nice'}}", LISTED),
    "a target in a list": ("callbacks: {x: {_target_: lightning.pytorch.callbacks.Timer,"
                           " duration: [{_target_: os.getpid}]}}", LISTED),
    "a target out of a text": (
        "callbacks: {x: '${oc.create:{_target_: canary.run}}'}", LISTED + "|prohibited|not allowed"
    ),
    "a direction of anything": (
        "optimized_metric: val/x\ntask: {metrics: {x: {_target_: canary.run}}}", LISTED
    ),
    "pickled rows": ("data: {reader: {format: pandas}}", "data.reader.format is one of"),
    "a source of its own": ("data: {source: canary.run}", LISTED),
    "the model elsewhere": ("callbacks: {best_model: {dirpath: GUARDED}}", PLACE),
    "checkpoints elsewhere": ("callbacks: {last_checkpoint: {dirpath: GUARDED/x}}", PLACE),
    "samples elsewhere": ("callbacks: {samples: {dirpath: '~/x'}}", PLACE),
    "one folder up": ("callbacks: {samples: {dirpath: '${paths.output_dir}/../x'}}", PLACE),
    "a folder of the shell's": ("callbacks: {samples: {dirpath: guarded}}", PLACE),
    "a variable in a path": ("callbacks: {samples: {dirpath: $GUARDED/x}}", PLACE),
    "a name that climbs": (
        "callbacks: {x: {_target_: lightning.pytorch.callbacks.ModelCheckpoint,"
        " dirpath: '${paths.output_dir}', filename: ../../../../../guarded/x}}",
        PLACE,
    ),
    "what an error leaves": (
        "callbacks: {x: {_target_: lightning.pytorch.callbacks.OnExceptionCheckpoint,"
        " dirpath: GUARDED}}",
        PLACE,
    ),
    "a logger": (
        "logger: {x: {_target_: lightning.pytorch.loggers.TensorBoardLogger, save_dir: GUARDED}}",
        PLACE,
    ),
    "a logger's name": (
        "logger: {x: {_target_: lightning.pytorch.loggers.TensorBoardLogger,"
        " save_dir: '${paths.output_dir}', name: ../../../../../guarded}}",
        PLACE,
    ),
    "a logger in another group": (
        "data: {augmentation: {_target_: hydralight.loggers.CSVLogger, save_dir: GUARDED}}",
        PLACE,
    ),
    "a function that writes": (
        "task: {loss: {_target_: hydralight.callbacks.predictions.write_json_lines,"
        " path: GUARDED/x, rows: []}}",
        PLACE,
    ),
    "a folder's maker as a source": (
        "data: {source: {_target_: hydralight.data.encoding.cache_folder}}", LISTED
    ),
    "a folder's maker as a tokenizer": (
        "tokenizer: {_target_: hydralight.data.encoding.cache_folder}", LISTED
    ),
    "a reader as a source": ("data: {source: hydralight.data.read.files.read_local}", LISTED),
    "a function that is called later": (
        "task: {loss: {_target_: hydralight.callbacks.predictions.write_json_lines}}", LISTED
    ),
    "a class's own function": (
        "callbacks: {x: {_target_: lightning.pytorch.callbacks.ModelCheckpoint.state_dict}}",
        LISTED,
    ),
    "a logger among callbacks": (
        "callbacks: {x: {_target_: lightning.pytorch.loggers.MLFlowLogger,"
        " tracking_uri: evil.example}}",
        SENDS,
    ),
    "W&B among callbacks": (
        "callbacks: {x: {_target_: lightning.pytorch.loggers.WandbLogger,"
        " settings: {base_url: evil.example}}}",
        SENDS,
    ),
    "a profiler": (
        "trainer: {profiler: {_target_: lightning.pytorch.profilers.SimpleProfiler,"
        " dirpath: GUARDED, filename: x}}",
        PLACE,
    ),
    "the trainer's folder": ("trainer: {default_root_dir: GUARDED}", PLACE),
    "a path as an address": ("callbacks: {samples: {dirpath: 'file:GUARDED/x'}}", PLACE),
    "a bucket": ("callbacks: {last_checkpoint: {dirpath: 's3://evil/x'}}", PLACE),
    "a cache": ("tokenizer: {options: {cache_dir: GUARDED}}", PLACE),
    "W&B's folder": ("defaults: [bart_cnn, override /logger: wandb]\n"
                     "logger: {wandb: {dir: GUARDED}}", PLACE),
    "W&B's server": ("defaults: [bart_cnn, override /logger: wandb]\n"
                     "logger: {wandb: {settings: {base_url: 'http://127.0.0.1:9'}}}", PLACE),
    "W&B's server by its bare name": ("logger: {wandb: {_target_: lightning.pytorch.loggers."
                                      "WandbLogger, settings: {base_url: evil.example}}}", SENDS),
    "W&B's proxy": ("defaults: [bart_cnn, override /logger: wandb]\n"
                    "logger: {wandb: {settings: {http_proxy: evil.example}}}", SENDS),
    "W&B's key": ("defaults: [bart_cnn, override /logger: wandb]\n"
                  "logger: {wandb: {settings: {api_key: theirs}}}", SENDS),
    "W&B's command line": ("defaults: [bart_cnn, override /logger: wandb]\n"
                           "logger: {wandb: {settings: {x_disable_meta: false}}}", SENDS),
    "W&B's code": ("defaults: [bart_cnn, override /logger: wandb]\n"
                   "logger: {wandb: {save_code: true}}", SENDS),
    "W&B's team": ("defaults: [bart_cnn, override /logger: wandb]\n"
                   "logger: {wandb: {entity: evil}}", SENDS),
    "another tracker": (
        "logger: {x: {_target_: lightning.pytorch.loggers.MLFlowLogger,"
        " tracking_uri: 'https://evil.example'}}",
        PLACE,
    ),
    "a proxy of the hub's": ("tokenizer: {options: {proxies: {https: evil.example}}}", SENDS),
    "a variable in a tag": ("tags: ['${oc.env:TEST_TOKEN}']", VARIABLE),
    "a variable with a default": ("tags: ['${oc.env:TEST_TOKEN,x}']", VARIABLE),
    "a variable by a part of its name": (
        "tags: ['${oc.env:TEST_${task.suffix}}']\ntask: {suffix: TOKEN}", VARIABLE + "|suffix"
    ),
    "a variable in a run's name": (
        "defaults: [bart_cnn, override /logger: wandb]\n"
        "logger: {wandb: {name: '${oc.env:TEST_TOKEN}'}}", VARIABLE
    ),
    "a variable, decoded": ("tags: ['${oc.decode:${oc.env:TEST_TOKEN}}']", VARIABLE),
    "a sweep's storage": (
        "hparams_search: {storage: 'sqlite:///GUARDED/x.db'}", PLACE
    ),
}  # fmt: skip


# Those whose rule another one stands for as well.
SECOND = {
    *("git's own config", "a compiler", "copied variables", "another working directory"),
    *("a sweep's directory", "a log handler", "a formatter", "a sweeper"),
    *("a model's code by a word", "code by another value", "a metric's script by an alias"),
    *("a metric's model", "arguments without names in a callback", "a compiler's options nested"),
    *("kernels in a config", "checkpoints elsewhere", "samples elsewhere"),
    *("what an error leaves", "W&B's folder", "W&B's proxy", "W&B's code", "W&B's team"),
    *("a variable with a default", "a variable, decoded", "another tracker", "a bucket"),
}


def test_many_hostile_recipes_are_tried_each_time():
    assert RECIPES.keys() > SECOND
    assert len(RECIPES.keys() - SECOND) >= 60


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.thorough] * (n in SECOND)) for n in RECIPES]
)
def test_a_hostile_recipe(name, guarded, bart_cnn, tmp_path):
    body, sentence = RECIPES[name]
    body = written(body, guarded)
    defaults = "" if body.startswith("defaults") else "defaults: [bart_cnn]\n"
    path = tmp_path / "foreign/experiment/evil.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"# @package _global_\n{defaults}{body}\n")
    typed = [f"hydra.searchpath=[file://{tmp_path / 'foreign'}]", "experiment=evil"]
    typed += [argument for argument in bart_cnn[1:] if "log_dir" not in argument]
    with pytest.raises(UserError, match=sentence) as raised:
        hydralight.train([*typed, "check=true"])
    assert SECRET not in str(raised.value)
    assert not any((tmp_path / "logs").rglob("*.yaml"))


@pytest.mark.parametrize(
    ("file", "body"),
    [
        ("hydra/config.yaml", "job: {env_set: {HOSTILE: '1'}}"),
        ("hydra/launcher/basic.yaml", "_target_: canary.run"),
        ("hydra/job_logging/hydralight.yaml", "root: {handlers: []}"),
    ],
)
def test_a_folder_with_a_config_of_hydras_name(file, body, guarded, bart_cnn, tmp_path):
    path = tmp_path / "foreign" / file
    path.parent.mkdir(parents=True)
    path.write_text(body)
    with pytest.raises(UserError, match="has the name of a config of Hydra"):
        hydralight.train([f"hydra.searchpath=[file://{tmp_path / 'foreign'}]", *bart_cnn])


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("local/default.yaml", "has a folder local"),
        ("debug/mine.yaml", "of yours or the template's"),
        ("debug/limit.yaml", "of yours or the template's"),
    ],
)
@pytest.mark.parametrize("way", ["file", "pkg", "link"])
def test_a_folder_with_a_config_of_our_name(
    file, sentence, way, guarded, bart_cnn, tmp_path, monkeypatch
):
    """What is trusted by its name is the user's own: `local`, and what the project has."""
    own, foreign = tmp_path / "own", tmp_path / "foreign"
    (own / "debug").mkdir(parents=True)
    (own / "debug/mine.yaml").write_text("# @package _global_\nseed: 1\n")
    (tmp_path / "pyproject.toml").write_text("[tool.hydralight]\nconfigs = 'own'\n")
    (foreign / file).parent.mkdir(parents=True)
    (foreign / "__init__.py").touch()
    (foreign / file).write_text("# @package _global_\nhydra: {job: {env_set: {HOSTILE: '1'}}}\n")
    if way == "link":
        (foreign / file).parent.rename(tmp_path / "linked")
        (foreign / file).parent.symlink_to(tmp_path / "linked")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "foreign", raising=False)
    place = "pkg://foreign" if way == "pkg" else f"file://{foreign}"
    project.projects.cache_clear()
    typed = [*bart_cnn, f"hydra.searchpath=[{place}]", "debug=mine", "check=true"]
    try:
        with pytest.raises(UserError, match=sentence):
            hydralight.train(typed)
    finally:
        project.projects.cache_clear()


def test_a_group_that_was_typed_and_comes_from_elsewhere(guarded, bart_cnn, tmp_path):
    """That it is named says what is wanted of it, not what else it holds."""
    path = tmp_path / "foreign/callbacks/better.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("# @package _global_\nhydra: {job: {env_set: {HOSTILE: '1'}}}\n")
    typed = [f"hydra.searchpath=[file://{tmp_path / 'foreign'}]", "callbacks=better"]
    with pytest.raises(UserError, match=PROGRAM):
        hydralight.train([*(o for o in bart_cnn if not o.startswith("callbacks")), *typed])


# ---------------------------------------------------------------- runs and checkpoints


@pytest.fixture(scope="module")
def trained(tiny_bart, articles, tmp_path_factory):
    """A run of one epoch, to be tampered with in copies."""
    files = ",".join(f"{s}:{articles / s}.jsonl" for s in ("train", "validation"))
    return hydralight.train(
        [
            "experiment=bart_cnn",
            f"checkpoint={tiny_bart}",
            f"data.path={{{files}}}",
            f"paths.log_dir={tmp_path_factory.mktemp('trained')}",
            "data.max_source_length=64",
            "generation.max_new_tokens=4",
            "trainer.max_epochs=1",
            "trainer.accelerator=cpu",
            "callbacks.rich_progress=null",
        ]
    ).path


RUNS = {
    "Hydra's node": ({"hydra": {"job": {"env_set": {"HOSTILE": "1"}}}}, PROGRAM),
    "a list of defaults": ({"defaults": ["_self_", {"experiment": "evil"}]}, PROGRAM),
    "a model's code": ({"model": {"trust_remote_code": True}}, CODE),
    "its own trust": ({"trust": ["remote_code"], "model": {"trust_remote_code": True}}, CODE),
    "a folder": ({"callbacks": {"best_model": {"dirpath": "GUARDED"}}}, PLACE),
    "an output folder": (
        {"callbacks": {"samples": {"dirpath": "${paths.there}"}}, "paths": {"there": "GUARDED"}},
        PLACE,
    ),
    "a variable": ({"tags": ["${oc.env:TEST_TOKEN}"]}, VARIABLE),
    "a shell": ({"callbacks": {"x": {"_target_": "os.getpid"}}}, LISTED),
    "W&B's server": (
        {"logger": {"x": {"_target_": "wandb.Settings", "base_url": "evil.example"}}},
        SENDS,
    ),
}


@pytest.mark.parametrize("command", ["train", "eval"])
@pytest.mark.parametrize("name", RUNS)
def test_a_hostile_run(name, command, guarded, trained, tmp_path):
    changes, sentence = RUNS[name]
    if command == "eval" and name == "W&B's server":
        pytest.skip("an evaluation has no loggers")
    run = shutil.copytree(trained, tmp_path / "run")
    path = run / ".hydra/config.yaml"
    changes = json.loads(written(json.dumps(changes), guarded))
    path.write_text(
        yaml.dump(OmegaConf.to_container(OmegaConf.merge(OmegaConf.load(path), changes)))
    )
    (run / ".hydra/experiment").mkdir()
    (run / ".hydra/experiment/evil.yaml").write_text("hydra: {job: {env_set: {HOSTILE: '1'}}}")
    key = {"train": "resume", "eval": "run"}[command]
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=sentence):
        start(command, [f"{key}={run}", *(["trainer.max_epochs=2"] if key == "resume" else [])])
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_what_a_run_may_not_say_of_its_command(guarded, trained, tmp_path, capsys):
    """Where predictions go, and what is predicted, is the command's to say."""
    run = shutil.copytree(trained, tmp_path / "run")
    path = run / ".hydra/config.yaml"
    evil = {"output": str(guarded / "ran"), "paths": {"output_dir": str(guarded)}}
    OmegaConf.save(OmegaConf.merge(OmegaConf.load(path), evil), path)
    hydra = run / ".hydra/hydra/job_logging"
    hydra.mkdir(parents=True)
    (hydra / "hydralight.yaml").write_text(f"handlers: {{x: {{filename: {guarded / 'ran'}}}}}")
    start("predict", [f"run={run}", "input=A storm."])
    assert json.loads(capsys.readouterr().out)["text"] == "A storm."


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("--config-dir=GUARDED", "is no override"),
        ("--multirun", "is no override"),
        ("hydra.job.env_set.HOSTILE=1", "only from what is typed"),
        ("+hydra={job: {env_set: {HOSTILE: 1}}}", "only from what is typed"),
        ("hydra/job_logging=none", "only from what is typed"),
        ("+callbacks@hydra.job.env_set=none", "only from what is typed"),
        ("trust=[remote_code]", "only from what is typed"),
        ("++output=GUARDED/x", "only from what is typed"),
        ("paths.output_dir=GUARDED", "only from what is typed"),
        ("paths={output_dir: GUARDED}", "only from what is typed"),
        ("++model.trust_remote_code=true", CODE),
        ("callbacks.best_model.dirpath=GUARDED", PLACE),
        ("tags=['${oc.env:TEST_TOKEN}']", VARIABLE),
        (7, "it should list texts"),
    ],
)
def test_what_resumes_have_changed(entry, sentence, guarded, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    entry = written(entry, guarded) if isinstance(entry, str) else entry
    (run / "resume.json").write_text(json.dumps(["trainer.max_epochs=2", entry]))
    with pytest.raises(UserError, match=sentence):
        hydralight.train([f"resume={run}"])


@pytest.mark.parametrize(
    "name", ["x hydra.job.env_set.HOSTILE=1", "../../guarded/x", "${oc.env:TEST_TOKEN}", "--cfg"]
)
def test_a_recipes_name_in_a_run(name, guarded, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    node = {"hydra": {"runtime": {"choices": {"experiment": name}}}}
    OmegaConf.save(OmegaConf.create(node), run / ".hydra/hydra.yaml")
    with pytest.raises(UserError, match="is no name of a recipe"):
        hydralight.train([f"resume={run}", "trainer.max_epochs=2"])


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("--config-dir=GUARDED", "is no override"),
        ("hydra.job.env_set.HOSTILE=1", "only from what is typed"),
        ("hydra.launcher.setup=[touch GUARDED/ran]", "only from what is typed"),
        ("hydra/launcher=../../x", "only from what is typed"),
        ("hydra.sweeper._target_=canary.run", "only from what is typed"),
        ("hydra.searchpath=[file://GUARDED]", "only from what is typed"),
        ("trust=[remote_code]", "only from what is typed"),
        ("resume=GUARDED", "only from what is typed"),
    ],
)
def test_a_hostile_sweep(entry, sentence, guarded, tmp_path):
    folder = tmp_path / "sweep"
    folder.mkdir()
    (folder / "sweep.json").write_text(json.dumps(["seed=1,2", written(entry, guarded)]))
    with pytest.raises(UserError, match=sentence):
        prepare("train", ["train.py", "-m", f"sweep={folder}"])


def test_jobs_of_a_sweep_are_composed_under_the_same_rule(guarded, tmp_path):
    """Recipes that are swept, and a search's own keys, come job by job."""
    path = tmp_path / "foreign/experiment/evil.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("# @package _global_\nhydra: {job: {env_set: {HOSTILE: '1'}}}\n")
    typed = (f"hydra.searchpath=[file://{tmp_path / 'foreign'}]", "experiment=quickstart,evil")
    with composing(Typed(typed)), initialize_config_dir(str(CONFIG_DIR), job_name="train"):
        loader = GlobalHydra.instance().hydra.config_loader
        assert type(loader) is Loader
        master = loader.load_configuration("train", list(typed), hydra_module.RunMode.MULTIRUN)
        assert loader.load_sweep_config(master, ["experiment=quickstart"]).seed == 42
        for job in (["experiment=evil"], ["+hydra.job.env_set.HOSTILE=1"], ["trust=[remote_code]"]):
            with pytest.raises(UserError, match=PROGRAM):
                loader.load_sweep_config(master, job)


@pytest.fixture
def foreign_model(tiny_bart, guarded, tmp_path):
    """A checkpoint whose config names a module in its folder, as models with own code do."""
    folder = shutil.copytree(tiny_bart, tmp_path / "foreign-model")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSeq2SeqLM": "modeling_theirs.Theirs"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_theirs.py").write_text(
        "from transformers import BartForConditionalGeneration\n"
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        "class Theirs(BartForConditionalGeneration):\n    pass\n"
    )
    return folder


def test_the_code_of_a_checkpoint(bart_cnn, foreign_model, tmp_path):
    """It runs where that is typed, and the sentence says which files it is."""
    ours = [*(o for o in bart_cnn if not o.startswith("checkpoint")), f"checkpoint={foreign_model}"]
    recipe = tmp_path / "foreign/experiment/theirs.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text(
        "# @package _global_\ndefaults: [bart_cnn]\nmodel: {trust_remote_code: true}\n"
    )
    theirs = [f"hydra.searchpath=[file://{tmp_path / 'foreign'}]", "experiment=theirs", *ours[1:]]
    hydralight.train([*ours, "check=true"])
    with pytest.raises(UserError, match=rf"modeling_theirs\.py of {foreign_model}: {CODE}"):
        hydralight.train([*theirs, "check=true"])
    assert not (tmp_path / "ran").exists()
    hydralight.train([*theirs, "check=true", "trust=[remote_code]"])
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("key", ["_attn_implementation", "experts_implementation"])
def test_kernels_that_a_checkpoint_names(key, tiny_bart, tmp_path):
    folder = shutil.copytree(tiny_bart, tmp_path / "theirs")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: "evil/kernels"}))
    for made in (
        Pretrained(checkpoint=str(folder)),
        Scratch(config={"checkpoint": str(folder)}),
    ):
        with pytest.raises(UserError, match="would run the kernels of evil/kernels"):
            made(AutoModelForSeq2SeqLM)
    if key == "_attn_implementation":  # what is typed takes the place of it
        Pretrained(checkpoint=str(folder), attn_implementation="sdpa")(AutoModelForSeq2SeqLM)


@pytest.mark.parametrize("name", ["pipeline", "AutoTokenizer", "os", "Theirs", None])
def test_a_run_whose_model_is_of_no_known_class(name, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    path = run / "model/config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "architectures": name and [name]}))
    (run / "model/checksums.json").unlink()
    with pytest.raises(UserError, match=f"is {name}, which is no model"):
        hydralight.Run(run).model  # noqa: B018


def test_a_saved_data_set_with_parts_elsewhere(tmp_path):
    rows = Dataset.from_dict({"text": ["mine"]})
    rows.save_to_disk(tmp_path / "mine")
    DatasetDict(train=rows).save_to_disk(tmp_path / "theirs")
    assert read_local(str(tmp_path / "theirs"), {})["train"]["text"] == ["mine"]
    state = tmp_path / "theirs/train/state.json"
    said = json.loads(state.read_text())
    said["_data_files"][0]["filename"] = "../../mine/data-00000-of-00001.arrow"
    state.write_text(json.dumps(said))
    with pytest.raises(UserError, match="which is not in the folder"):
        read_local(str(tmp_path / "theirs"), {})
    (tmp_path / "theirs/dataset_dict.json").write_text('{"splits": ["../mine"]}')
    with pytest.raises(UserError, match=r"names \.\./mine, which is not in the folder"):
        read_local(str(tmp_path / "theirs"), {})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("theirs.py", "raise SystemExit"),
        ("README.md", "---\ndataset_info: {features: [{name: a, dtype: {_type: b}}]}\n---\n"),
    ],
)
def test_a_data_folder_with_a_script_or_odd_features(name, text, articles, tmp_path):
    folder = shutil.copytree(articles, tmp_path / "theirs")
    (folder / name).write_text(text)
    with pytest.raises(UserError, match=f"The folder {folder} cannot be read"):
        read_local(str(folder), {})


def test_an_image_of_too_many_pixels(tmp_path):
    """A file of a few bytes may say that it is one of many gigabytes, decoded."""

    def part(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    size = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + part(b"IHDR", size)
        + part(b"IDAT", zlib.compress(b"0"))
        + part(b"IEND", b"")
    )
    with pytest.raises(UserError, match=r"bomb\.png cannot be read as an image: .* pixels"):
        open_image({"path": str(tmp_path / "bomb.png"), "bytes": None})


def test_a_checkpoint_that_would_have_more_returned_than_tokens(tiny_bart):
    model = Pretrained(checkpoint=str(tiny_bart))(AutoModelForSeq2SeqLM)
    model.generation_config.update(return_dict_in_generate=True, output_scores=True)
    configure_generation(model, {"max_new_tokens": 3})
    assert model.eval().generate(torch.tensor([[5, 6]])).shape[0] == 1


# ---------------------------------------------------------------- what still works


@pytest.mark.parametrize("experiment", [*EXPERIMENTS, "bert_mrpc logger=wandb callbacks=ema"])
def test_our_own_recipes_ask_for_no_trust_and_hold_no_secret(experiment, tmp_path):
    choices = [f"experiment={experiment}".replace(" ", "|").split("|")]
    typed = [*choices[0], "hparams_search=default"]
    with composing(Typed(tuple(typed))), initialize_config_dir(str(CONFIG_DIR), job_name="train"):
        register_resolvers()
        cfg = compose("train", typed)
    cfg.paths.output_dir = str(tmp_path)
    check_trust(cfg, Typed(), tmp_path)
    content = OmegaConf.to_container(cfg)
    assert redact(content) == content


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.trust_remote_code", True),
        ("task.torch_compile.options.cxx", "g++"),
        ("callbacks.best_model.dirpath", "/somewhere/else"),
        ("logger.x.tracking_uri", "https://ours.example"),
        ("logger.wandb.settings.base_url", "https://ours.example"),
    ],
)
def test_what_is_typed_or_local_is_trusted(key, value, tmp_path, monkeypatch):
    cfg = OmegaConf.create()
    OmegaConf.update(cfg, key, value, force_add=True)
    parent, _, name = key.rpartition(".")
    with pytest.raises(UserError):
        check_trust(cfg, Typed(("seed=1", f"{parent}=x")), tmp_path)
    check_trust(cfg, Typed((f"{key}={value}",)), tmp_path)
    check_trust(cfg, Typed((f"+{parent}={{{name}: '{value}'}}",)), tmp_path)
    (tmp_path / "local").mkdir()
    OmegaConf.save(cfg, tmp_path / "local/default.yaml")
    monkeypatch.setattr("hydralight.config.project.config_dirs", lambda: [tmp_path])
    check_trust(cfg, Typed(), tmp_path)
    OmegaConf.update(cfg, key, f"{value}/not")
    with pytest.raises(UserError):  # another value than the local one
        check_trust(cfg, Typed(), tmp_path)


def test_code_is_known_by_what_it_is_and_not_by_its_name(tmp_path, monkeypatch):
    """Any module of the whitelist may import it, or a class be made of it."""
    for base in (Evaluate, CmaEsSampler):
        of_it = type("Theirs", (base,), {"__module__": "hydralight.metrics.rouge"})
        for made in (base, of_it):
            monkeypatch.setattr("hydralight.metrics.rouge.Theirs", made, raising=False)
            origins.cache_clear()
            cfg = {"x": {"_target_": "hydralight.metrics.rouge.Theirs", "path": "canary.py"}}
            with pytest.raises(UserError, match=CODE):
                check_trust(OmegaConf.create(cfg), Typed(), tmp_path)
    origins.cache_clear()


def test_typed_program_keys_and_groups_of_ours_work(bart_cnn, tmp_path):
    typed = [*bart_cnn, "+hydra.job.env_set.TYPED=1", f"hydra.run.dir={tmp_path / 'mine'}"]
    typed += ["debug=limit", "callbacks=early_stopping", "check=true", "trust=[environment]"]
    assert hydralight.train([*typed, "tags=['${oc.env:TYPED}']"]) is None


def test_a_name_that_is_a_link_out_of_the_run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/x").symlink_to(tmp_path)
    for key in ("filename", "monitor"):
        for value, refused in (("x/y", True), ("val/loss", False), ("a\0b", False)):
            cfg = OmegaConf.create({"callbacks": {"a": {"_target_": "x.Y", key: value}}})
            with pytest.raises(UserError, match=PLACE) if refused else nullcontext():
                check_trust(cfg, Typed(), tmp_path / "run")


def test_tags_notes_and_names_are_texts(tmp_path):
    wandb = {"tags": ["https://x.example", "/a"], "notes": "s3://a ../b", "name": "https://x"}
    wandb["_target_"] = "lightning.pytorch.loggers.WandbLogger"
    check_trust(OmegaConf.create({"logger": {"wandb": wandb}}), Typed(), tmp_path)
    with pytest.raises(UserError, match=PLACE):
        check_trust(
            OmegaConf.create({"logger": {"wandb": {**wandb, "name": "../x"}}}), Typed(), tmp_path
        )


def test_keys_of_a_run_are_not_put_into_what_is_typed(tmp_path):
    (tmp_path / ".hydra").mkdir()
    odd = OmegaConf.create({"logger": {"csv=null,x": {"a": 1}}})
    OmegaConf.save(odd, tmp_path / ".hydra/config.yaml")
    with pytest.raises(UserError, match="no such name"):
        with_groups_off(["logger=null"], tmp_path)
    OmegaConf.save(OmegaConf.create({"logger": {"my-csv": 1}}), tmp_path / ".hydra/config.yaml")
    assert with_groups_off(["logger=null"], tmp_path) == ["logger.my-csv=null"]


def test_variables_that_are_given(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JWT", SECRET)
    monkeypatch.setenv("MY_DATA", "/data")
    ask = OmegaConf.create({"a": "${oc.env:SLURM_JOB_ID}", "b": "${oc.env:MY_DATA,x}"})
    jwt = OmegaConf.create({"a": "${oc.env:SLURM_JWT}", "c": "${oc.env:NOT_THERE,x}"})
    register_resolvers()
    assert (ask.a, jwt.c) == ("7", "x")
    for node, key in ((ask, "b"), (jwt, "a")):
        with pytest.raises(Exception, match=VARIABLE):
            _ = node[key]
    register_resolvers(Typed(("data.path=${oc.env:MY_DATA}/x.csv",)))
    assert ask.b == "/data"
    register_resolvers(Typed(("trust=[environment]",)))
    assert jwt.a == SECRET
    register_resolvers()


def test_a_projects_file_that_is_somebody_elses(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[tool.hydralight]\nwhitelist = ["os.*"]\n')
    monkeypatch.chdir(tmp_path)
    assert list(project._of_checkout())
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    if (tmp_path / "pyproject.toml").stat().st_uid == 0:
        os.chown(tmp_path / "pyproject.toml", 54321, -1)
    assert not list(project._of_checkout())


def test_a_hard_link_in_a_run(guarded, trained, tmp_path):
    """What is also somebody's elsewhere, or a backup's, is copied before it is written to."""
    run = shutil.copytree(trained, tmp_path / "run", copy_function=os.link)
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    (run / ".lock").unlink(missing_ok=True)
    os.link(guarded / "thesis.txt", run / ".lock")
    hydralight.train([f"resume={run}", "trainer.max_epochs=2"])
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_a_file_that_is_written_in_place_is_the_runs_own(tmp_path):
    """A log is opened and a folder locked before anybody has looked through it."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run").mkdir()
    for name in ("train.log", ".lock", "metrics.csv"):
        os.link(tmp_path / "mine", tmp_path / "run" / name)
    log = RunLog(tmp_path / "run/train.log")
    log.stream.write("more")
    log.close()
    with locked(tmp_path / "run"):
        pass
    append_text(tmp_path / "run/metrics.csv", "x")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "run/train.log").read_text() == "minemore"


def test_a_log_file_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "train.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        RunLog(tmp_path / "train.log")
    RunLog(tmp_path / "own.log").close()
    assert not (tmp_path / "elsewhere").exists()
