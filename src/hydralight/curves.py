"""Pictures of a run, from its `metrics.csv`."""

from pathlib import Path

from hydralight.runs.files import replacing
from hydralight.runs.run import read_history


def draw_curves(run_dir: Path) -> Path | None:
    """Draw each logged value over the optimizer steps into `curves.png`; None without values."""
    from matplotlib.figure import Figure

    path = run_dir / "metrics.csv"
    if not path.is_file():
        return None
    table = read_history(run_dir)
    names = [name for name in table.columns if name not in ("step", "epoch")]
    panels: dict[str, list[str]] = {}
    for name in names:
        panels.setdefault(panel_of(name, names), []).append(name)
    if not panels:
        return None
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    width, height = 4.2 * columns, 2.9 * rows
    figure = Figure(figsize=(width, height))
    # in inches, as a layout engine's second drawing takes as long as the first
    figure.subplots_adjust(0.6 / width, 0.5 / height, 1 - 0.15 / width, 1 - 0.35 / height)
    figure.subplots_adjust(wspace=0.7 / 3.5, hspace=0.85 / 2.05)
    for index, (title, panel) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        for name in panel:
            series = table[["step", name]].dropna()
            marker = "o" if name.startswith("val/") or len(series) < 3 else ""
            axes.plot(series["step"], series[name], marker=marker, markersize=4, label=name)
        axes.set_title(title if len(panel) > 1 else panel[0], fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        if len(panel) > 1:
            axes.legend(fontsize=8 if len(panel) < 6 else 5, ncols=1 + len(panel) // 9)
    target = run_dir / "curves.png"
    with replacing(target, "wb") as file:
        figure.savefig(file, dpi=110, format="png")
    return target


def panel_of(name: str, names: list[str]) -> str:
    """Return the panel of a value: losses share one, so do further sets' and labels' values."""
    first, *rest = name.split("/")
    if len(rest) > 1 and "/".join([first, *rest[1:]]) in names:
        rest = rest[1:]  # of a set of `data.extra_eval`
    if rest == ["loss"]:
        return "loss"
    return "/".join([first, rest[0], "by label"] if len(rest) > 1 else [first, *rest])
