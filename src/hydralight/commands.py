"""One command in this process: from what was typed to the function that does it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import execution_whitelist
from omegaconf import DictConfig, OmegaConf

from hydralight.config.check import ROOT_KEYS
from hydralight.config.explain import explain
from hydralight.config.project import CONFIG_DIR, projects
from hydralight.config.resolvers import register_resolvers
from hydralight.config.whitelist import whitelist
from hydralight.errors import UserError
from hydralight.runs import overrides as typed
from hydralight.runs.run import remove_if_unused

COMMAND = "HYDRALIGHT_COMMAND"  # tells it to the ranks that `hydralight <command>` starts by itself


def prepare(command: str, argv: list[str]) -> tuple[Path, str]:
    """Return where the primary config is, and its name.

    For `resume=` and `run=` that is the run's own unresolved config; the arguments in `argv`
    (behind the program's name) are then replaced by those that merge onto it.
    """
    projects()  # which also lets their packages be imported
    for argument in argv[1:]:
        key, value = typed.key_of(argument) or "", argument.partition("=")[2]
        named = key in ROOT_KEYS or key.startswith("paths.")
        if named and "=" in argument and value in ("", "''", '""'):
            raise UserError(f"{key} has no value: give one as {key}=…, or leave it out.")
    sweep_dir = typed.named_sweep(argv) if command == "train" else None
    if sweep_dir is not None:
        argv[1:] = typed.arguments_in_sweep(sweep_dir, argv[1:])
    searches = any(typed.key_of(argument) == "hparams_search" for argument in argv[1:])
    flags = ("-m", "--multirun", "-c", "--cfg", "--help", "hydra.mode=")
    if searches and not any(argument.startswith(flags) for argument in argv[1:]):
        raise UserError(f"hparams_search is for sweeps: python {command}.py -m …")
    run_dir = None if sweep_dir is not None else typed.named_run(command, argv)
    argv[1:] = typed.with_groups_off(argv[1:], run_dir)
    if run_dir is None:
        argv[1:] = typed.with_own_configs(argv[1:])
        argv[1:] = [typed.quoted_input(a) if command == "predict" else a for a in argv[1:]]
        return CONFIG_DIR, command
    argv[1:] = typed.arguments_in_run(command, run_dir, argv[1:])
    return run_dir / ".hydra", "config"


def start(command: str, overrides: Sequence[str]) -> Path | None:
    """Do in this process what the command line does, raising errors.

    Returns:
        The run's directory; None where nothing was to be written (`check`, `fast_dev_run`).
    """
    return call(command, overrides)[0]


def call(command: str, overrides: Sequence[str]) -> tuple[Path | None, Any]:
    """Do the same, and return what the command's function returns beside the directory."""
    register_resolvers()
    argv = [command, *overrides]
    config_dir, config_name = prepare(command, argv)
    run_dirs, raised, returned = [], [], []

    def job(cfg: DictConfig) -> None:
        run_dirs.append(Path(HydraConfig.get().runtime.output_dir))
        try:
            returned.append(run(command, cfg, run_dirs[0]))
        except Exception as error:  # Hydra would print the overrides, secrets included
            raised.append(error)

    try:
        with (
            initialize_config_dir(str(config_dir), job_name=command),
            execution_whitelist(whitelist()),
        ):
            application = GlobalHydra.instance().hydra
            assert application is not None
            application.run(config_name, job, argv[1:], with_log_configuration=False)
        if raised:
            raise raised[0]
    except Exception as error:
        sentence = explain(error)
        if sentence is None or isinstance(error, UserError):
            raise
        raise UserError(sentence) from error
    return run_dirs[0] if run_dirs[0].exists() else None, returned[0]


def run(command: str, cfg: DictConfig, run_dir: Path) -> Any:
    """Run one command on a composed config, in its directory; imports the heavy libraries."""
    # OpenMP's threads spin while they wait, and starve those of another run on the same cores
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    function: Any
    if command == "train":
        from hydralight.training import train as function
    elif command == "eval":
        from hydralight.evaluation import evaluate as function
    else:
        from hydralight.prediction import predict as function
    OmegaConf.set_struct(cfg, False)  # what was typed has been checked against the config by now
    for group in ("callbacks", "logger", "generation", "scheduler"):
        cfg.setdefault(group, None)  # of a group that is switched off
    try:
        return function(cfg, run_dir)
    except Exception as error:
        if not (cfg.get("run") or cfg.get("resume")):  # then it is not of this process's making
            remove_if_unused(run_dir)
        sentence = explain(error, cfg)
        if sentence is None or isinstance(error, UserError):
            raise
        raise UserError(sentence) from error
