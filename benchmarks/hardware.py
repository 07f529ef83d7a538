"""What the benchmarks run on, and what it is called in their results."""

import os
import re
from typing import Any

from hydralight.runs.environment import environment

# dense bfloat16 operations a second, from the makers' data sheets
PEAK_FLOPS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "4090": 165e12,
    "3090": 71e12,
}


def on_gpu() -> bool:
    """Whether this is a run of `--gpu`; without it the CPU is used, also where there is a GPU."""
    return os.environ.get("BENCHMARKS_DEVICE") == "gpu"


def device_name() -> str:
    """Return the GPU's name, or the processor's with its number of cores."""
    here = environment()
    if on_gpu():
        return str(here["gpus"][0])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{here['processor'] or here['platform']}, {cores} cores"


def described() -> dict[str, Any]:
    """Return the hardware and the versions, without anything of this machine's paths."""
    names = ("git", "python", "packages", "platform", "processor", "cpu_count", "gpus")
    here = environment()
    return {name: here[name] for name in names}


def slug(name: str) -> str:
    """Return a name as it goes into a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def peak_flops(name: str) -> float | None:
    """Return a GPU's greatest bfloat16 throughput in FLOP/s, where it is known."""
    return next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)
