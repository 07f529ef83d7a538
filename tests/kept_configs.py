"""Files of configs that were read before are not parsed again, which is a third of a composition.

What was read is kept as a pickle, so that each composition has objects of its own. A file that is
another by its time or its size is read again.
"""

import os
import pickle

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.plugins.config_source import ConfigResult

from hydralight.config.project import CONFIG_DIR

_kept: dict[tuple[str | int, ...], bytes] = {}


def keep_configs() -> None:
    """Let Hydra keep what it reads of files, for this process and those that are forks of it."""
    read = FileConfigSource.load_config

    def load_config(source: FileConfigSource, config_path: str) -> ConfigResult:
        try:
            state = os.stat(os.path.join(source.path, source._normalize_file_name(config_path)))
        except OSError:
            return read(source, config_path)  # which tells it
        key = (source.provider, source.path, config_path, state.st_mtime_ns, state.st_size)
        if key not in _kept:
            _kept[key] = pickle.dumps(read(source, config_path))
        return pickle.loads(_kept[key])

    FileConfigSource.load_config = load_config


def read_ours() -> None:
    """Read the template's configs, for processes that are forks of this one."""
    source = FileConfigSource("main", str(CONFIG_DIR))
    for path in CONFIG_DIR.rglob("*.yaml"):
        source.load_config(str(path.relative_to(CONFIG_DIR).with_suffix("")))
