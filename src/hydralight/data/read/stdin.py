"""Standard input."""

import sys
from codecs import BOM_UTF8

from hydralight.errors import UserError


def standard_input() -> list[str]:
    """Return the lines of standard input, which are UTF-8 whatever the locale is.

    Raises:
        UserError: a line is not.
    """
    raw = getattr(sys.stdin, "buffer", None)  # a notebook's has none
    data = sys.stdin.read().encode() if raw is None else raw.read()
    lines = []
    for number, line in enumerate(data.removeprefix(BOM_UTF8).splitlines(), start=1):
        try:
            lines.append(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise UserError(
                f"Line {number} of standard input is not UTF-8 text: convert it first, as by "
                "iconv -f latin1 -t utf-8."
            ) from error
    return lines
