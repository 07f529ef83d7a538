"""Pushes the model to the Hugging Face hub while a run trains, and at its end."""

import logging
import time
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from hydralight.callbacks.best_model import BestModel
from hydralight.callbacks.checkpoint_request import asked_of
from hydralight.config.ranges import NotNegative, Text
from hydralight.errors import UserError
from hydralight.nodes.ranks import is_first
from hydralight.runs.checksums import EXPORTED
from hydralight.runs.files import clear_partials, remove
from hydralight.shell import line, near
from hydralight.uploads.commit import check_repo, check_token
from hydralight.uploads.folder import snapshot, warn_of_base
from hydralight.uploads.process import Pushes

log = logging.getLogger(__name__)

WAITS = (0, 2, 4, 8, 16, 32)  # seconds before each attempt at the last push
SAVED = "model-pushed"  # where `when=save` exports to, until the run ends


class Push(Callback):
    """Sends the model, its card and its results to the hub, in the background.

    Each push is one commit with all files, from a copy by hard links, so that the hub never has
    parts of two models. One is on its way at a time; of those that come meanwhile, the newest
    follows, and the others are skipped. A push that fails is told and never ends the run: the next
    one has all that it had. The last one, at the run's end, is waited for and tried again.

    A run that is interrupted waits for nothing: the push on its way is given up, the hub keeps the
    last whole commit, and the resumed run pushes again.

    Args:
        repo: On the hub, `user/name`; it is made where it is not there.
        run_dir: The run's directory.
        when: `best` pushes each best model, `save` the weights of each full checkpoint, and `end`
            the best model once. All push once more at the run's end, with the final results.
        private: Whether a new repository is seen by its owner alone; unless said, what the owner's
            settings say.
        revision: A branch; `main` unless said.
        wait: Seconds that the end of a run waits at most for the last push to arrive.

    Raises:
        UserError: the name is none, or there is no token; a hub that refuses is only told.
    """

    def __init__(
        self,
        repo: Text,
        run_dir: str,
        when: Literal["best", "save", "end"] = "best",
        private: bool | None = None,
        revision: Text | None = None,
        wait: NotNegative = 1800,
    ) -> None:
        check_repo(repo)
        if is_first():
            check_token()
        self.repo = repo
        self.run_dir = Path(run_dir)
        self.when = when
        self.wait = wait
        self.pushes = Pushes(repo, private, revision)
        self.model = self.run_dir / (SAVED if when == "save" else "model")
        self.pushed: Any = None  # what tells the model that was pushed last from others

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Clear what a kill has left, and make the repository, which tells a mistake early."""
        if best_model_of(trainer) is None:
            raise UserError("callbacks.push sends what callbacks.best_model exports: add that.")
        if trainer.is_global_zero:
            clear_partials(self.run_dir / "push")
            self.pushes.open()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Push again what a resumed run has, as nobody knows whether it has arrived."""
        self.look(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Push what the last step has left: by now, all callbacks have done their part."""
        self.look(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Export the weights of the last step."""
        if self.when == "save":
            self.look(trainer, pl_module)

    def look(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Push the model if there is another one than before, all processes alike."""
        now = None
        if self.when != "end":
            now = self.exported() if self.when == "best" else asked_of(trainer).saved
        if now is not None and now != self.pushed:
            self.pushed = now
            there = self.when != "save" or self.export(trainer, pl_module)
            if there and trainer.is_global_zero:
                self.push()
        self.pushes.look()

    def export(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        """Export the weights as they are now; return whether they are there."""
        best = best_model_of(trainer)
        assert best is not None
        if best.merge and best.first_batch is None:  # by which a merged one is verified
            return False
        try:
            best.export(trainer, pl_module, self.model, {})
        except UserError as error:
            log.warning("nothing is pushed to %s: %s", self.repo, error)
            return False
        return True

    def exported(self) -> Any:
        """Return what tells an export from the one before; None where there is none."""
        try:
            found = (self.model / EXPORTED).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def push(self) -> bool:
        """Send the model and the results as they are now; return whether they can be sent."""
        try:
            self.pushes.add(snapshot(self.run_dir, self.model, self.repo))
        except UserError as error:
            log.warning("nothing is pushed to %s: %s", self.repo, error)
            return False
        return True

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Wait for nothing where the run is interrupted."""
        self.pushes.give_up()

    def finish(self) -> None:
        """Push the end of a run, and wait for it; by the first process, once all is written."""
        warn_of_base(self.model)
        ends = time.monotonic() + self.wait
        try:
            for wait in WAITS:
                time.sleep(max(0, min(wait, ends - time.monotonic())))
                arrived = self.push() and self.pushes.finish(ends - time.monotonic())
                if arrived or not self.pushes.passes or time.monotonic() > ends:
                    break
            if not arrived:
                log.warning(
                    "the hub does not have the end of this run; to send it: %s",
                    line("publish", f"run={near(self.run_dir)}", f"repo={self.repo}"),
                )
        finally:
            self.pushes.give_up()
            if self.when == "save":
                remove(self.model)


def best_model_of(trainer: Trainer) -> BestModel | None:
    """Return the callback that exports models."""
    found = (one for one in trainer.callbacks if isinstance(one, BestModel))  # type: ignore[attr-defined]
    return next(found, None)


def finish_pushes(trainer: Trainer) -> None:
    """Push the end of a run, where it pushes at all."""
    for one in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(one, Push):
            one.finish()
