"""When Lightning evaluates."""

from lightning.pytorch import Trainer


def evaluation_is_due(trainer: Trainer) -> bool:
    """Whether, at the end of a training batch, Lightning is about to run the validation."""
    loop = trainer.fit_loop.epoch_loop
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    return loop._should_check_val_fx(fetcher)
