"""What a sweep leaves: tables, the best trial, its recipe, and pictures."""

from pathlib import Path
from typing import Any

import pandas as pd

from hydralight.runs.files import partial_of, refuse_links, write_text
from hydralight.sweeps.best import best_of, front_of
from hydralight.sweeps.pictures import draw
from hydralight.sweeps.recipe import write_recipe
from hydralight.sweeps.record import read_record
from hydralight.sweeps.rendering import latex, markdown, plus_minus
from hydralight.sweeps.request import EACH_ITS_OWN, Direction
from hydralight.sweeps.table import objectives_of, seeds_apart, summary_of, table_of


def report(folder: Path) -> pd.DataFrame:
    """Write what is said of a sweep into its directory, and return the rows of its table.

    These are `sweep.csv`, `sweep.md`, `summary.*`, `best`, `best.yaml` and `plots/`.

    Args:
        folder: A sweep's directory, also one of another program, or one that is not finished.

    Raises:
        UserError: there are no runs in it.
    """
    refuse_links(folder)
    table, swept, metrics = table_of(folder)
    objectives = objectives_of(folder, metrics)
    write_text(folder / "sweep.csv", table.to_csv(index=False))
    summary = summary_of(table, swept, metrics)
    best = best_of(table, objectives)
    text = [f"# {folder.name}", "", *_sentences(table, objectives, best), ""]
    text.append(markdown(_shown(table, swept, metrics, objectives)))
    if summary is not None:
        text += ["", f"## Mean ± standard deviation over {_repeats(swept)}", ""]
        text.append(markdown(plus_minus(summary)))
        write_text(folder / "summary.csv", summary.to_csv(index=False))
        write_text(folder / "summary.md", markdown(plus_minus(summary)) + "\n")
        write_text(folder / "summary.tex", latex(plus_minus(summary)))
    write_text(folder / "sweep.md", "\n".join(text) + "\n")
    if best is not None:
        if read_record(folder) is not None:  # elsewhere it would pass for a run, or for the user's
            link_best(folder, str(best["trial"]))
        write_recipe(folder, folder / str(best["trial"]))
    draw(folder, table, swept, objectives)
    return table


def _shown(
    table: pd.DataFrame,
    swept: list[str],
    metrics: list[str],
    objectives: list[tuple[str, Direction]],
) -> pd.DataFrame:
    """Return the columns that have something to say, the objectives before other metrics."""
    first = [name for name, _ in objectives if name in metrics]
    others = [name for name in metrics if name not in first]
    columns = ["trial", *swept, "state", *first, *others, "seconds", "step", "reason"]
    columns += ["weights"] if table["weights"].nunique() > 1 else []  # whose they are
    return table[[column for column in columns if not table[column].isna().all()]]


def _sentences(
    table: pd.DataFrame,
    objectives: list[tuple[str, Direction]],
    best: "pd.Series[Any] | None",
) -> list[str]:
    counts = ", ".join(
        f"{number} {state}" for state, number in table["state"].value_counts().items()
    )
    aims = " and ".join(
        f"{direction} `{name}`" for name, direction in objectives if name != EACH_ITS_OWN
    )
    lines = [f"{len(table)} trials ({counts})" + (f", to {aims}." if aims else ".")]
    if best is not None:
        name = objectives[0][0]
        lines.append(
            f"The best is trial {best['trial']}, with {name} {best[name]:.4g}; `best.yaml` re-runs "
            "it: copy it beside your recipes, and choose it as experiment=best."
        )
        if len(objectives) > 1:
            front = ", ".join(map(str, front_of(table, objectives)))
            lines.append(f"On the Pareto front: {front}.")
    return lines


def _repeats(swept: list[str]) -> str:
    return " and ".join(f"`{key}`" for key in seeds_apart(swept)[1])


def link_best(folder: Path, name: str) -> None:
    """Point `best` to a trial's directory."""
    partial = partial_of(folder / "best")
    partial.symlink_to(name)
    partial.replace(folder / "best")
