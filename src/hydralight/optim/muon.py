"""Muon for the matrices of the layers, and AdamW for everything else, as one optimizer."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Interval
from torch.optim import AdamW, Optimizer

from hydralight.errors import UserError

Rate = Annotated[float, Ge(0)]
Beta = Annotated[float, Interval(ge=0, lt=1)]


class Muon(Optimizer):
    """PyTorch's Muon (Jordan et al., 2024) and AdamW, whose groups and states are those of one.

    Muon takes the groups that say `muon: true`; `optimizer.matrices` gives that to the matrices of
    the layers, so that embeddings, head, biases and norms are AdamW's.

    Args:
        params: Groups of parameters.
        lr: Learning rate of both.
        weight_decay: Of both, decoupled.
        muon: Whether groups that do not say so are Muon's.
        momentum: Of Muon.
        ns_steps: Iterations of Newton and Schulz, by which Muon makes updates orthogonal.
        adjust_lr_fn: How Muon's rate goes by the shape of a matrix: `match_rms_adamw` makes updates
            as large as AdamW's, so that one rate fits both (Liu et al., 2025); `original` leaves
            them as Jordan has them, which needs a rate of their own.
        betas: Of AdamW.
        eps: Of AdamW.

    Raises:
        UserError: a group of Muon's has something else than matrices, or no group is its own.
    """

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        weight_decay: Rate = 0.01,
        muon: bool = False,
        momentum: Beta = 0.95,
        ns_steps: Annotated[int, Ge(1)] = 5,
        adjust_lr_fn: Literal["original", "match_rms_adamw"] = "match_rms_adamw",
        betas: tuple[Beta, Beta] = (0.9, 0.999),
        eps: Rate = 1e-8,
    ) -> None:
        own: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "muon": muon}
        of_muon = {"momentum": momentum, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn}
        of_adamw = {"betas": tuple(betas), "eps": eps}
        super().__init__(params, {**own, **of_muon, **of_adamw})
        for group in self.param_groups:
            for key in of_adamw if group["muon"] else of_muon:
                del group[key]
        self._parts: list[Optimizer] = []
        self._take_parts()

    def _take_parts(self) -> None:
        """Let the two optimizers work on the groups and states of this one."""
        mine = [group for group in self.param_groups if group["muon"]]
        others = [group for group in self.param_groups if not group["muon"]]
        for group in mine:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise UserError(
                        f"optimizer: Muon is for matrices, and there is one of "
                        f"{parameter.ndim} dimensions in a group of muon=true; "
                        "optimizer.matrices={muon: true} finds them."
                    )
        self._parts = [
            kind([{"params": group["params"]} for group in groups], lr=0.0)
            for kind, groups in ((torch.optim.Muon, mine), (AdamW, others))
            if groups
        ]
        for part, groups in zip(self._parts, [one for one in (mine, others) if one], strict=True):
            for theirs, group in zip(part.param_groups, groups, strict=True):
                # what either has beside, such as coefficients and how it computes
                group.update({key: value for key, value in theirs.items() if key not in group})
            part.param_groups = groups
            part.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up groups and states, for both optimizers."""
        super().load_state_dict(state_dict)
        self._take_parts()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step by both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss
