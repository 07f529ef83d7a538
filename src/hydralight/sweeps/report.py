"""What a sweep leaves: tables, the best trial, its recipe, and pictures."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from hydralight.config.project import CONFIG_DIR
from hydralight.runs.files import write_text
from hydralight.runs.run import experiment_of
from hydralight.runs.secrets import REDACTED
from hydralight.sweeps.pictures import draw
from hydralight.sweeps.space import OWN
from hydralight.sweeps.study import Direction
from hydralight.sweeps.table import objectives_of, seeds_apart, summary_of, table_of

log = logging.getLogger(__name__)


def report(folder: Path) -> pd.DataFrame:
    """Write what is said of a sweep into its directory, and return the rows of its table.

    These are `sweep.csv`, `sweep.md`, `summary.*`, `best`, `best.yaml` and `plots/`.

    Args:
        folder: A sweep's directory, also one of another program, or one that is not finished.

    Raises:
        UserError: there are no runs in it.
    """
    table, swept, metrics = table_of(folder)
    objectives = objectives_of(folder, metrics)
    write_text(folder / "sweep.csv", table.to_csv(index=False))
    summary = summary_of(table, swept, metrics)
    best = best_of(table, objectives)
    text = [f"# {folder.name}", "", *_sentences(table, objectives, best, folder), ""]
    shown = [name for name, _ in objectives if name in metrics]
    shown += [name for name in metrics if name not in shown]
    columns = ["trial", *swept, "state", *shown, "seconds", "step", "reason"]
    text.append(markdown(table[[c for c in columns if not table[c].isna().all()]]))
    if summary is not None:
        text += ["", f"## Mean ± standard deviation over {_repeats(swept)}", ""]
        text.append(markdown(plus_minus(summary)))
        write_text(folder / "summary.csv", summary.to_csv(index=False))
        write_text(folder / "summary.md", markdown(plus_minus(summary)) + "\n")
        write_text(folder / "summary.tex", latex(plus_minus(summary)))
    write_text(folder / "sweep.md", "\n".join(text) + "\n")
    if best is not None:
        link_best(folder, str(best["trial"]))
        write_recipe(folder, folder / str(best["trial"]))
    draw(folder, table, swept, objectives)
    return table


def best_of(
    table: pd.DataFrame, objectives: list[tuple[str, Direction]]
) -> "pd.Series[Any] | None":
    """Return the row of the best complete trial, by the first objective, then by the others.

    None where there is none.
    """
    if not objectives or any(name not in table for name, _ in objectives):
        return None
    names = [name for name, _ in objectives]
    done = table[(table["state"] == "complete") & table[names].notna().all(axis=1)]
    if done.empty:
        return None
    ascending = [direction == "minimize" for _, direction in objectives]
    return done.sort_values(names, ascending=ascending, kind="stable").iloc[0]


def front_of(table: pd.DataFrame, objectives: list[tuple[str, Direction]]) -> list[Any]:
    """Return the complete trials than which none is better in one objective, and as good in all."""
    done = table[table["state"] == "complete"]
    signs = [1 if direction == "minimize" else -1 for _, direction in objectives]
    costs = (done[[name for name, _ in objectives]] * signs).to_numpy(float)
    front = []
    for trial, cost in zip(done["trial"], costs, strict=True):
        beaten = (costs <= cost).all(axis=1) & (costs < cost).any(axis=1)
        if not beaten.any():
            front.append(trial)
    return front


def _sentences(
    table: pd.DataFrame,
    objectives: list[tuple[str, Direction]],
    best: "pd.Series[Any] | None",
    folder: Path,
) -> list[str]:
    counts = ", ".join(
        f"{number} {state}" for state, number in table["state"].value_counts().items()
    )
    aims = " and ".join(f"{direction} `{name}`" for name, direction in objectives if name != OWN)
    lines = [f"{len(table)} trials ({counts})" + (f", to {aims}." if aims else ".")]
    if best is not None:
        name = objectives[0][0]
        lines.append(
            f"The best is trial {best['trial']}, with {name} {best[name]:.4g}; `best.yaml` re-runs "
            "it: copy it to configs/experiment/, and choose it as experiment=best."
        )
        if len(objectives) > 1:
            front = ", ".join(map(str, front_of(table, objectives)))
            lines.append(f"On the Pareto front: {front}.")
    return lines


def _repeats(swept: list[str]) -> str:
    return " and ".join(f"`{key}`" for key in seeds_apart(swept)[1])


def markdown(table: pd.DataFrame) -> str:
    """Return a table in Markdown, numbers with four digits."""
    text = table.map(_cell).map(lambda cell: cell.replace("|", "\\|"))
    return str(text.to_markdown(index=False, disable_numparse=True))


def latex(table: pd.DataFrame) -> str:
    """Return a table in LaTeX, for the booktabs package."""
    return str(table.map(_cell).rename(columns=str).to_latex(index=False, escape=True))


def plus_minus(summary: pd.DataFrame) -> pd.DataFrame:
    """Join each mean with its standard deviation."""
    joined = summary[[c for c in summary if not str(c).endswith((" mean", " std"))]].copy()
    for name in [str(c).removesuffix(" mean") for c in summary if str(c).endswith(" mean")]:
        pairs = zip(summary[f"{name} mean"], summary[f"{name} std"], strict=True)
        joined[name] = [f"{m:.4f}" if s != s else f"{m:.4f} ± {s:.4f}" for m, s in pairs]
    return joined


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e9 else f"{value:.4g}"
    return str(value)


def link_best(folder: Path, name: str) -> None:
    """Point `best` to a trial's directory."""
    partial = folder / "best.partial"
    partial.unlink(missing_ok=True)
    partial.symlink_to(name)
    partial.replace(folder / "best")


def write_recipe(folder: Path, trial: Path) -> None:
    """Write `best.yaml`: the sweep's recipe with the trial's overrides, as an experiment.

    Groups that are not ours, of another program's trial, and what was redacted are left out.
    """
    typed = list(map(str, OmegaConf.load(trial / ".hydra" / "overrides.yaml")))
    experiment = experiment_of(trial)
    groups: list[Any] = []
    values = OmegaConf.create()
    kept = [text for text in typed if REDACTED not in text]
    for override in OverridesParser.create().parse_overrides(kept):
        key = override.key_or_group
        group = CONFIG_DIR / key
        if key == "experiment" or key.startswith("hparams_search") or override.is_delete():
            continue
        if group.is_dir() and not (group / f"{override.value()}.yaml").is_file():
            continue
        if group.is_dir():
            prefix = "" if override.is_add() else "override "
            groups.append({f"{prefix}/{key}": override.value()})
        else:
            OmegaConf.update(values, key, override.value(), force_add=True)
    ours = (CONFIG_DIR / "experiment" / f"{experiment}.yaml").is_file()
    defaults = [*([experiment] if ours else []), *groups, "_self_"]
    header = [
        "# @package _global_",
        "# python train.py experiment=best",
        f"# Trial {trial.name} of the sweep {folder.name}; copy this file to configs/experiment/.",
    ]
    body = OmegaConf.to_yaml(OmegaConf.create({"defaults": defaults}))
    rest = OmegaConf.to_yaml(values) if len(values) else ""
    write_text(folder / "best.yaml", "\n".join([*header, body + rest]))
