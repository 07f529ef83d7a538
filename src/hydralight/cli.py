"""The command line: Hydra composes, one function of ours runs, and failures are one sentence."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from hydralight.commands import COMMAND, prepare, run, together
from hydralight.completion import add_own_configs, command_asked_for, is_asked
from hydralight.config.blame import is_ours, where_to_report
from hydralight.config.composition import composing
from hydralight.config.explain import chain, explain
from hydralight.config.flags import check_flags
from hydralight.config.project import CONFIG_DIR
from hydralight.config.resolvers import register_resolvers
from hydralight.config.typed import Typed
from hydralight.config.whitelist import whitelist_of_hydra
from hydralight.errors import UserError, did_you_mean
from hydralight.help import COMMANDS, text_of
from hydralight.manners import leave_if_unread, manners
from hydralight.nodes.ranks import number
from hydralight.nodes.rendezvous import Rendezvous, Stopped
from hydralight.runs.logs import hide_secrets
from hydralight.runs.requeued import with_its_run
from hydralight.runs.secrets import redact_message
from hydralight.shell import short

HELP = ("-h", "--help")


def command_line() -> None:
    """Run `hydralight <command> …`, which is `python <command>.py …` in any directory."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if is_asked(sys.argv[1:]):
        command = command_asked_for()
        if command in ("", "report"):  # the shell itself completes the names of directories
            return
    elif command in COMMANDS:
        os.environ[COMMAND] = sys.argv.pop(1)
    elif COMMAND in os.environ:
        command = os.environ[COMMAND]
    elif command in HELP:
        print(text_of(""))
        return
    else:
        known = f"(there are: {', '.join(COMMANDS)})"
        said = f"there is no command '{command}'{did_you_mean(command, COMMANDS)}"
        exit_with(UserError(f"{said if command else 'name a command'} {known}"), False)
    with manners():
        if command == "report":
            report(sys.argv)
        else:
            main(command)


def main(command: str) -> None:
    """Run a command, such as `train`, with what was typed; exit with 1 on a user's mistake."""
    hide_secrets()
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        if any(argument in HELP for argument in sys.argv[1:]):
            print(text_of(command, sys.argv[1:]))
            return
        if is_asked(sys.argv[1:]):
            add_own_configs()
        check_flags(sys.argv[1:])
        if command == "train":
            sys.argv[1:] = with_its_run(sys.argv)
        with together() as met:
            config_name, typed = prepare(command, sys.argv, met)
            register_resolvers(typed)
            os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to the handler below
            with composing(typed):
                hydra.main(
                    config_path=str(CONFIG_DIR),
                    config_name=config_name,
                    execution_whitelist=whitelist_of_hydra(),
                )(Job(command, show_traceback, typed, met=met))()
    except Exception as error:
        exit_with(error, show_traceback)


def exit_with(error: Exception, show_traceback: bool) -> None:
    """Print one sentence and exit with 1; raise what is our own bug."""
    leave_if_unread(error)
    sentence = explain(error)
    if sentence is None and is_ours(error):
        note = where_to_report()
        if note not in getattr(error, "__notes__", ()):  # a job's own has passed here already
            error.add_note(note)
    if sentence is None or show_traceback:
        raise error
    if any(isinstance(one, Stopped) for one in chain(error)) and number("LOCAL_RANK"):
        sys.exit(1)  # it is said once on each node
    print(f"error: {redact_message(sentence)}", file=sys.stderr)
    sys.exit(1)


@dataclass(frozen=True)
class Job:
    """What Hydra calls with each config that it composes: one run, or one trial of a sweep.

    Args:
        command: `train`, `eval`, `predict`, `prepare` or `publish`.
        show_traceback: Whether a user's mistake is raised, and not told in a sentence.
        typed: What was typed, which is trusted.
        preload: What all trials import, by its dotted name. It stands here, as the sweeps cannot
            know what stands above them: the sweeper finds it on the function that it is given.
        met: The processes that were started together with this one.
    """

    command: str
    show_traceback: bool
    typed: Typed = field(default_factory=Typed)
    preload: str = "hydralight.preloaded"
    met: Rendezvous | None = None

    def __call__(self, cfg: DictConfig) -> Any:
        """Run the command in the directory that Hydra has made for it."""
        os.environ.pop("HYDRA_FULL_ERROR", None)  # not for the processes that a job starts
        run_dir = Path(HydraConfig.get().runtime.output_dir)
        register_resolvers(self.typed)  # a launcher may have brought the job to another process
        try:
            if self.command == "train" and HydraConfig.get().mode == RunMode.MULTIRUN:
                from hydralight.trials import trial

                return trial(cfg, run_dir, self.preload, self.typed)
            return run(self.command, cfg, run_dir, self.typed, self.met)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # an exit would end the whole sweep
            exit_with(error, self.show_traceback)
        finally:
            os.environ["HYDRA_FULL_ERROR"] = "1"


def report(argv: list[str]) -> None:
    """Make the tables and pictures of a run's or a sweep's directory again."""
    register_resolvers()
    try:
        if any(argument in HELP for argument in argv[1:]):
            print(text_of("report"))
            return
        if len(argv) == 1:
            raise UserError(f"name one directory: {short('report')} <run or sweep directory>.")
        if extra := [a for place, a in enumerate(argv) if place > 1 or a.startswith("-")]:
            raise UserError(f"report takes one directory and nothing else: leave out {extra[0]}.")
        folder = Path(argv[1]).expanduser().resolve()
        if not folder.is_dir():
            raise UserError(f"there is no directory {argv[1]}.")
        if (folder / "metrics.csv").is_file():
            from hydralight.curves import draw_curves

            print(draw_curves(folder))
            return
        from hydralight.sweeps.report import report as report_sweep

        report_sweep(folder)
        print(folder / "sweep.md")
    except Exception as error:
        exit_with(error, os.environ.get("HYDRA_FULL_ERROR") == "1")
