"""What a config may say of the program itself: only what is typed, or stands in a trusted file.

Hydra's own node sets environment variables, working directories, log files and launchers, and all
of that before a function of ours is called; under `--multirun` recipes are composed job by job. So
the check sits where Hydra composes, behind its private `ConfigLoaderImpl._load_configuration`,
through which all of its commands and launchers go; `tests/test_trust.py` fails where that changes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra._internal import hydra as hydra_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ResultDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override, OverrideType
from hydra.plugins.config_source import ConfigSource
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from hydralight.config.opening import open_keys
from hydralight.config.project import config_dirs, look_from
from hydralight.config.typed import Typed
from hydralight.errors import UserError

# Of the program, and not of an experiment.
OWN_KEYS: tuple[str, ...] = (
    "hydra",
    "trust",
    "paths.log_dir",
    "paths.output_dir",
    "resume",
    "run",
    "sweep",
)
OWN_KEYS += ("input", "output", "format", "harness", "harness_tasks", "harness_options")
# Who says, for Hydra, where else configs are: `--config-dir` and `hydra.searchpath`.
TYPED_SOURCES = ("command-line", "hydra.searchpath")
# What Hydra writes down of a composition, and the mode, which it checks itself.
RECORDS = ("hydra.overrides", "hydra.runtime.choices", "hydra.mode")
WHOLE = ("data.labels", "data.path")  # which may be lists or mappings


class Loader(ConfigLoaderImpl):
    """Hydra's loader of configs, which refuses what a recipe says of the program itself.

    The keys of `OWN_KEYS` have to be what they are without any recipe: as the primary config,
    `local` and what was typed say. It is pickled with what was typed, and where: launchers compose
    in other processes, which may have another working directory.
    """

    typed = Typed()

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.typed = type(self).typed  # of the instance, as pickles leave out what the class has
        self.place = os.getcwd()
        self._trusted: dict[tuple[str, ...], dict[str, Any]] = {}
        self._applied: list[Override] = []

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        look_from(Path(self.place))

    def _load_configuration(  # type: ignore[override]
        self, config_name: str | None, overrides: list[str], run_mode: RunMode, **options: Any
    ) -> DictConfig:
        composed = super()._load_configuration(config_name, overrides, run_mode, **options)
        composed.hydra.runtime.cwd = self.place
        if config_name is not None:  # else it is `--hydra-help`
            kept = tuple(o.input_line or "" for o in self._typed_of_the_program(overrides))
            if kept not in self._trusted:
                self._trusted[kept] = own_values(self._without_recipe(config_name, kept, run_mode))
            _compare(own_values(composed), self._trusted[kept])
            self._compare_record(composed, overrides)
        return composed

    def _typed_of_the_program(self, overrides: list[str]) -> Iterator[Override]:
        """Yield what was typed of the program's keys, and choices of configs that we trust."""
        for override in self.parse_overrides(None, overrides):
            key = override.key_or_group
            ours = any(_within(key.replace("/", "."), own) for own in OWN_KEYS) or key == "paths"
            if self.typed.holds(override) and (ours or _is_trusted_choice(override)):
                yield override

    def _compare_record(self, composed: DictConfig, overrides: list[str]) -> None:
        """Refuse a recipe that adds to Hydra's record of what it was given."""
        given = [o.input_line for o in self.parse_overrides(None, overrides)]
        record: Any = OmegaConf.to_container(composed.hydra.overrides, resolve=False)
        if sorted(map(str, [*record["hydra"], *record["task"]])) != sorted(map(str, given)):
            raise UserError(
                "a recipe or a search sets hydra.overrides, which is a record of what is typed: "
                "take it out."
            )

    def _without_recipe(
        self, config_name: str, typed: tuple[str, ...], run_mode: RunMode
    ) -> DictConfig:
        trusted = super()._load_configuration(
            config_name,
            [*typed],
            run_mode,
            from_shell=False,
            validate_sweep_overrides=False,
            skip_missing_defaults=True,
            activate_config_repository=False,
        )
        trusted.hydra.runtime.cwd = self.place
        return trusted

    def _process_config_searchpath(
        self,
        config_name: str | None,
        parsed_overrides: list[Override],
        repo: CachingConfigRepository,
    ) -> None:
        super()._process_config_searchpath(config_name, parsed_overrides, repo)
        self._applied = parsed_overrides  # what Hydra applies; its record is another list
        _refuse_our_names(repo.get_sources())

    def _compose_config_from_defaults_list(
        self, defaults: list[ResultDefault], repo: IConfigRepository
    ) -> DictConfig:
        composed = super()._compose_config_from_defaults_list(defaults, repo)
        values = [
            o for o in self._applied if not (_is_choice(o) and repo.group_exists(o.key_or_group))
        ]
        for key, kind in {o.key_or_group: type(o.value()) for o in values if _is_whole(o)}.items():
            other = ListConfig if kind is dict else DictConfig
            if isinstance(OmegaConf.select(composed, key), other):  # which Hydra would merge
                OmegaConf.update(composed, key, None)
        open_keys(composed, values)
        return composed


def _is_choice(override: Override) -> bool:
    """Whether an override of a group's name chooses a config of it; a mapping is merged into it."""
    return override.is_sweep_override() or not isinstance(override.value(), dict)


def _is_whole(override: Override) -> bool:
    """Whether an override gives a value of the experiment's data as a list or a mapping."""
    key, value = override.key_or_group, override.value()
    return override.type is OverrideType.CHANGE and key in WHOLE and isinstance(value, dict | list)


def _refuse_our_names(sources: list[ConfigSource]) -> None:
    """Refuse folders and packages with a config that would be taken for one that we trust.

    That is one of Hydra or of a plugin, of the template or of the user's project, or of `local`.
    """
    ours = [Path(folder).resolve() for folder in config_dirs()]
    foreign = [
        source
        for source in sources
        if source.provider.startswith(TYPED_SOURCES)
        and not (source.scheme() == "file" and Path(source.path).resolve() in ours)
    ]
    known = [source for source in sources if source not in foreign and source.available()]
    names = {name for source in known for name in _names(source)} if foreign else set()
    for source in foreign:
        if source.available() and source.is_group("local"):
            raise UserError(
                f"{source.path} has a folder local, which is read only from your own configs: "
                "take it out, or give it another name."
            )
        for name in sorted(names):
            if source.is_config(name):
                owner = "of Hydra" if name.startswith("hydra/") else "of yours or the template's"
                raise UserError(
                    f"{source.path}/{name}.yaml has the name of a config {owner}, which it would "
                    "be taken for: give it another."
                )


def _names(source: ConfigSource, group: str = "") -> Iterator[str]:
    """Yield the names of all configs of a source."""
    for name in source.list(group, ObjectType.CONFIG):
        yield f"{group}/{name}".lstrip("/")
    for name in source.list(group, ObjectType.GROUP):
        yield from _names(source, f"{group}/{name}".lstrip("/"))


@contextmanager
def composing(typed: Typed) -> Iterator[None]:
    """Let Hydra compose with our loader, which knows what was typed."""
    before, of_hydra = Loader.typed, hydra_module.ConfigLoaderImpl
    Loader.typed = typed
    hydra_module.ConfigLoaderImpl = Loader  # type: ignore[misc]
    try:
        yield
    finally:
        Loader.typed = before
        hydra_module.ConfigLoaderImpl = of_hydra  # type: ignore[misc]


def own_values(cfg: DictConfig) -> dict[str, Any]:
    """Return the values of the program's own keys by their dotted names, unresolved."""
    found: dict[str, Any] = {}
    for key in OWN_KEYS:
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(cfg, parent) if parent else cfg
        if isinstance(node, DictConfig) and name in node:
            _flatten(node._get_node(name), key, found)
    return found


def _flatten(node: Any, path: str, found: dict[str, Any]) -> None:
    if any(_within(path, record) for record in RECORDS):
        return
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
        for key in node:
            _flatten(node._get_node(key), f"{path}.{key!s}", found)
    elif OmegaConf.is_config(node):
        found[path] = OmegaConf.to_container(node, resolve=False)
    else:
        found[path] = node._value()


def _compare(composed: dict[str, Any], trusted: dict[str, Any]) -> None:
    for key in [*composed, *trusted]:
        if composed.get(key) != trusted.get(key) or (key in composed) != (key in trusted):
            value = composed.get(key)
            raise UserError(
                f"a recipe or a search sets {key} ({value}), which is taken only from what is "
                f"typed, or from configs/local: take it out, or type {key}=…"
            )


def _within(path: str, key: str) -> bool:
    return path == key or path.startswith(f"{key}.")


def _is_trusted_choice(override: Override) -> bool:
    """Whether an override chooses a config of the template's or of the user's project.

    No other folder can have one of that name (`_refuse_our_names`).
    """
    group, names = override.key_or_group, override.value()
    if group == "experiment" or "." in group or override.package is not None:
        return False
    files = [f"{name}.yaml" for name in (names if isinstance(names, list) else [names])]
    return all(any((d / group / file).is_file() for d in config_dirs()) for file in files)
