"""Two runs, file by file."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

# logs of what was done to a run, and not of what it came to
LOGS = re.compile(r"train\S*\.log|resume\.json")
EACH_TIME = dict.fromkeys(
    ("time", "command", "git", "resumed", "own_checksum")
)  # of environment.json


def differences(whole: Path, other: Path) -> Iterator[str]:
    """Yield what is not the same in both, or only in one of them."""
    files = [
        {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        for folder in (whole, other)
    ]
    here, there = ({name for name in names if not LOGS.fullmatch(name)} for names in files)
    assert {"metrics.csv", "model/model.safetensors", "checkpoints/last.json"} <= here
    yield from (f"{name} is in one" for name in sorted(here ^ there))
    for name in sorted(here & there):
        one, two = (content(folder, name) for folder in (whole, other))
        yield from (f"{name}: {place}" for place in unequal(one, two))


def content(folder: Path, name: str) -> Any:
    """Return what a file says: its bytes, where no part of it may differ."""
    path = folder / name
    if path.suffix in (".ckpt", ".pt"):
        return torch.load(path, weights_only=True)
    if path.suffix == ".safetensors" and "checkpoints" in name:  # its metadata is in any order
        return load_file(path)
    if path.suffix == ".yaml":  # which name the run's own directory
        text = path.read_text().replace(str(folder), "RUN")
        return re.sub(r"^resume: .*|^# xxh3.*", "", text, flags=re.MULTILINE)
    if re.fullmatch(
        r"checkpoints/[^/]*", name
    ):  # a checkpoint's bytes depend on which tensors were one
        return json.loads(path.read_text()) | {"checksum": None, "own_checksum": None}
    if name == "environment.json":
        return EACH_TIME | {
            k: v for k, v in json.loads(path.read_text()).items() if k not in EACH_TIME
        }
    return path.read_bytes()


def unequal(one: Any, two: Any, place: str = "") -> Iterator[str]:
    """Yield where two nested states differ; tensors do in any bit."""
    if isinstance(one, dict) and isinstance(two, dict):
        for key in {**one, **two}:
            if key in one and key in two:
                yield from unequal(one[key], two[key], f"{place}.{key}")
            else:
                yield f"{place}.{key} is in one"
    elif isinstance(one, list | tuple) and len(one) == len(two):
        for index, pair in enumerate(zip(one, two, strict=True)):
            yield from unequal(*pair, f"{place}.{index}")
    elif torch.is_tensor(one):
        if not torch.equal(one, two):
            yield place
    elif one != two:
        yield f"{place}: {str(one)[:80]}, {str(two)[:80]}"
