"""The best model so far, as an ordinary Hugging Face folder."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors import SafetensorError

from hydralight.adapters import attached_to
from hydralight.callbacks.checkpoint_request import asked_of
from hydralight.callbacks.lightning_seams import (
    averaged_model,
    datamodule_of,
    evaluation_is_extra,
)
from hydralight.callbacks.merging import verified
from hydralight.errors import UserError, first_line
from hydralight.models import positions_of
from hydralight.quantization import number_of
from hydralight.runs.checksums import EXPORTED, is_ours, write_checksums
from hydralight.runs.files import (
    clear_partials,
    copy_folder,
    new_folder,
    remove,
    replace_folder,
    restore_folder,
    write_text,
)
from hydralight.runs.reading import read_json
from hydralight.runs.run import update_metrics
from hydralight.runs.sealed import sealed_json
from hydralight.runs.secrets import redact
from hydralight.sharding import save_weights
from hydralight.shards import class_name

log = logging.getLogger(__name__)


class BestModel(Callback):
    """Exports the model to `model/` at each improvement of the monitored metric, and records it.

    Without an evaluation in the run, the model of its end is exported. The folder is complete
    (weights as safetensors, config, tokenizer or image processor, generation config, model card)
    and is replaced as a whole.

    An evaluation that is there only because the run ends may have the best model too. A run that
    is extended has none there, so the best before it is kept as `model.step-<n>`, and taken back by
    a resume.

    Args:
        dirpath: The folder.
        monitor: Name of a logged validation metric, such as `val/rougeL`.
        mode: Whether less or more of it is better.
        card: What the model card says of the run, such as `base_model` and `experiment`.
        run_dir: Where `metrics.json` is, which gets the metrics of this model as `best`; the
            trainer's `default_root_dir` unless said.
        save_last: Whether the model of the run's end is exported too, to `<dirpath>-last`.
        merge: Whether an adapter is added into the weights of its base, and exported as an
            ordinary model, once its logits on the validation's first batch are those of the
            adapter. Without, the folder is that of the adapter, as peft reads it.

    Raises:
        UserError: the folder holds something else; or, while training, the disk is full, or a
            merged model says another thing.
    """

    def __init__(
        self,
        dirpath: str,
        monitor: str,
        mode: Literal["min", "max"],
        card: dict[str, Any] | None = None,
        run_dir: str | None = None,
        save_last: bool = False,
        merge: bool = False,
    ) -> None:
        self.dirpath = Path(dirpath)
        # in a run's directory it is what a run has exported, an earlier version's perhaps
        self.is_the_runs = run_dir is not None and self.dirpath == Path(run_dir) / "model"
        if not self.is_the_runs:
            check_replaceable(self.dirpath)
        self.monitor = monitor
        self.mode = mode
        self.card: dict[str, Any] = redact(dict(card or {}))
        self.run_dir = run_dir
        self.save_last = save_last
        self.merge = merge
        self.first_batch: Any = None  # of the validation, where models are merged
        self.last_metrics: dict[str, float] = {}  # of the last evaluation, by this process
        self.best_value: float | None = None
        self.best_step: int | None = None
        self.best_metrics: dict[str, float] = {}

    @property
    def state_key(self) -> str:
        """Name of the state in a checkpoint."""
        return "BestModel"

    def state_dict(self) -> dict[str, Any]:
        """Return the best so far."""
        return {
            "monitor": self.monitor,
            "value": self.best_value,
            "step": self.best_step,
            "metrics": self.best_metrics,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best so far, unless another metric decides by now."""
        if state_dict["monitor"] != self.monitor:
            return
        self.best_value = state_dict["value"]
        self.best_step = state_dict["step"]
        self.best_metrics = state_dict["metrics"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mend what a kill has left of an export."""
        if trainer.is_global_zero:
            clear_partials(self.dirpath)
            restore_folder(self.dirpath)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take back the best before an evaluation that ended the run, and say what is there."""
        self.take_back(trainer)
        if trainer.ckpt_path and trainer.is_global_zero:
            self.record(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do so before a resumed run's first evaluation, which may come before `on_train_start`."""
        if trainer.state.fn == "fit":
            self.take_back(trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, *_: int
    ) -> None:
        """Keep a batch that a merged model is verified by."""
        if self.merge and self.first_batch is None:
            self.first_batch = batch

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Export at an improvement; a value that is not a number is none."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        metrics = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("val/")
        }
        if self.monitor not in metrics:
            raise UserError(
                f"'{self.monitor}' (optimized_metric) is not among the metrics of this data: "
                f"{', '.join(metrics)}."
            )
        self.last_metrics = metrics
        value = metrics[self.monitor]
        better = self.best_value is None or (
            value < self.best_value if self.mode == "min" else value > self.best_value
        )
        if value == value and better:
            if evaluation_is_extra(trainer) and asked_of(trainer).saved is not None:
                self.keep(trainer)
            self.best_value, self.best_step = value, trainer.global_step
            self.best_metrics = metrics
            self.export(trainer, pl_module, self.dirpath, metrics)
        self.record(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Export the last model where asked, and where there was no evaluation to choose by."""
        if self.best_step is None:
            self.export(trainer, pl_module, self.dirpath, {})
        if self.save_last:
            last = self.dirpath.with_name(f"{self.dirpath.name}-last")
            self.export(trainer, pl_module, last, self.last_metrics)
        self.record(trainer)

    def record(self, trainer: Trainer) -> None:
        """Write to `metrics.json`, as `best`, what the folder says of the model that it holds.

        The checkpoint of a resumed run may tell of another: it stands before the evaluation of its
        step, which may have exported its model before the run was interrupted.
        """
        if trainer.is_global_zero:
            path = Path(self.run_dir or trainer.default_root_dir)
            update_metrics(path, best=self.exported() or None)

    def exported(self) -> dict[str, Any]:
        """Return step and metrics of the model in the folder; empty where it was not chosen by any.

        Raises:
            UserError: the folder's record of them is damaged.
        """
        record = self.dirpath / EXPORTED
        if not record.is_file():  # an earlier version's, or nothing
            known = self.best_step is not None and self.dirpath.exists()
            return {"step": self.best_step, **self.best_metrics} if known else {}
        advice = f"delete {self.dirpath}, and the next evaluation exports the model anew"
        content = read_json(record, dict, advice)
        return content if len(content) > 1 else {}

    def kept(self) -> Path:
        """Return where the best so far is kept while the folder holds that of the run's end."""
        return self.dirpath.with_name(f"{self.dirpath.name}.step-{self.best_step}")

    def keep(self, trainer: Trainer) -> None:
        """Keep the best so far, which the checkpoint speaks of, beside that of the run's end."""
        if trainer.is_global_zero and self.best_step is not None and self.dirpath.exists():
            copy_folder(self.dirpath, self.kept())

    def take_back(self, trainer: Trainer) -> None:
        """Put back what `keep` has kept, where the checkpoint speaks of it.

        Where somebody has deleted the best, it is no best any more.
        """
        if not trainer.is_global_zero or self.best_step is None:
            return
        if self.kept().exists():
            replace_folder(self.kept(), self.dirpath)
            self.record(trainer)
        elif not self.dirpath.exists():
            log.warning("%s is gone: the next evaluation exports the model anew", self.dirpath)
            self.best_value = self.best_step = None

    def export(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        folder: Path,
        metrics: Mapping[str, float],
    ) -> None:
        """Write a folder beside the old one, and put it in its place."""
        if not trainer.is_global_zero:
            save_weights(model_of(trainer, pl_module), folder, first=False)
            return
        partial = new_folder(folder)
        try:
            self.save(partial, trainer, pl_module, metrics)
            if not self.is_the_runs:
                check_replaceable(folder)
            replace_folder(partial, folder)
        except (OSError, SafetensorError) as error:
            before = "; the one before is intact" if folder.exists() else ""
            raise UserError(
                f"{folder} cannot be written ({first_line(error)}): make room, and resume "
                f"the run{before}."
            ) from error
        finally:
            remove(partial)

    def save(
        self,
        folder: Path,
        trainer: Trainer,
        pl_module: LightningModule,
        metrics: Mapping[str, float],
    ) -> None:
        """Write all files of the model into a folder."""
        model = model_of(trainer, pl_module)
        if self.merge:
            model = verified(model, pl_module, self.first_batch)
        generation: Any = getattr(model, "generation_config", None)
        stop_strings = getattr(generation, "stop_strings", None)
        if stop_strings:  # `pipeline` would refuse them without a tokenizer; our config has them
            generation.stop_strings = None
        try:
            save_weights(model, folder, first=True)
        finally:
            if stop_strings:
                generation.stop_strings = stop_strings
        with length_of(datamodule_of(trainer).processor, positions_of(model)) as processor:
            processor.save_pretrained(folder)
        write_text(folder / EXPORTED, sealed_json({"step": trainer.global_step, **metrics}))
        write_text(folder / "README.md", self.model_card(trainer.global_step, model, metrics))
        write_checksums(folder)

    def model_card(self, step: int, model: torch.nn.Module, metrics: Mapping[str, float]) -> str:
        """Return the text of the model card."""
        size = number_of(model)
        adapter = attached_to(model)
        header = ["---", f"library_name: {'peft' if adapter else 'transformers'}"]
        if self.card.get("base_model"):
            header.append(f"base_model: {json.dumps(self.card['base_model'])}")
        header += ["tags:", "- hydralight", "---", ""]
        lines = [f"# {self.card.get('experiment') or 'model'}", ""]
        lines.append(f"A {class_name(model)} of {size:,} parameters, trained with Hydralight.")
        lines.append("")
        lines += [f"- {key}: {value}" for key, value in self.card.items() if value]
        if adapter:
            kind = adapter.peft.peft_config["default"].peft_type.value
            lines.append(f"- an adapter alone ({kind}), of {adapter.source.checkpoint}")
            how = "AutoConfig.from_pretrained(folder + '/config')"
            lines.append(
                f"- its labels are in another config: `from_pretrained(folder, config={how})`"
            )
        stop = getattr(getattr(model, "generation_config", None), "stop_strings", None)
        if stop:  # which are not exported
            stop = json.dumps(stop, ensure_ascii=False)
            how = f"pipe(prompt, stop_sequence={stop}, tokenizer=pipe.tokenizer)"
            lines.append(f"- a text ends before {stop}, in transformers by `{how}`")
        lines.append(f"- optimizer steps: {step}")
        lines += [f"- {name}: {value:.4f}" for name, value in sorted(metrics.items())]
        return "\n".join([*header, *lines, ""])


def model_of(trainer: Trainer, pl_module: LightningModule) -> Any:
    """Return the model that evaluations use: that of the averaged weights, where there is one."""
    return (averaged_model(trainer) or pl_module).model


@contextmanager
def length_of(processor: Any, positions: int | None) -> Iterator[Any]:
    """Let a tokenizer say that it takes no more tokens than the model has positions."""
    if getattr(processor, "is_fast", False):  # what the last call has left, if rows were encoded
        processor.backend_tokenizer.no_truncation()
        processor.backend_tokenizer.no_padding()
    own = getattr(processor, "model_max_length", None)
    if own is None or positions is None:
        yield processor
        return
    processor.model_max_length = min(own, positions)
    try:
        yield processor
    finally:
        processor.model_max_length = own


def check_replaceable(folder: Path) -> None:
    """Raise a `UserError` where a folder holds anything but a model that was exported before."""
    if not is_ours(folder):
        raise UserError(
            f"callbacks.best_model.dirpath={folder} holds other files, which an export would "
            "replace: name an empty or a new folder."
        )
