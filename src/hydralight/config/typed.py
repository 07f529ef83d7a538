"""What was typed for this command, which is trusted; what is read from files is not."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hydra.core.override_parser.types import Override

from hydralight.runs.overrides import parsed


@dataclass(frozen=True)
class Typed:
    """Hydra's arguments that count as typed: the user's own, and what this program adds itself.

    Args:
        arguments: As Hydra takes them. What `resume.json`, `sweep.json` or the space of a search
            has put beside them is not among them.
    """

    arguments: tuple[str, ...] = ()

    @cached_property
    def overrides(self) -> list[Override]:
        """Those that set something."""
        return [override for a in self.arguments if (override := parsed(a)) is not None]

    @cached_property
    def leaves(self) -> set[str]:
        """The dotted keys of all values."""
        return {
            leaf
            for override in self.overrides
            for leaf in leaves_of(override.key_or_group, override.value())
        }

    def holds(self, override: Override) -> bool:
        """Whether an override was typed, or is one value of a list that was typed."""
        swept = {o.key_or_group for o in self.overrides if o.is_sweep_override()}
        return override.input_line in self.arguments or override.key_or_group in swept

    def sets(self, path: str) -> bool:
        """Whether the value at a dotted key was typed, alone or within a mapping or list."""
        return path in self.leaves or path.partition("[")[0] in self.leaves

    def trusts(self, what: str) -> bool:
        """Whether `trust=[…]` was typed with this word."""
        given = [o.value() for o in self.overrides if o.key_or_group == "trust"]
        return bool(given) and what in (given[-1] if isinstance(given[-1], list) else [given[-1]])


def leaves_of(path: str, value: Any) -> Iterator[str]:
    """Yield the dotted keys of the values that a mapping holds, or the key of another value."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from leaves_of(f"{path}.{key}", child)
    else:
        yield path
