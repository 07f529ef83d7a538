"""From the arguments of a script with Trainer to what is typed here."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydralight.errors import UserError, did_you_mean
from hydralight.from_trainer.said import Said
from hydralight.from_trainer.table import rows
from hydralight.from_trainer.together import TOGETHER
from hydralight.runs.overrides import parsed

MIRRORED = ("gradient_checkpointing", "gradient_checkpointing_kwargs")


def defaults() -> dict[str, Any]:
    """Return what the library's arguments are where nobody says them."""
    from dataclasses import MISSING, fields

    from transformers import Seq2SeqTrainingArguments

    found = {}
    for field in fields(Seq2SeqTrainingArguments):
        made = field.default if field.default is not MISSING else None
        if field.default_factory is not MISSING:
            made = field.default_factory()
        found[field.name] = getattr(made, "value", made)
    return found


def convert(given: Mapping[str, Any], typed: Sequence[str]) -> Said:
    """Say arguments as keys.

    Args:
        given: Arguments by name, as plain values; those that are missing are the library's
            defaults.
        typed: Overrides beside them, such as `experiment=bert_mrpc`, which count in any case.

    Raises:
        UserError: no recipe is typed, or what is typed is no override.
    """
    own = understood(typed)
    if not own.choices.get("experiment"):
        raise UserError(
            "what is trained, and on which data, stands in the script and not in its arguments: "
            "add experiment=<a recipe of the same task>, and checkpoint=… data.path=… where they "
            "differ."
        )
    table, common = {**rows("arguments"), **rows("scripts")}, defaults()
    known = {name: value for name, value in given.items() if name in table}
    values = {**common, **{name: number(name, value, common) for name, value in known.items()}}
    changed = {name: v for name, v in values.items() if differs(name, v, common, values)}
    said = Said(choices={"experiment": None})
    for name in given:
        if name not in table:
            said.unsaid.append(f"{name}: Trainer has no such argument{did_you_mean(name, table)}")
    for name, row in table.items():
        if name not in changed and not row.get("always"):
            continue
        if "why" in row:
            said.unsaid.append(f"{name}: {rows('reasons')[row['why']]}")
        elif "lacking" in row and "line" not in row and "so" not in row:
            said.unsaid.append(f"{name}={values[name]}: there is no key for it yet.")
        elif "key" in row:
            said.values[row["key"]] = row.get("values", {}).get(values[name], values[name])
    for function in TOGETHER:
        function(values, changed, said)
    said.choices |= own.choices
    for key in own.values:  # which may name what a part of it has been said of
        for other in [k for k in said.values if k.startswith(f"{key}.") or key.startswith(f"{k}.")]:
            del said.values[other]
    said.values |= own.values
    return said


def number(name: str, value: Any, common: Mapping[str, Any]) -> Any:
    """Return a value as a number where the argument is one: YAML reads `1e-4` as a text.

    Raises:
        UserError: it is none.
    """
    default = common.get(name)
    if (
        not isinstance(value, str)
        or isinstance(default, bool)
        or not isinstance(default, int | float)
    ):
        return value
    try:
        return type(default)(value)
    except ValueError:
        raise UserError(f"{name}={value} should be a number.") from None


def differs(name: str, value: Any, common: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether a value is another one than where nobody says it.

    The library itself fills in some of them when its arguments are made.
    """
    if name not in common:
        return value is not None
    if name == "accelerator_config":
        return bool(value) and of_accelerate(value)
    if name == "dataloader_pin_memory" and values["use_cpu"]:
        return False
    if name == "hub_token" and value == "<HUB_TOKEN>":  # what the library writes of any token
        return False
    if value in (None, False, "", "no", "none") or value == [] or value == {}:
        return common[name] not in (None, False, "", "no", "none", [], {})
    return value != common[name]


def of_accelerate(value: Any) -> bool:
    """Whether an accelerator's config says something of its own."""
    from transformers.trainer_pt_utils import AcceleratorConfig

    own = AcceleratorConfig().to_dict() if isinstance(value, Mapping) else None
    return own is None or any(own.get(key) != one for key, one in value.items())


def understood(typed: Sequence[str]) -> Said:
    """Return what was typed beside the file, as choices of groups and values of keys.

    Raises:
        UserError: it is no override, or one that takes a key away.
    """
    from hydralight.config.project import CONFIG_DIR

    said = Said()
    for argument in typed:
        override = parsed(argument)
        if override is None or override.is_delete() or override.is_sweep_override():
            raise UserError(f"'{argument}' should be group=choice or key=value.")
        key, value = override.key_or_group, override.value()
        if (CONFIG_DIR / key).is_dir():
            said.choices[key] = value if value is None else str(value)
        else:
            said.values[key] = value
    return said
