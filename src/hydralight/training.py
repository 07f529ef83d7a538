"""Build a run from its config, train it, and leave a complete run directory."""

import logging
import sys
from pathlib import Path

from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import LambdaCallback
from omegaconf import DictConfig, OmegaConf

from hydralight.building import build, prepare
from hydralight.callbacks.lightning_seams import add_callback, is_dev_run
from hydralight.callbacks.preemption import EXIT_CODE
from hydralight.config.limits import MAX_EPOCHS, MAX_STEPS, ends, settle_end
from hydralight.data.module import DataModule
from hydralight.errors import UserError
from hydralight.evaluation import test_best
from hydralight.loggers import wandb_run_ends
from hydralight.models import read_config
from hydralight.preflight import preflight
from hydralight.runs.checkpoints import checkpoints_in, intact_checkpoint
from hydralight.runs.environment import record_overrides, record_start, redacted_keys
from hydralight.runs.files import restore_folder
from hydralight.runs.overrides import typed_keys
from hydralight.runs.run import read_metrics, remove_if_unused, update_metrics
from hydralight.runs.secrets import redact
from hydralight.tasks.task import Task

log = logging.getLogger(__name__)


def train(cfg: DictConfig, run_dir: Path) -> float | None:
    """Train what the config says, and return the best value of its `optimized_metric`.

    Args:
        cfg: The composed config; with `resume`, that of the run itself.
        run_dir: Where everything is written.

    Raises:
        UserError: whatever is wrong with the config, the data, the checkpoint or the run.
    """
    prepare(cfg)
    settle_end(cfg.trainer, typed_keys(run_dir))
    fast_dev_run = bool(cfg.trainer.get("fast_dev_run"))
    checkpoint = resume_checkpoint(cfg, run_dir) if cfg.resume else None
    check_checkpoint_is_read(cfg)
    if cfg.check:
        preflight(cfg)
        remove_if_unused(run_dir)
        return None
    task, data, trainer = build(cfg)
    data.later_splits = ("test",) if cfg.test else ()
    if trainer.is_global_zero and not fast_dev_run:
        record_start(run_dir, cfg)
        if cfg.resume:  # once it goes on: a refused change is not to be made again
            begun = LambdaCallback(on_train_start=lambda *_: record_overrides(run_dir))
            add_callback(trainer, begun)
        restore_folder(run_dir / "model")
    with wandb_run_ends():
        return fit(cfg, run_dir, task, data, trainer, checkpoint)


def fit(
    cfg: DictConfig,
    run_dir: Path,
    task: Task,
    data: DataModule,
    trainer: Trainer,
    checkpoint: Path | None,
) -> float | None:
    """Train what has been built, and test it where asked."""
    log_config(cfg, trainer)
    # once the data is there: whether it came from the cache must not change the model; and before
    # any callback's setup, where weight averaging builds it
    seeded = LambdaCallback(setup=lambda *_, **__: seed_everything(cfg.seed, True, verbose=False))
    add_callback(trainer, seeded, first=True)
    try:
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as error:  # also Lightning's answer to Ctrl-C
        if error.code == EXIT_CODE or not trainer.interrupted:
            raise
        log.warning("interrupted; to go on: python train.py resume=%s", run_dir)
        sys.exit(130)
    if is_dev_run(trainer):
        remove_if_unused(run_dir)
        return None
    if cfg.test:
        test_best(trainer, task, data, run_dir)
    if trainer.is_global_zero:
        update_metrics(run_dir, status="finished")
        best, metric = read_metrics(run_dir).get("best"), cfg.optimized_metric
        if best is not None:
            log.info("best %s: %.4f, at step %d", metric, best[metric], best["step"])
        elif best_value(cfg, trainer, run_dir) is None:
            log.warning("no %s: the run ended without an evaluation", metric)
        log.info("run directory: %s", run_dir)
    return best_value(cfg, trainer, run_dir)


def resume_checkpoint(cfg: DictConfig, run_dir: Path) -> Path:
    """Return the checkpoint to resume from, which is known to be intact and has not been opened.

    Raises:
        UserError: there is none, or the run has nothing left to do, or needs a secret again.
    """
    folder = run_dir / "checkpoints"
    if not checkpoints_in(folder):
        raise UserError(f"{run_dir} has no checkpoints/last.ckpt: there is nothing to resume from.")
    for name in redacted_keys(cfg):
        raise UserError(f"{name} was redacted in the run's config: give it again as {name}=….")
    path, record = intact_checkpoint(folder)
    # a checkpoint stands before the evaluation of its step, which may be all that is left
    finished = read_metrics(run_dir).get("status") == "finished"
    place = (record.step, record.epochs, record.batches_per_epoch)
    for said, done, end in ends(cfg.trainer, *place):
        if done > end or (done == end and finished):
            steps = MAX_STEPS in said
            longer = f"{MAX_STEPS}={2 * done}" if steps else f"{MAX_EPOCHS}={record.epochs + 1}"
            raise UserError(
                f"{run_dir} has nothing left to do: it is at epoch {record.epochs}, step "
                f"{record.step}, where {said} ends it; to extend it, give for example {longer}."
            )
    return path


def check_checkpoint_is_read(cfg: DictConfig) -> None:
    """Test quickly whether `checkpoint` is there; warn where nothing reads it."""
    if cfg.checkpoint is None:
        return
    if cfg.checkpoint in (cfg.model.get("checkpoint"), cfg.tokenizer.get("checkpoint")):
        read_config(cfg.checkpoint)
    else:
        log.warning(
            "checkpoint=%s is not used: neither model nor tokenizer is 'pretrained'", cfg.checkpoint
        )


def log_config(cfg: DictConfig, trainer: Trainer) -> None:
    """Give the resolved config, redacted, to the loggers."""
    content = redact(OmegaConf.to_container(cfg, resolve=True))
    for logger in trainer.loggers:
        logger.log_hyperparams(content)


def best_value(cfg: DictConfig, trainer: Trainer, run_dir: Path) -> float | None:
    """Return the best value of the optimized metric, or its last where no best is kept."""
    best = read_metrics(run_dir).get("best", {})
    if cfg.optimized_metric in best:
        return best[cfg.optimized_metric]
    value = trainer.callback_metrics.get(cfg.optimized_metric)
    return None if value is None else float(value)
