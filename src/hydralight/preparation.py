"""Prepare a corpus: read, check and encode it to shards."""

from pathlib import Path

from lightning.pytorch import seed_everything
from omegaconf import DictConfig

from hydralight.building import build_data, prepare
from hydralight.errors import UserError


def prepare_corpus(cfg: DictConfig, run_dir: Path) -> None:
    """Do what is not done yet of the corpus that a config names, also of files that have changed.

    Args:
        cfg: The composed config of a training.
        run_dir: Nothing is written there.

    Raises:
        UserError: whatever is wrong with the config or the data.
    """
    prepare(cfg)
    if cfg.data.get("prepared") is None:
        raise UserError("prepare.py writes a corpus: give data.prepared=<folder>.")
    seed_everything(cfg.seed, workers=True, verbose=False)
    build_data(cfg).prepare_corpus()
