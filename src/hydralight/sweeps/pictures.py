"""Pictures of a sweep, by Optuna's own plotting: PNG by Matplotlib, HTML by Plotly."""

import logging
import warnings
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from hydralight.errors import UserError
from hydralight.sweeps.request import Direction
from hydralight.sweeps.storage import stored_study

log = logging.getLogger(__name__)


def draw(
    folder: Path, table: pd.DataFrame, swept: list[str], objectives: list[tuple[str, Direction]]
) -> None:
    """Draw history, importances, slices, parallel coordinates and the Pareto front into `plots/`.

    Importances are those of several parameters. A picture that these trials cannot give (an
    importance with one value of each) is left out, and its reason is in the log.
    """
    import optuna.visualization as plotly
    import optuna.visualization.matplotlib as drawn
    from matplotlib import pyplot

    if any(name not in table for name, _ in objectives):  # recipes with metrics of their own
        return
    study = study_of(folder, table, swept, objectives)
    if study is None or not study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
        return
    plots = folder / "plots"
    plots.mkdir(exist_ok=True)
    pyplot.switch_backend("agg")
    logging.getLogger("matplotlib.category").setLevel(logging.WARNING)
    names = [name for name, _ in objectives]
    kinds = ["optimization_history", "slice", "parallel_coordinate"]
    kinds += ["param_importances"] if len(swept) > 1 else []  # the only one has all of it
    for place, name in enumerate(names):
        several = len(names) > 1
        arguments: dict[str, Any] = {"target_name": name}
        if several:
            arguments["target"] = lambda trial, place=place: trial.values[place]
        suffix = f"_{name.replace('/', '_')}" if several else ""
        for kind in kinds:
            title = f"{kind.removeprefix('optimization_').removeprefix('param_')}{suffix}"
            for module in (drawn, plotly):
                _draw_one(module, f"plot_{kind}", study, arguments, plots / title)
    if len(names) > 1:
        for module in (drawn, plotly):
            arguments = {"target_names": names}
            _draw_one(module, "plot_pareto_front", study, arguments, plots / "pareto_front")


def _draw_one(module: Any, name: str, study: Any, arguments: dict[str, Any], path: Path) -> None:
    from matplotlib import pyplot

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that its plotting is experimental
            figure = getattr(module, name)(study, **arguments)
            if module.__name__.endswith("matplotlib"):
                pyplot.gcf().savefig(path.with_suffix(".png"), dpi=110, bbox_inches="tight")
            else:
                figure.write_html(path.with_suffix(".html"), include_plotlyjs="directory")
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        log.info("no picture of %s: %s", path.name, error)
    finally:
        pyplot.close("all")


def study_of(
    folder: Path, table: pd.DataFrame, swept: list[str], objectives: list[tuple[str, Direction]]
) -> optuna.Study | None:
    """Return the sweep's study, or one made from its table; None where there is nothing to draw."""
    if (folder / "study.db").is_file():
        try:
            return stored_study(folder)
        except UserError as error:
            log.warning("%s The pictures are drawn from the table.", error)
    if not objectives or not swept:
        return None
    study = optuna.create_study(directions=[direction for _, direction in objectives])
    space = {key: _distribution(table[key]) for key in swept}
    for _, row in table.iterrows():
        values = [row[name] for name, _ in objectives]
        if row["state"] == "complete" and not any(value != value for value in values):
            params = {key: row[key] for key in swept}
            study.add_trial(create_trial(params=params, distributions=space, values=values))
    return study


def _distribution(column: "pd.Series[Any]") -> BaseDistribution:
    if pd.api.types.is_numeric_dtype(column) and column.notna().all():
        low, high = float(column.min()), float(column.max())
        return FloatDistribution(low, high, log=low > 0 and high / low >= 100)
    return CategoricalDistribution(list(dict.fromkeys(column)))
