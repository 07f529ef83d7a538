"""What trials are in the tests of Ray: functions that its workers import, which train nothing."""

import os
import signal
import time
from pathlib import Path

import ray
from hydra.core.hydra_config import HydraConfig

from hydralight.runs.environment import record_composed


def complete(value):
    return {"state": "complete", "metrics": {"val/f1": value}}


def there(path):
    """Wait for a file of another trial."""
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.05)


def noted(cfg):
    """Write down in a trial's directory where it runs, and return that directory."""
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    record_composed(run_dir, cfg)
    (run_dir / "node").write_text(ray.get_runtime_context().get_node_id())
    (run_dir / "gpu").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "unset"))
    return run_dir


def first_is_slow(cfg):
    """The first trial ends when the fourth is there."""
    run_dir = noted(cfg)
    if run_dir.name == "0":
        there(run_dir.parent / "3/node")
    return complete(cfg.seed / 8)


def all_meet(cfg):
    """Each of four trials ends when all are there."""
    run_dir = noted(cfg)
    for number in range(4):
        there(run_dir.parent / str(number) / "node")
    return complete(cfg.seed / 8)


def first_is_killed(cfg):
    """The worker of the first trial is killed, and the third one raises."""
    run_dir = noted(cfg)
    if run_dir.name == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    if cfg.seed == 3:
        raise RuntimeError("no such thing")
    return complete(cfg.seed / 8)
