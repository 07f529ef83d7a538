"""Ends a trial that is not worth going on with."""

import json
import os
from pathlib import Path
from typing import Any

import optuna
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig
from optuna.trial import Trial

from hydralight.errors import told
from hydralight.sweeps.storage import storage_in, study_name
from hydralight.sweeps.trial import PRUNING


class TrialPruning(Callback):
    """Reports the objective to the study after each evaluation, and ends the trial if it says so.

    Args:
        monitor: The objective's name.
        pruner: Optuna's pruner.
        folder: The sweep's directory.
        number: The trial's.
        storage: Optuna's storage, where it is not the study in the directory.
    """

    def __init__(
        self, monitor: str, pruner: Any, folder: str, number: int, storage: str | None = None
    ) -> None:
        self.monitor = monitor
        url = storage or storage_in(Path(folder))
        study = optuna.load_study(
            study_name=study_name(Path(folder), url), storage=url, pruner=pruner
        )
        frozen = study.get_trials(deepcopy=False)[number]
        self.trial = Trial(study, frozen._trial_id)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report, and raise `optuna.TrialPruned` with the step, on all ranks together."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        hopeless = False
        if trainer.is_global_zero:
            value = float(trainer.callback_metrics[self.monitor])
            if value == value:
                self.trial.report(value, trainer.global_step)
            hopeless = self.trial.should_prune()
        if trainer.strategy.broadcast(hopeless):
            raise optuna.TrialPruned(trainer.global_step)


def pruning_of(cfg: DictConfig) -> list[Callback]:
    """Return the callback of a trial whose sweep prunes, as its environment says.

    Raises:
        UserError: the pruner cannot be built.
    """
    search = cfg.hparams_search
    monitor = (search.get("objectives") or [cfg.optimized_metric])[0]
    with told("hparams_search.pruner"):
        pruner = instantiate(search.pruner, _convert_="object")
    return [TrialPruning(monitor, pruner, **json.loads(os.environ[PRUNING]))]
