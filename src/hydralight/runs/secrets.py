"""Secrets, hidden in everything that is written down."""

import re
from typing import Any

REDACTED = "<redacted>"  # in the place of a secret

SECRET_KEY = re.compile(
    r"(^|\.)token$"  # but not eos_token and its kin
    r"|(^|[._])((hf|hub|auth|access|api|refresh|bearer)_?token|(api|access|private)_?key"
    r"|secret\w*|password|passwd|credentials?)$",
    re.IGNORECASE,
)
SECRET_VALUE = re.compile(
    r"\b(hf_[A-Za-z0-9]{30,}|sk-[\w-]{20,}|gh[pousr]_[A-Za-z0-9]{30,})\b|(?<=//)[^/@\s]+:[^/@\s]+(?=@)"
)
ASSIGNMENT = re.compile(r"(\+{0,2}(?P<key>[^=]*))=.*", re.DOTALL)  # a typed override, or like one


def redact(value: Any, key: str = "") -> Any:
    """Return a copy in which the values of secret keys, and what looks like one, are hidden.

    Strings of the form `key=value` (typed overrides) are judged by their key.
    """
    if isinstance(value, dict):
        return {k: redact(v, str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [redact(v, key) for v in value]
    if not isinstance(value, str):
        return value
    if SECRET_KEY.search(key) and value:
        return REDACTED
    typed = ASSIGNMENT.fullmatch(value)
    if typed is not None and SECRET_KEY.search(typed["key"]):
        return f"{typed[1]}={REDACTED}"
    return SECRET_VALUE.sub(REDACTED, value)


def is_secret_name(name: str) -> bool:
    """Whether a key, or an environment variable, is named like a secret."""
    return SECRET_KEY.search(name) is not None
