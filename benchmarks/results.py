"""The table of results, and the files that keep them under the device's name."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from tabulate import tabulate

from benchmarks.hardware import slug
from benchmarks.measure import Line, Spread
from benchmarks.rows import NAMES
from hydralight.runs.files import write_text

FOLDER = Path(__file__).resolve().parent / "results"
HEADERS = (
    *("what", "unit", "ours", "Trainer", "Trainer at its best", "ours : Trainer"),
    *("ours : its best", "target", "reached"),
)


class Row(TypedDict):
    """What a row came to, and where."""

    lines: list[Line]
    rounds: int
    command: str
    time: str
    environment: dict[str, Any]


def update(rows: Mapping[str, Row], device: str, folder: Path = FOLDER) -> Path:
    """Put rows into the device's results, as json and Markdown; the others stay as they are.

    Args:
        rows: By name.
        device: The device's name.
        folder: Of the results.

    Returns:
        The Markdown file.
    """
    path = folder / f"{slug(device)}.json"
    known: dict[str, Row] = json.loads(path.read_text())["rows"] if path.is_file() else {}
    known |= rows
    known = {name: known[name] for name in NAMES if name in known}
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"device": device, "rows": known}, indent=2) + "\n")
    page = path.with_suffix(".md")
    write_text(page, markdown(known, device))
    return page


def markdown(rows: Mapping[str, Row], device: str) -> str:
    """Return the page of a device: its table, what there is to be said, and the versions."""
    lines = [line for row in rows.values() for line in row["lines"]]
    parts = [f"# {device}", "", table(lines), "", *notes(lines), ""]
    parts.append("Medians over rounds, with the least and the greatest in brackets.")
    parts.append("")
    for versions, names in by_versions(rows).items():
        parts.append(f"- {', '.join(names)}: {versions}")
    return "\n".join(parts) + "\n"


def by_versions(rows: Mapping[str, Row]) -> dict[str, list[str]]:
    """Return which rows were measured with which versions of the packages."""
    measured: dict[str, list[str]] = {}
    for name, row in rows.items():
        here = row["environment"]
        commit = (here.get("git") or {}).get("commit") or "unknown"
        packages = ("torch", "lightning", "transformers", "datasets")
        versions = [f"{package} {here['packages'].get(package)}" for package in packages]
        text = f"Python {here['python']}, {', '.join(versions)}, commit {commit[:7]}"
        measured.setdefault(text, []).append(name)
    return measured


def table(lines: Iterable[Line]) -> str:
    """Return a Markdown table of lines."""
    cells = [
        (
            line["what"],
            line["unit"],
            *(cell(line[side]) for side in ("ours", "trainer", "best")),
            *(cell(line[ratio]) for ratio in ("ratio", "ratio_best")),
            line["target"] or "—",
            {True: "yes", False: "no", None: "—"}[line["reached"]],
        )
        for line in lines
    ]
    return tabulate(cells, HEADERS, tablefmt="github", disable_numparse=True)


def notes(lines: Sequence[Line]) -> list[str]:
    """Return what is to be said of the lines."""
    return [f"- {line['what']}: {line['note']}." for line in lines if line["note"]]


def cell(spread: Spread | None) -> str:
    """Return a median with the least and greatest value."""
    if spread is None:
        return "—"
    middle, low, high = (figure(spread[name]) for name in ("median", "min", "max"))
    return middle if low == high else f"{middle} ({low} to {high})"


def figure(value: float) -> str:
    """Return a number with three significant digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")
