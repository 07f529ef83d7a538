"""`--help` and the completion of a shell, which both read what there is from the configs."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from omegaconf import DictConfig, OmegaConf

from hydralight.config.project import CONFIG_DIR
from hydralight.help import EXAMPLES, text_of
from hydralight.runs.overrides import parsed
from hydralight.shell import short

OWN = ROOT / "examples/own_project"


@pytest.mark.parametrize("command", EXAMPLES)
def test_help_has_the_groups_their_choices_the_keys_and_examples(command):
    lines = text_of(command).splitlines()
    assert len(lines) < 70
    assert max(map(len, lines)) <= 80
    words = " ".join(lines).split()
    assert words.count("experiment") == 1  # as a group
    groups = [one for one in CONFIG_DIR.iterdir() if one.is_dir()]
    shown = [g for g in groups if g.name not in ("hydra", "local", "paths")]
    assert len(shown) > 10
    for group in shown:
        assert {group.name, *(path.stem for path in group.glob("*.yaml"))} <= set(words)
    keys = OmegaConf.load(CONFIG_DIR / f"{command}.yaml").keys() - {"defaults", "hydra"}
    for key in keys:
        (row,) = [line.split(maxsplit=1) for line in lines if line.startswith(f"  {key} ")]
        assert len(row) == 2, f"{key} has no word on what it is"
    examples = [line for line in lines if line.startswith(f"  hydralight {command} ")]
    assert len(examples) == 5


def test_a_line_is_written_for_a_script_of_ours_or_for_the_program(monkeypatch):
    for started, start in [
        ("/far/train.py", "python eval.py"),
        ("/bin/hydralight", "hydralight eval"),
        ("/lib/pytest/__main__.py", "hydralight eval"),
        ("-c", "hydralight eval"),
    ]:
        monkeypatch.setattr("sys.argv", [started])
        assert short("eval", "run=a b") == f"{start} 'run=a b'"


def test_examples_name_what_there_is():
    """Groups have the choices, and keys of the config are spelt as there."""
    config = OmegaConf.load(CONFIG_DIR / "train.yaml")
    groups = {key for one in config.defaults if isinstance(one, DictConfig) for key in one}
    own = {"run", "split", "input", "output", "format", "repo", "private", "revision"}
    for words in (words for examples in EXAMPLES.values() for words in examples):
        for word in (word for word in words if not word.startswith("-")):
            override = parsed(word)
            root = override.key_or_group.split(".")[0]
            assert root in groups or root in config or root in own
            if override.key_or_group in groups:
                assert (CONFIG_DIR / root / f"{override.value()}.yaml").is_file()


def test_help_knows_an_own_project_and_a_folder_that_is_typed(monkeypatch, tmp_path):
    assert "ratings" not in text_of("train").split()
    monkeypatch.setattr("hydralight.help.config_dirs", lambda: [CONFIG_DIR, OWN / "configs"])
    (tmp_path / "robot").mkdir()
    (tmp_path / "robot/arm.yaml").touch()
    words = text_of("train", ["--help", "--config-dir", str(tmp_path)]).split()
    assert {"ratings", "lion_for_ratings", "ordinal", "robot", "arm"} <= set(words)


def test_help_is_quick():
    """It neither composes a config nor imports what is heavy."""
    code = (
        "import sys; sys.argv = ['/far/away/train.py', '--help']; from hydralight.cli import main; "
        "main('train'); heavy = {'torch', 'pandas', 'rich', 'transformers', 'fsspec', 'aiohttp'}; "
        "assert not heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("python train.py [group=choice …]")


ASK = """
ask() {
  COMP_LINE="$1"; COMP_POINT=${#1}; words=($1); COMP_CWORD=$(( ${#words[@]} - 1 ))
  COMPREPLY=(); hydra_bash_completion; echo "${COMPREPLY[@]}"
}
"""


def asked(lines, install, folder):
    """Ask bash, as it asks when the tabulator is pressed."""
    script = f'{ASK}\neval "$({install} -sc install=bash)"\n'
    script += "".join(f"ask '{line}'\n" for line in lines)
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    environment["PYTHONPATH"] = str(CONFIG_DIR.parent / "src")
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def test_bash_completes_scripts():
    lines = ["python train.py experiment=bert_sq", "python eval.py spl"]
    squad = ["experiment=bert_squad", "experiment=bert_squad_v2"]
    assert asked(lines, "python train.py", ROOT) == [squad, ["split="]]


def test_bash_completes_commands_and_the_configs_of_an_own_project():
    lines = ["hydralight pre", "hydralight train experiment=rat", "hydralight train -m trainer.dev"]
    found = [["predict", "prepare"], ["experiment=ratings"], ["trainer.devices="]]
    assert asked(lines, "hydralight", OWN) == found
