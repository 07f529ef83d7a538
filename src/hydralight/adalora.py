"""AdaLoRA (Zhang et al., 2023): ranks that move, while it trains, to the matrices that need them.

peft has the method, and asks for three things of a training: how many steps it has, a call after
each of them, and a term of the loss. Here they are, with a state that goes into checkpoints.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from hydralight.adapters import attached_to
from hydralight.errors import UserError

KEPT = ("exp_avg_ipt", "exp_avg_unc")  # importance of weights, smoothed, and how sure it is
STATE = "adalora"  # in the optimizer's


def layers_of(model: nn.Module) -> Any | None:
    """Return peft's model of AdaLoRA around a model; None where it has no such adapter."""
    own = attached_to(model)
    base = None if own is None else own.peft.base_model
    return base if hasattr(base, "rankallocator") else None


def follow(optimizer: Optimizer, model: nn.Module, trainer: Trainer, steps: int | None) -> None:
    """Let an optimizer allocate ranks after each of its steps, and save what that goes by.

    Args:
        optimizer: The optimizer.
        model: What it trains; nothing is done where it has no such adapter.
        trainer: Says how many steps there are.
        steps: How many instead, where nothing is trained.

    Raises:
        UserError: the schedule of ranks does not go with the steps, or gradients are scaled.
    """
    lora = layers_of(model)
    if lora is None:
        return
    config = lora.peft_config["default"]
    if steps is None:
        check(config, trainer)
        lora.rankallocator.set_total_step(int(trainer.estimated_stepping_batches))
    taken = [0]

    def allocate(*_: Any) -> None:
        taken[0] += 1
        lora.update_and_allocate(taken[0])

    def save(_: Optimizer, state: dict[str, Any]) -> None:
        kept = {name: dict(getattr(lora.rankallocator, name)) for name in KEPT}
        state[STATE] = {"taken": taken[0], "rank_pattern": config.rank_pattern, **kept}

    def load(_: Optimizer, state: dict[str, Any]) -> None:
        saved = state.pop(STATE)
        taken[0], config.rank_pattern = saved["taken"], saved["rank_pattern"]
        devices = {name: parameter.device for name, parameter in lora.model.named_parameters()}
        for name in KEPT:
            values = {n: one.to(devices[n]) for n, one in saved[name].items()}
            setattr(lora.rankallocator, name, values)
        # of the last step alone, and computed anew in each
        lora.rankallocator.ipt = dict.fromkeys(saved[KEPT[0]])

    optimizer.register_step_post_hook(allocate)
    optimizer.register_state_dict_post_hook(save)
    optimizer.register_load_state_dict_pre_hook(load)


def check(config: Any, trainer: Trainer) -> None:
    """Check that ranks can be allocated in a training.

    Raises:
        UserError: they cannot.
    """
    steps = trainer.estimated_stepping_batches
    if steps == float("inf"):
        raise UserError("adapter=adalora needs an end: set trainer.max_epochs or max_steps.")
    if config.tinit + config.tfinal >= steps:
        raise UserError(
            f"model.adapter.tinit={config.tinit} and tfinal={config.tfinal} leave none of the "
            f"run's {int(steps)} steps to allocate ranks in: make them less."
        )
    if config.target_r >= config.init_r:
        raise UserError(
            f"model.adapter.target_r={config.target_r} should be below init_r={config.init_r}, "
            "the rank that each matrix begins with."
        )
    if trainer.precision == "16-mixed":
        raise UserError(
            "adapter=adalora reads gradients, which 16-mixed scales: set precision=32-true, or "
            "bf16-mixed."
        )


def penalized(model: nn.Module, loss_sum: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Add AdaLoRA's term to a summed loss: how far its matrices are from orthogonal ones.

    It counts once for each target, so that it stands in the mean over a step's as it is.

    Args:
        model: The model; the loss is left alone where it has no such adapter.
        loss_sum: Of a micro-batch.
        weight: Its targets.
    """
    lora = layers_of(model)
    if lora is None:
        return loss_sum, weight
    apart = []
    for name, matrix in lora.model.named_parameters():
        if "lora_A." in name or "lora_B." in name:
            inner = matrix @ matrix.T if "lora_A." in name else matrix.T @ matrix
            apart.append(torch.linalg.norm(inner - torch.eye(*inner.shape, out=inner.new_empty(0))))
    mean = torch.stack(apart).mean()
    return loss_sum + weight * lora.peft_config["default"].orth_reg_weight * mean, weight


@contextmanager
def with_all_ranks(config: Any) -> Iterator[None]:
    """Let peft save an adapter of this config with the ranks that are masked now.

    Between two allocations they are trained, so that without them it would be another model.
    """
    if config.peft_type.value != "ADALORA":
        yield
        return
    pattern, config.rank_pattern = config.rank_pattern, None
    try:
        yield
    finally:
        config.rank_pattern = pattern
