"""Projections of gradients that low-rank optimizers keep as objects, in their checkpoints."""

from typing import Any

from torch.optim import Optimizer

PROJECTOR = "projector"


def keep_projectors(optimizer: Optimizer) -> None:
    """Let a state dict of GaLore or APOLLO hold the projections as tensors and numbers.

    `pytorch_optimizer` has an object of its own for each matrix among the states, which no
    checkpoint may hold: it is read without running code.
    """
    if type(optimizer).__name__ not in ("GaLore", "APOLLO"):
        return

    def save(_: Optimizer, saved: dict[str, Any]) -> None:
        saved["state"] = {number: plain(state) for number, state in saved["state"].items()}

    def restore(own: Optimizer, *_: Any) -> None:  # the package's loading knows plain values only
        from pytorch_optimizer.optimizer.utils.galore import GaLoreProjector

        for state in own.state.values():
            if isinstance(state.get(PROJECTOR), dict):
                values, state[PROJECTOR] = state[PROJECTOR], GaLoreProjector()
                vars(state[PROJECTOR]).update(values)

    optimizer.register_state_dict_post_hook(save)
    optimizer.register_step_pre_hook(restore)


def plain(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a parameter with its projection as a mapping, if it has one."""
    projector = state.get(PROJECTOR)
    if projector is None or isinstance(projector, dict):
        return state
    return {**state, PROJECTOR: dict(vars(projector))}
