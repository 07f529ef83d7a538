"""Which keys that no YAML names can be typed as they are, without Hydra's plus sign.

They are the arguments of what a node's `_target_` names, and what lies below one: so
`trainer.limit_val_batches=10`, `data.reader.format=csv` and `optimizer.betas=[0.9,0.95]` need no
`+`, and `trainer.limit_val_batch=10` is told before any library is imported.
"""

from collections.abc import Iterator

from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, ListConfig, Node, OmegaConf
from omegaconf._utils import split_key

from hydralight.config.check import PARTS, SOURCED
from hydralight.config.explain import no_key
from hydralight.config.signatures import arguments_of
from hydralight.config.typed import leaves_of
from hydralight.errors import UserError

# What takes the keys of a group that names no target.
IMPLIED = {"generation": "transformers.generation.configuration_utils.GenerationConfig"}
# Their entries have names of the user's own.
NAMED = ("callbacks", "logger")
# Of a grid too, which chooses no config of the group.
ALONE = ("hparams_search.keep",)


def open_keys(cfg: DictConfig, overrides: list[Override]) -> None:
    """Let what was typed add the keys that what they configure takes.

    Args:
        cfg: The config as composed from the YAML files.
        overrides: What is about to be merged into it; those that may add a key become ones that do.

    Raises:
        UserError: there is no such argument.
    """
    targets: dict[str, str] = {}  # that are typed, by the key of their node
    before: list[str] = []  # keys that are typed, whose values take the place of the config's
    for override in overrides:
        if override.is_delete() or override.is_sweep_override() or override.package is not None:
            continue
        key, value = override.key_or_group, override.value()
        if "/" in key:
            continue
        leaves = list(leaves_of(key, value))
        targets |= _typed_targets(key, value)
        if override.type is OverrideType.CHANGE:
            if not any(key == one or key.startswith(f"{one}.") for one in before):
                _check_kind(cfg, override)
            missing = [leaf for leaf in leaves if not _is_there(cfg, split_key(leaf))]
            added = [_may_be_added(leaf, cfg, targets) for leaf in missing]  # each is looked at
            if missing and all(added):
                override.type = OverrideType.FORCE_ADD
        before.append(key)


def _check_kind(cfg: DictConfig, override: Override) -> None:
    """Refuse what cannot be merged with what is there, as OmegaConf says neither's value.

    Raises:
        UserError: a list for a mapping, a mapping for a list, or a key below a single value.
    """
    parts, value = split_key(override.key_or_group), override.value()
    depth, node = _deepest(cfg, parts)
    at = ".".join(parts[:depth])
    if depth == len(parts) and (node._is_none() or node._is_missing()):  # which takes any kind
        return
    if depth < len(parts):
        if isinstance(node, ListConfig):
            raise UserError(
                f"{at} is a list, and has no key '{parts[depth]}': give it whole, {at}=[…]"
            )
        if not isinstance(node, DictConfig):
            raise UserError(
                f"{at}={node} is a single value, and has no key '{parts[depth]}': give "
                f"it whole, {at}=…"
            )
    elif isinstance(node, DictConfig) and isinstance(value, list):
        example = ", ".join(f"{name!s}: …" for name in node) or "key: …"
        raise UserError(f"{override.input_line} should be a mapping: {at}={{{example}}}.")
    elif isinstance(node, ListConfig) and isinstance(value, dict):
        raise UserError(f"{override.input_line} should be a list: {at}=[…].")


def _deepest(cfg: DictConfig, parts: list[str]) -> tuple[int, Node]:
    """Return how far a key is there, and the node that is there; null holds whatever comes."""
    node: Node = cfg
    for place, part in enumerate(parts):
        if node._is_none() or node._is_missing() or node._is_interpolation():
            return (place, DictConfig({})) if not node._is_interpolation() else (len(parts), node)
        child = (
            node._get_node(part, validate_access=False) if isinstance(node, DictConfig) else None
        )
        if not isinstance(child, Node):
            in_list = isinstance(node, ListConfig) and part.isdigit()
            return (len(parts) if in_list else place), node
        node = child
    return len(parts), node


def _typed_targets(key: str, value: object) -> dict[str, str]:
    found: dict[str, str] = {}
    if isinstance(value, dict):
        for name, child in value.items():
            found |= _typed_targets(f"{key}.{name}", child)
    elif key.endswith("._target_"):
        found[key.removesuffix("._target_")] = "" if value is None else str(value)
    return found


def _is_there(cfg: DictConfig, parts: list[str]) -> bool:
    return _deepest(cfg, parts)[0] == len(parts)


def _may_be_added(leaf: str, cfg: DictConfig, targets: dict[str, str]) -> bool:
    """Whether a key may be added; False where Hydra is to say what is wrong.

    Raises:
        UserError: what it would be given to does not take it.
    """
    if leaf in ALONE:
        return True
    parts = split_key(leaf)
    for depth in reversed(range(1, len(parts))):
        at, key = ".".join(parts[:depth]), parts[depth]
        target = targets.get(at, _target_in(cfg, parts[:depth]))
        special = key.startswith("_") and key.endswith("_")
        if target is None or (special and not _is_there(cfg, parts[:depth])):
            continue
        if special and at in targets and OmegaConf.select(cfg, at) is None:
            return True  # null takes a node whole, as in task.generator={_target_: …}
        known, takes_any = _arguments(at, target, cfg)
        if special or not (key in known or takes_any):
            node = OmegaConf.select(cfg, at)
            there = [str(name) for name in node] if isinstance(node, DictConfig) else []
            short = target.rpartition(".")[2]
            why = f"{short} has no such argument" if short else f"{at}._target_ names nothing"
            raise UserError(no_key(key, at, {*there, *known}, why))
        if _is_there(cfg, parts[:depth]):
            return True
    return parts[0] in NAMED and ".".join(parts[:2]) in targets


def _target_in(cfg: DictConfig, parts: list[str]) -> str | None:
    """Return the target that a node has, "" where it has the key without one, else None."""
    if len(parts) == 1 and parts[0] in IMPLIED:
        return IMPLIED[parts[0]]
    if not _is_there(cfg, [*parts, "_target_"]):
        return None
    return str(OmegaConf.select(cfg, ".".join([*parts, "_target_"])) or "")


def _arguments(at: str, target: str, cfg: DictConfig) -> tuple[set[str], bool]:
    """Return the arguments that a node's keys may name, and whether it may be any."""
    known: set[str] = set()
    takes_any = False
    for name in _takers(at, target, cfg):
        found = arguments_of(name)
        # what cannot be told from here is told once the libraries are there
        takes_any = takes_any or found is None or (found[1] and at != SOURCED)
        known |= found[0] if found is not None else set()
    return {name for name in known if not name.startswith("_")}, takes_any


def _takers(at: str, target: str, cfg: DictConfig) -> Iterator[str]:
    if target:
        yield target
    yield from PARTS.get(at, ())
    if at == SOURCED:
        source = cfg[at].get("source")
        source = source.get("_target_") if isinstance(source, DictConfig) else source
        if source:
            yield str(source)
