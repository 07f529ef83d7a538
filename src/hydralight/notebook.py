"""A run as a notebook has it: it shows itself, and goes on."""

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

from hydralight.curves import figure_of
from hydralight.errors import UserError
from hydralight.progress import short
from hydralight.runs import run
from hydralight.runs.as_json import as_json
from hydralight.runs.overrides import quoted
from hydralight.shell import near

PARTS = ("last", "best", "test")


class Run(run.Run):
    """What a run directory holds.

    In a notebook it shows its metrics and curves, as they are at that moment.

    Args:
        path: The directory.

    Raises:
        UserError: there is no run in it.
    """

    def resume(self, overrides: Sequence[str] = ()) -> "Run | None":
        """Go on where the run stopped, as `python train.py resume=<run> <overrides>` does.

        Raises:
            UserError: the run has nothing left to do, or what the command line would say.
        """
        from hydralight.commands import start

        path = start("train", [f"resume={quoted(self.path)}", *overrides])
        return None if path is None else Run(path)

    def __repr__(self) -> str:
        """Return where it is, whether it has finished, and its best metrics, in a line."""
        metrics = self.metrics
        best = {n: v for n, v in metrics.get("best", {}).items() if n != "step"}
        said = ", ".join(f"{name} {_shown(value)}" for name, value in best.items())
        at = f", best at step {metrics['best']['step']}: {said}" if best else ""
        return f"Run({str(near(self.path))!r}): {self._status(metrics)}{at}"

    def _repr_html_(self) -> str:
        """Return the metrics as a table and the curves as a picture; nothing is written."""
        metrics = self.metrics
        parts = {part: metrics[part] for part in PARTS if part in metrics}
        names = dict.fromkeys(_bare(name) for values in parts.values() for name in values)
        rows = [
            "".join(f"<td>{_cell(values, name)}</td>" for values in parts.values())
            for name in names
        ]
        head = "".join(f"<th>{part}</th>" for part in parts)
        table = "".join(
            f"<tr><th>{escape(name)}</th>{row}</tr>" for name, row in zip(names, rows, strict=True)
        )
        status = f"<p><code>{escape(near(self.path))}</code>: {escape(self._status(metrics))}</p>"
        return f"{status}<table><tr><th></th>{head}</tr>{table}</table>{self._picture()}"

    def _status(self, metrics: dict[str, Any]) -> str:
        return str(metrics.get("status", "begun"))

    def _picture(self) -> str:
        try:
            figure = figure_of(self.path)
        except UserError as error:  # a damaged log is no reason to show nothing
            return f"<p>{escape(str(error))}</p>"
        if figure is None:
            return ""
        file = io.BytesIO()
        figure.savefig(file, dpi=80, format="png")
        text = base64.b64encode(file.getvalue()).decode()
        return f'<img alt="curves" src="data:image/png;base64,{text}">'


def _bare(name: str) -> str:
    """Return the name of a metric without its split, so that splits stand side by side."""
    return name.removeprefix("val/").removeprefix("test/")


def _cell(values: dict[str, Any], name: str) -> str:
    found = [value for known, value in values.items() if _bare(known) == name]
    return escape(_shown(found[0])) if found else ""


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return short(value)
    return value if isinstance(value, str) else as_json(value)  # a step is whole
