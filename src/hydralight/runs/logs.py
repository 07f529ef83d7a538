"""What is logged and printed, without secrets; and a log file that is no link."""

import logging
import sys
import traceback
from io import TextIOWrapper
from types import TracebackType
from typing import Any

from hydralight.nodes.ranks import is_first
from hydralight.runs.files import open_own
from hydralight.runs.secrets import redact_message


class RunLog(logging.FileHandler):
    """Appends to a log file, in one process of a run; no link in its place is followed."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message of the first process; the others' are on their terminals."""
        if is_first():
            super().emit(record)

    def _open(self) -> TextIOWrapper:
        return TextIOWrapper(open(self.baseFilename, "ab", opener=open_own), encoding="utf-8")


def hide_secrets() -> None:
    """Redact what this process logs by any logger, and the messages of its last traceback."""
    if getattr(logging.getLogRecordFactory(), "redacts", False):
        return
    before = logging.getLogRecordFactory()

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = before(*args, **kwargs)
        try:
            made.msg, made.args = redact_message(made.getMessage()), ()
        except (TypeError, ValueError):  # a message that does not fit its arguments
            return made
        if made.exc_info and made.exc_info[0] is not None:
            made.exc_text = redact_message(
                "".join(traceback.format_exception(*made.exc_info))
            ).rstrip("\n")
        return made

    record.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(record)
    sys.excepthook = _print_redacted


def _print_redacted(
    kind: type[BaseException], error: BaseException, where: TracebackType | None
) -> None:
    sys.stderr.write(redact_message("".join(traceback.format_exception(kind, error, where))))
