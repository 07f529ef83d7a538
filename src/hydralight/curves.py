"""Pictures of a run, from its `metrics.csv`."""

from pathlib import Path

import pandas as pd


def draw_curves(run_dir: Path) -> Path | None:
    """Draw each logged value over the optimizer steps into `curves.png`; None without values."""
    from matplotlib.figure import Figure

    path = run_dir / "metrics.csv"
    if not path.is_file():
        return None
    table = pd.read_csv(path)
    names = [name for name in table.columns if name not in ("step", "epoch")]
    losses = [name for name in ("train/loss", "val/loss") if name in names]
    panels = ([losses] if losses else []) + [[name] for name in names if name not in losses]
    if not panels:
        return None
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.9 * rows), layout="constrained")
    for index, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, index + 1)
        for name in panel:
            series = table[["step", name]].dropna()
            marker = "o" if name.startswith("val/") or len(series) < 3 else ""
            axes.plot(series["step"], series[name], marker=marker, markersize=4, label=name)
        axes.set_title("loss" if len(panel) > 1 else panel[0], fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        if len(panel) > 1:
            axes.legend(fontsize=8)
    target = run_dir / "curves.png"
    partial = run_dir / "curves.partial.png"
    figure.savefig(partial, dpi=110)
    partial.replace(target)
    return target
