"""Groups of parameters with values of their own: rates, weight decay, layers, matrices."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any

from annotated_types import Interval
from torch import nn

from hydralight.errors import UserError, did_you_mean
from hydralight.optim.kinds import Kind, kinds_of

SCALE = "layer_scale"  # of a group, until its rate has been multiplied by it


@dataclass(frozen=True)
class Grouping:
    """Which parameters an optimizer takes other values for than its own.

    The keys of the group `optimizer` that are named here come to it, the others to the optimizer.

    Args:
        groups: Each `{params: a glob or several, …}` with values such as `lr` or `weight_decay`; of
            several that match a parameter, the last one counts, value by value.
        layer_decay: What the learning rate of a layer is of that above it (Clark et al., 2020;
            Bao et al., 2021): the head has the whole one, the embeddings the least.
        decay_embeddings: Whether embeddings take weight decay. Biases, norms and other vectors take
            none, whatever their group says.
        matrices: Values for the matrices of the layers; not for embeddings, head and vectors.
    """

    groups: Sequence[Mapping[str, Any]] | None = None
    layer_decay: Annotated[float, Interval(gt=0, le=1)] | None = None
    decay_embeddings: bool = True
    matrices: Mapping[str, Any] | None = None

    def settings(self) -> dict[str, Any]:
        """Return what is set, by key."""
        return {
            f"optimizer.{name}": value
            for name, value in vars(self).items()
            if value != Grouping.__dataclass_fields__[name].default
        }

    def values_of(self, name: str, kind: Kind) -> dict[str, Any]:
        """Return the values of a parameter's own."""
        values = dict(self.matrices or {}) if kind.matrix else {}
        for group in self.groups or ():
            if matches(name, group):
                values |= {key: value for key, value in group.items() if key != "params"}
        if kind.spared or (kind.embedding and not self.decay_embeddings):
            values["weight_decay"] = 0.0
        if self.layer_decay is not None and kind.above:
            values[SCALE] = self.layer_decay**kind.above
        return values


def parameter_groups(model: nn.Module, grouping: Grouping | None = None) -> list[dict[str, Any]]:
    """Return the groups of the trainable parameters of a model.

    Without a grouping: all but biases, norms and other vectors, which take the optimizer's own
    weight decay; and those, which take none. The first group has the optimizer's own values, if
    any parameter has, so that its rate is the one that is logged.

    Raises:
        UserError: nothing is trained, a glob matches nothing, or the model has no layers.
    """
    grouping = grouping or Grouping()
    names = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if not names:
        raise UserError("model.freeze leaves no parameter to train.")
    kinds = kinds_of(model)
    check(grouping, names, kinds)
    found: dict[str, dict[str, Any]] = {}
    for name, parameter in names.items():
        values = grouping.values_of(name, kinds[name])
        group = found.setdefault(repr(sorted(values.items())), {"params": [], **values})
        group["params"].append(parameter)
    return sorted(found.values(), key=rank)


def rank(group: Mapping[str, Any]) -> tuple[bool, bool, float]:
    """Return what groups are sorted by: those without values of their own come first."""
    spared = group.get("weight_decay") == 0
    return spared, bool(group.keys() - {"params", "weight_decay", SCALE}), -group.get(SCALE, 1.0)


def check(grouping: Grouping, names: Mapping[str, Any], kinds: Mapping[str, Kind]) -> None:
    """Check that a grouping is of a model's parameters.

    Args:
        grouping: The grouping.
        names: Of the trainable parameters.
        kinds: Of all parameters.

    Raises:
        UserError: it is not.
    """
    for number, group in enumerate(grouping.groups or ()):
        for glob in globs(group):
            if not any(fnmatchcase(name, glob) for name in names):
                frozen = any(fnmatchcase(name, glob) for name in kinds)
                what = "only parameters that are frozen" if frozen else "no parameter of the model"
                raise UserError(
                    f"optimizer.groups[{number}]: '{glob}' matches {what}{nearest(glob, kinds)}"
                )
    without = not any(kind.above is not None for kind in kinds.values())
    if without and (grouping.layer_decay is not None or grouping.matrices):
        key = "layer_decay" if grouping.layer_decay is not None else "matrices"
        raise UserError(
            f"optimizer.{key}: the model has no list of layers; give their values by "
            "optimizer.groups."
        )


def nearest(glob: str, names: Iterable[str]) -> str:
    """Return "; did you mean '*.query.*'?" for a glob whose text is near a part of a name."""
    text = glob.strip("*.")
    parts = [name.split(".") for name in names]
    known = {".".join(own[:end]) for own in parts for end in range(1, len(own) + 1)}
    known |= {part for own in parts for part in own}
    close = difflib.get_close_matches(text, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean '{glob.replace(text, close[0])}'?" if close and text else ""


def check_values(grouping: Grouping, make: Callable[..., Any]) -> None:
    """Check that what groups are given are values of their optimizer.

    Raises:
        UserError: a group without globs or values, or a value that the optimizer does not take.
    """
    arguments = inspect.signature(getattr(make, "func", make)).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in arguments.values())
    known = [name for name in arguments if name not in ("params", "kwargs")]
    given = {f"groups[{n}]": group for n, group in enumerate(grouping.groups or ())}
    for where, group in given.items():
        if not globs(group) or not group.keys() - {"params"}:
            raise UserError(
                f"optimizer.{where} should be {{params: a glob or a list of them, and values, such "
                "as lr: 1e-5}."
            )
    for where, group in {**given, "matrices": grouping.matrices or {}}.items():
        for key in group.keys() - {"params"}:
            if key not in known and not takes_any:
                name = getattr(make, "func", make).__name__
                raise UserError(
                    f"optimizer.{where}: {name} has no value '{key}'{did_you_mean(key, known)}"
                )


def globs(group: Mapping[str, Any]) -> list[str]:
    """Return the globs of a group."""
    said = group.get("params") or []
    return [said] if isinstance(said, str) else list(said)


def matches(name: str, group: Mapping[str, Any]) -> bool:
    """Whether a glob of a group matches the name of a parameter."""
    return any(fnmatchcase(name, glob) for glob in globs(group))
