"""Images of a corpus: their files as they are encoded, beside the rows, whatever they came in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from hydralight.data.roles import ColumnNames


def column_of(role: str, columns: ColumnNames, rows: Dataset) -> str:
    """Return the column that has the images."""
    name = str(columns.get(role) or role)
    return name if name in rows.column_names else role


def contained(image: Mapping[str, Any]) -> dict[str, Any]:
    """Return an image with the content of its file, and the name of it."""
    path, content = image["path"] or "", image["bytes"]
    return {"bytes": Path(path).read_bytes() if content is None else content, "path": path}
