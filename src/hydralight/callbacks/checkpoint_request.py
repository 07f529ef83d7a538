"""How callbacks agree on a full checkpoint, in whatever order they are called.

A callback that wants one asks in its `on_train_batch_end`, on all processes alike:

    asked_of(trainer).step = trainer.global_step

Lightning puts `Checkpoint` callbacks behind all others, so `LastCheckpoint` answers in the same
hook, and says in `saved` what it has written. That can be read in any hook that comes later, such
as `on_train_batch_start`.
"""

from dataclasses import dataclass

from lightning.pytorch import Trainer


@dataclass
class CheckpointRequest:
    """What is asked, and what is there.

    Args:
        step: The optimizer step of which a checkpoint is wanted; None where none is.
        saved: The optimizer step of the newest full checkpoint; None where there is none.
    """

    step: int | None = None
    saved: int | None = None


def asked_of(trainer: Trainer) -> CheckpointRequest:
    """Return what is asked of this trainer's `LastCheckpoint`."""
    return trainer.__dict__.setdefault("hydralight_checkpoint_request", CheckpointRequest())
