"""Build a run from its config, train it, and leave a complete run directory."""

import copy
import logging
import sys
from contextlib import nullcontext
from pathlib import Path

from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import LambdaCallback
from omegaconf import DictConfig, OmegaConf

from hydralight.building import build, prepare
from hydralight.callbacks.lightning_seams import add_callback, is_dev_run
from hydralight.callbacks.preemption import EXIT_CODE
from hydralight.callbacks.push import finish_pushes
from hydralight.config.limits import MAX_EPOCHS, MAX_STEPS, ends, settle_end
from hydralight.data.module import DataModule
from hydralight.disk import Footprint
from hydralight.errors import UserError
from hydralight.evaluation import test_best
from hydralight.loggers import CSVLogger, wandb_run_ends
from hydralight.model_configs import read_config
from hydralight.nodes.ranks import is_first
from hydralight.preflight import preflight
from hydralight.runs.begin import begin, clear, clear_strays, has_come_to_something
from hydralight.runs.checkpoints import checkpoints_in, intact_checkpoint
from hydralight.runs.environment import record_overrides, record_start, redacted_keys
from hydralight.runs.files import restore_folder
from hydralight.runs.lock import locked
from hydralight.runs.overrides import typed_keys
from hydralight.runs.run import is_unused, read_metrics, update_metrics
from hydralight.runs.secrets import redact
from hydralight.runs.weights import check_weights_are_there
from hydralight.sharding import goes_on_from
from hydralight.shell import line, near
from hydralight.summary import summary
from hydralight.tasks.same_bits import fixed_threads
from hydralight.tasks.task import Task

log = logging.getLogger(__name__)


def train(cfg: DictConfig, run_dir: Path) -> float | Footprint | None:
    """Train what the config says, and return the best value of its `optimized_metric`.

    With `check` nothing is trained; what a run would take on disk is returned.

    Args:
        cfg: The composed config; with `resume`, that of the run itself.
        run_dir: Where everything is written.

    Raises:
        UserError: whatever is wrong with the config, the data, the checkpoint or the run.
    """
    composed = copy.deepcopy(cfg)
    prepare(cfg)
    settle_end(cfg.trainer, typed_keys(run_dir if cfg.resume else None))
    if cfg.resume:
        check_it_can_resume(cfg, run_dir)
    writes = not (cfg.check or cfg.trainer.get("fast_dev_run"))
    first = is_first()
    with locked(run_dir) if writes and first else nullcontext():
        checkpoint = resume_checkpoint(cfg, run_dir) if cfg.resume else None
        check_checkpoint_is_read(cfg)
        if cfg.check:
            return preflight(cfg)
        task, data, trainer = build(cfg)
        data.later_splits = ("test",) if cfg.test else ()
        if writes and first and cfg.resume:  # once it goes on: a refused change is not kept
            begun = LambdaCallback(
                on_fit_start=lambda *_: update_metrics(run_dir, logged=None),
                on_train_start=lambda *_: record_overrides(run_dir),
            )
            add_callback(trainer, begun)
        with fixed_threads(trainer, task.same_bits), wandb_run_ends():
            if writes and first:
                start_or_go_on(cfg, run_dir, composed, checkpoint)
            return fit(cfg, run_dir, task, data, trainer, checkpoint)


def start_or_go_on(
    cfg: DictConfig, run_dir: Path, composed: DictConfig, checkpoint: Path | None
) -> None:
    """Put a run directory into the state from which a training starts, and write what it is.

    Raises:
        UserError: the directory holds another run.
    """
    if cfg.resume and checkpoint is None:
        log.warning("%s has come to no checkpoint: it is begun anew", run_dir)
        clear(run_dir)
    elif cfg.resume:
        clear_strays(run_dir)
    else:
        begin(run_dir)
    record_start(run_dir, cfg, composed)
    restore_folder(run_dir / "model")


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
    goes_on_from(trainer, checkpoint)
    try:
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as error:  # also Lightning's answer to Ctrl-C
        if trainer.is_global_zero and checkpoints_in(run_dir / "checkpoints"):
            log.warning("to go on: %s", line("train", f"resume={near(run_dir)}"))
        if error.code == EXIT_CODE or not trainer.interrupted:
            raise
        if is_unused(run_dir):
            raise KeyboardInterrupt from error
        sys.exit(130)
    if is_dev_run(trainer):
        return None
    if cfg.test:
        test_best(trainer, task, data, run_dir)
    if trainer.is_global_zero:
        logged = [one.logged() for one in trainer.loggers if isinstance(one, CSVLogger)]
        update_metrics(run_dir, status="finished", logged=logged[0] if logged else None)
        for said in summary(cfg, data, run_dir):
            log.info("%s", said)
        finish_pushes(trainer)
    return best_value(cfg, trainer, run_dir)


def check_it_can_resume(cfg: DictConfig, run_dir: Path) -> None:
    """Refuse what is no training's, or needs a secret again."""
    if "split" in cfg or "input" in cfg:
        raise UserError(f"{run_dir} is no training's: there is nothing to resume from.")
    for name in redacted_keys(cfg):
        raise UserError(f"{name} was redacted in the run's config: give it again as {name}=….")


def resume_checkpoint(cfg: DictConfig, run_dir: Path) -> Path | None:
    """Return the checkpoint to resume from, which is known to be intact and has not been opened.

    None where the run was ended before its first one.

    Raises:
        UserError: its checkpoints are gone or damaged, or the run has nothing left to do.
    """
    folder = run_dir / "checkpoints"
    check_weights_are_there(run_dir)
    if not checkpoints_in(folder):
        if not has_come_to_something(run_dir):
            return None
        raise UserError(f"{run_dir} has no checkpoints/last.ckpt: there is nothing to resume from.")
    path, record = intact_checkpoint(folder)
    # a checkpoint stands before the evaluation of its step, which may be all that is left
    finished = read_metrics(run_dir).get("status") == "finished"
    place = (record.step, record.epochs, record.steps_per_epoch)
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
