"""What an argument or a method of Trainer is here, row by row (`table.yaml`)."""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

Row = dict[str, Any]
HEADERS = {
    "arguments": "`TrainingArguments`, `Seq2SeqTrainingArguments`",
    "scripts": "an argument of the example scripts",
    "constructor": "`Trainer`, `Seq2SeqTrainer`",
    "methods": "a method",
}
SCRIPTS = {"eval": "eval.py", "predict": "predict.py", "publish": "publish.py"}


@cache
def rows(part: str) -> dict[str, Row]:
    """Return the rows of a part: `arguments`, `scripts`, `constructor`, `methods`; or `reasons`."""
    text = (files("hydralight.from_trainer") / "table.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)[part]


def in_markdown(part: str) -> str:
    """Return a part as a table of `docs/from-trainer.md`."""
    lines = [f"| {HEADERS[part]} | here |", "|---|---|"]
    lines += [f"| `{name}` | {told(row)} |" for name, row in rows(part).items()]
    return "\n".join(lines)


def told(row: Row) -> str:
    """Return what a row says, in Markdown."""
    if "lacking" in row:
        return "not yet"
    if "why" in row:
        return f"no line: {lowered(str(rows('reasons')[row['why']])).rstrip('.')}"
    if "so" in row:
        said = f"always: {lowered(row['so']).rstrip('.')}"
    elif "python" in row:
        said = f"`{row['python']}`"
    else:
        said = " ".join(f"`{one}`" for one in lines_of(row))
    return f"{said}; {row['note']}" if "note" in row else said


def lowered(sentence: str) -> str:
    """Return a sentence as the end of another one; names keep their first letter."""
    first = sentence.split()[0].rstrip("'s,.")
    return (
        sentence
        if first[1:] != first[1:].lower() or first in NAMES
        else sentence[0].lower() + sentence[1:]
    )


NAMES = ("Lightning", "SLURM", "Accelerate", "`model/`")


def lines_of(row: Row) -> list[str]:
    """Return the overrides of a row, one by one."""
    from hydralight.from_trainer.said import typed

    if "key" in row:
        return [typed(row["key"], row.get("values", {}).get(row["example"], row["example"]))]
    inside, found = 0, [""]
    for letter in row["line"]:  # at spaces that are in no brackets
        inside += (letter in "{[") - (letter in "}]")
        if letter == " " and not inside:
            found.append("")
        else:
            found[-1] += letter
    return found
