"""From a composed config to the objects that it names."""

import logging
import math
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from omegaconf import DictConfig, OmegaConf

from hydralight import sharding
from hydralight.adapter_files import folder_of, swapped
from hydralight.callbacks.checkpoint_io import write_in_place
from hydralight.callbacks.lightning_seams import take_place
from hydralight.callbacks.loops import take_our_loops
from hydralight.config.check import check_root, check_targets
from hydralight.config.functions import settle_functions
from hydralight.config.trust import SENDS
from hydralight.data.module import DataModule
from hydralight.data.naming import labels_to_use
from hydralight.data.stream.streamed import check_end
from hydralight.dealing import build_data, build_optimizer, built
from hydralight.devices import share_steps
from hydralight.errors import UserError, count
from hydralight.model_configs import labels_of, read_config
from hydralight.nodes.ranks import is_first
from hydralight.optim.build import rehearse
from hydralight.progress import interactive
from hydralight.runs.checksums import is_adapter
from hydralight.runs.overrides import typed_keys
from hydralight.runs.run import model_folder, own_config
from hydralight.runs.secrets import is_secret_name, redact
from hydralight.sweeps.trial import PRUNING
from hydralight.tasks.same_bits import check_same_bits
from hydralight.tasks.task import Task

NEEDED = ("task", "model", "tokenizer", "data", "optimizer", "trainer")


def chosen(group: Any) -> bool:
    """Whether a group names something; a recipe's own values alone are left of one that is off."""
    return bool(group) and group.get("_target_") is not None


def prepare(cfg: DictConfig) -> None:
    """Check a config, settle its precision, and quieten the libraries; no data is loaded yet.

    Raises:
        UserError: an unknown argument, a value of the wrong type or out of its range, or one that
            is missing.
    """
    for group in ("callbacks", "logger", "generation", "scheduler"):
        cfg.setdefault(group, None)  # of a group that is switched off
    check_root(cfg)
    for group in NEEDED:
        if not chosen(cfg.get(group)):
            raise UserError(f"{group} is switched off, and nothing goes without: leave it on.")
    cfg.precision = resolve_precision(str(cfg.precision), cfg.trainer)
    computed = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}.get(cfg.precision)
    if computed and cfg.model.get("quantization") and not cfg.model.get("compute_dtype"):
        cfg.model.compute_dtype = computed  # autocast does not reach into bitsandbytes
    settle_functions(cfg.task)
    keep = cfg.data.get("keep")  # named, to be called with rows
    if isinstance(keep, DictConfig) and chosen(keep):
        cfg.data.keep = {**keep, "_partial_": True}
    check_targets(cfg)
    quiet_libraries()


def build(cfg: DictConfig) -> tuple[Task, DataModule, Trainer]:
    """Build the task, its data and the trainer; no data or weights are loaded yet."""
    data = build_data(cfg)
    if cfg.trainer.get("fast_dev_run"):  # then nothing is to be written
        trainer = build_trainer(cfg, progress_bar(cfg), logger=False)
    else:
        callbacks = build_all(cfg.callbacks)
        if PRUNING in os.environ:
            from hydralight.sweeps.pruning import pruning_of

            callbacks += pruning_of(cfg)
        trainer = build_trainer(cfg, callbacks, logger=build_all(without_secrets(cfg.logger)))
    share_steps(trainer, data.batching.batches_per_step)
    task = build_task(cfg, trains=True)
    if data.corpus.is_sampled and getattr(task, "has_reference", False):
        raise UserError(
            f"{data.corpus.key} keeps no values of a reference, which this loss compares the model "
            "with: leave it out."
        )
    if data.corpus.streaming:
        check_end(trainer)
    if data.corpus.streaming and getattr(task, "class_weights", None) == "balanced":
        raise UserError(
            "task.class_weights=balanced counts the classes of all rows, and data.streaming sees "
            "none before it comes: give the weights as numbers."
        )
    return task, data, trainer


def build_task(cfg: DictConfig, trains: bool = False) -> Task:
    """Seed, and build the task around the recipes of its model, optimizer and schedule.

    Args:
        cfg: The config.
        trains: Whether optimizer and schedule are used, and tried.
    """
    seed_everything(cfg.seed, workers=True, verbose=False)
    optimizer = build_optimizer(cfg)
    scheduler = built(cfg.scheduler) if chosen(cfg.scheduler) else None
    if trains:
        rehearse(optimizer, scheduler)
    task = built(
        cfg.task,
        model=built(cfg.model),
        optimizer=optimizer,
        scheduler=scheduler,
        generation=OmegaConf.to_container(cfg.generation, resolve=True) if cfg.generation else None,
    )
    task.same_bits = bool(cfg.trainer.get("same_bits"))
    return task


def build_all(group: DictConfig | None) -> list[Any]:
    """Build the entries of a group (callbacks, loggers) that are not null."""
    entries: dict[Any, Any] = {k: e for k, e in (group or {}).items() if e is not None}
    named = {k: e for k, e in entries.items() if isinstance(e, DictConfig) and "_target_" in e}
    # where the group is switched off, a recipe's own values of it are left, without a target
    for key in entries.keys() - named.keys() if named else ():
        where = f"{group._get_full_key(None)}.{key}" if group is not None else key
        raise UserError(f"{where}={entries[key]} should be {{_target_: a class, …}}, or null.")
    return [built(entry) for entry in named.values()]


def without_secrets(group: DictConfig | None) -> DictConfig | None:
    """Return the loggers with secrets hidden in what they show, such as tags and names.

    What they log in with is left: their keys, and the addresses that passwords stand in.
    """
    if group is None:
        return None

    def hidden(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: hidden(child, str(name)) for name, child in value.items()}
        if isinstance(value, list):
            return [hidden(child, key) for child in value]
        return value if is_secret_name(key) or SENDS.fullmatch(key) else redact(value)

    shown = hidden(OmegaConf.to_container(group, resolve=True))
    return OmegaConf.create({"logger": shown}).logger  # which tells its key


def build_trainer(cfg: DictConfig, callbacks: list[Any], **arguments: Any) -> Trainer:
    """Build the trainer; the order of the data is the data module's business under DDP too."""
    max_epochs = cfg.trainer.get("max_epochs")
    max_epochs = -1 if max_epochs is None else max_epochs
    defaults: dict[str, Any] = {
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        "enable_progress_bar": any(isinstance(callback, ProgressBar) for callback in callbacks),
        "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks),
        "default_root_dir": str(cfg.paths.output_dir),
    }
    if cfg.trainer.get("same_bits") and torch.cuda.is_available():
        defaults["deterministic"] = True
    for key in ("callbacks", "logger"):
        if key in cfg.trainer:
            raise UserError(f"trainer.{key}: there is a group {key} for that; leave it out.")
    given = {k: v for k, v in defaults.items() if k not in cfg.trainer}
    given |= {**arguments, "callbacks": callbacks, "max_epochs": math.ceil(max_epochs)}
    strategy = cfg.trainer.get("strategy")
    if isinstance(strategy, DictConfig):
        sharding.check_precision(strategy.get("_target_"), str(cfg.trainer.get("precision")))
    node = OmegaConf.create({"trainer": plain(cfg.trainer)})
    same_bits = node.trainer.pop("same_bits", False)
    trainer = built(node.trainer, **given)
    take_place(trainer)
    sharding.check(trainer)
    if same_bits:
        check_same_bits(trainer)
    most = 8 * max(2, os.cpu_count() or 1)
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > most:
        raise UserError(
            f"trainer.devices={trainer.num_devices}: this machine has "
            f"{count(os.cpu_count() or 1, 'core')}, and takes {most} processes at most."
        )
    take_our_loops(trainer, max_epochs)
    write_in_place(trainer)
    return trainer


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


def use_trained_model(cfg: DictConfig, run_dir: Path) -> None:
    """Point model and tokenizer to the run's exported model, or to `checkpoint` without a run.

    With `adapter=`, the model has that one in the place of its own. Labels are the model's own
    where it has names for them: other data need not have them all, and numbers stand for what they
    stood for in training.

    Raises:
        UserError: neither is given, or the run has no model yet.
    """
    if not cfg.get("run") and cfg.checkpoint is None:
        raise UserError("name a model: run=<run dir>, or checkpoint=<model> experiment=<recipe>.")
    folder = str(model_folder(run_dir)) if cfg.get("run") else cfg.checkpoint
    adapter = cfg.model.get("adapter")  # a new one is not trained, and left out
    if isinstance(adapter, str) and cfg.get("run"):
        folder = str(swapped(Path(folder), adapter))
    cfg.checkpoint = folder
    how = ("quantization", "double_quantization", "compute_dtype")
    options: tuple[str, ...] = ("attn_implementation", "trust_remote_code")
    if not cfg.get("run") or is_adapter(Path(folder)) or f"model.{how[0]}" in typed_keys(None):
        options += how  # but not of a run's base that has been merged
    kept = {key: cfg.model[key] for key in options if cfg.model.get(key)}
    own = folder  # whose config has the labels
    if isinstance(adapter, str) and not cfg.get("run"):
        own = kept["adapter"] = str(folder_of(adapter))
    cfg.model = {"_target_": "hydralight.models.Pretrained", "checkpoint": folder, **kept}
    module = str(cfg.tokenizer._target_).rpartition(".")[0]  # tokenizers, or processors
    trusted = {"trust_remote_code": True} if cfg.tokenizer.get("trust_remote_code") else {}
    cfg.tokenizer = {"_target_": f"{module}.Pretrained", "checkpoint": folder, **trusted}
    said = OmegaConf.select(own_config(run_dir), "data.chat_template") if cfg.get("run") else None
    if said is not None and cfg.data.get("chat_template") == said:
        cfg.data.chat_template = None  # the tokenizer has it, and its file may be gone
    config = read_config(own, None, bool(kept.get("trust_remote_code")))
    if "labels" in cfg.data:
        labels = labels_of(config)
        if labels is None and cfg.get("run"):
            labels = plain(OmegaConf.select(own_config(run_dir), "data.labels"))
        cfg.data.labels = labels_to_use(plain(cfg.data.labels), labels, bool(cfg.get("run")))


def plain(node: Any) -> Any:
    """Return a structure of OmegaConf's as plain lists and mappings."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def progress_bar(cfg: DictConfig) -> list[Any]:
    """Build the progress bar alone of the callbacks; the others belong to training."""
    return build_all(DictConfig({"bar": (cfg.callbacks or {}).get("rich_progress")}))


def quiet_libraries() -> None:
    """Leave out what the libraries say about themselves and what this project handles itself."""
    import datasets
    import huggingface_hub
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()  # that of downloads too
    if interactive():
        huggingface_hub.utils.enable_progress_bars()
    datasets.disable_progress_bars()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    names = "absl datasets fsspec httpx huggingface_hub matplotlib".split()
    distributed = "torch.distributed.tensor"  # how two collectives could have been one
    for name in (*names, distributed):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not is_first():
        logging.getLogger("hydralight").setLevel(logging.WARNING)
    ignored = (
        r".*does not have many workers.*",
        r".*`srun` command is available.*",  # `check_devices` tells where it is needed
        r".*your dataloader is not resumable.*",
        r".*The number of training batches.*is smaller than the logging interval.*",
        r".*Checkpoint directory .* exists and is not empty.*",
        r".*GPU available but not used.*",
        r".*sync_dist=True.*",
        r".*broadcast_buffers.*is deprecated.*",
        r".*LeafSpec.*",
        r".*You are using a custom batch sampler.*",
        r".*No positive samples in targets.*",  # LabelAUROC answers with NaN
        r".*No negative samples in targets.*",
        r".*will save all targets and predictions in the buffer.*",
        r".*WeightAveraging callback with a model that overrides.*",
        r".*assuming the intent is to load in a single process.*",
    )
    for message in ignored:
        warnings.filterwarnings("ignore", message)
