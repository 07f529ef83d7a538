"""From a data set's own columns to a column for each role: names, fields, list items, templates.

A role's column is written as
- `body`, a column, or `translation.en`, a field of one;
- `messages[0].content` or `question.choices[*].text`: an item of a list, or something of each item;
- `"{question} {context}"`, a text with any of these in it (`{{` and `}}` are braces);
- `[ending0, ending1]`, a list of any of these.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from string import Formatter
from typing import Any

import datasets
from datasets import Dataset

from hydralight.data.roles import Where, switched_off
from hydralight.errors import UserError, did_you_mean

Step = str | int | None  # a field, an item, or each item
Path = tuple[str, tuple[Step, ...]]  # a column, or a field of one, and what is taken of its values
_STEPS = re.compile(r"\[(\*|-?\d+)\]|\.([^.\[\]{}]+)")


class NoColumn(UserError):
    """A role's column is not there.

    Args:
        what: What is not there, and what is.
        then: What to do.
    """

    def __init__(self, what: str, then: str = "") -> None:
        super().__init__(f"{what}{then}.")
        self.what = what


def rename_roles(
    dataset: Dataset,
    roles: Collection[str],
    where: Where,
    optional: Collection[str] = (),
) -> Dataset:
    """Keep the columns that the roles name, renamed to the roles.

    Args:
        dataset: The rows as they came from the source.
        roles: The roles that the task knows.
        where: Names the column of a role, as this module says. A role that it does not know has a
            column of its own name.
        optional: Those of the roles that are left out where neither `where` nor the data set
            has them.

    Raises:
        UserError: There are no rows, a role is not known, or a column is not there.
    """
    columns = dict(where.columns)
    if len(dataset) == 0:
        raise UserError(f"{where.name} is empty.")
    roles = list(dict.fromkeys(roles))
    if unknown := [role for role in columns if role not in roles]:
        raise UserError(
            f"data.columns names {unknown[0]!r}, which is no role of this task; its roles are "
            f"{', '.join(roles)}{did_you_mean(unknown[0], roles)}"
        )
    off = switched_off(columns)
    if needed := [role for role in roles if role in off and role not in optional]:
        raise UserError(f"data.columns.{needed[0]} is null, and the task needs it: name a column.")
    roles = [role for role in roles if role not in off]
    # joined data sets come with a fixed list of columns that they show
    dataset = dataset.with_format(None)
    roles = [r for r in roles if r not in optional or r in columns or r in dataset.column_names]
    flat = dataset.flatten()
    features = {**flat.features, **dataset.features}
    if not roles:
        raise NoColumn(
            f"{where.name} has no column for any of the roles {', '.join(optional)}; its columns "
            f"are {described(features)}",
            f" (data.columns={{{next(iter(optional))}: …}} names one)",
        )
    heads: dict[str, str] = {}  # a column of ours to one of the data set
    made: dict[str, Any] = {}  # roles whose values are put together
    for role in roles:
        spec = columns.get(role, role)
        paths = list(paths_of(spec, features, role))
        for path in paths:
            _check_is_no_record(check_path(path, features, role, where), spec, path, role, where)
        if isinstance(spec, str) and paths == [(spec, ())]:
            heads[role] = spec
        else:
            made[role] = spec
            heads |= {f"{role} {number}": head for number, (head, _) in enumerate(paths)}
    used = Counter[str]()
    pieces: dict[tuple[bool, int], dict[str, str]] = {}
    for own, column in heads.items():
        pieces.setdefault((column not in dataset.column_names, used[column]), {})[column] = own
        used[column] += 1
    # One piece as a rule; more where a column serves two roles, or only a field of it is asked for.
    parts = [
        (flat if nested else dataset).select_columns(list(names)).rename_columns(names)
        for (nested, _), names in pieces.items()
    ]
    whole = parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts, axis=1)
    for role, spec in made.items():
        known = sorted(features)
        arguments = {"role": role, "spec": spec, "known": known}
        whole = whole.map(_make, batched=True, fn_kwargs=arguments, desc=role)
    return whole.select_columns(roles).with_format(None)


def with_rest(dataset: Dataset) -> Dataset:
    """Return rows with one column more, `rest`: all columns of a row, as JSON."""
    return dataset.with_format(None).map(_as_json, batched=True, desc="columns")


def _as_json(rows: dict[str, list]) -> dict[str, list[str]]:
    lines = (dict(zip(rows, one, strict=True)) for one in zip(*rows.values(), strict=True))
    return {"rest": [json.dumps(one, ensure_ascii=False, default=str) for one in lines]}


# ------------------------------------------------------------ what is written


def paths_of(spec: Any, known: Collection[str], role: str) -> Iterator[Path]:
    """Yield what is taken from a row, in the order in which it is written.

    Args:
        spec: How the column of a role is written.
        known: The columns, and their fields, that there are: one may have any name.
        role: The role.

    Raises:
        UserError: it cannot be read.
    """
    if isinstance(spec, str):
        if spec in known:
            yield spec, ()
        elif "{" in spec or "}" in spec:
            for _, field in parts_of(spec, role):
                if field is not None:
                    yield _path(field, known, role)
        else:
            yield _path(spec, known, role)
    elif isinstance(spec, Sequence) and spec:
        for one in spec:
            yield from paths_of(one, known, role)
    else:
        raise UserError(f"data.columns.{role}={spec} should be the name of a column, or a list.")


def parts_of(template: str, role: str) -> list[tuple[str, str | None]]:
    """Return the texts of a template, each with the path that comes behind it.

    Raises:
        UserError: a brace is not closed, or something stands in it that is no path.
    """
    what = f"data.columns.{role}={template}"
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"{what}: {error} (braces of the text itself are doubled).") from error
    if any(field == "" or spec or conversion for _, field, spec, conversion in parts):
        raise UserError(f"{what}: braces hold the names of columns, and nothing else.")
    return [(text, field) for text, field, _, _ in parts]


def _path(text: str, known: Collection[str], role: str) -> Path:
    head, bracket, _ = (text, "", "") if text in known else text.partition("[")
    # a name may have brackets of its own
    head = max((name for name in known if text.startswith(f"{name}[")), key=len, default=head)
    rest = text[len(head) :]
    steps: list[Step] = []
    for item, field in _STEPS.findall(rest) if bracket else ():
        steps.append(field or (None if item == "*" else int(item)))
    if bracket and "".join(match[0] for match in _STEPS.finditer(rest)) != rest:
        raise UserError(
            f"data.columns.{role}: {text!r} cannot be read: items are written as in "
            "messages[0].content, and each of them as in messages[*].content."
        )
    return head, tuple(steps)


# ------------------------------------------------------------ what is there


def check_path(path: Path, features: Mapping[str, Any], role: str, where: Where) -> Any:
    """Return the feature of what a path takes.

    Raises:
        NoColumn: there is no such column, field or list.
    """
    head, steps = path
    if head not in features:
        there = list(features)
        listed = next((h for h in there if head.startswith(f"{h}.") and items(features[h])), None)
        hint = did_you_mean(head, there)
        if listed is not None:
            hint = f"; each of a list is written {listed}[*]{head[len(listed) :]}"
        raise NoColumn(
            f"{where} has no column {head!r} for the role {role}; its columns are "
            f"{described(features)}{hint}",
            f" (data.columns={{{role}: …}} names another)",
        )
    feature, written = features[head], head
    for step in steps:
        if isinstance(step, str):
            if not (isinstance(feature, Mapping) and step in feature):
                fields = list(feature) if isinstance(feature, Mapping) else []
                others = f" (there are: {', '.join(fields)})" if fields else ""
                raise NoColumn(
                    f"{where}: {written} has no field {step!r}{did_you_mean(step, fields)}{others}"
                )
            feature, written = feature[step], f"{written}.{step}"
        else:
            if (feature := items(feature)) is None:
                raise NoColumn(f"{where}: {written} holds no lists, and has no items")
            written += "[*]" if step is None else f"[{step}]"
    return feature


def _check_is_no_record(feature: Any, spec: Any, path: Path, role: str, where: Where) -> None:
    """Refuse a record in a template: it has no text of its own."""
    while (item := items(feature)) is not None:
        feature = item
    if isinstance(spec, str) and spec != path[0] and "{" in spec and isinstance(feature, Mapping):
        raise UserError(
            f"{where}: data.columns.{role}={spec} takes {path[0]}, which holds "
            f"{kind_of(feature)}: name one of these fields."
        )


def items(feature: Any) -> Any:
    """Return the feature of a list's items; None where it is no list."""
    return getattr(feature, "feature", None)


def described(features: Mapping[str, Any]) -> str:
    """Return the columns with what they hold; fields stand for the column that they are of."""
    names = [n for n in features if not isinstance(features[n], Mapping)]
    return ", ".join(f"{name} ({kind_of(features[name])})" for name in names)


def kind_of(feature: Any) -> str:
    """Return what a feature holds, in a word or two."""
    if (item := items(feature)) is not None:
        return f"lists of {kind_of(item)}"
    if isinstance(feature, Mapping):
        return f"{{{', '.join(feature)}}}"
    kind = str(getattr(feature, "dtype", type(feature).__name__))
    for begin, word in {
        **{"string": "text", "large_string": "text", "bool": "true or false"},
        **{"int": "integers", "uint": "integers", "float": "numbers"},
    }.items():
        if kind.startswith(begin):
            return "classes" if isinstance(feature, datasets.ClassLabel) else word
    return "images" if isinstance(feature, datasets.Image) else kind


# ------------------------------------------------------------ values


def _make(rows: dict[str, list], role: str, spec: Any, known: list[str]) -> dict[str, list]:
    paths = list(paths_of(spec, known, role))
    taken = [
        [follow(value, steps) for value in rows[f"{role} {number}"]]
        for number, (_, steps) in enumerate(paths)
    ]
    return {role: [_filled(spec, iter(row), known, role) for row in zip(*taken, strict=True)]}


def follow(value: Any, steps: Sequence[Step]) -> Any:
    """Return what steps lead to in a value; None where that is missing."""
    for place, step in enumerate(steps):
        if value is None:
            return None
        if step is None:
            return [follow(item, steps[place + 1 :]) for item in value]
        if isinstance(step, int):
            value = value[step] if -len(value) <= step < len(value) else None
        else:
            value = value.get(step)
    return value


def _filled(spec: Any, values: Iterator[Any], known: Collection[str], role: str) -> Any:
    if not isinstance(spec, str):
        return [_filled(one, values, known, role) for one in spec]
    if spec in known or not ("{" in spec or "}" in spec):
        return next(values)
    parts = [
        (text, None if f is None else as_text(next(values))) for text, f in parts_of(spec, role)
    ]
    empty = all(not value for _, value in parts)  # a row that has nothing to fill in is empty
    return None if empty else "".join(text + (value or "") for text, value in parts)


def as_text(value: Any) -> str:
    """Return a value as it stands in a template: items of a list on lines of their own."""
    if isinstance(value, list):
        return "\n".join(as_text(item) for item in value)
    return "" if value is None else str(value)
