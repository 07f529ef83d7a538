"""Build a run from its config, train it, and leave a complete run directory."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from omegaconf import DictConfig, OmegaConf

from hydralight import runs
from hydralight.config import UserError, check_root, check_targets, did_you_mean
from hydralight.data.datamodule import DataModule
from hydralight.models import read_config
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
    check_root(cfg)
    cfg.precision = resolve_precision(str(cfg.precision), cfg.trainer)
    check_targets(cfg)
    quiet_libraries()
    fast_dev_run = bool(cfg.trainer.get("fast_dev_run"))
    checkpoint = resume_checkpoint(cfg, run_dir) if cfg.resume else None
    if cfg.checkpoint is not None:
        read_config(cfg.checkpoint)  # before any data is loaded
    task, data, trainer = build(cfg)
    check_monitors(trainer, task)
    if cfg.check:
        from hydralight.preflight import preflight

        preflight(cfg)
        runs.remove_if_unused(run_dir)
        return None
    if trainer.is_global_zero:
        runs.record_start(run_dir, cfg)
        runs.restore_folder(run_dir / "model")
    log_config(cfg, trainer)
    trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    if cfg.test and not fast_dev_run:
        from hydralight.evaluation import test_best

        test_best(trainer, task, data, run_dir)
    if trainer.is_global_zero and not fast_dev_run:
        runs.update_metrics(run_dir, status="finished")
        best = runs.read_metrics(run_dir).get("best")
        if best is not None:
            metric = cfg.optimized_metric
            log.info("best %s: %.4f, at step %d", metric, best[metric], best["step"])
        log.info("run directory: %s", run_dir)
    return best_value(cfg, trainer, run_dir)


def build(cfg: DictConfig) -> tuple[Task, DataModule, Trainer]:
    """Build the task, its data and the trainer; no data or weights are loaded yet."""
    trainer = build_trainer(cfg, build_all(cfg.callbacks), logger=build_all(cfg.logger))
    return build_task(cfg), build_data(cfg), trainer


def build_task(cfg: DictConfig) -> Task:
    """Seed, and build the task around the recipes of its model, optimizer and schedule."""
    seed_everything(cfg.seed, workers=True, verbose=False)
    return instantiate(
        cfg.task,
        model=instantiate(cfg.model, _convert_="object"),
        optimizer=instantiate(cfg.optimizer, _convert_="object"),
        scheduler=instantiate(cfg.scheduler, _convert_="object"),
        generation=OmegaConf.to_container(cfg.generation, resolve=True),
        _convert_="object",
    )


def build_data(cfg: DictConfig) -> DataModule:
    """Build the data module around the tokenizer's recipe."""
    tokenizer = instantiate(cfg.tokenizer, _convert_="object")
    return instantiate(cfg.data, tokenizer=tokenizer, _convert_="object")


def build_all(group: DictConfig | None) -> list[Any]:
    """Build the entries of a group (callbacks, loggers) that are not null."""
    return [instantiate(entry, _convert_="object") for entry in (group or {}).values() if entry]


def build_trainer(cfg: DictConfig, callbacks: list[Any], **arguments: Any) -> Trainer:
    """Build the trainer; the order of the data is the data module's business under DDP too."""
    defaults: dict[str, Any] = {
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        "enable_progress_bar": any(isinstance(callback, ProgressBar) for callback in callbacks),
        "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks),
        "default_root_dir": str(cfg.paths.output_dir),
    }
    given = {k: v for k, v in defaults.items() if k not in cfg.trainer}
    return instantiate(cfg.trainer, **given, callbacks=callbacks, **arguments, _convert_="object")


def resolve_precision(precision: str, trainer: DictConfig) -> str:
    """Turn `auto` into what the hardware computes natively: bf16-mixed, 16-mixed or 32-true."""
    if precision != "auto":
        return precision
    on_gpu = trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda")
    if not (on_gpu and torch.cuda.is_available()):
        return "32-true"
    # a T4 emulates bfloat16, slowly
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if native else "16-mixed"


def resume_checkpoint(cfg: DictConfig, run_dir: Path) -> Path:
    """Return the checkpoint to resume from.

    Raises:
        UserError: there is none, or the run has nothing left to do.
    """
    path = run_dir / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise UserError(f"{run_dir} has no checkpoints/last.ckpt: there is nothing to resume from.")
    if runs.read_metrics(run_dir).get("status") == "finished":
        state = torch.load(path, weights_only=True, mmap=True)
        step = state["global_step"]
        max_steps = cfg.trainer.get("max_steps", -1)
        max_epochs = cfg.trainer.get("max_epochs")
        # the checkpoint of an epoch's end is written before the epoch counts as completed
        epochs = state["epoch"] + 1
        if (max_epochs is not None and 0 <= max_epochs <= epochs) or (0 <= max_steps <= step):
            raise UserError(
                f"{run_dir} has nothing left to do: it ended after epoch {epochs}, step {step}; to "
                f"extend it, give for example trainer.max_epochs={epochs + 1}."
            )
    return path


def check_monitors(trainer: Trainer, task: Task) -> None:
    """Raise a `UserError` for a callback that monitors what the task does not log."""
    known = [f"val/{name}" for name in task.metric_names]
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        monitor = getattr(callback, "monitor", None)
        if monitor is not None and monitor not in known:
            name = type(callback).__name__
            raise UserError(
                f"{name} monitors '{monitor}' (optimized_metric), which is never logged"
                f"{did_you_mean(monitor, known)} (there are: {', '.join(known)})"
            )


def log_config(cfg: DictConfig, trainer: Trainer) -> None:
    """Give the resolved config, redacted, to the loggers."""
    content = runs.redact(OmegaConf.to_container(cfg, resolve=True))
    for logger in trainer.loggers:
        logger.log_hyperparams(content)


def best_value(cfg: DictConfig, trainer: Trainer, run_dir: Path) -> float | None:
    """Return the best value of the optimized metric, or its last where no best is kept."""
    best = runs.read_metrics(run_dir).get("best", {})
    if cfg.optimized_metric in best:
        return best[cfg.optimized_metric]
    value = trainer.callback_metrics.get(cfg.optimized_metric)
    return None if value is None else float(value)


def quiet_libraries() -> None:
    """Leave out what the libraries say about themselves and what this project handles itself."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("absl", "matplotlib", "httpx", "datasets", "fsspec", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if os.environ.get("LOCAL_RANK", "0") != "0":
        logging.getLogger("hydralight").setLevel(logging.WARNING)
    ignored = (
        r".*does not have many workers.*",
        r".*your dataloader is not resumable.*",
        r".*The number of training batches.*is smaller than the logging interval.*",
        r".*Checkpoint directory .* exists and is not empty.*",
        r".*GPU available but not used.*",
        r".*sync_dist=True.*",
        r".*LeafSpec.*",
        r".*You are using a custom batch sampler.*",
    )
    for message in ignored:
        warnings.filterwarnings("ignore", message)
