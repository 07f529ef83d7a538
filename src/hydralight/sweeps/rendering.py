"""A sweep's tables as text: Markdown, and LaTeX."""

from typing import Any

import pandas as pd


def markdown(table: pd.DataFrame) -> str:
    """Return a table in Markdown, numbers with four digits."""
    text = table.map(_cell).map(lambda cell: cell.replace("|", "\\|"))
    return str(text.to_markdown(index=False, disable_numparse=True))


def latex(table: pd.DataFrame) -> str:
    """Return a table in LaTeX, for the booktabs package."""
    return str(table.map(_cell).rename(columns=str).to_latex(index=False, escape=True))


def plus_minus(summary: pd.DataFrame) -> pd.DataFrame:
    """Join each mean with its standard deviation; what has no number is left empty, or out."""
    joined = summary[[c for c in summary if not str(c).endswith((" mean", " std"))]].copy()
    for name in [str(c).removesuffix(" mean") for c in summary if str(c).endswith(" mean")]:
        pairs = zip(summary[f"{name} mean"], summary[f"{name} std"], strict=True)
        cells = ["" if m != m else f"{m:.4f}" if s != s else f"{m:.4f} ± {s:.4f}" for m, s in pairs]
        if any(cells):
            joined[name] = cells
    return joined


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e9 else f"{value:.4g}"
    return str(value)
