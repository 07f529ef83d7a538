"""One push, in a process of its own: `python -m hydralight.uploads`, which a training starts.

It reads a line of JSON from standard input, sends a folder, and writes a line of JSON: the address
of the commit, or why there is none. It never outlives the training: at the end of standard input,
which the training holds open, it is gone. The hub has the last whole commit then.
"""

import json
import os
import sys
import threading
from pathlib import Path

from hydralight.errors import UserError, first_line
from hydralight.runs.secrets import redact_message
from hydralight.stores.retries import passes
from hydralight.uploads.commit import commit_folder, open_repo
from hydralight.uploads.folder import said_of


def push(folder: str | None, repo: str, private: bool | None, revision: str | None) -> str:
    """Send a folder, and return the address of the commit; without one, of the repository."""
    address = open_repo(repo, private, revision)
    if folder is None:
        return address
    return commit_folder(Path(folder), repo, revision, said_of(Path(folder)))


def leave_with_the_training() -> None:
    """End at once when the process that has started this one is gone."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=leave_with_the_training, daemon=True).start()
    try:
        answer: dict[str, object] = {"address": push(**asked)}
    except UserError as error:
        answer = {"refused": str(error), "passes": passes(error.__cause__ or error)}
    except Exception as error:
        said = redact_message(f"{type(error).__name__}: {first_line(error)}.")
        answer = {"refused": said, "passes": False}
    print(json.dumps(answer), flush=True)
    os._exit(0)  # threads of the client may wait for the hub still
