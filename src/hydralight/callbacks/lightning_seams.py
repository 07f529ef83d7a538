"""Every private or undocumented door of Lightning's that we use, each with its reason.

`loops.py` has its loops, with our rules of when a run evaluates and ends.
`tests/test_lightning_seams.py` goes through all of them, and fails where Lightning changes one.
"""

from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from hydralight.nodes.ranks import check_devices, is_first


def evaluation_is_due(trainer: Trainer) -> bool:
    """Return whether, at the end of a training batch, an evaluation follows.

    A checkpoint goes before each evaluation. `loops.EpochLoop` decides, in Lightning's own method.
    """
    loop = trainer.fit_loop.epoch_loop
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    return loop._should_check_val_fx(fetcher)


def interval_ends(trainer: Trainer) -> bool:
    """Return whether an evaluation follows that would be there in a longer run too."""
    return trainer.fit_loop.epoch_loop.interval_ends()  # type: ignore[attr-defined]


def training_ends(trainer: Trainer) -> bool:
    """Return whether the run ends with the batch that has just been."""
    return trainer.fit_loop.epoch_loop.training_ends()  # type: ignore[attr-defined]


def evaluation_is_extra(trainer: Trainer) -> bool:
    """Return whether the evaluation at hand is there only because the run ends."""
    return trainer.fit_loop.epoch_loop.val_loop.extra  # type: ignore[attr-defined]


def begin_the_next_epoch(trainer: Trainer) -> None:
    """Begin a resumed run with the next epoch where its checkpoint was of an epoch's last batch.

    Lightning would take the next epoch for the rest of this one, and not count it.
    """
    if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
        trainer.fit_loop.reset_restart_stage()


def share_progress(checkpoint: dict[str, Any], before: int, now: int) -> None:
    """Let a resumed run count its batches as one that was on as many devices from the start.

    Lightning counts the batches of one process, whatever the number of processes.

    Args:
        checkpoint: Loaded, and about to be restored; its counts are changed.
        before: Processes that wrote it.
        now: Processes.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        more = counts["ready"] * before // now - counts["ready"]
        for name in counts:  # the batch at whose end it was written is not completed
            counts[name] += more


def evaluate_now(trainer: Trainer, extra: bool = False) -> None:
    """Run a whole validation before or after training, as if its step had just ended.

    A resumed run does the evaluation that followed its checkpoint so. Lightning itself would skip
    it, or go on in its middle with the counts of the first part lost. Public `Trainer.validate`
    would end the fit.

    Args:
        trainer: In its fit.
        extra: Whether it is there only because the run ends.
    """
    loop: Any = trainer.fit_loop.epoch_loop.val_loop
    loop.extra = extra
    trainer.validating = True  # by which the trainer knows its active loop
    loop.restarting = False  # all of it, from its start
    loop.run()
    trainer.training = True


def averaged_model(trainer: Trainer) -> Any:
    """Return the module of averaged weights that evaluations used; None where none is averaged.

    `WeightAveraging` swaps it in for an evaluation and out again before `on_validation_end`, and
    has no public way to it.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging) and callback._average_model is not None:
            return callback._average_model.module
    return None


def add_callback(trainer: Trainer, callback: Callback, first: bool = False) -> None:
    """Add a callback to a trainer that is built, in front of the others or behind them.

    The trainer takes callbacks only when it is built, and puts only checkpoints last by itself.
    """
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    callbacks.insert(0 if first else len(callbacks), callback)


def logging_is_due(trainer: Trainer) -> bool:
    """Return whether a step that has just ended is a `log_every_n_steps`-th.

    The trainer keeps this argument under its name, which its documentation does not promise; 0 is
    each step, as in Lightning.
    """
    return trainer.global_step % max(1, trainer.log_every_n_steps) == 0  # type: ignore[attr-defined]


def take_place(trainer: Trainer) -> None:
    """Let a trainer be one of the processes that were started together.

    Lightning knows only once they have met which one is the first, and takes each node's for it. In
    a job of SLURM that is asked to end, it would write a checkpoint of its own in the middle of a
    step and requeue the job, which is left to `Preemption` and the user; that is an argument of a
    plugin, and only Lightning knows whether to take it.

    Raises:
        UserError: the trainer counts other processes than were started.
    """
    check_devices(trainer.num_devices, trainer.num_nodes)
    if not is_first():
        rank_zero_only.rank = rank_zero_only.rank or 1  # type: ignore[attr-defined]
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment):
        environment.auto_requeue = False


def is_dev_run(trainer: Trainer) -> bool:
    """Return whether this is a `fast_dev_run`, which the trainer keeps as undocumented too."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def datamodule_of(trainer: Trainer) -> Any:
    """Return the data module, which the trainer sets only once it runs."""
    return trainer.datamodule  # type: ignore[attr-defined]
