"""A job of SLURM that is begun again, after a pre-emption or a lost node, goes on with its run.

SLURM starts the job's script anew, with the same command. Which run that command had begun is told
by what its `environment.json` says of the job, the step within it, and the command.
"""

import logging
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from hydralight.errors import UserError
from hydralight.nodes.ranks import is_first
from hydralight.runs.beside import arguments_again, is_requeued
from hydralight.runs.overrides import is_sweep, key_of, log_dir, value_of
from hydralight.runs.reading import read_json
from hydralight.runs.run import begun_at, read_metrics

log = logging.getLogger(__name__)

JOB = "HYDRALIGHT_JOB"  # this command's name within its cluster


def with_its_run(argv: Sequence[str]) -> list[str]:
    """Return the arguments of a training, with `resume=` where its job has begun it before.

    A `resume=` that is typed is left as it is; `resume=null` begins anew. The other processes of a
    run take what the first one has found.

    Args:
        argv: The program's name and its arguments.

    Raises:
        SystemExit: 0, as the job's run was finished before.
    """
    typed = list(argv[1:])
    os.environ.pop(JOB, None)
    if "SLURM_JOB_ID" not in os.environ:
        return typed
    parts = [os.environ.get(f"SLURM_{n}", "") for n in ("CLUSTER_NAME", "JOB_ID", "STEP_ID")]
    command = sha256("\0".join(argv).encode()).hexdigest()[:12]
    os.environ[JOB] = ".".join([*parts, command])
    given = {key_of(argument) for argument in typed} & {"resume", "sweep", "check", "debug"}
    if not is_requeued() or given or is_sweep(argv) or not is_first():
        return typed
    folders = list((Path(log_dir(typed)) / "train" / "runs").glob("*/"))
    folders += [Path(str(value_of("hydra.run.dir", typed)))]
    own = [folder for folder in folders if job_of(folder) == os.environ[JOB]]
    if not own:
        return typed
    run_dir = max(own, key=begun_at).resolve()
    if read_metrics(run_dir).get("status") == "finished":
        log.warning("%s was finished before this job was requeued", run_dir)
        raise SystemExit(0)
    log.warning("this job was requeued, and goes on with %s", run_dir)
    return arguments_again(run_dir, typed)


def job_of(run_dir: Path) -> Any:
    """Return which job's command has begun a run, as its record says; None where it does not."""
    path = run_dir / "environment.json"
    if not path.is_file() or not (run_dir / ".hydra" / "config.yaml").is_file():
        return None
    try:
        return read_json(path, dict, "it is passed over").get("job")
    except UserError as error:
        log.warning("%s", error)
        return None
