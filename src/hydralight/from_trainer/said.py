"""What a conversion has to say, as a command line and as an experiment file."""

from dataclasses import dataclass, field
from typing import Any

import yaml

from hydralight.runs.overrides import quoted

ONLY_TYPED = ("paths.log_dir", "resume", "debug", "callbacks.push.repo", "callbacks.push.private")
ONLY_TYPED += ("callbacks.push.revision",)


@dataclass
class Said:
    """Choices of groups, values of keys, and sentences about what has none.

    Args:
        choices: By group; `experiment` is the recipe that all of it stands on.
        values: By dotted key.
        unsaid: Sentences.
    """

    choices: dict[str, str | None] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    unsaid: list[str] = field(default_factory=list)

    def overrides(self) -> list[str]:
        """Return all of it as overrides: groups first."""
        chosen = [typed(group, choice) for group, choice in self.choices.items()]
        return chosen + [typed(key, value) for key, value in self.values.items()]

    def only_typed(self) -> list[str]:
        """Return those of the overrides that an experiment file cannot hold."""
        chosen = {**self.choices, **self.values}
        return [typed(key, value) for key, value in chosen.items() if is_only_typed(key)]

    def experiment(self, name: str) -> str:
        """Return the text of an experiment file.

        Args:
            name: Its own, which its first line calls it by.
        """
        groups = {g: c for g, c in self.choices.items() if not is_only_typed(g)}
        defaults: list[Any] = [str(groups.pop("experiment"))]
        defaults += [{f"override /{group}": choice} for group, choice in groups.items()]
        content: dict[str, Any] = {}
        for key, value in self.values.items():
            if not is_only_typed(key):
                put(content, key, value)
        head = " ".join(["python train.py", f"experiment={name}", *self.only_typed()])
        text = yaml.safe_dump({"defaults": [*defaults, "_self_"]}, sort_keys=False)
        if content:
            text += "\n" + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        return f"# @package _global_\n# {head}\n{text}"


def is_only_typed(key: str) -> bool:
    """Whether a key or a group is of the program, and not of an experiment."""
    return key in ONLY_TYPED or key.startswith("hydra.")


def put(content: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at its dotted place."""
    *places, last = key.split(".")
    for place in places:
        content = content.setdefault(place, {})
    content[last] = literal(value)


def literal(value: Any) -> Any:
    """Return a value whose texts OmegaConf reads as they are, without interpolation."""
    if isinstance(value, dict):
        return {key: literal(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [literal(child) for child in value]
    return value.replace("${", "\\${") if isinstance(value, str) else value


def typed(key: str, value: Any) -> str:
    """Return an override."""
    return f"{key}={as_text(value)}"


def as_text(value: Any) -> str:
    """Return a value as Hydra reads it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {as_text(v)}" for key, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(as_text, value)) + "]"
    if isinstance(value, str):
        return value if is_plain(value) else quoted(value)
    return repr(value)


def is_plain(text: str) -> bool:
    """Whether Hydra reads a text as that text, and nothing else, without quotes."""
    if not text or text != text.strip() or not all(c.isalnum() or c in "_-./:@ " for c in text):
        return False
    return isinstance(yaml.safe_load(text), str) and " " not in text and not text.endswith(":")
