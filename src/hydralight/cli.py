"""The command line: Hydra composes, one function of ours runs, and failures are one sentence."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, OverrideParseException
from hydra.types import RunMode
from hydra.utils import execution_whitelist
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydralight import runs
from hydralight.config import CONFIG_DIR, WHITELIST, UserError, did_you_mean, register_resolvers


def main(command: str) -> None:
    """Run `train`, `eval` or `predict` with what was typed; exit with 1 on a user's mistake."""
    register_resolvers()
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        config_dir, config_name = prepare(command, sys.argv)
        os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to the handler below
        hydra.main(
            config_path=str(config_dir), config_name=config_name, execution_whitelist=WHITELIST
        )(_job(command, show_traceback))()
    except Exception as error:
        exit_with(error, show_traceback)


def prepare(command: str, argv: list[str]) -> tuple[Path, str]:
    """Return where the primary config is, and its name.

    For `resume=` and `run=` that is the run's own unresolved config; the arguments in `argv`
    (behind the program's name) are then replaced by those that merge onto it.
    """
    run_dir = runs.named_on_command_line(command, argv)
    if run_dir is None:
        argv[1:] = [runs.quoted_text(a) if command == "predict" else a for a in argv[1:]]
        return CONFIG_DIR, command
    argv[1:] = runs.arguments_in_run(command, run_dir, argv[1:])
    return run_dir / ".hydra", "config"


def start(command: str, overrides: Sequence[str]) -> Path | None:
    """Do in this process what the command line does, raising errors.

    Returns:
        The run's directory; None where nothing was to be written (`check`, `fast_dev_run`).
    """
    register_resolvers()
    argv = [command, *overrides]
    config_dir, config_name = prepare(command, argv)
    run_dirs = []

    def job(cfg: DictConfig) -> Any:
        run_dirs.append(Path(HydraConfig.get().runtime.output_dir))
        return run(command, cfg, run_dirs[0])

    try:
        with (
            initialize_config_dir(str(config_dir), job_name=command),
            execution_whitelist(WHITELIST),
        ):
            application = GlobalHydra.instance().hydra
            assert application is not None
            result = application.run(config_name, job, argv[1:], with_log_configuration=False)
            _ = result.return_value  # raises what the job has raised
    except Exception as error:
        sentence = explain(error)
        if sentence is None or isinstance(error, UserError):
            raise
        raise UserError(sentence) from error
    return run_dirs[0] if run_dirs[0].exists() else None


def exit_with(error: Exception, show_traceback: bool) -> None:
    """Print one sentence and exit with 1; raise what is our own bug."""
    sentence = explain(error)
    if sentence is None or show_traceback:
        raise error
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(1)


def _job(command: str, show_traceback: bool) -> Any:
    def job(cfg: DictConfig) -> Any:
        os.environ.pop("HYDRA_FULL_ERROR", None)  # not for the processes that a job starts
        try:
            return run(command, cfg, Path(HydraConfig.get().runtime.output_dir))
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # an exit would end the whole sweep
            exit_with(error, show_traceback)
        finally:
            os.environ["HYDRA_FULL_ERROR"] = "1"

    return job


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
    try:
        return function(cfg, run_dir)
    except Exception:
        if not (cfg.get("run") or cfg.get("resume")):  # then it is not of this process's making
            runs.remove_if_unused(run_dir)
        raise


def explain(error: BaseException) -> str | None:
    """Put an exception into the one sentence a user is shown, or None where it is our own bug."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError) or type(cause).__name__ == "MisconfigurationException":
            # a loader's worker sends its whole traceback
            return str(cause).strip().split("UserError: ")[-1]
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ValueError) and "/lightning/" in _raised_in(error):
        return " ".join(str(error).split())
    if type(error).__module__.startswith("wandb."):
        return f"W&B: {error} (or keep the run here: logger.wandb.offline=true)"
    if isinstance(error, OverrideParseException):
        return (
            f"'{error.override}' is not a valid override; a value with brackets, colons, commas, "
            "spaces or signs in it needs quotes of its own, as in 'data.path=\"my.csv[:100]\"'"
        )
    if isinstance(error, ConfigCompositionException):
        return _composition_error(error)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return " ".join(str(error).split())
    return None


def _composition_error(error: ConfigCompositionException) -> str:
    missing = getattr(error, "missing_cfg_file", None)
    if missing is not None:
        group, _, choice = missing.rpartition("/")
        options = sorted(getattr(error, "options", None) or ())
        if not group:
            return _first_line(str(error))
        near = did_you_mean(choice, options)
        return f"there is no '{choice}' in configs/{group}{near} (there are: {', '.join(options)})"
    unmatched = re.match(
        r"Could not override '([^'@]+)'.*\nNo match in the defaults list", str(error)
    )
    if unmatched:
        group = unmatched[1]
        return (
            f"a run's own config takes {group}.<key>=<value>, or a whole group as +{group}=<name>"
        )
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        parent = cause.parent_node
        where = f"'{cause.full_key}'"
        if cause.key is not None and parent is not None and hasattr(parent, "keys"):
            known = [str(key) for key in parent]
            key = str(cause.key)
            if key not in known:
                at = f" in '{parent._get_full_key(None)}'" if parent._get_full_key(None) else ""
                near = did_you_mean(key, known)
                return f"there is no key '{key}'{at}{near} (to add one, write +{cause.full_key}=…)"
        return f"{where}: {_first_line(str(cause))}"
    return " ".join(str(error).split())


def _raised_in(error: BaseException) -> str:
    """Return the file whose code raised an exception."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return "" if traceback is None else traceback.tb_frame.f_code.co_filename


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0]
