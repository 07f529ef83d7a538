"""The command line: Hydra composes, one function of ours runs, and failures are one sentence."""

import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydralight import runs
from hydralight.config import CONFIG_DIR, WHITELIST, UserError, did_you_mean, register_resolvers


def main(command: str) -> None:
    """Run `train`, `eval` or `predict` with what was typed; exit with 1 on a user's mistake."""
    register_resolvers()
    config_dir, config_name = CONFIG_DIR, command
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        run_dir = runs.named_on_command_line(command, sys.argv)
        if run_dir is not None:
            # the run's own unresolved config, with the typed overrides on top
            config_dir, config_name = run_dir / ".hydra", "config"
            sys.argv[1:] = runs.arguments_in_run(command, run_dir, sys.argv[1:])
        os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to the handler below
        hydra.main(
            config_path=str(config_dir), config_name=config_name, execution_whitelist=WHITELIST
        )(_job(command, show_traceback))()
    except Exception as error:
        exit_with(error, show_traceback)


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
        runs.remove_if_unused(run_dir)
        raise


def explain(error: BaseException) -> str | None:
    """Put an exception into the one sentence a user is shown, or None where it is our own bug."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError) or type(cause).__name__ == "MisconfigurationException":
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, OverrideParseException):
        return (
            f"'{error.override}' is not a valid override; a value with brackets, colons, commas or "
            "spaces in it needs quotes of its own, as in 'data.path=\"my.csv[:100]\"'"
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


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0]
