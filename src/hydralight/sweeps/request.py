"""What is asked of a sweep: what it optimises, where it searches, and for how long."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from hydralight.errors import UserError, did_you_mean
from hydralight.sweeps import space
from hydralight.sweeps.space import Point
from hydralight.sweeps.trial import Outcome

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Direction = Literal["minimize", "maximize"]
DIRECTIONS: dict[str, Direction] = {"min": "minimize", "max": "maximize"}
EACH_ITS_OWN = "objective"  # of a sweep over recipes: the optimized_metric of each trial
REPEATS = ("seed", "data.seed", "data.fold", "data.split_seed")  # which only repeat a configuration
KEEP = 3  # trials whose weights stay, where nothing is said
KEYS: tuple[str, ...] = ("n_trials", "n_jobs", "objectives", "direction", "sampler", "pruner")
KEYS += ("storage", "params", "keep")


@dataclass(frozen=True)
class SweepRequest:
    """What is asked of a sweep.

    Args:
        objectives: Names of validation metrics (`val/…`), or `seconds`.
        directions: "minimize" or "maximize", for each objective.
        space: The distribution of each swept key.
        points: What a grid tries, in order; None for a search.
        sampler: Optuna's sampler, as `_target_` and arguments; None for a grid.
        pruner: Optuna's pruner, in the same form; None where no trial is pruned.
        n_trials: How many trials a search finishes; a grid has as many as points.
        n_jobs: How many trials are at work together; None leaves it to the launcher.
        storage: Optuna's storage; None for a SQLite file in the sweep's directory.
        keep: How many of the best trials keep their weights; None for all.

    Raises:
        UserError: these do not go together.
    """

    objectives: tuple[str, ...]
    directions: tuple[Direction, ...]
    space: Mapping[str, "BaseDistribution"]
    points: tuple[Point, ...] | None = None
    sampler: Mapping[str, Any] | None = None
    pruner: Mapping[str, Any] | None = None
    n_trials: int = 20
    n_jobs: int | None = None
    storage: str | None = None
    keep: int | None = None

    def __post_init__(self) -> None:
        for name in self.objectives:
            if name not in (EACH_ITS_OWN, "seconds") and not name.startswith("val/"):
                raise UserError(
                    f"a sweep optimises validation metrics (val/…) and seconds, not '{name}'."
                )
        known = set(self.directions) <= {"minimize", "maximize"}
        if len(self.directions) != len(self.objectives) or not known:
            raise UserError(
                f"hparams_search.direction={_listed(self.directions)} should say minimize or "
                f"maximize for each of {', '.join(self.objectives)}."
            )
        if len(self.objectives) > 1 and self.pruner is not None:
            raise UserError("a sweep with several objectives cannot prune: leave out the pruner.")
        if self.points is None and not self.space:
            raise UserError("hparams_search has no params: name what is to be searched.")
        if self.keep is not None and (type(self.keep) is not int or self.keep < 1):
            raise UserError(
                f"hparams_search.keep={self.keep} should be a whole number from 1, or null, which "
                "keeps the weights of all trials."
            )
        for key, number in (("n_trials", self.n_trials), ("n_jobs", self.n_jobs)):
            whole = isinstance(number, int) and not isinstance(number, bool) and number > 0
            if not whole and (key, number) != ("n_jobs", None):
                raise UserError(f"hparams_search.{key}={number} should be a whole number from 1.")

    @property
    def total(self) -> int:
        """How many trials there are to be in the end."""
        return self.n_trials if self.points is None else len(self.points)


def refuse_pushes(config: DictConfig) -> None:
    """Refuse a sweep whose trials would push to the hub.

    Raises:
        UserError: they would, all to one repository.
    """
    if "push" in (config.get("callbacks") or {}):
        raise UserError(
            "callbacks.push would send each trial's model to one repository: leave it out, and "
            "publish the best one by publish.py."
        )


def request_of(
    search: Mapping[str, Any],
    swept: Sequence[Override],
    optimized_metric: str,
    direction_of: Callable[[str], str],
) -> SweepRequest:
    """Return the request that a search and swept overrides make.

    Args:
        search: The content of `hparams_search`; empty for a grid.
        swept: The overrides that are swept.
        optimized_metric: What is optimised unless `search` says.
        direction_of: Tells "min" or "max" of a metric, where `search` does not.

    Raises:
        UserError: a key is unknown, or what is asked does not go together.
    """
    for key in search:
        if key not in KEYS:
            raise UserError(f"hparams_search.{key}: there is no such key{did_you_mean(key, KEYS)}")
    keys = [override.get_key_element() for override in swept]
    objectives = list(search.get("objectives") or [])
    if not objectives:
        objectives = [EACH_ITS_OWN if "experiment" in keys else optimized_metric]
    sampler = _chosen(search.get("sampler"))
    read = space.values_distribution if sampler is None else space.distribution
    return SweepRequest(
        objectives=tuple(objectives),
        directions=_directions(search.get("direction"), objectives, direction_of),
        space={key: read(override) for key, override in zip(keys, swept, strict=True)},
        points=tuple(space.grid(swept)) if sampler is None else None,
        sampler=sampler,
        pruner=_chosen(search.get("pruner")),
        n_trials=search.get("n_trials", 20),
        n_jobs=search.get("n_jobs"),
        storage=search.get("storage"),
        keep=search["keep"] if "keep" in search else _keep(keys, objectives, sampler is None),
    )


def _keep(keys: Sequence[str], objectives: Sequence[str], is_grid: bool) -> int | None:
    """Return whose weights stay where nothing is said: all, where trials are not to choose among.

    A grid over seeds and folds only repeats one configuration, and recipes have each their metric.
    """
    repeats = is_grid and all(key.lstrip("+~") in REPEATS for key in keys)
    return None if repeats or EACH_ITS_OWN in objectives else KEEP


def objectives_of_trial(request: SweepRequest, outcome: Outcome) -> list[str]:
    """Return the metrics that a trial is judged by, where each recipe has its own too."""
    own = outcome.get("optimized_metric", "")
    return [own if name == EACH_ITS_OWN else name for name in request.objectives]


def _directions(
    given: Any, objectives: Sequence[str], direction_of: Callable[[str], str]
) -> tuple[Direction, ...]:
    """Return what is given, or each objective's own direction."""
    if given:
        return tuple([given] if isinstance(given, str) else given)  # checked by the request
    smaller = ("seconds", EACH_ITS_OWN)
    best = ["min" if name in smaller else direction_of(name) for name in objectives]
    return tuple(DIRECTIONS[side] for side in best)


def _chosen(node: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return a node that names something; `_target_: null` names nothing."""
    return node if node and node.get("_target_") else None


def _listed(directions: Sequence[str]) -> str:
    return directions[0] if len(directions) == 1 else f"[{', '.join(directions)}]"
