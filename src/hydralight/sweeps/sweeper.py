"""Hydra's `--multirun`: a grid of what was typed, or a search as `hparams_search` says."""

import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, read_write

from hydralight.config.check import check_targets
from hydralight.config.resolvers import direction
from hydralight.config.trust import check_trust
from hydralight.config.typed import Typed
from hydralight.errors import UserError
from hydralight.runs.files import refuse_links
from hydralight.runs.lock import locked
from hydralight.runs.overrides import quoted
from hydralight.shell import line, near
from hydralight.sweeps import space, worker
from hydralight.sweeps.announce import Announcer, announce_end
from hydralight.sweeps.at_work import AtWork
from hydralight.sweeps.check import check_all
from hydralight.sweeps.launch import runs_here, together
from hydralight.sweeps.ray_launcher import RayLauncher
from hydralight.sweeps.recipe import again_of
from hydralight.sweeps.record import write_record
from hydralight.sweeps.request import refuse_pushes, request_of

if TYPE_CHECKING:
    from hydralight.sweeps.study import SweepStudy

log = logging.getLogger(__name__)


class Terminated(BaseException):
    """SIGTERM has come: as by Ctrl-C, trials are asked to end, and the sweep can go on."""


@contextmanager
def told_to_end() -> Iterator[None]:
    """Raise `Terminated` where SIGTERM comes, in the main thread of a process; once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def raise_it(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would end its tidying up
        raise Terminated

    before = signal.signal(signal.SIGTERM, raise_it)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class StudySweeper(Sweeper):
    """A thin sweeper on Optuna's ask and tell; `hydra/launcher` says where the trials run.

    Without `hparams_search` it goes through the product of the lists that were typed; with it, it
    searches its space. Either way the sweep goes on by `sweep=<dir>` to the same total.

    Args:
        params: A space, as Hydra's own sweepers take it; that of `hparams_search` goes before.
    """

    def __init__(self, params: dict[str, Any] | None = None) -> None:
        self.params = params or {}

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives: the config is that of all trials, before their own overrides."""
        with read_write(config.hydra):  # else a launcher's own folders are of another moment
            config.hydra.sweep.dir = str(config.hydra.sweep.dir)
        self.config = self.shared = config
        self.loader: Any = hydra_context.config_loader
        self.preload: str | None = getattr(task_function, "preload", None)  # see `cli.Job`
        Plugins.instance().register(RayLauncher)
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials that are left, and report.

        Raises:
            UserError: the space or the objectives are not right, another sweep is at work in the
                directory, or no trial has come to a value.
        """
        config = self.shared
        folder = Path(str(config.hydra.sweep.dir)).absolute()
        typed = getattr(self.loader, "typed", Typed())
        check_trust(config, typed, folder, ("hparams_search", "logger"))
        refuse_pushes(config)
        search = search_in(config)
        params = {**self.params, **(search.get("params") or {})}
        fixed, swept = space.split(arguments, params)
        own_direction = partial(direction, _root_=config)
        request = request_of(search, swept, config.optimized_metric, own_direction)
        # a key that is not there fails here once, and not in every trial
        ends = space.ends_of(swept)
        self.loader.load_sweep_config(config, [*fixed, *space.overrides_of(ends[0])])
        if config.check or config.trainer.get("fast_dev_run"):
            scratch = f"hydra.sweep.dir={quoted(folder / 'check')}"
            self.loader.typed = Typed((*typed.arguments, scratch))  # trials have a place of ours
            points = ends if request.points is None else list(request.points)
            check_all(self.launcher, config, folder, fixed, points, request)
            return
        refuse_links(folder)
        with locked(folder):
            if runs_here(config.hydra.launcher):
                worker.prepare(self.preload)  # its imports go on beside what follows
            from hydralight.sweeps.study import SweepStudy

            quiet_launcher_and_optuna()
            study = SweepStudy(folder, request)  # one that goes on otherwise is refused unwritten
            write_record(folder, config, arguments, request)
            self.run_all(study, fixed)

    def run_all(self, study: "SweepStudy", fixed: Sequence[str]) -> None:
        """Run trials until there are as many finished ones as were asked for."""
        from hydralight.sweeps.keep import Keeper
        from hydralight.sweeps.loop import Loop

        folder, keeper = study.folder, Keeper(study)
        compose = partial(self.loader.load_sweep_config, self.shared)
        at_work = AtWork(self.launcher, folder, runs_here(self.shared.hydra.launcher))
        try:
            with told_to_end(), Announcer(study) as announcer, at_work:
                keeper.tidy()
                loop = Loop(study, at_work, announcer, fixed, compose)
                while (left := study.request.total - len(study.finished)) > 0:
                    number = together(study.request, self.shared.hydra.launcher, self.launcher)
                    loop.step(min(left, number))
                    keeper.tidy()
        except (KeyboardInterrupt, Terminated) as error:
            keeper.say()
            again = line("train", "-m", *again_of(folder), f"sweep={near(folder)}")
            log.warning("to go on: %s", again)
            sys.exit(143 if isinstance(error, Terminated) else 130)
        keeper.say()
        self.finish(study, news=len(study.finished) > announcer.before)

    def finish(self, study: "SweepStudy", news: bool) -> None:
        """Write the report, log its table where there is news, and say how it ended."""
        from hydralight.sweeps.best import best_of
        from hydralight.sweeps.report import report
        from hydralight.sweeps.tracking import log_table

        table = report(study.folder)
        wandb = (self.shared.logger or {}).get("wandb")
        if wandb and news:
            log_table(wandb, study.folder, table)
        if not any(trial.values for trial in study.finished):
            reasons = study.folder / "sweep.md"
            raise UserError(f"no trial has come to a value: {reasons} has the reasons.")
        request = study.request
        best = best_of(table, list(zip(request.objectives, request.directions, strict=True)))
        announce_end(study.folder, request, table, best)


def search_in(config: DictConfig) -> dict[str, Any]:
    """Return the `hparams_search` of a config, its targets checked; empty for a grid."""
    chosen = config.get("hparams_search")
    search: Any = {} if chosen is None else OmegaConf.to_container(chosen, resolve=True)
    check_targets(OmegaConf.create({"hparams_search": search}))
    return search


def quiet_launcher_and_optuna() -> None:
    """Leave it to the sweep to tell of its trials."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for launchers in ("hydra._internal.core_plugins.basic_launcher", "hydra_plugins"):
        logging.getLogger(launchers).setLevel(logging.WARNING)
