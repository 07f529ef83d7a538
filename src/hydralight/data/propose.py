"""Which columns could play the roles of a recipe, where its own are not there: a line to paste."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import islice, product
from typing import Any

import datasets
import numpy as np
from datasets import Dataset

from hydralight.data.columns import items, rename_roles
from hydralight.data.messages import is_conversation
from hydralight.data.read.images import located
from hydralight.data.roles import Where, is_text
from hydralight.data.shape import Shape

SAMPLE = 200  # rows, from all over the data
TRIES = 300  # mappings that are looked at, the likely ones first
BEST = 6  # columns of each role that are considered

# What columns are called in well-known data sets; the likelier name of a role comes first.
NAMES = {
    "text": "text sentence sentence1 document article dialogue content body review comment tweet "
    "message post utterance premise question1 #1string question query prompt input description "
    "abstract story txt",
    "text_pair": "textpair text2 sentence2 hypothesis question2 #2string sentence passage",
    "label": "label labels class category target sentiment emotion goldlabel intent topic stars "
    "rating score similarity answerkey quality findinglabels correct answer y",
    "summary": "summary highlights tldr abstract headline target title output",
    "source": "source src sourcetext en english input text translation.en",
    "target": "target tgt targettext output translation de ro fr es",
    "tokens": "tokens words token form",
    "tags": "nertags tags ner labels entities upos postags pos",
    "question": "question query sent2 ctxb",
    "context": "context passage paragraph sent1 ctxa ctx question.stem stem question premise "
    "document article startphrase goal",
    "answers": "answers answer",
    "endings": "endings choices.text question.choices[*].text choices[*].text choices options "
    "candidates answers",
    "ending_labels": "endinglabels choices.label question.choices[*].label choices[*].label",
    "anchor": "anchor query question sentence1 text1 premise source text sentence",
    "positive": "positive answer sentence2 text2 hypothesis passage document target",
    "messages": "messages conversations conversation dialogue dialog chat turns chosen",
    "prompt": "prompt question query instruction problem input user",
    "completion": "completion response answer output solution assistant target",
    "image": "image img filename file imageindex imagepath path",
    "id": "id qid",
}
TEMPLATES = (  # of columns that belong together in one text
    ("instruction", "input", "output"),
    ("instruction", "input"),
    ("instruction", "context"),
    ("instruction", "output"),
    ("prompt", "completion"),
)
CHAT = ("text", "summary", "source", "target", "anchor", "positive")  # may be an item of a list
IMAGE = re.compile(r".+\.(png|jpe?g|gif|bmp|webp|tiff?)", re.IGNORECASE)
NUMBERED = re.compile(r"(.*?)[ _.-]?(\d+|[A-Ha-h])")


def proposed(
    rows: Dataset,
    shape: Shape,
    recipe: Mapping[str, Any],
    by: Sequence[str],
    folder: str,
    only_columns: bool = False,
    of: str = "data.columns",
) -> str:
    """Return what to add to a command so that rows fit a shape; nothing where nothing does.

    Args:
        rows: Source rows.
        shape: With the recipe's settings.
        recipe: The columns that the recipe names, or sets to null: what is typed is merged with
            them.
        by: Columns that stay as they are, beside the roles.
        folder: Where the image files are that rows name.
        only_columns: Whether the shape stays as it is.
        of: The key that has the columns, such as `data.extra_eval.other.columns`.
    """
    picked = np.unique(np.linspace(0, len(rows) - 1, SAMPLE).astype(int))
    some = rows.with_format(None).select(picked)
    for name, feature in some.features.items():
        if isinstance(feature, datasets.Image):
            some = some.cast_column(name, datasets.Image(decode=False))
    sample = Dataset.from_dict(some[:], features=some.features)  # in memory, with no cache
    specs = [tuple(spec) if isinstance(spec, list) else spec for spec in _specs(sample)]
    values = {spec: _values(sample, spec) for spec in specs}
    for one, changes in [(shape, list[str]())] if only_columns else _variants(shape):
        for columns in islice(_mappings(values, one, recipe), TRIES):
            there = {*sample.column_names, *(r for r in recipe if recipe[r] is not None)}
            unset = {r: None for r in one.optional_roles if r in there and r not in columns}
            mapping = {**columns, **unset}
            if (accepted := _accepted(sample, one, mapping, by, folder)) is not None:
                order = [role for role in one.roles if role in mapping]
                written = ", ".join(f"{role}: {as_typed(mapping[role])}" for role in order)
                if not changes and not only_columns:
                    changes = _metric(accepted)
                return " ".join([shlex.quote(f"{of}={{{written}}}"), *changes])
    return ""


# ------------------------------------------------------------ what there is


def _specs(rows: Dataset) -> Iterator[Any]:
    """Yield the ways in which columns of rows can be written."""
    for name, feature in {**rows.flatten().features, **rows.features}.items():
        if not name.isprintable():
            continue
        if isinstance(rows.features.get(name.partition(".")[0]), datasets.Image) and "." in name:
            continue  # its bytes, and its path
        yield name
        inner = items(feature)
        if isinstance(inner, Mapping) and not any(sign in name for sign in "[]{}"):
            yield from (f"{name}[*].{field}" for field in inner)
            yield from (f"{name}[{place}].{field}" for place in (0, 1) for field in inner)
    for parts in TEMPLATES:
        if set(parts) <= set(rows.column_names):
            yield " ".join(f"{{{part}}}" for part in parts)
    groups: dict[str, list[str]] = {}
    for name in rows.column_names:
        if match := NUMBERED.fullmatch(name):
            groups.setdefault(match[1].lower(), []).append(name)
    yield from (group for group in groups.values() if len(group) > 1)
    if len(hot := [n for n in rows.column_names if _is_hot(rows[n][:])]) > 1:
        yield hot


def _is_hot(values: list) -> bool:
    return all(not isinstance(value, str | list | dict) and value in (0, 1) for value in values)


def _values(rows: Dataset, spec: Any) -> Dataset:
    """Return a data set of one column, `it`."""
    spec = list(spec) if isinstance(spec, tuple) else spec
    return rename_roles(rows, ["it"], Where("", {"it": spec}))


# ------------------------------------------------------------ what fits a role


def _mappings(
    values: Mapping[Any, Dataset], shape: Shape, recipe: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield mappings from roles to columns, the likely ones first."""
    ranked: list[list[tuple[float, Any]]] = []
    for role in shape.roles:
        scored = [(_score(role, spec, one, shape), spec) for spec, one in values.items()]
        found = sorted((pair for pair in scored if pair[0] > 0), key=lambda pair: -pair[0])[:BEST]
        if role in shape.optional_roles:
            # a recipe's own optional role is wanted; another one only where its name is there;
            # a column of the role's own name is left out by null alone
            least = 0 if recipe.get(role) is not None else 60
            found = [(0.3 * score, spec) for score, spec in found if score > least]
            found.append((0.0, None))
        ranked.append(found)
    whole = sorted(product(*ranked), key=lambda pairs: -sum(score for score, _ in pairs))
    for pairs in whole:
        columns = {r: s for r, (_, s) in zip(shape.roles, pairs, strict=True) if s is not None}
        heads = [head for spec in columns.values() for head in _heads(spec)]
        if len(set(heads)) == len(heads):
            yield {role: list(s) if isinstance(s, tuple) else s for role, s in columns.items()}


def _heads(spec: Any) -> list[str]:
    """Return what a mapping may use once only."""
    if isinstance(spec, tuple):
        return [head for one in spec for head in _heads(one)]
    return re.findall(r"{(.*?)}", spec) or [spec]


def _score(role: str, spec: Any, values: Dataset, shape: Shape) -> float:
    """Return how well a column would play a role: above 0 if at all, above 60 if by its name."""
    feature, rows = values.features["it"], values["it"][:]
    there = [value for value in rows if value is not None]
    if not there:
        return 0
    named = _named(role, spec)
    if isinstance(spec, str) and re.search(r"\[\d\]", spec) and role not in CHAT:
        return 0
    if role in shape.file_roles:
        images = isinstance(feature, datasets.Image) or (
            is_text(feature) and all(IMAGE.fullmatch(value) for value in there)
        )
        return 10 + named if images else 0
    if role == "label":
        return _label_score(feature, there, named, shape)
    if role in ("tokens", "tags", "endings", "ending_labels"):
        inner = items(feature)
        if inner is None or isinstance(inner, Mapping) or items(inner) is not None:
            return 0
        if role != "tags" and not is_text(inner):
            return 0
        return 10 + named
    if role == "messages":
        return 10 + max(named, 61) if all(map(is_conversation, there)) else 0
    if role == "answers":
        fits = isinstance(feature, Mapping) and {"text", "answer_start"} <= feature.keys()
        return 10 + named if fits else 0
    if role in shape.text_roles or role in ("text", "source", "target", "prompt", "completion"):
        if not is_text(feature) or any(IMAGE.fullmatch(value) for value in there[:3]):
            return 0
        words = float(np.mean([len(value.split()) for value in there]))
        alone = len({*shape.text_roles}) == 1
        whole = 80 + 5 * spec.count("{") if "{" in spec and alone else 0
        if "{" in spec and not alone:
            whole = 90 if "output" not in spec and "completion" not in spec else 0
        repeated = len(set(there)) < len(there) / 2 and len(there) > 8
        if (words < 1.5 and not named) or (repeated and named < 60):
            return 0
        return 5 + max(named, whole) + min(5.0, words / 20)
    return named  # such as an id


def _label_score(feature: Any, there: list, named: float, shape: Shape) -> float:
    problem = getattr(shape, "problem_type", "single_label_classification")
    if not isinstance(items(feature) or feature, datasets.Value | datasets.ClassLabel):
        return 0
    several = items(feature) is not None
    if problem == "multi_label_classification":
        listed = several or (is_text(feature) and (named > 60 or _few(there)))
        return 20 + named if listed else 0
    if several:
        return 0
    if problem == "regression":
        numbers = all(isinstance(value, int | float) for value in there)
        floats = any(isinstance(value, float) for value in there)
        return 10 + named + 10 * floats if numbers and (named or floats) else 0
    if any(isinstance(value, float) and not value.is_integer() for value in there):
        return 0
    few = _few(there)
    short = all(len(str(value)) < 40 for value in there)
    if isinstance(feature, datasets.ClassLabel):
        return 40 + named
    return (10 if few else 1) + named if short and (few or named > 60) else 0


def _few(there: list) -> bool:
    return len(set(there)) <= max(2, min(50, len(there) // 4))


def _named(role: str, spec: Any) -> float:
    """Return 61 to 100 where a name is one of a role's, less where it is a part of one."""
    if isinstance(spec, tuple):
        return 90 if role == "endings" else 0
    name = re.sub(r"[ _-]", "", spec.lower())
    known = [role.replace("_", ""), *NAMES.get(role, "").split()]
    for name_ in (name, name.rpartition(".")[2]):
        if name_ in known:
            return 100 - known.index(name_) - 10 * (name_ != name)
    return 30 if any(len(one) > 3 and one in name for one in known) else 0


# ------------------------------------------------------------ what is accepted


def _variants(shape: Any) -> Iterator[tuple[Shape, list[str]]]:
    """Yield the shape, and how else it could read labels, with what to type for that."""
    yield shape, []
    there = {field.name for field in fields(shape)}
    unset = ["data.labels=null"] if getattr(shape, "labels", None) else []
    if "problem_type" not in there:
        if unset:
            yield replace(shape, labels=None), unset
        return
    if shape.problem_type == "multi_label_classification":
        for sign, labels in product("|;,", (shape.labels, None) if unset else (None,)):
            typed = [f"'data.label_delimiter=\"{sign}\"'", *(unset if labels is None else [])]
            yield replace(shape, label_delimiter=sign, labels=labels), typed
    if unset:
        yield replace(shape, labels=None), unset
    for kind in ("single_label_classification", "regression", "multi_label_classification"):
        if kind != shape.problem_type:
            other = replace(shape, problem_type=kind, labels=None, label_delimiter=None)
            yield other, [f"data.problem_type={kind}", *unset, "optimized_metric=val/loss"]


def _metric(shape: Any) -> list[str]:
    """Return a metric that classification has whatever the number of classes; `f1` is of two."""
    problem = getattr(shape, "problem_type", None)
    several = problem == "single_label_classification" and len(shape.label_names) > 2
    return ["optimized_metric=val/f1_macro"] if several else []


def _accepted(
    sample: Dataset, shape: Shape, columns: Mapping[str, Any], by: Sequence[str], folder: str
) -> Shape | None:
    """Return the shape with its labels if sampled rows are taken under these columns, or None."""
    where = Where("the data", columns)
    if any(column not in {*columns, *sample.column_names} for column in by):
        return None
    try:
        for role in shape.file_roles:
            sample = located(sample, columns[role], folder)
        rows = rename_roles(sample, shape.roles, where, shape.optional_roles)
        declared = shape.declared(rows, where)
        shape = shape.named({"train": rows}, {"train": where})
        prepared = shape.prepare(rows, where)
        settled = shape.settled(prepared, declared)
        settled.check_targets(prepared[:])
    except Exception:  # whatever it is that these columns are not
        return None
    return settled


def as_typed(spec: Any) -> str:
    """Return a column, or several, as they are typed."""
    if spec is None:
        return "null"
    if isinstance(spec, list):
        return f"[{', '.join(map(as_typed, spec))}]"
    plain = re.fullmatch(r"[A-Za-z_][\w.]*( [\w.]+)*", spec)
    words = ("null", "true", "false", "nan", "inf", "yes", "no", "on", "off", "y", "n")
    return spec if plain and spec.lower() not in words else json.dumps(spec, ensure_ascii=False)
