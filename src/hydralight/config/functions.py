"""Functions that a config names to be called later: a loss, and rewards."""

from omegaconf import DictConfig

from hydralight.errors import UserError


def settle_functions(task: DictConfig) -> None:
    """Let what names functions make functions, and not their values.

    Args:
        task: The group, which is changed. A `loss` without a target is the task's own.

    Raises:
        UserError: something else is named.
    """
    loss = task.get("loss")
    if loss is not None and not isinstance(loss, DictConfig):
        raise UserError(f"task.loss={loss} should be {{_target_: a function}}.")
    if loss:  # to be called with outputs and batch
        named = loss.get("_target_") is not None
        task.loss = {**loss, "_partial_": True} if named else None
    for place, reward in enumerate(task.get("rewards") or ()):
        if not isinstance(reward, DictConfig) or reward.get("_target_") is None:
            raise UserError(f"task.rewards[{place}]={reward} should be {{_target_: a function}}.")
        reward._partial_ = True
