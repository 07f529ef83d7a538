"""What is written down about a run: its config and where it ran, without secrets."""

import json
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
from omegaconf import DictConfig, OmegaConf

from hydralight.config.project import CONFIG_DIR
from hydralight.runs.files import write_text
from hydralight.runs.overrides import parsed
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


def record_start(run_dir: Path, cfg: DictConfig) -> None:
    """Write the resolved config and the environment, and redact secrets in Hydra's files."""
    redact_files(run_dir)
    resolved = redact(OmegaConf.to_container(cfg, resolve=True))
    write_text(run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(resolved)))
    path = run_dir / "environment.json"
    if path.is_file():
        first = json.loads(path.read_text())
        content = {**first, "resumed": [*first.get("resumed", []), environment()]}
    else:
        content = environment()
    write_text(path, json.dumps(content, indent=2) + "\n")


def redact_files(run_dir: Path) -> None:
    """Redact secrets in what Hydra has written about a run, and about its sweep."""
    for path in [*sorted((run_dir / ".hydra").glob("*.yaml")), run_dir.parent / "multirun.yaml"]:
        if not path.is_file():
            continue
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        redacted = redact(content)
        if redacted != content:
            write_text(path, OmegaConf.to_yaml(OmegaConf.create(redacted)))


def record_overrides(run_dir: Path) -> None:
    """Keep what this and earlier resumes change in the config, for the next one."""
    latest: dict[str, str] = {}
    for override in HydraConfig.get().overrides.task:
        typed = parsed(override)
        if typed is None or typed.key_or_group == "resume" or redact(override) != override:
            continue
        latest[typed.key_or_group] = override
    write_text(run_dir / "resume.json", json.dumps(list(latest.values()), indent=2) + "\n")


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
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": [redact(argument) for argument in sys.argv],
        "git": git_state(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "gpus": devices,
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
