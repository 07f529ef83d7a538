"""The preflight: build everything that a run needs, evaluate one batch, train nothing."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from omegaconf import DictConfig
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from hydralight.adapters import attached_to
from hydralight.building import build_all, build_data, build_task, build_trainer
from hydralight.callbacks.best_model import BestModel
from hydralight.callbacks.checkpoint import LastCheckpoint
from hydralight.config.limits import MAX_EPOCHS, ends, last_step
from hydralight.data.batches import Batching
from hydralight.data.collate import EpochRows
from hydralight.data.module import DataModule
from hydralight.devices import replica_of, share_steps
from hydralight.disk import Footprint, states_of, tokenizer_of, weights_of
from hydralight.errors import UserError, count
from hydralight.optim.build import groups_for
from hydralight.optim.schedules import counted, drawn
from hydralight.optim.shown import groups_shown
from hydralight.quantization import number_of
from hydralight.runs.checkpoints import ENDLESS
from hydralight.shards import class_name
from hydralight.tasks.evaluation import check_monitors
from hydralight.tasks.optimization import check_averages, tokens_per_step
from hydralight.tasks.task import Task

LOOKED_AT = 256  # rows of a split, from all over it


def preflight(cfg: DictConfig) -> Footprint:
    """Read and encode the data, build the model, evaluate a batch, and print what there is.

    What a run would take on disk is printed and returned.

    Of each split, rows are made to batches as training does it, with their images.

    Raises:
        UserError: what training would have stumbled over.
    """
    callbacks, _ = build_all(cfg.callbacks), build_all(cfg.logger)
    task, data = build_task(cfg, trains=True), build_data(cfg)
    data.later_splits = ("test",) if cfg.test else ()
    limited = DictConfig({**cfg, "trainer": {**cfg.trainer, "limit_val_batches": 1}})
    trainer = build_trainer(limited, [], logger=False)
    share_steps(trainer, data.batching.batches_per_step)
    trainer.validate(task, datamodule=data, verbose=False)
    check_monitors(callbacks, task)
    splits = ["train", *data.validation_sets, *(["test"] if cfg.test else [])]
    looked_at = {split: look_at(data, split) for split in splits}
    trained = training_shown(cfg, task, data, trainer, callbacks)
    footprint = footprint_of(task, data, callbacks)
    if trainer.is_global_zero:
        print_summary(cfg, task, data, trainer, looked_at, footprint, trained)
        print_examples(data)
    return footprint


def footprint_of(task: Task, data: DataModule, callbacks: Sequence[Callback]) -> Footprint:
    """Return what a run would leave on disk, by what is built and the callbacks that write."""
    assert task.model is not None
    adapter = attached_to(task.model)
    weights = weights_of(task.model, () if adapter is None else adapter.base)
    exports = next((one for one in callbacks if isinstance(one, BestModel)), None)
    saves = next((one for one in callbacks if isinstance(one, LastCheckpoint)), None)
    averages = any(isinstance(one, WeightAveraging) for one in callbacks)  # kept beside the weights
    return Footprint(
        model=(weights_of(task.model) if exports is not None and exports.merge else weights)
        + tokenizer_of(data.processor),
        checkpoint=weights * (1 + averages)
        + states_of(task.optimizer, groups_for(task.optimizer, task.model)),
        models=0 if exports is None else 1 + exports.save_last,
        checkpoints=0 if saves is None else saves.save_total_limit,
    )


def look_at(data: DataModule, split: str) -> int:
    """Make batches of rows from all over a split, and return of how many.

    Raises:
        UserError: a row cannot be taken, such as one with a damaged image.
    """
    rows = EpochRows(data.encoded(split))
    picked = np.unique(np.linspace(0, len(rows) - 1, LOOKED_AT).astype(int)).tolist()
    for start in range(0, len(picked), 16):
        some = rows.__getitems__([(0, index) for index in picked[start : start + 16]])
        data.collate(some, "train" if split == "train" else "evaluate")
    return len(picked)


def step_of(batching: Batching, trainer: Trainer) -> str:
    """Return of how many micro-batches an optimizer step is, and where they are computed."""
    own = trainer.accumulate_grad_batches
    size = count(batching.batch_size, "example")
    if batching.max_tokens is not None:
        size = f"at most {batching.max_tokens:,} tokens"
    devices = replica_of(trainer)[1]
    batches = f"{own * devices} micro-batches" if own * devices > 1 else "1 batch"
    where = f", {own} on each of {devices} devices" if devices > 1 else ""
    return f"{batches} of {size}{where}"


def steps_of_epoch(data: DataModule, trainer: Trainer) -> int:
    """Return how many optimizer steps an epoch has."""
    data.encoded("train")
    return math.ceil(len(data.train_dataloader()) / trainer.accumulate_grad_batches)


def training_shown(
    cfg: DictConfig,
    task: Task,
    data: DataModule,
    trainer: Trainer,
    callbacks: Sequence[Callback],
) -> list[tuple[str, str]]:
    """Build optimizer and schedule as training does, and return what is said of them, by row.

    Raises:
        UserError: what training would refuse of them.
    """
    assert task.model is not None
    steps = steps_of_epoch(data, trainer)
    last = [
        end * steps if MAX_EPOCHS in said and end == float(said.partition("=")[2]) else end
        for said, _, end in ends(cfg.trainer, 0, 0, steps)
    ]
    if not last and task.scheduler is not None:
        raise UserError("the schedule needs an end: set trainer.max_epochs or max_steps.")
    total = max(1, min(last, default=1))
    found: Any = task.configure_optimizers(total)
    optimizer = found["optimizer"] if isinstance(found, dict) else found
    check_averages(optimizer, callbacks)
    rows = [
        ("optimizer" if not n else "", one)
        for n, one in enumerate(groups_shown(optimizer, task.model))
    ]
    if task.scheduler is None:
        return [*rows, ("learning rate", "constant")]
    recipe = counted(task.scheduler, lambda: tokens_per_step(data, trainer))
    lr = optimizer.param_groups[0].get("initial_lr", optimizer.defaults["lr"])
    return [*rows, ("learning rate", drawn(recipe, lr, total))]


def print_summary(
    cfg: DictConfig,
    task: Task,
    data: DataModule,
    trainer: Trainer,
    looked_at: Mapping[str, int],
    footprint: Footprint,
    trained: Sequence[tuple[str, str]],
) -> None:
    """Print model, data, steps, optimizer and disk as a table; `looked_at` is rows by split."""
    assert task.model is not None
    trainable = sum(p.numel() for p in task.model.parameters() if p.requires_grad)
    steps = steps_of_epoch(data, trainer)
    table = Table("", "checked; nothing was trained", title="Preflight", title_justify="left")
    table.add_row("model", f"{class_name(task.model)}, {number_of(task.model):,}")
    table.add_row("trained parameters", f"{trainable:,}")
    if isinstance(data.processor, PreTrainedTokenizerBase):
        table.add_row("vocabulary", f"{len(data.processor):,}")
    if data.label_names:
        table.add_row("labels", ", ".join(data.label_names))
    for split, looked in looked_at.items():
        too_long = data.too_long_counts.get(split, 0)
        streamed = split == "train" and data.corpus.streaming
        number = "as they come" if streamed else f"{len(data.encoded(split)):,}"
        said = f"{number} ({too_long:,} were too long; {looked:,} looked at)"
        table.add_row(f"{split} examples", said)
    endless = len(data.train_dataloader()) >= ENDLESS
    table.add_row("optimizer steps an epoch", "it has no end" if endless else f"{steps:,}")
    table.add_row("an optimizer step", step_of(data.batching, trainer))
    ended = [said for said, _, _ in ends(cfg.trainer, 0, 0, steps)]
    table.add_row("the run ends at", " or ".join(ended) or "no step: it has no end")
    for row in trained:
        table.add_row(*map(Text, row))
    for name, said in mixed(data, last_step(cfg.trainer, steps)).items():
        table.add_row(name, said)
    table.add_row("devices", f"{trainer.world_size} by {type(trainer.accelerator).__name__}")
    table.add_row("precision", str(trainer.precision))
    table.add_row("a run on disk", str(footprint))
    table.add_row("metrics", ", ".join(sorted(trainer.callback_metrics)))
    Console().print(table)


def mixed(data: DataModule, steps: int) -> dict[str, str]:
    """Return what there is of each source of a mixture, and what so many steps take of it."""
    mixture = data.taken.mixture()
    if mixture is None:
        return {}
    drawn = mixture.drawn(0, steps * mixture.batches_per_step // data.num_iterations)
    total = max(1, sum(drawn.values()))
    return {
        f"mix/{name}": f"{size:,} examples; {drawn[name] / total:.1%} of what {steps:,} steps "
        f"train on, {drawn[name] / size:.2f} times each"
        for name, size in mixture.sizes.items()
    }


def print_examples(data: DataModule, number: int = 3) -> None:
    """Print training examples of which a part is trained on, in green, as the model reads them."""
    console, rows = Console(), data.encoded("train")
    # without colours, as in a file, brackets tell it
    left, right = ("", "") if console.color_system else ("⟦", "⟧")
    for index in range(min(number, len(rows))):
        text = Text()
        for part, trained in data.shape.parts(rows[index], data.processor):
            if trained:
                text.append(f"{left}{part}{right}", style="bold green")
            else:
                text.append(part, style="dim")
        if text:
            console.print(Panel(text, title=f"training example {index + 1}", title_align="left"))
