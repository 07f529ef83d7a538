"""What a sweep has come to, as a table with a row for each trial, from its directories alone."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from hydralight.errors import UserError
from hydralight.runs.run import read_metrics
from hydralight.sweeps.space import number
from hydralight.sweeps.study import Direction
from hydralight.sweeps.trial import read_outcome

DIRECTIONS: dict[str, Direction] = {"min": "minimize", "max": "maximize"}
FIXED = ["trial", "state", "reason", "step", "seconds"]


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
    rows: list[dict[str, Any]] = []
    metrics: list[str] = []
    typed: list[dict[str, Any]] = []
    row: dict[str, Any]
    ours = (folder / "study.json").is_file()
    for path in trial_dirs(folder):
        name = int(path.name) if path.name.isdigit() else path.name
        outcome = read_outcome(path)
        if outcome is None:
            values = _logged(path)
            status = read_metrics(path).get("status", "finished" if values else "")
            done = status == "finished" and not ours  # ours says so itself
            row = {"state": "complete" if done else "interrupted"}
        else:
            values = outcome.get("metrics", {})
            row = {**outcome}
            del row["metrics"]
        metrics += [n for n in values if n not in metrics and n != "seconds"]
        rows.append({"trial": name, **row, **values})
        typed.append(_overrides(path))
    keys = list(dict.fromkeys(key for overrides in typed for key in overrides))
    swept = [key for key in keys if len({str(overrides.get(key)) for overrides in typed}) > 1]
    if ours:
        known = json.loads((folder / "study.json").read_text())["swept"]
        swept = [key.lstrip("+~") for key in known]
    for row, overrides in zip(rows, typed, strict=True):
        row.update({key: overrides.get(key) for key in swept})
    table = pd.DataFrame(rows)
    for name in FIXED:
        if name not in table:
            table[name] = None
    return table[["trial", *swept, "state", *metrics, "seconds", "step", "reason"]], swept, metrics


def objectives_of(folder: Path, metrics: list[str]) -> list[tuple[str, Direction]]:
    """Return the names and directions of what a sweep optimised.

    Those of the study's record; for another program's sweep, a metric of the recorded config, or
    the first one there is.
    """
    path = folder / "study.json"
    if path.is_file():
        content = json.loads(path.read_text())
        return list(zip(content["objectives"], content["directions"], strict=True))
    from hydralight.config.resolvers import direction

    for job in trial_dirs(folder):
        own = OmegaConf.load(job / ".hydra" / "config.yaml")
        name = OmegaConf.select(own, "optimized_metric")
        if name in metrics:
            return [(name, DIRECTIONS[direction(name, _root_=own)])]
    return [(name, DIRECTIONS[direction(name)]) for name in metrics[:1]]


def seeds_apart(swept: list[str]) -> tuple[list[str], list[str]]:
    """Divide swept keys into those of a configuration and those that only repeat it."""
    repeats = [k for k in swept if k in ("seed", "data.seed", "data.fold", "data.split_seed")]
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
    file = path / ".hydra" / "overrides.yaml"
    typed = list(OmegaConf.load(file)) if file.is_file() else []
    pairs = [str(override).partition("=") for override in typed]
    return {key.lstrip("+~"): number(value.strip("'\"")) for key, _, value in pairs}


def _logged(path: Path) -> dict[str, float]:
    content = read_metrics(path)
    best = content.get("best") or content.get("last")
    if best is None and (path / "metrics.csv").is_file():
        history = pd.read_csv(path / "metrics.csv")
        columns = history.select_dtypes("number").ffill()
        best = dict(columns.iloc[-1]) if len(columns) else {}
    return {n: float(v) for n, v in (best or {}).items() if n not in ("step", "epoch")}
