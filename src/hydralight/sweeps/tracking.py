"""A sweep in W&B: its trials are a group, and this is its table."""

from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig


def log_table(logger: DictConfig, folder: Path, table: pd.DataFrame) -> None:
    """Log a sweep's table, as a run of its own in the group of its trials.

    Args:
        logger: The node of the W&B logger, which says where to.
        folder: The sweep's directory.
        table: A row for each trial.
    """
    import wandb

    mode: Any = "offline" if logger.get("offline") else None
    with wandb.init(
        project=logger.get("project"),
        entity=logger.get("entity"),
        group=folder.name,
        job_type="sweep",
        name=folder.name,
        dir=folder,
        mode=mode,
    ) as run:
        rows = table.astype(object).where(table.notna(), None)
        # a column may have numbers and words
        run.log({"trials": wandb.Table(dataframe=rows, allow_mixed_types=True)})
