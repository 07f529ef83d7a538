"""`--help`: what a command does, what can be chosen and set, and examples."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from hydralight.config.project import CONFIG_DIR, config_dirs
from hydralight.shell import short

WIDTH = 80
COMMANDS = {
    "train": "Train what a recipe says; without arguments the quickstart, which needs no network.",
    "eval": "Evaluate the best model of a run, or any checkpoint with a recipe, on one split.",
    "predict": "Predict with the best model of a run, or with any checkpoint and a recipe.",
    "prepare": "Encode a corpus once, in shards, by all cores; interrupted, it goes on.",
    "publish": "Send a run's best model, its card and its results to the Hugging Face hub.",
    "report": "Make the tables and pictures of a run's or a sweep's directory again.",
}
OF_TRAINING = ("optimized_metric", "check", "test", "resume", "sweep")
EXAMPLES: dict[str, list[list[str]]] = {
    "train": [
        ["experiment=bart_cnn", "checkpoint=./my-bart", "data.path=./my.csv"],
        ["experiment=bert_mrpc", "optimizer.lr=1e-5", "callbacks=ema"],
        ["experiment=bert_mrpc", "check=true"],
        ["resume=latest", "trainer.max_epochs=8"],
        ["-m", "experiment=bert_mrpc", "optimizer.lr=1e-5,3e-5", "seed=1,2,3"],
    ],
    "eval": [
        ["run=latest"],
        ["run=latest", "split=test"],
        ["run=latest", "data.path=other.csv"],
        ["run=latest", "data.batch_size=64", "trainer=cpu"],
        ["experiment=bart_cnn", "checkpoint=./my-bart"],
    ],
    "prepare": [
        ["experiment=gpt2_scratch", "data.path=a.txt", "data.prepared=b"],
        ["experiment=gpt2_scratch", "data.prepared=b", "data.workers=16"],
        ["experiment=bart_cnn", "data.path=a.csv", "data.prepared=b"],
        ["experiment=gpt2_scratch", "data.prepared=b", "data.min_chars=200"],
        ["experiment=gpt2_scratch", "data.prepared=b"],
    ],
    "publish": [
        ["run=latest", "repo=user/name"],
        ["run=latest", "repo=user/name", "private=true"],
        ["run=latest", "repo=user/name", "revision=second"],
        ["run=logs/train/runs/a", "repo=organization/name"],
        ["run=logs/train/multiruns/a/3", "repo=user/name"],
    ],
    "predict": [
        ["run=latest", "input=Here comes a text."],
        ["run=latest", "input=texts.txt", "output=predictions.jsonl"],
        ["run=latest", "input=-", "format=json"],
        ["run=latest", "input=texts.csv", "generation.num_beams=1"],
        ["experiment=bart_cnn", "checkpoint=./my-bart", "input=texts.txt"],
    ],
}


def text_of(command: str, argv: Sequence[str] = ()) -> str:
    """Return what `--help` prints, in lines of 80 characters.

    Groups, their choices and the keys are read from the folders of configs, those of a project of
    the user's own too, so that there is no second list of them.

    Args:
        command: A command's name, or "" for what there is of commands.
        argv: What was typed beside `--help`; a `--config-dir` in it is looked at too.
    """
    if not command:
        listed = [_row(name, said) for name, said in COMMANDS.items()]
        return "\n".join(["hydralight <command> …", "", *listed, "", "hydralight train --help"])
    said = textwrap.wrap(COMMANDS[command], WIDTH)
    if command == "report":
        return "\n".join([*said, "", f"  {short(command)} <run or sweep directory>"])
    folders = [*config_dirs(), *_typed_folders(argv)]
    return "\n".join(
        [
            f"{short(command)} [group=choice …] [key=value …]",
            *("", *said, ""),
            "Groups and their choices: group=choice, and group=null switches one off",
            *(_row(group, " ".join(choices)) for group, choices in _groups(folders)),
            *("", "Keys: key=value; those of a group as group.key=value"),
            *(_row(key, text) for key, text in _keys(command)),
            *("", "Examples"),
            *(f"  {short(command, *words)}" for words in EXAMPLES[command]),
            *("", "--cfg job prints the whole config, --hydra-help what Hydra takes"),
        ]
    )


def _row(name: str, text: str) -> str:
    first, rest = f"  {name:<16}  ", " " * 20
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=rest)


def _groups(folders: Sequence[Path]) -> Iterator[tuple[str, list[str]]]:
    """Yield each group with its choices: recipes, then in the order of the template's defaults."""
    defaults = OmegaConf.load(CONFIG_DIR / "train.yaml").defaults
    known = [str(key) for one in defaults if isinstance(one, DictConfig) for key in one]
    found: dict[str, set[str]] = {}
    for path in (path for folder in folders for path in folder.glob("*/**/*.yaml")):
        folder = next(f for f in folders if path.is_relative_to(f))
        group, *rest = path.relative_to(folder).with_suffix("").parts
        found.setdefault(group, set()).add("/".join(rest))
    for group in dict.fromkeys(["experiment", *known, *sorted(found)]):
        if group in found and group not in ("hydra", "local", "paths"):
            yield group, sorted(found[group])


def _keys(command: str) -> Iterator[tuple[str, str]]:
    """Yield the keys at the root, a command's own first, with what is said beside them in YAML."""
    for name in dict.fromkeys([command, "train"]):
        text = (CONFIG_DIR / f"{name}.yaml").read_text(encoding="utf-8")
        for key, value, said in re.findall(r"^(\w+): ([^#\n]*?) *# (.*)$", text, re.MULTILINE):
            if command == "train" or key not in OF_TRAINING:
                yield key, said if value in ("null", "???") else f"{said} ({value})"


def _typed_folders(argv: Sequence[str]) -> Iterator[Path]:
    for place, argument in enumerate(argv):
        name, _, value = argument.partition("=")
        if name in ("--config-dir", "-cd"):
            yield Path(value or next(iter(argv[place + 1 :]), "."))
