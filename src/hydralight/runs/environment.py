"""What is written down about a run: its config and where it ran, without secrets."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import OverrideType
from omegaconf import DictConfig, OmegaConf

from hydralight.config.project import CONFIG_DIR
from hydralight.runs.files import told, write_text
from hydralight.runs.overrides import parsed
from hydralight.runs.reading import read_or_set_aside
from hydralight.runs.requeued import JOB
from hydralight.runs.sealed import sealed_json, sealed_yaml
from hydralight.runs.secrets import REDACTED, redact

PACKAGES: tuple[str, ...] = (
    "hydralight",
    "torch",
    "lightning",
    "transformers",
    "tokenizers",
    "datasets",
)
PACKAGES += ("torchmetrics", "rouge-score", "hydra-core", "omegaconf", "numpy")


def record_start(run_dir: Path, cfg: DictConfig, composed: DictConfig) -> None:
    """Write down what a run is made of: what was typed, its config, and its environment.

    `.hydra` is written once: a run that goes on has been composed from it.

    Args:
        run_dir: The run's directory.
        cfg: The config in use.
        composed: The same as Hydra has composed it, its interpolations as they were.
    """
    if not cfg.get("resume"):
        record_composed(run_dir, composed)
    resolved = redact(OmegaConf.to_container(cfg, resolve=True))
    write_text(run_dir / "config.yaml", sealed_yaml(OmegaConf.to_yaml(OmegaConf.create(resolved))))
    path = run_dir / "environment.json"
    content = environment()
    first = read_or_set_aside(path, lambda known: isinstance(known.get("resumed", []), list))
    if first and cfg.get("resume"):
        content = {**first, "resumed": [*first.get("resumed", []), content]}
    write_text(path, sealed_json(content))


def record_composed(run_dir: Path, composed: DictConfig) -> None:
    """Write what Hydra would write into `.hydra`, without secrets: its own files come too early."""
    own: Any = HydraConfig.instance().cfg
    contents = {
        "hydra.yaml": own,
        "overrides.yaml": own.hydra.overrides.task,
        "config.yaml": composed,  # the last: with it, a directory is a run's, which has all three
    }
    folder = run_dir / ".hydra"
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        plain = redact(OmegaConf.to_container(content, resolve=False))
        write_text(folder / name, sealed_yaml(OmegaConf.to_yaml(OmegaConf.create(plain))))


def record_overrides(run_dir: Path) -> None:
    """Keep what this and earlier resumes change in the config, for the next one."""
    latest: dict[str, str] = {}
    for override in HydraConfig.get().overrides.task:
        typed = parsed(override)
        if typed is None or typed.key_or_group == "resume" or redact(override) != override:
            continue
        deletes = "~" if typed.type is OverrideType.DEL else ""  # before it is set anew
        latest[deletes + typed.key_or_group] = override
    write_text(run_dir / "resume.json", sealed_json(list(latest.values())))


def redacted_keys(node: Any, path: str = "") -> Iterator[str]:
    """Yield the dotted keys whose values have been hidden."""
    for key in node:
        value = node._get_node(key)
        where = f"{path}.{key}" if path else str(key)
        if isinstance(value, DictConfig):
            yield from redacted_keys(value, where) if not value._is_none() else ()
        elif value is not None and REDACTED in str(value):
            yield where


def environment() -> dict[str, Any]:
    """Return git state, versions, hardware and command line of this process."""
    import torch

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "time": datetime.now().astimezone().isoformat(timespec="microseconds"),
        "command": [redact(argument) for argument in sys.argv],
        "git": git_state(),
        "python": platform.python_version(),
        "packages": versions(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),  # of this process, before it starts others
        "gpus": devices,
        **({"job": os.environ[JOB]} if JOB in os.environ else {}),
    }


def git_state() -> dict[str, Any] | None:
    """Return the commit of the project's checkout and whether it has changes."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(CONFIG_DIR), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str | None]:
    """Return the versions of the packages that make a result."""
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    found = re.search(r"model name\s*: (.*)", text)
    return found.group(1) if found else platform.processor()
