"""Hydra's `--multirun`: a grid of what was typed, or a search as `hparams_search` says."""

import fcntl
import json
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from hydralight.config.check import check_targets
from hydralight.config.explain import explain
from hydralight.config.resolvers import direction
from hydralight.errors import UserError, did_you_mean, first_line
from hydralight.runs.files import write_text
from hydralight.runs.secrets import redact
from hydralight.sweeps import isolation, space
from hydralight.sweeps.trial import Outcome, read_outcome, write_outcome

if TYPE_CHECKING:
    from optuna.trial import Trial

    from hydralight.sweeps.study import SweepStudy

log = logging.getLogger(__name__)

KEYS = ("n_trials", "n_jobs", "objectives", "direction", "sampler", "pruner", "storage", "params")


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
        self.config = self.whole = config
        self.context = hydra_context
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials that are left, and report.

        Raises:
            UserError: the space or the objectives are not right, another sweep is at work in the
                directory, or no trial has come to a value.
        """
        folder = Path(str(self.whole.hydra.sweep.dir)).absolute()
        search = self.search()
        params = {**self.params, **(search.get("params") or {})}
        fixed, swept = space.split(arguments, params)
        study_arguments = self.study_arguments(search, swept)
        if self.whole.check or self.whole.trainer.get("fast_dev_run"):
            self.try_all(folder, fixed, swept)
            return
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"another sweep is at work in {folder}.") from error
        self.record(folder, arguments, study_arguments)
        if self.one_by_one:
            isolation.prepare()  # which goes on beside what follows

        import optuna

        from hydralight.sweeps.study import SweepStudy

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        quiet = "hydra._internal.core_plugins.basic_launcher"  # the sweep tells of its trials
        logging.getLogger(quiet).setLevel(logging.WARNING)
        study = SweepStudy(folder, **study_arguments)
        total = len(study.points) if study.points is not None else int(search.get("n_trials", 20))
        self.say_what_is_done(study, total)
        before = len(study.finished)
        try:
            while (left := total - len(study.finished)) > 0:
                number = self.n_jobs(search, left, grid=study.points is not None)
                self.run_trials(study, fixed, number)
        except KeyboardInterrupt:
            log.warning("interrupted; to go on: python train.py -m sweep=%s", folder)
            sys.exit(130)
        self.finish(study, folder, news=len(study.finished) > before)

    # ------------------------------------------------------------ what is asked for

    def search(self) -> DictConfig:
        """Return the `hparams_search` of the config, checked; empty for a grid."""
        chosen = self.whole.get("hparams_search")
        content = {} if chosen is None else OmegaConf.to_container(chosen, resolve=True)
        search = OmegaConf.create(content)
        assert isinstance(search, DictConfig)
        for key in map(str, search):
            if key not in KEYS:
                raise UserError(
                    f"hparams_search.{key}: there is no such key{did_you_mean(key, KEYS)}"
                )
        check_targets(OmegaConf.create({"hparams_search": search}))
        return search

    def study_arguments(self, search: DictConfig, swept: Sequence[Any]) -> dict[str, Any]:
        """Return the arguments of the study: what is optimised, and where it is searched."""
        objectives = list(search.get("objectives") or [self.whole.optimized_metric])
        if not search.get("objectives") and "experiment" in [o.get_key_element() for o in swept]:
            objectives = [space.OWN]
        for name in objectives:
            if name != space.OWN and not name.startswith("val/") and name != "seconds":
                raise UserError(
                    f"a sweep optimises validation metrics (val/…) and seconds, not '{name}'."
                )
        given = search.get("direction")
        directions = [given] if isinstance(given, str) else list(given or [])
        if not directions:
            named = {"min": "minimize", "max": "maximize"}
            directions = [
                "minimize"
                if name in ("seconds", space.OWN)
                else named[direction(name, _root_=self.whole)]
                for name in objectives
            ]
        if len(directions) != len(objectives) or set(directions) - {"minimize", "maximize"}:
            raise UserError(
                f"hparams_search.direction={given} should say minimize or maximize for each of "
                f"{', '.join(objectives)}."
            )
        if len(objectives) > 1 and (search.get("pruner") or {}).get("_target_"):
            raise UserError("a sweep with several objectives cannot prune: leave out the pruner.")
        sampler = search.get("sampler")
        if sampler is not None and sampler.get("_target_") is None:
            sampler = None
        searching = sampler is not None
        if searching and not swept:
            raise UserError("hparams_search has no params: name what is to be searched.")
        points = None if searching else space.grid(swept)
        return {
            "storage": search.get("storage"),
            "objectives": objectives,
            "directions": directions,
            "sampler": sampler,
            "points": points,
            "space": {o.get_key_element(): _distribution(o, searching) for o in swept},
        }

    @property
    def one_by_one(self) -> bool:
        """Whether the launcher is Hydra's own, which runs one trial after the other from here."""
        return self.whole.hydra.launcher._target_.endswith(".BasicLauncher")

    def n_jobs(self, search: DictConfig, left: int, grid: bool) -> int:
        """Return how many of the trials that are left are launched together.

        A search learns between launches, so that on a cluster it launches four.
        """
        launcher = self.whole.hydra.launcher
        if search.get("n_jobs"):
            number = int(search.n_jobs)
        elif self.one_by_one:
            number = 1
        elif "n_jobs" in launcher:  # joblib's; -1 is all cores
            number = launcher.n_jobs if launcher.n_jobs > 0 else os.cpu_count() or 1
        else:
            number = left if grid else 4
        return min(number, left)

    def record(self, folder: Path, arguments: Sequence[str], study: dict[str, Any]) -> None:
        """Keep what was typed, for `sweep=`, and what is optimised, for the report."""
        hydra = list(self.whole.hydra.overrides.hydra)
        typed = [*hydra, *arguments]
        write_text(folder / "sweep.json", json.dumps(redact(typed), indent=2) + "\n")
        what = {name: study[name] for name in ("objectives", "directions")}
        what["swept"] = list(study["space"])
        write_text(folder / "study.json", json.dumps(what, indent=2) + "\n")
        content = redact(OmegaConf.to_container(self.whole, resolve=False))
        OmegaConf.save(OmegaConf.create(content), folder / "multirun.yaml")

    # ------------------------------------------------------------ trials

    def run_trials(self, study: "SweepStudy", fixed: Sequence[str], number: int) -> None:
        """Launch some trials together, and record what they come to."""
        trials = [study.ask() for _ in range(number)]
        jobs = [[*fixed, *space.overrides_of(trial.params)] for trial in trials]
        # trials are numbered one after the other, and a trial's number is its directory
        try:
            returned = self.launcher.launch(jobs, initial_job_idx=trials[0].number)
        except (HydraException, OmegaConfBaseException):
            self.settle_uncomposed(study, trials, jobs)
            return
        for trial, job in zip(trials, returned, strict=True):
            self.say(trial, study.tell(trial, outcome_of(job)), study.objectives)

    def settle_uncomposed(
        self, study: "SweepStudy", trials: Sequence["Trial"], jobs: Sequence[Sequence[str]]
    ) -> None:
        """Fail those of a launch whose values make no config.

        Of the others, those that came before are done, and the rest is tried again.

        Raises:
            HydraException: it is not that.
        """
        faults = [self.fault_of(job) for job in jobs]
        if not any(faults):
            raise
        for trial, job, fault in zip(trials, jobs, faults, strict=True):
            run_dir = study.folder / str(trial.number)
            if fault is not None:
                reason = explain(fault) or first_line(fault)
                write_outcome(run_dir, {"state": "failed", "reason": reason, "metrics": {}}, job)
            outcome = read_outcome(run_dir)
            if outcome is None:
                study.interrupt(trial)
            else:
                self.say(trial, study.tell(trial, outcome), study.objectives)

    def fault_of(self, job: Sequence[str]) -> Exception | None:
        """Return why a job's overrides make no config, if they make none."""
        try:
            self.context.config_loader.load_sweep_config(self.whole, list(job))
        except (HydraException, OmegaConfBaseException) as error:
            return error
        return None

    def try_all(self, folder: Path, fixed: Sequence[str], swept: Sequence[Any]) -> None:
        """Launch every combination of a trial that trains nothing; only what failed is left.

        Raises:
            UserError: not all of them are fine.
        """
        scratch = folder / "check"  # the directory may be that of a finished sweep
        shutil.rmtree(scratch, ignore_errors=True)
        quoted = str(scratch).replace("'", "\\'")
        with read_write(self.whole.hydra):
            self.whole.hydra.sweep.dir = str(scratch)
            self.whole.hydra.overrides.hydra.append(f"hydra.sweep.dir='{quoted}'")
        points = space.grid(swept)
        jobs = [[*fixed, *space.overrides_of(point)] for point in points]
        outcomes = [outcome_of(job) for job in self.launcher.launch(jobs, initial_job_idx=0)]
        for number, (point, outcome) in enumerate(zip(points, outcomes, strict=True)):
            log.info("%s: %s", " ".join(space.overrides_of(point)), outcome.get("reason", "fine"))
            if outcome["state"] != "failed":
                shutil.rmtree(scratch / str(number))
        if any(outcome["state"] == "failed" for outcome in outcomes):
            raise UserError(f"not all of them are fine: {scratch} has what they said.")
        shutil.rmtree(scratch)
        with suppress(OSError):  # it holds a sweep
            folder.rmdir()

    def say_what_is_done(self, study: "SweepStudy", total: int) -> None:
        """Log where the sweep stands."""
        what = "grid" if study.points is not None else "search"
        done = len(study.finished)
        have = f", {done} of them done" if done else ""
        log.info("%s of %d trials%s in %s", what, total, have, study.folder)

    def say(self, trial: "Trial", outcome: Outcome, objectives: Sequence[str]) -> None:
        """Log what a trial came to."""
        what = " ".join(space.overrides_of(trial.params))
        metrics = outcome.get("metrics", {})
        own = outcome.get("optimized_metric")
        shown = [own if name == space.OWN else name for name in objectives]
        came = {
            "complete": ", ".join(f"{n} {metrics[n]:.4g}" for n in shown if n in metrics),
            "pruned": f"pruned at step {outcome.get('step')}",
            "failed": f"failed: {outcome.get('reason')}",
        }
        log.info(
            "trial %d (%s): %s (%.0f s)",
            trial.number,
            what,
            came[outcome["state"]],
            outcome.get("seconds", 0),
        )

    def finish(self, study: "SweepStudy", folder: Path, news: bool) -> None:
        """Write the report, log its table where there is news, and say how it ended."""
        from hydralight.sweeps.report import report
        from hydralight.sweeps.tracking import log_table

        table = report(folder)
        logger = (self.whole.logger or {}).get("wandb")
        if logger and news:
            log_table(logger, folder, table)
        if not any(trial.values for trial in study.finished):
            raise UserError(f"no trial has come to a value: {folder / 'sweep.md'} has the reasons.")
        log.info("sweep directory: %s", folder)


def outcome_of(job: JobReturn) -> Outcome:
    """Return the outcome that a job has brought, or that it brought none."""
    if job.status == JobStatus.COMPLETED:
        return job.return_value
    try:
        _ = job.return_value
    except Exception as error:
        return {"state": "failed", "reason": first_line(error), "metrics": {}}
    raise AssertionError(job.status)


def _distribution(override: Any, searching: bool) -> Any:
    from optuna.distributions import CategoricalDistribution

    if searching:
        return space.distribution(override)
    return CategoricalDistribution(list(dict.fromkeys(space.values(override))))
