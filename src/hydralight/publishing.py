"""Publish a run: its best model, with its card and its results, as one commit on the hub."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from hydralight.config.check import check_root
from hydralight.errors import UserError
from hydralight.runs.files import remove
from hydralight.runs.run import Run
from hydralight.shell import short
from hydralight.uploads.commit import check_repo, check_token, commit_folder, open_repo
from hydralight.uploads.folder import said_of, snapshot, warn_of_base

log = logging.getLogger(__name__)


def publish(cfg: DictConfig, run_dir: Path) -> str:
    """Send a run's best model to `repo`, print the address of the commit, and return it.

    Args:
        cfg: The run's own config, with `repo`, `private` and `revision`.
        run_dir: The run; a copy by links lies there meanwhile.

    Raises:
        UserError: there is no run, model, token or right; or the hub cannot be reached.
    """
    check_root(cfg)
    if not cfg.get("run"):
        raise UserError(f"name a run: {short('publish', 'run=latest', 'repo=user/name')}.")
    if cfg.get("repo") is None:
        raise UserError(f"name a repository: {short('publish', 'run=…', 'repo=user/name')}.")
    repo, revision = str(cfg.repo), cfg.get("revision")
    check_repo(repo)
    check_token()
    model = Run(run_dir).model_dir  # whose files have been checked
    warn_of_base(model)
    folder = snapshot(run_dir, model, repo)
    try:
        open_repo(repo, cfg.get("private"), revision)
        address = commit_folder(folder, repo, revision, said_of(folder))
    finally:
        remove(folder)
    print(address)
    return address
