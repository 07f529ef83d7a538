"""Lightning's private doors, gone through on a tiny trainer: fails where Lightning changes one."""

import math

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, EMAWeightAveraging
from lightning.pytorch.demos.boring_classes import BoringModel, RandomDataset
from torch.utils.data import DataLoader

from hydralight.callbacks.lightning_seams import (
    add_callback,
    averaged_model,
    begin_the_next_epoch,
    datamodule_of,
    evaluate_now,
    evaluation_is_due,
    is_dev_run,
    logging_is_due,
)
from hydralight.callbacks.loops import take_our_loops


class Module(BoringModel):
    """Writes down what it sees; its metric is a streaming one's sum, as ours are."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.estimated = None

    def configure_optimizers(self):
        self.estimated = self.trainer.estimated_stepping_batches
        return super().configure_optimizers()

    def on_train_epoch_start(self):
        self.seen.append(("epoch", self.trainer.current_epoch))

    def training_step(self, batch, batch_idx):
        self.seen.append(("train", self.trainer.current_epoch))
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        assert self.trainer.validating
        self.seen.append(("val", batch_idx))
        self.log("val/rows", float(len(batch)), reduce_fx="sum", batch_size=1)


class Data(LightningDataModule):
    """4 batches of one row to train on, 3 to evaluate."""

    def train_dataloader(self):
        return DataLoader(RandomDataset(32, 4))

    def val_dataloader(self):
        return DataLoader(RandomDataset(32, 3))


class Hook(Callback):
    """Calls a function in a hook."""

    def __init__(self, hook, function):
        setattr(self, hook, lambda trainer, module, *args, **kwargs: function(trainer, module))


class Saves(Checkpoint):
    """Writes a checkpoint of a step where ours does, at the end of its batch."""

    def __init__(self, path, step):
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer, module, *args):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def trainer_of(tmp_path, *callbacks, **arguments):
    defaults = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks),
        "default_root_dir": tmp_path,
    }
    arguments = defaults | arguments
    epochs = arguments.pop("max_epochs")
    trainer = Trainer(**arguments, max_epochs=math.ceil(epochs), callbacks=list(callbacks))
    take_our_loops(trainer, epochs)
    return trainer


@pytest.mark.parametrize(
    ("arguments", "due", "steps"),
    [
        ({}, [4, 8], 8),
        ({"val_check_interval": 2}, [2, 4, 6, 8], 8),
        ({"val_check_interval": 3}, [3, 6, 8], 8),  # not begun anew with each epoch
        ({"val_check_interval": 5}, [5, 8], 8),  # longer than an epoch
        ({"val_check_interval": 0.5}, [2, 4, 6, 8], 8),
        ({"val_check_interval": 0.7}, [2, 4, 6, 8], 8),
        ({"val_check_interval": 0.01}, [1, 2, 3, 4, 5, 6, 7, 8], 8),
        # 4 batches are two steps, the second of one batch
        ({"val_check_interval": 3, "accumulate_grad_batches": 3}, [3, 4], 4),
        ({"val_check_interval": 0.5, "accumulate_grad_batches": 3}, [1, 2, 3, 4], 4),
        ({"accumulate_grad_batches": 3}, [2, 4], 4),
        ({"check_val_every_n_epoch": 2}, [8], 8),
        ({"check_val_every_n_epoch": 2, "max_epochs": 3}, [8, 12], 12),
        ({"check_val_every_n_epoch": 2, "val_check_interval": 3}, [6, 8], 8),
        ({"check_val_every_n_epoch": None, "val_check_interval": 3}, [3, 6, 8], 8),
        ({"limit_val_batches": 0}, [], 8),
        ({"limit_train_batches": 3}, [3, 6], 6),
        ({"overfit_batches": 2}, [2, 4], 4),
        ({"max_steps": 6, "max_epochs": -1}, [4, 6], 6),
        ({"max_steps": 6}, [4, 6], 6),
        ({"max_steps": 0}, [0], 0),
        ({"max_epochs": 0.5}, [2], 2),
        ({"max_epochs": 0.01}, [1], 1),
        ({"max_epochs": 1.1}, [4, 5], 5),
        ({"max_epochs": 2.0}, [4, 8], 8),
        ({"max_epochs": 1.5, "max_steps": 9}, [4, 6], 6),
        ({"max_epochs": 1.5, "max_steps": 5}, [4, 5], 5),
        ({"max_epochs": 1.5, "accumulate_grad_batches": 3}, [2, 3], 3),
        ({"max_epochs": 0.5, "limit_train_batches": 0.5}, [1], 1),
    ],
)
def test_an_evaluation_is_known_before_it_begins(tmp_path, arguments, due, steps):
    """Which steps are evaluated; the last is, and no step is evaluated twice."""
    foretold, begun = [], []

    def foretell(trainer, module):
        if evaluation_is_due(trainer):
            foretold.append(trainer.global_step)

    hooks = [
        Hook("on_train_batch_end", foretell),
        Hook("on_validation_start", lambda trainer, module: begun.append(trainer.global_step)),
    ]
    trainer, module = trainer_of(tmp_path, *hooks, **arguments), Module()
    trainer.fit(module, datamodule=Data())
    assert begun == due
    assert foretold == [step for step in due if step]
    assert trainer.global_step == module.estimated == steps


@pytest.mark.parametrize(
    ("batches", "arguments", "due"),
    [
        # 0.28 * 25 is 7.000000000000001, which would be 8 steps
        (25, {"max_epochs": 0.28}, [7]),
        # 4 steps an epoch, the last of one batch
        (7, {"accumulate_grad_batches": 2, "val_check_interval": 0.5}, [2, 4, 6, 8]),
        (7, {"accumulate_grad_batches": 2, "val_check_interval": 3}, [3, 6, 8]),
    ],
)
def test_parts_of_epochs_are_counted_in_steps(tmp_path, batches, arguments, due):
    begun, data = [], Data()
    data.train_dataloader = lambda: DataLoader(RandomDataset(32, batches))
    note = Hook("on_validation_start", lambda trainer, module: begun.append(trainer.global_step))
    trainer_of(tmp_path, note, **arguments).fit(Module(), datamodule=data)
    assert begun == due


@pytest.mark.parametrize(
    ("hook", "batch", "begun"),
    [
        ("on_train_batch_end", 3, [2]),  # within a step, which is done first
        ("on_train_batch_end", 4, [2]),
        ("on_train_epoch_end", 4, [2]),
        ("on_train_start", 0, [0]),
    ],
)
def test_a_run_that_is_told_to_stop_ends_with_a_step_and_an_evaluation(
    tmp_path, hook, batch, begun
):
    evaluated = []

    def stop(trainer, module):
        if trainer.fit_loop.epoch_loop.batch_progress.total.ready == batch:
            trainer.should_stop = True

    def note(trainer, module):
        evaluated.append(trainer.global_step)

    hooks = [Hook(hook, stop), Hook("on_validation_start", note)]
    arguments = {"accumulate_grad_batches": 2, "val_check_interval": 100}
    trainer = trainer_of(tmp_path, *hooks, **arguments)
    trainer.fit(Module(), datamodule=Data())
    assert evaluated == begun
    assert trainer.fit_loop.epoch_loop.batch_progress.total.ready == 2 * begun[0]


@pytest.mark.parametrize("end", [{"max_steps": 6, "max_epochs": -1}, {"max_epochs": 1.5}])
def test_a_run_that_is_resumed_at_its_end_goes_through_its_end(tmp_path, end):
    """Lightning does nothing at all where `max_steps` has been reached."""
    path, called = tmp_path / "a.ckpt", []
    trainer_of(tmp_path, Saves(path, 6), **end).fit(Module(), datamodule=Data())
    names = ("on_train_start", "on_train_batch_start", "on_validation_end", "on_train_end")
    hooks = [Hook(name, lambda *args, name=name: called.append(name)) for name in names]
    trainer = trainer_of(tmp_path, *hooks, **end)
    trainer.fit(Module(), datamodule=Data(), ckpt_path=path, weights_only=True)
    assert called == ["on_train_start", "on_validation_end", "on_train_end"]
    assert trainer.global_step == 6


@pytest.mark.parametrize("step", [3, 4, 7, 8])
def test_a_checkpoint_of_a_batch_is_gone_on_with(tmp_path, step):
    """Its evaluation is done once and whole, and each batch is counted in its epoch."""
    path = tmp_path / "a.ckpt"
    whole = Module()
    trainer_of(tmp_path, Saves(path, step)).fit(whole, datamodule=Data())
    state = torch.load(path, weights_only=True)
    loops = state["loops"]["fit_loop"]
    assert loops["epoch_loop.batch_progress"]["total"]["ready"] == step  # the data's place
    assert state["global_step"] == step
    assert state["epoch"] == (step - 1) // 4

    rows = []

    def resume(trainer, module):
        begin_the_next_epoch(trainer)
        if step % 4 == 0:
            evaluate_now(trainer)
            assert trainer.training
            rows.append(float(trainer.callback_metrics["val/rows"]))

    module = Module()
    trainer = trainer_of(tmp_path, Hook("on_train_start", resume))
    data = Data()
    if step % 4:  # the loader begins in the middle, as our sampler does
        data.train_dataloader = lambda: Rest(4 - step % 4)
    trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
    assert rows == [3] * (step % 4 == 0)
    # two epochs, which begin with a hook and have 4 batches; the rest of them is done
    trained = [place for place in whole.seen if place[0] != "val"]
    done = step + (step - 1) // 4 + 1
    assert [place for place in module.seen if place[0] != "val"] == trained[done:]
    evaluations = module.seen.count(("val", 2))
    assert evaluations == len([s for s in (4, 8) if s >= step])
    assert trainer.global_step == 8
    assert trainer.current_epoch == 2


class Rest(DataLoader):
    """The rest of the first epoch, and whole ones after it; its length is that of a whole one."""

    def __init__(self, rest):
        super().__init__(RandomDataset(32, 4))
        self.rest = rest

    def __iter__(self):
        rest, self.rest = self.rest, 4
        return iter(list(super().__iter__())[4 - rest :])


def test_averaged_weights_are_those_of_the_evaluation(tmp_path):
    evaluated, found = [], []
    hooks = [
        Hook(
            "on_validation_batch_start",
            lambda trainer, module: evaluated.append(module.layer.weight.detach().clone()),
        ),
        Hook(
            "on_validation_end",
            lambda trainer, module: found.append(
                (averaged_model(trainer).layer.weight.clone(), module.layer.weight.clone())
            ),
        ),
    ]
    trainer = trainer_of(tmp_path, *hooks, EMAWeightAveraging(decay=0.5))
    trainer.fit(Module(), datamodule=Data())
    assert len(found) == 2
    for number, (average, own) in enumerate(found):
        assert torch.equal(average, evaluated[3 * number])
        assert not torch.equal(average, own)
    assert averaged_model(trainer_of(tmp_path)) is None


def test_callbacks_are_called_in_order_and_checkpoints_last(tmp_path):
    called = []
    names = ("setup", "on_load_checkpoint", "on_train_start", "on_train_batch_end")

    def hooks(name):
        made = Checkpoint() if name == "checkpoint" else Callback()
        for hook in names:
            setattr(made, hook, lambda *args, hook=hook, **kwargs: called.append((hook, name)))
        return made

    path = tmp_path / "a.ckpt"
    trainer_of(tmp_path, Saves(path, 1), max_steps=1).fit(Module(), datamodule=Data())
    trainer = trainer_of(tmp_path, hooks("checkpoint"), hooks("one"), hooks("two"), max_steps=2)
    add_callback(trainer, hooks("first"), first=True)
    add_callback(trainer, hooks("added"))
    module = Module()
    module.configure_model = lambda: called.append(("configure_model", ""))
    data = Data()
    data.setup = lambda stage: called.append(("data", ""))
    trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
    order = [hook for hook, name in called if name in ("", "first")]
    # the seed goes between the data and the model, which is built before its weights are restored
    assert order == ["data", "setup", "configure_model", *names[1:]]
    assert {name for hook, name in called} == {"", "first", "one", "two", "checkpoint", "added"}
    for hook in names:
        in_hook = [name for h, name in called if h == hook]
        assert in_hook.index("first") < in_hook.index("one") < in_hook.index("two")
        assert in_hook.index("two") < in_hook.index("checkpoint")


def test_what_a_trainer_keeps_of_its_arguments(tmp_path):
    steps = []

    def note(trainer, module):
        if logging_is_due(trainer):
            steps.append(trainer.global_step)

    trainer = trainer_of(tmp_path, Hook("on_train_batch_end", note), log_every_n_steps=3)
    data = Data()
    trainer.fit(Module(), datamodule=data)
    assert steps == [3, 6]
    assert datamodule_of(trainer) is data
    assert not is_dev_run(trainer)
    assert is_dev_run(trainer_of(tmp_path, fast_dev_run=True))
    assert (
        trainer.fit_loop.epoch_loop.batch_progress.total.ready == 8
    )  # which the data module reads
