"""Predict with a run's best model, or with any checkpoint and a recipe."""

import copy
from pathlib import Path

from omegaconf import DictConfig

from hydralight.building import (
    build_data,
    build_task,
    build_trainer,
    prepare,
    progress_bar,
    use_trained_model,
)
from hydralight.callbacks.predictions import write_json_lines
from hydralight.errors import UserError
from hydralight.runs.as_json import row_as_json
from hydralight.runs.begin import check_no_training_is_here
from hydralight.runs.environment import record_start
from hydralight.tasks.data import PredictedRows


def is_same_file(source: str, output: str) -> bool:
    """Whether two paths name one file that is there, through links too."""
    try:
        return Path(source).expanduser().samefile(Path(output).expanduser())
    except OSError:  # a text, or a file that is not there yet
        return False


def predict(cfg: DictConfig, run_dir: Path) -> PredictedRows:
    """Predict `input` (a file, "-" or a text); write JSON lines to `output` or to the terminal.

    Raises:
        UserError: there is no model or nothing to predict.
    """
    composed = copy.deepcopy(cfg)
    prepare(cfg)
    if cfg.get("input") is None:
        raise UserError("input has no value: give input=<file>, input=- or input='a text'.")
    use_trained_model(cfg, run_dir)
    if not cfg.get("run"):
        check_no_training_is_here(run_dir)
        record_start(run_dir, cfg, composed)
    output = cfg.get("output")
    if output is not None and Path(str(output)).expanduser().is_dir():
        raise UserError(f"output={output} is a folder: name a file in it.")
    if output is not None and is_same_file(str(cfg.input), str(output)):
        raise UserError(f"output={output} is the input, which it would overwrite: name another.")
    cfg.trainer = {**cfg.trainer, "devices": 1, "num_nodes": 1, "strategy": "auto"}
    task, data = build_task(cfg), build_data(cfg)
    data.predict_from(str(cfg.input), cfg.get("format"))
    trainer = build_trainer(cfg, progress_bar(cfg) if output is not None else [], logger=False)
    batches = trainer.predict(task, datamodule=data) or []
    rows: PredictedRows = sorted(
        (row for batch in batches for row in batch), key=lambda row: row["row"]
    )
    if output is not None:
        write_json_lines(Path(str(output)).expanduser(), rows)
    else:
        for row in rows:
            print(row_as_json(row), flush=True)
    return rows
