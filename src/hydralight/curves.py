"""Pictures of a run, from its `metrics.csv`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydralight.runs.files import replacing
from hydralight.runs.run import read_history

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PANEL = 4.2, 2.9  # inches
LEGEND = 1.7  # inches beside the panels, where one has more lines than it has room to name
INSIDE = 5  # lines that are named within a panel
MOST = 20  # lines that there is room to name beside one


def draw_curves(run_dir: Path) -> Path | None:
    """Draw each logged value over the optimizer steps into `curves.png`; None without values."""
    figure = figure_of(run_dir)
    if figure is None:
        return None
    target = run_dir / "curves.png"
    with replacing(target, "wb") as file:
        figure.savefig(file, dpi=110, format="png")
    return target


def figure_of(run_dir: Path) -> "Figure | None":
    """Return the same as a figure.

    Raises:
        UserError: the log is damaged.
    """
    from matplotlib.figure import Figure

    path = run_dir / "metrics.csv"
    if not path.is_file():
        return None
    table = read_history(run_dir).replace([float("inf"), float("-inf")], float("nan"))
    panels = panels_of(table)
    if not panels:
        return None
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    beside = LEGEND if any(len(names) > INSIDE for names in panels.values()) else 0.0
    width, height = (PANEL[0] + beside) * columns, PANEL[1] * rows
    figure = Figure(figsize=(width, height))
    # in inches, as a layout engine's second drawing takes as long as the first
    figure.subplots_adjust(
        0.6 / width, 0.5 / height, 1 - (0.15 + beside) / width, 1 - 0.35 / height
    )
    figure.subplots_adjust(wspace=(0.7 + beside) / 3.5, hspace=0.85 / 2.05)
    for index, (title, names) in enumerate(panels.items()):
        _draw(figure.add_subplot(rows, columns, index + 1), table, title, names)
    return figure


def panels_of(table: "pd.DataFrame") -> dict[str, list[str]]:
    """Return the columns that are drawn in each panel, by its title.

    Columns without a number are left out, and those of the test split: it is evaluated once, at
    the end, and `metrics.json` has its values. Labels share a panel, with their mean before them.
    """
    there = [name for name in table.columns if name not in ("step", "epoch")]
    names = [n for n in there if not n.startswith("test/") and table[n].notna().any()]
    panels: dict[str, list[str]] = {}
    for name in names:
        panels.setdefault(panel_of(name, names), []).append(name)
    for title, members in list(panels.items()):
        means = [title.removesuffix("/by label") + end for end in ("", "_macro")]
        mean = next((name for name in means if panels.get(name) == [name]), None)
        if mean is not None and title.endswith("/by label"):
            panels[title] = [mean, *members]
            del panels[mean]
    return panels


def _draw(axes: Any, table: "pd.DataFrame", title: str, names: list[str]) -> None:
    """Draw the lines of a panel, each in a colour of its own, and the mean of labels above them."""
    from matplotlib import colormaps

    by_label = title.endswith("/by label")
    lines = [name for name in names if not (by_label and name.count("/") == 1)]
    # a label has one colour in all panels
    labels = dict.fromkeys(c.rpartition("/")[2] for c in table.columns if c.count("/") > 1)
    shared = by_label and len({line.rpartition("/")[2] for line in lines}) == len(lines)
    order = list(labels) if shared else lines
    palette = colormaps["tab10" if len(order) <= 10 else "tab20"]
    colours = [palette(number) for number in range(palette.N)]
    if len(order) > len(colours):
        colours = [colormaps["turbo"](number / (len(order) - 1)) for number in range(len(order))]
    for name in names:
        mean = name not in lines
        series = table[["step", name]].dropna()
        marker = "o" if name.startswith("val/") or len(series) < 3 else ""
        axes.plot(
            series["step"],
            series[name],
            marker=marker,
            markersize=4 if mean or len(lines) <= INSIDE else 2,
            color="black" if mean else colours[order.index(_of(name, order))],
            linewidth=2.5 if mean else 1.2,
            zorder=3 if mean else 2,
            label=_shown(f"{name} (mean)" if mean else _of(name, order), len(names)),
        )
    axes.set_title(_shown(title if len(names) > 1 else names[0], 1), fontsize=10)
    axes.set_xlabel("step", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    if len(names) > INSIDE:
        size = 7 if len(names) <= 18 else 5
        axes.legend(
            handles=axes.get_lines()[:MOST],
            title=f"{len(names) - MOST} more: metrics.csv" if len(names) > MOST else None,
            title_fontsize=size,
            fontsize=size,
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            borderaxespad=0,
        )
    elif len(names) > 1:
        axes.legend(fontsize=8)


def _of(name: str, order: list[str]) -> str:
    """Return what a line is called: its label, where lines are told apart by that."""
    return name if name in order else name.rpartition("/")[2]


def _shown(name: str, lines: int) -> str:
    """Return what a legend says of a line: a long name by its two ends, and any sign as it is."""
    room = 40 if lines <= INSIDE else 22
    if len(name) > room:
        name = f"{name[: room // 2]}…{name[1 - room // 2 :]}"
    # matplotlib hides what begins with an underscore, and reads formulas between dollars
    return (f" {name}" if name.startswith("_") else name).replace("$", r"\$")


def panel_of(name: str, names: list[str]) -> str:
    """Return the panel of a value: losses share one, so do further sets' and labels' values."""
    first, *rest = name.split("/")
    if len(rest) > 1 and "/".join([first, *rest[1:]]) in names:
        rest = rest[1:]  # of a set of `data.extra_eval`
    if rest == ["loss"]:
        return "loss"
    return "/".join([first, rest[0], "by label"] if len(rest) > 1 else [first, *rest])
