"""The best model so far, as an ordinary Hugging Face folder."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors import SafetensorError

from hydralight.callbacks.lightning_seams import averaged_model, datamodule_of
from hydralight.errors import UserError, first_line
from hydralight.runs.checksums import is_ours, write_checksums
from hydralight.runs.files import (
    clear_partials,
    new_folder,
    remove,
    replace_folder,
    restore_folder,
    write_text,
)
from hydralight.runs.run import update_metrics
from hydralight.runs.secrets import redact


class BestModel(Callback):
    """Exports the model to `model/` at each improvement of the monitored metric, and records it.

    Without an evaluation in the run, the model of its end is exported. The folder is complete
    (weights as safetensors, config, tokenizer or image processor, generation config, model card)
    and is replaced as a whole.

    Args:
        dirpath: The folder.
        monitor: Name of a logged validation metric, such as `val/rougeL`.
        mode: Whether less or more of it is better.
        card: What the model card says of the run, such as `base_model` and `experiment`.
        run_dir: Where `metrics.json` is, which gets the metrics of this model as `best`; the
            trainer's `default_root_dir` unless said.

    Raises:
        UserError: the folder holds something else; or, while training, the disk is full.
    """

    def __init__(
        self,
        dirpath: str,
        monitor: str,
        mode: Literal["min", "max"],
        card: dict[str, Any] | None = None,
        run_dir: str | None = None,
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
        value = metrics[self.monitor]
        better = self.best_value is None or (
            value < self.best_value if self.mode == "min" else value > self.best_value
        )
        if value == value and better:
            self.best_value, self.best_step = value, trainer.global_step
            self.best_metrics = metrics
            self.export(trainer, pl_module)
        self.record(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Export the last model where there was no evaluation to choose by."""
        if self.best_step is None:
            self.export(trainer, pl_module)
        self.record(trainer)

    def record(self, trainer: Trainer) -> None:
        """Write `best` to `metrics.json`; after a resume only the checkpoint may know it."""
        if trainer.is_global_zero and self.best_step is not None:
            best = {"step": self.best_step, **self.best_metrics}
            update_metrics(Path(self.run_dir or trainer.default_root_dir), best=best)

    def export(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the folder beside the old one, and put it in its place."""
        if not trainer.is_global_zero:
            return
        partial = new_folder(self.dirpath)
        try:
            self.save(partial, trainer, pl_module)
            if not self.is_the_runs:
                check_replaceable(self.dirpath)
            replace_folder(partial, self.dirpath)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{self.dirpath} cannot be written ({first_line(error)}): make room, and resume "
                "the run; the one before is intact."
            ) from error
        finally:
            remove(partial)

    def save(self, folder: Path, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write all files of the model into a folder."""
        model: Any = (averaged_model(trainer) or pl_module).model
        generation: Any = getattr(model, "generation_config", None)
        stop_strings = getattr(generation, "stop_strings", None)
        if stop_strings:  # `pipeline` would refuse them without a tokenizer; our config has them
            generation.stop_strings = None
        try:
            model.save_pretrained(folder)
        finally:
            if stop_strings:
                generation.stop_strings = stop_strings
        datamodule_of(trainer).processor.save_pretrained(folder)
        write_text(folder / "README.md", self.model_card(trainer.global_step, model))
        write_checksums(folder)

    def model_card(self, step: int, model: torch.nn.Module) -> str:
        """Return the text of the model card."""
        size = sum(p.numel() for p in model.parameters())
        header = ["---", "library_name: transformers"]
        if self.card.get("base_model"):
            header.append(f"base_model: {json.dumps(self.card['base_model'])}")
        header += ["tags:", "- hydralight", "---", ""]
        lines = [f"# {self.card.get('experiment') or 'model'}", ""]
        lines.append(f"A {type(model).__name__} of {size:,} parameters, trained with Hydralight.")
        lines.append("")
        lines += [f"- {key}: {value}" for key, value in self.card.items() if value]
        lines.append(f"- optimizer steps: {step}")
        lines += [f"- {name}: {value:.4f}" for name, value in sorted(self.best_metrics.items())]
        return "\n".join([*header, *lines, ""])


def check_replaceable(folder: Path) -> None:
    """Raise a `UserError` where a folder holds anything but a model that was exported before."""
    if not is_ours(folder):
        raise UserError(
            f"callbacks.best_model.dirpath={folder} holds other files, which an export would "
            "replace: name an empty or a new folder."
        )
