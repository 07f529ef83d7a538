"""A folder as one commit on the Hugging Face hub."""

import json
import logging
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
)
from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import get_session, validate_repo_id

from hydralight.errors import UserError, ended, first_line
from hydralight.runs.checksums import NAME as CHECKSUMS
from hydralight.runs.secrets import redact_message
from hydralight.stores.retries import passes, status_of, tried

log = logging.getLogger(__name__)

SILENCE = 60  # seconds without a byte after which a request is given up; the client waits for ever
MOVED = 412  # somebody has committed since the files were listed
TIMES = 5  # that a commit is made upon what somebody else has just committed
# What anybody's repository has, and the hub makes itself.
PLAIN = re.compile(r"\.git\w+|README\.md|LICENSE(\.\w+)?")
NO_ROOM = re.compile(r"\b(storage|quota|space|payment|too large)\b", re.IGNORECASE)


def check_repo(repo: object) -> None:
    """Refuse what cannot be the name of a repository.

    Raises:
        UserError: it is not of the form user/name, or has signs that no name has.
    """
    text = str(repo)
    try:
        validate_repo_id(text)
        if text.count("/") == 1:
            return
    except HFValidationError:
        pass
    raise UserError(
        f"repo={redact_message(text)} is no name of a repository: write user/name, of letters, "
        "digits, '-', '_' and '.'."
    )


def check_token() -> None:
    """Refuse to go on where there is no token to write to the hub with.

    Raises:
        UserError: there is none, or the hub is switched off.
    """
    if constants.HF_HUB_OFFLINE:
        raise UserError(
            "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, and this is to be sent to the hub: "
            "take it out of the environment."
        )
    if not get_token():
        raise UserError(
            "there is no token for the hub: run `hf auth login`, or set HF_TOKEN in the "
            "environment."
        )


def open_repo(repo: str, private: bool | None, revision: str | None) -> str:
    """Make a repository, and a branch of it, where they are not there yet; return its name in full.

    Args:
        repo: Its name.
        private: Whether a new one is seen by its owner alone; unless said, what the owner's
            settings say. One that is there stays as it is.
        revision: The branch; `main` unless said.

    Raises:
        UserError: the hub refuses it, or cannot be reached.
    """

    def opened() -> str:
        get_session().timeout = SILENCE
        api = HfApi()
        url = api.create_repo(repo, private=private, exist_ok=True)
        if revision not in (None, constants.DEFAULT_REVISION):
            api.create_branch(repo, branch=revision, exist_ok=True)
        return str(url)

    try:
        return tried(opened, few=True)
    except Exception as error:
        raise _told(error, repo) from error


def commit_folder(folder: Path, repo: str, revision: str | None, message: str) -> str:
    """Send all files of a folder as one commit, and return its address.

    What an earlier commit of ours has left in the repository and is not in the folder goes with the
    same commit, so that the repository never holds parts of two models. Files of others stay. Where
    nothing has changed, there is no new commit. What has arrived before an interruption is not sent
    again: the hub tells which large files it has.

    Args:
        folder: Nothing in it may change meanwhile.
        repo: Its name; it is there.
        revision: The branch; `main` unless said.
        message: What the commit says.

    Raises:
        UserError: the hub refuses it or cannot be reached, or the repository holds another model.
    """
    try:
        for left in reversed(range(TIMES)):
            try:
                return tried(lambda: _commit(folder, repo, revision, message))
            except Exception as error:
                if status_of(error) != MOVED or not left:
                    raise
    except UserError:
        raise
    except Exception as error:
        raise _told(error, repo) from error
    raise AssertionError


def _commit(folder: Path, repo: str, revision: str | None, message: str) -> str:
    """Make one attempt, upon what the repository holds now."""
    get_session().timeout = SILENCE
    api = HfApi()
    info = api.model_info(repo, revision=revision)
    there = {one.rfilename for one in info.siblings or ()}
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path for path in paths}
    ours = _sent_before(api, repo, info.sha, there)
    others = sorted(n for n in there - ours - files.keys() if not PLAIN.fullmatch(n))
    if others and not ours:
        some = f"{', '.join(others[:3])}{', …' if len(others) > 3 else ''}"
        raise UserError(
            f"{repo} holds files that are not of a run ({some}), and a model beside them would be "
            "neither's: name another repository."
        )
    adds = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
    stale = sorted(ours & there - files.keys())
    sent = api.create_commit(
        repo,
        [*adds, *(CommitOperationDelete(name, is_folder=False) for name in stale)],
        commit_message=message,
        revision=revision,
        parent_commit=info.sha,
    )
    return str(sent.commit_url)


def _sent_before(api: HfApi, repo: str, commit: str | None, there: set[str]) -> set[str]:
    """Return the files that an earlier commit of ours has left, by the list that is among them."""
    if CHECKSUMS not in there:
        return set()
    with TemporaryDirectory() as place:
        path = api.hf_hub_download(repo, CHECKSUMS, revision=commit, local_dir=place)
        try:
            known = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError:
            known = None
    if not isinstance(known, dict):
        return set()
    return {*map(str, known), CHECKSUMS, *(name for name in there if name.startswith("results/"))}


def _told(error: Exception, repo: str) -> Exception:
    """Put what the hub or the way to it has refused into a sentence; our own bugs as they are."""
    if isinstance(error, UserError):
        return error
    status = status_of(error)
    cause: BaseException | None = error
    while cause is not None and not (said := getattr(cause, "server_message", None)):
        cause = cause.__cause__
    words = redact_message(" ".join(str(said or first_line(error)).split()))
    if isinstance(error, OfflineModeIsEnabled):
        sentence = "the hub is switched off by HF_HUB_OFFLINE: take it out of the environment."
    elif status in (402, 413, 507) or (status in (400, 403) and NO_ROOM.search(words)):
        sentence = f"the hub has no room for this in {repo}: {ended(words)}"
    elif status == 401 and "RepoNotFound" not in _code(error):
        sentence = (
            "the hub does not know this token: run `hf auth login` again, or set another HF_TOKEN "
            "in the environment."
        )
    elif status == 403:
        sentence = (
            f"the token has no right to write to {repo}: make one of the kind 'write' (or with "
            f"that right) for its owner, at {constants.ENDPOINT}/settings/tokens."
        )
    elif status in (401, 404):
        sentence = f"the hub has no {repo} that this token may see: check the name."
    elif status is not None and passes(error):
        sentence = (
            f"the hub does not take it at the moment ({status}: {words}): do it again later; what "
            "has arrived is not sent again."
        )
    elif status is not None or isinstance(error, ValueError):
        sentence = f"the hub refuses what is to be sent to {repo}: {ended(words)}"
    elif passes(error) and not isinstance(error, AssertionError | AttributeError | LookupError):
        sentence = (
            f"the hub cannot be reached at {constants.ENDPOINT} ({words}): do it again later; what "
            "has arrived is not sent again."
        )
    else:
        return error
    return UserError(sentence)


def _code(error: BaseException) -> str:
    return str(getattr(getattr(error, "response", None), "headers", {}).get("X-Error-Code", ""))
