"""What messages and documents tell users to type can be typed, without a plus sign."""

import ast
import re
import shlex
from functools import cache

import pytest
from conftest import EXPERIMENTS, ROOT
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException
from hydra.utils import get_object
from omegaconf import OmegaConf

from hydralight.config.check import parameters
from hydralight.config.opening import open_keys
from hydralight.config.project import CONFIG_DIR, PACKAGE
from hydralight.config.ranges import of_ours
from hydralight.config.signatures import arguments_of
from hydralight.errors import UserError
from hydralight.runs.overrides import parsed

GROUPS = "task|model|tokenizer|generation|data|optimizer|scheduler|trainer|callbacks|logger"
GROUPS += "|hparams_search|paths"
# a key with a value, or a mapping; a key alone, where it has three parts
OPTION = re.compile(
    rf"(?<![\w./+\[])\+*(?:{GROUPS})(?:\.[a-z_]\w*)+=(?:\{{[^{{}}]*\}}|[^\s`'\"|);,]*)"
)
NAMED = re.compile(rf"(?<![\w./+\[])(?:{GROUPS})(?:\.[a-z_]\w*){{2,}}(?![\w(.=/])")
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# of the documents' own examples: an argument of the reader's own code, and of the quickstart's
THEIRS = re.compile(r"margin|num_train|\.x(=|\.)")
# what an option may be for: recipes of all tasks, and choices of groups
CONTEXTS = [("experiment=bart_cnn",), ("experiment=bert_mrpc",), ("experiment=distilgpt2_sonnets",)]
CONTEXTS += [("experiment=vit_cxr14",), ("experiment=vit_digits",), ("experiment=bert_swag",)]
CONTEXTS += [("experiment=bert_ner_conll2003",), ("experiment=bert_squad",)]
CONTEXTS += [("experiment=marian_wmt16_en_ro",), ("experiment=roberta_mlm_wikitext",)]
CONTEXTS += [("experiment=qwen_sft_chat",), ("experiment=qwen_dpo",), ("experiment=reward_model",)]
CONTEXTS += [("experiment=minilm_nli",), ("experiment=transformer_xl_reviews",)]
CONTEXTS += [("experiment=grpo_sort",), ("experiment=kto",), ("experiment=gpt2_openwebtext",)]
CONTEXTS += [("experiment=llama_fineweb",), ("callbacks=push",)]
CONTEXTS += [("optimizer=adafactor_hf",), ("optimizer=apollo",)]
CONTEXTS += [("scheduler=warmup_stable_decay",), ("scheduler=reduce_on_plateau",)]
PRUNER = "hparams_search.pruner._target_=optuna.pruners.MedianPruner"
CONTEXTS += [("logger=wandb",), ("hparams_search=default", PRUNER)]
COMMAND = re.compile(
    r"^(?:python (?:train|eval|predict)\.py|hydralight (?:train|eval|predict)) (.*)"
)


def texts():
    """Files with the texts in them: messages of the source, documents, comments of YAML."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name != "opening.py":
            for node in ast.walk(ast.parse(path.read_text())):
                yield from ((path, text) for text in strings(node))
    for path in DOCS:
        text = path.read_text()
        yield from ((path, code) for code in re.findall(r"`([^`\n]+)`", text))
        yield from ((path, block) for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
    for path in sorted(CONFIG_DIR.rglob("*.yaml")):
        yield from ((path, comment) for comment in re.findall(r"# (.*)", path.read_text()))


def strings(node):
    if isinstance(node, ast.JoinedStr):
        yield "".join(v.value if isinstance(v, ast.Constant) else "x" for v in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
        yield node.value


def options():
    """Whatever is named, as an override, with its file's name; a value that is cut off is x."""
    found = {}
    for path, text in texts():
        matches = OPTION.findall(text)
        if path.suffix == ".py":
            matches += [f"{match}=x" for match in NAMED.findall(text)]
        for match in matches:
            key, _, value = match.partition("=")
            whole = value and value[-1] not in ".:," and not re.search(r"[<%…]|: x", value)
            option = match if whole and parsed(match) else f"{key}=x"
            if not THEIRS.search(option) and not key.startswith("++"):
                found.setdefault(option, path.name)
    return found


def commands():
    """Whole command lines of the documents and of the headers of YAML files, as arguments."""
    for path, text in texts():
        lines = text.replace("\\\n", "").splitlines() if path.suffix == ".md" else [text]
        if path.name == "data.md":
            lines = [f"python train.py {x}" if x.startswith("experiment=") else x for x in lines]
        for line in lines:
            command = COMMAND.match(line)
            if (
                command
                and path.suffix != ".py"
                and not re.search(r"<|…|=mine|=best\b|resume=|run=", line)
            ):
                yield path.name, shlex.split(command[1].replace('\\"', '"'), comments=True)


@cache
def composed(*choices):
    with initialize_config_dir(str(CONFIG_DIR), job_name="train"):
        return OmegaConf.to_container(compose("train", list(choices)), resolve=False)


def typed(cfg, *arguments):
    """What Hydra makes of arguments, without composing the files anew."""
    overrides = OverridesParser.create().parse_overrides(list(arguments))
    groups = {override.key_or_group.partition(".")[0] for override in overrides}
    cfg = OmegaConf.create({group: cfg[group] for group in groups & cfg.keys()})
    open_keys(cfg, overrides)
    OmegaConf.set_struct(cfg, True)
    ConfigLoaderImpl._apply_overrides_to_config(overrides, cfg)
    return cfg


def fits(option):
    """Whether an option composes with some recipe."""
    for context in CONTEXTS:
        try:
            typed(composed(*context), option)
        except (UserError, ConfigCompositionException):
            continue
        return True
    return False


OPTIONS = options()


def test_options_are_found():
    assert len(OPTIONS) > 120
    for option in ("data.reader.format=x", "optimizer.fused=false", "data.reader={quoting: 3}"):
        assert option in OPTIONS


@pytest.mark.parametrize("file", sorted(set(OPTIONS.values())))
def test_what_is_named_needs_no_plus(file):
    named = [option for option in OPTIONS if OPTIONS[option] == file]
    assert [option for option in named if option.startswith("+")] == []
    assert [option for option in named if not fits(option)] == []


def test_whole_commands_compose():
    """Groups are chosen, and values are merged, as the command lines of the documents say."""
    tried = 0
    for name, arguments in commands():
        groups = [a for a in arguments if is_choice(a) and "," not in a]
        values = [a for a in arguments if "." in a.partition("=")[0] and not is_sweep(a)]
        recipes = [a.partition("=")[2] for a in groups if a.startswith("experiment=")]
        if not set(recipes) <= {"quickstart", *EXPERIMENTS}:  # of a project of one's own
            continue
        assert not any(argument.startswith("+") for argument in arguments), (name, arguments)
        if not any("my_package" in value for value in values):
            typed(composed(*groups), *[v for v in values if not v.startswith("hydra.")])
            tried += 1
    assert tried > 35


def is_choice(argument):
    group, equals, _ = argument.partition("=")
    return bool(equals) and "/" not in group and (CONFIG_DIR / group).is_dir()


def is_sweep(argument):
    return OverridesParser.create().parse_override(argument).is_sweep_override()


ADDED = {
    "trainer.limit_predict_batches=2": "trainer.limit_predict_batches",
    "data.reader.sep=;": None,  # no value for Hydra
    "data.reader={sep: ';', encoding: latin-1}": "data.reader.encoding",
    "optimizer.betas=[0.9,0.95]": "optimizer.betas",
    "model.config.hidden_dropout_prob=0.3": "model.config.hidden_dropout_prob",
    "generation.repetition_penalty=1.2": "generation.repetition_penalty",
    "callbacks.early_stopping={_target_: lightning.pytorch.callbacks.EarlyStopping, patience: 2}": (
        "callbacks.early_stopping.patience"
    ),
    "data.path={test: x.csv}": "data.path.test",
    "scheduler.options={num_cycles: 2}": "scheduler.options.num_cycles",
}


@pytest.mark.parametrize("option", [option for option, key in ADDED.items() if key])
def test_arguments_are_added(option):
    value = OmegaConf.select(typed(composed("experiment=bert_mrpc"), option), ADDED[option])
    assert value is not None


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("trainer.limit_val_batch=1", "'limit_val_batch' in 'trainer'; did you mean 'limit_val_b"),
        ("generation.num_beam=3", "'num_beam' in 'generation'; did you mean 'num_beams'"),
        ("data.batchsize=3", "did you mean 'batch_size'"),
        ("data.format=csv", "it is an option of the reader of files: data.reader.format="),
        ("task.loss.margin=1", "task.loss._target_ names nothing"),
        ("seed.x=1", "seed=42 is a single value, and has no key 'x'"),
        ("tags.x=1", "tags is a list, and has no key 'x': give it whole, tags=[…]"),
        ("data.columns=[a,b]", "should be a mapping: data.columns={text: …, text_pair: …, label"),
        ("model.freeze={a: b}", "should be a list: model.freeze="),
        (
            "callbacks.x={_target_: lightning.pytorch.callbacks.EarlyStopping, patence: 2}",
            "no key 'patence' in 'callbacks.x'; did you mean 'patience'",
        ),
    ],
)
def test_what_is_not_taken_is_told(option, sentence):
    with pytest.raises(UserError) as raised:
        typed(composed("experiment=bert_mrpc"), option)
    assert sentence in str(raised.value)


def test_signatures_are_those_that_are_imported():
    """What is read from sources is what Python says, for every target of the YAML files."""
    targets = set()
    for path in CONFIG_DIR.rglob("*.yaml"):
        targets |= set(re.findall(r"^\s*_target_: ([\w.]+)$", path.read_text(), re.MULTILINE))
    compared = 0
    for target in sorted(targets - {"null", "hydralight.sweeps.sweeper.StudySweeper"}):
        read = arguments_of(target)
        if read is not None and not target.startswith("hydralight.progress"):
            accepted, takes_any = parameters(get_object(target))
            own = accepted.keys() - of_ours(get_object(target)).keys()
            assert read == (frozenset(own), takes_any), target
            compared += 1
    assert compared > 40
