"""One command in this process: from what was typed to the function that does it."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import execution_whitelist
from omegaconf import DictConfig, OmegaConf

from hydralight.config.check import ROOT_KEYS
from hydralight.config.composition import composing
from hydralight.config.explain import explain
from hydralight.config.project import CONFIG_DIR, projects
from hydralight.config.resolvers import register_resolvers
from hydralight.config.search_path import NAME, primary_config, taken_out, with_search_path
from hydralight.config.trust import check_trust
from hydralight.config.typed import Typed
from hydralight.config.whitelist import whitelist_of_hydra
from hydralight.errors import UserError
from hydralight.nodes.ranks import is_first, place, stand_alone
from hydralight.nodes.rendezvous import Rendezvous
from hydralight.runs import overrides as typed
from hydralight.runs.beside import arguments_beside
from hydralight.runs.elsewhere import on_other_devices
from hydralight.runs.files import refuse_links
from hydralight.runs.recorded import begun_with, config_of, earlier_overrides
from hydralight.runs.run import remove_if_unused
from hydralight.runs.secrets import redact_message, remember
from hydralight.runs.taken import refuse_keys_of_others, refuse_tokens

OF_A_RUN = "config_of_a_run"  # name of the config that a run has, in Hydra's store
ASKED_TO_END = 143  # what a training exits with on SIGTERM, all its processes alike
COMMAND = "HYDRALIGHT_COMMAND"  # tells it to the ranks that `hydralight <command>` starts by itself


@contextmanager
def together() -> Iterator[Rendezvous | None]:
    """Meet the processes that were started together with this one; None where it is alone.

    Raises:
        UserError: the first of them cannot be reached.
    """
    here = place()
    if here is None:
        stand_alone()
        yield None
        return
    met = Rendezvous(here)
    try:
        yield met
    except BaseException as error:
        if isinstance(error, SystemExit) and error.code in (None, 0, ASKED_TO_END):
            met.leave()
        else:
            met.stop(error)
        raise
    met.leave()


def prepare(command: str, argv: list[str], met: Rendezvous | None = None) -> tuple[str, Typed]:
    """Return the name of the primary config, and what counts as typed.

    For `resume=` and `run=` that is the run's own unresolved config; the arguments in `argv`
    (behind the program's name) are then replaced by those that merge onto it.

    Args:
        command: `train`, `eval`, `predict`, `prepare` or `publish`.
        argv: The program's name and its arguments.
        met: The processes that were started together with this one, the first of which decides the
            directory.
    """
    projects()  # which also lets their packages be imported
    if met is not None:
        if command == "predict" or typed.is_sweep(argv):
            what = "predict.py" if command == "predict" else "a sweep"
            raise UserError(f"{what} is started as one process: leave out the others.")
        if not met.place.first:
            argv[1:] = arguments_beside(command, *met.decided(), argv[1:])
    argv[1:] = with_search_path(argv[1:])
    primary = primary_config(command, argv[1:])
    keys = [typed.key_of(argument) or "" for argument in argv[1:]]
    for argument, key in zip(argv[1:], keys, strict=True):
        value = argument.partition("=")[2]
        named = key in ROOT_KEYS or key.startswith("paths.")
        if named and "=" in argument and value in ("", "''", '""'):
            raise UserError(f"{key} has no value: give one as {key}=…, or leave it out.")
        if key in ("run", "resume", "sweep", "input") and keys.count(key) > 1:
            raise UserError(f"{key}= is given more than once: leave all of them out except one.")
    if typed.is_sweep(argv):
        for key in ("resume", "run"):
            if typed.free_text(key, argv[1:]) is not None:
                raise UserError(f"{key}= names one run, and -m is for several: leave out -m.")
        if command != "train":
            raise UserError(f"-m is for training: python {command}.py takes one run at a time.")
    typed.refuse_read_space(argv[1:])
    refuse_tokens(argv[1:])
    users = set(argv[1:])
    remember(users)
    sweep_dir = typed.named_sweep(argv) if command == "train" else None
    kept: list[str] = []
    if sweep_dir is not None:
        kept = begun_with(sweep_dir, argv[1:])
        argv[1:] = typed.arguments_in_sweep(sweep_dir, kept, argv[1:])
    searches = any(typed.key_of(argument) == "hparams_search" for argument in argv[1:])
    flags = ("-m", "--multirun", "-c", "--cfg", "--help", "hydra.mode=")
    if searches and command == "train" and not any(a.startswith(flags) for a in argv[1:]):
        raise UserError("hparams_search is for sweeps: python train.py -m …")
    run_dir = None if sweep_dir is not None else typed.named_run(command, argv)
    before = earlier_overrides(run_dir) if run_dir is not None else []
    # a relaunched rank has them all
    refuse_keys_of_others(command, [a for a in argv[1:] if a not in before])
    argv[1:] = typed.with_groups_off(argv[1:], run_dir)
    if run_dir is None:
        argv[1:] = typed.with_own_configs(argv[1:])
        argv[1:] = [typed.quoted_input(a) if command == "predict" else a for a in argv[1:]]
        read = {a for a in kept if not (typed.key_of(a) or "").startswith("hydra")} - users
        return primary, Typed(tuple(a for a in argv[1:] if a not in read))
    if primary != command:
        raise UserError(f"--config-name={primary}: {run_dir} has its own config: leave it out.")
    before, argv[1:] = on_other_devices(run_dir, before, argv[1:])
    argv[1:] = typed.arguments_in_run(command, run_dir, before, argv[1:])
    ConfigStore.instance().store(OF_A_RUN, config_of(run_dir), replace=True)
    read = set(before) - users
    return OF_A_RUN, Typed(tuple(a for a in argv[1:] if a not in read))


def start(command: str, overrides: Sequence[str], typed_before: Typed | None = None) -> Path | None:
    """Do in this process what the command line does, raising errors.

    Args:
        command: `train`, `eval`, `predict`, `prepare` or `publish`.
        overrides: As on the command line.
        typed_before: What of them was typed, where a search has added to it.

    Returns:
        The run's directory; None where nothing was to be written (`check`, `fast_dev_run`).
    """
    return call(command, overrides, typed_before)[0]


def call(
    command: str, overrides: Sequence[str], typed_before: Typed | None = None
) -> tuple[Path | None, Any]:
    """Do the same, and return what the command's function returns beside the directory."""
    with together() as met:
        return _call(command, overrides, typed_before, met)


def _call(
    command: str, overrides: Sequence[str], typed_before: Typed | None, met: Rendezvous | None
) -> tuple[Path | None, Any]:
    argv = [command, *overrides]
    config_name, was_typed = prepare(command, argv, met)
    _, argv = taken_out(argv, NAME)
    for flag in argv[1:]:
        if flag.startswith("-"):
            raise UserError(f"{flag} is an option of the command line: leave it out.")
    was_typed = typed_before or was_typed
    register_resolvers(was_typed)
    run_dirs, raised, returned = [], [], []

    def job(cfg: DictConfig) -> None:
        run_dirs.append(Path(HydraConfig.get().runtime.output_dir))
        try:
            returned.append(run(command, cfg, run_dirs[0], was_typed, met))
        except Exception as error:  # Hydra would print the overrides, secrets included
            raised.append(error)

    try:
        with (
            composing(was_typed),
            initialize_config_dir(str(CONFIG_DIR), job_name=command),
            execution_whitelist(whitelist_of_hydra()),
        ):
            application = GlobalHydra.instance().hydra
            assert application is not None
            application.run(config_name, job, argv[1:], with_log_configuration=False)
        if raised:
            raise raised[0]
    except Exception as error:
        sentence = explain(error)
        if sentence is None or (
            isinstance(error, UserError) and redact_message(sentence) == sentence
        ):
            raise
        raise UserError(redact_message(sentence)) from (
            error if redact_message(str(error)) == str(error) else None
        )
    return run_dirs[0] if run_dirs[0].exists() else None, returned[0]


def run(
    command: str,
    cfg: DictConfig,
    run_dir: Path,
    was_typed: Typed,
    met: Rendezvous | None = None,
) -> Any:
    """Run one command on a composed config, in its directory; imports the heavy libraries.

    Args:
        command: `train`, `eval`, `predict`, `prepare` or `publish`.
        cfg: The composed config.
        run_dir: The run's directory.
        was_typed: What of the config is trusted.
        met: The processes that were started together with this one, which do the same.
    """
    refuse_links(run_dir)
    # of this process's making
    fresh = is_first() and all(path.suffix == ".log" for path in run_dir.iterdir())
    ended = False

    def leave() -> None:
        if fresh and not ended:
            remove_if_unused(run_dir)

    try:
        if met is not None:
            met.agree(run_dir, cfg)
        # OpenMP's threads spin while they wait, and starve those of another run on the same cores
        if "OMP_WAIT_POLICY" not in os.environ:
            os.environ.setdefault("GOMP_SPINCOUNT", "1000")
        function = function_of(command)
        # what was typed has been checked against the config by now
        OmegaConf.set_struct(cfg, False)
        if command != "train" and "push" in (cfg.get("callbacks") or ()):
            cfg.callbacks.pop("push")  # which nothing else uses
        check_trust(cfg, was_typed, run_dir, () if command == "publish" else None)
        with nullcontext() if met is None else met.watching(leave):
            returned = call_it(function, cfg, run_dir)
        # a training may be one that was to leave nothing, and what is prepared is elsewhere
        ended = command not in ("train", "prepare")
        return returned
    finally:
        leave()


def call_it(function: Callable[[DictConfig, Path], Any], cfg: DictConfig, run_dir: Path) -> Any:
    """Call what does a command; what a library refuses is told with the key that named it.

    Raises:
        UserError: a library has refused something of the config.
    """
    try:
        return function(cfg, run_dir)
    except Exception as error:
        sentence = explain(error, cfg)
        if sentence is None or isinstance(error, UserError):
            raise
        raise UserError(sentence) from error


def function_of(command: str) -> Callable[[DictConfig, Path], Any]:
    """Return what does a command."""
    # transformers imports it where it is there, and it tells what else could be
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    function: Any
    if command == "train":
        from hydralight.training import train as function
    elif command == "eval":
        from hydralight.evaluation import evaluate as function
    elif command == "prepare":
        from hydralight.preparation import prepare_corpus as function
    elif command == "publish":
        from hydralight.publishing import publish as function
    else:
        from hydralight.prediction import predict as function
    return function
