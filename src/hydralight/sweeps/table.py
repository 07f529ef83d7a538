"""A sweep as a table with a row for each trial, read from its directories alone."""

from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from hydralight.config.resolvers import direction
from hydralight.errors import UserError
from hydralight.runs.overrides import parsed
from hydralight.runs.run import own_config, read_history, read_metrics, typed_in
from hydralight.runs.secrets import REDACTED
from hydralight.runs.weights import weights_in
from hydralight.sweeps.record import read_record
from hydralight.sweeps.request import DIRECTIONS, REPEATS, Direction
from hydralight.sweeps.space import number
from hydralight.sweeps.trial import read_outcome

FIXED = ["trial", "state", "reason", "step", "seconds", "weights"]


def trial_dirs(folder: Path) -> list[Path]:
    """Return the directories of a sweep's jobs, in order.

    Raises:
        UserError: there is none.
    """
    jobs = [path.parent for path in folder.glob("*/.hydra") if path.is_dir()]
    found = [path for path in jobs if not path.is_symlink()]  # as `best` is
    if not found:
        raise UserError(f"{folder} holds no runs: name a run's directory or a sweep's.")
    return sorted(found, key=lambda path: (not path.name.isdigit(), path.name.zfill(9)))


def table_of(folder: Path) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Return a row for each trial of a sweep, the swept keys, and the names of the metrics.

    Sweeps of other programs are read too: an override is swept where its values differ, and a
    trial's metrics are those of its `metrics.json`, or the last of each in its `metrics.csv`.
    """
    record = read_record(folder)
    rows: list[dict[str, Any]] = []
    metrics: dict[str, None] = {}
    typed: list[dict[str, Any]] = []
    for path in trial_dirs(folder):
        ending, values = _ending(path, ours=record is not None)
        name = int(path.name) if path.name.isdigit() else path.name
        weights = "yes" if weights_in(path) else "no"
        rows.append({"trial": name, **ending, **values, "weights": weights})
        metrics |= {metric: None for metric in values if metric != "seconds"}
        typed.append(_overrides(path))
    swept = _differing(typed) if record is None else record.swept
    for row, overrides in zip(rows, typed, strict=True):
        row.update({key: overrides.get(key) for key in swept})
    table = pd.DataFrame(rows)
    for name in FIXED:
        if name not in table:
            table[name] = None
    columns = ["trial", *swept, "state", *metrics, "seconds", "step", "reason", "weights"]
    return table[columns], swept, list(metrics)


def _ending(path: Path, ours: bool) -> tuple[dict[str, Any], dict[str, float]]:
    """Return how a trial ended, and its metrics; a trial of ours says so itself."""
    outcome = read_outcome(path)
    if outcome is not None:
        return {k: v for k, v in outcome.items() if k != "metrics"}, outcome.get("metrics", {})
    values = _logged(path)
    status = read_metrics(path).get("status", "finished" if values else "")
    done = status == "finished" and not ours
    return {"state": "complete" if done else "interrupted"}, values


def _differing(typed: list[dict[str, Any]]) -> list[str]:
    """Return the keys whose values are not the same in all trials."""
    keys = dict.fromkeys(key for overrides in typed for key in overrides)
    return [key for key in keys if len({str(overrides.get(key)) for overrides in typed}) > 1]


def objectives_of(folder: Path, metrics: list[str]) -> list[tuple[str, Direction]]:
    """Return the names and directions of what a sweep optimised.

    Those of the study's record; for another program's sweep, a metric of the recorded config, or
    the first one there is.
    """
    record = read_record(folder)
    if record is not None:
        return record.objectives
    for job in trial_dirs(folder):
        own = own_config(job)
        name = OmegaConf.select(own, "optimized_metric")
        if name in metrics:
            return [(name, DIRECTIONS[direction(name, _root_=own)])]
    return [(name, DIRECTIONS[direction(name)]) for name in metrics[:1]]


def seeds_apart(swept: list[str]) -> tuple[list[str], list[str]]:
    """Divide swept keys into those of a configuration and those that only repeat it."""
    repeats = [key for key in swept if key in REPEATS]
    return [key for key in swept if key not in repeats], repeats


def summary_of(table: pd.DataFrame, swept: list[str], metrics: list[str]) -> pd.DataFrame | None:
    """Return mean and standard deviation of each configuration over its seeds and folds.

    The deviation is that of a sample (n - 1). None where nothing was repeated.
    """
    keys, repeats = seeds_apart(swept)
    done = table[table["state"] == "complete"]
    if not repeats or done.empty:
        return None
    names = [name for name in metrics if pd.api.types.is_numeric_dtype(done[name])]
    groups = done.groupby(keys, dropna=False, sort=False) if keys else done.groupby(lambda _: 0)
    if groups.size().max() < 2:  # a search that draws seeds
        return None
    parts: dict[str, Any] = {"n": groups.size()}
    for name in names:
        parts[f"{name} mean"] = groups[name].mean()
        parts[f"{name} std"] = groups[name].std()
    summary = pd.DataFrame(parts)
    return summary.reset_index(drop=not keys)


def _overrides(path: Path) -> dict[str, Any]:
    """Return what a trial's overrides set, by key; one that Hydra cannot read is left out."""
    found = {}
    for text in typed_in(path):
        override = parsed(text.replace(REDACTED, "redacted"))
        if override is not None:
            found[override.get_key_element().lstrip("+~")] = _shown(override)
    return found


def _shown(override: Override) -> Any:
    """Return a value as a table shows it: numbers as such, all else as it is typed."""
    if override.is_sweep_override():
        return override.input_line
    value = override.value()
    if isinstance(value, str):
        return number(value)
    text = override.get_value_element_as_str()
    return number(text.lower() if isinstance(value, bool) else text)


def _logged(path: Path) -> dict[str, float]:
    content = read_metrics(path)
    best = content.get("best") or content.get("last")
    if best is None and (path / "metrics.csv").is_file():
        history = read_history(path)
        columns = history.select_dtypes("number").ffill()
        best = dict(columns.iloc[-1]) if len(columns) else {}
    return {n: float(v) for n, v in (best or {}).items() if n not in ("step", "epoch")}
