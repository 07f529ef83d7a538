"""Secrets, hidden in everything that is written down or printed."""

import os
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

REDACTED = "<redacted>"  # in the place of a secret

# Special tokens of a tokenizer are no secrets; all else that is called somebody's token may be one.
SECRET_KEY = re.compile(
    r"(^|\.)token$"
    r"|(^|[._-])(?!(bos|eos|pad|unk|mask|sep|cls|sos|image|audio|video|start|end|stop|first|last"
    r"|special|sentinel|prefix|suffix|middle|fill|per|lang|language|next|new|each)[_-])"
    r"[a-z0-9]+[_-]token$"
    r"|(^|[._-])((api|access|private|account|storage|shared|master|signing|encryption|ssh|auth"
    r"|session|license|wandb|openai|aws|azure|gcp|hf)[_-]?key(_id)?"
    r"|\w*secrets?(_\w+)?|passwords?|passwd|pwd|passphrase|credentials?|jwt|cookie|authorization"
    r"|sas|pat|connection_string)$",
    re.IGNORECASE,
)
SECRET_VARIABLE = re.compile(
    r"(^|_)(\w*TOKEN|KEY|PRIVATEKEY|APIKEY|SECRET|SECRETS|PASS|PASSWD|PASSWORD|PWD|CREDENTIALS?|JWT"
    r"|COOKIE|DSN|PAT|SAS)($|_)",
    re.IGNORECASE,
)
# What the library does not know: Hugging Face, newer OpenAI, GitHub, GitLab, W&B, Slack, Google.
SECRET_VALUE = re.compile(
    r"\b(hf_[A-Za-z0-9]{30,}|api_org_[A-Za-z0-9]{30,}|sk-[\w-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}"
    r"|github_pat_\w{20,}|gl[a-z]{2,6}-[\w-]{20,}|wandb_v\d+_[\w-]{20,}|xapp-[\w-]{20,}"
    r"|xox[a-z]-[\w-]{10,}|AIza[\w-]{35}|dapi[0-9a-f]{32})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY.*?(-----END [A-Z ]*PRIVATE KEY( BLOCK)?-----|\Z)"
    r"|\bBearer\s+[\w.~+/-]{16,}=*",
    re.DOTALL,
)
# user:password@ of a URL, up to the last @ before its host; not host:port/…@
USER = re.compile(
    r"(?<=://)(?![\w.-]+:\d+(/|$))[^\s/:'\"]*:[^\s'\"]*@(?=[\w.\[-]+([:/?#,\s'\"]|$))"
)
LONE_USER = re.compile(r"(?<=://)[^\s/:@'\"]{16,}@")
QUERY = re.compile(
    r"([?&;#][\w.-]*(token|sig|signature|key|keyid|secret|password|passwd|pwd|credential|auth|jwt"
    r"|code)=)[^&\s'\"#]+",
    re.IGNORECASE,
)
# key=value, or "key": value within braces, anywhere in a text
PAIR = re.compile(
    r"(?P<start>(?P<key>[\w.@/-]+)=|[{,]\s*['\"]?(?P<name>[\w.-]+)['\"]?\s*:\s*)"
    r"(?P<value>'(\\.|[^'\\])*'|\"(\\.|[^\"\\])*\"|\[[^\]]*\]|[^\s,{}\]&;'\"]+)"
)
WHOLE = re.compile(r"([+~]{0,2}(?P<key>[^=\s{}]*))=.*", re.DOTALL)  # a typed override, or like one
LONG = re.compile(r"[\w.+/=:-]{16}|BEGIN ")  # no form of a key is shorter

_known: set[str] = set()  # values that were typed or set as secrets


def redact(value: Any, key: str = "") -> Any:
    """Return a copy in which the values of secret keys, and what looks like one, are hidden.

    Strings of the form `key=value` (typed overrides) are judged by their key, all strings by what
    is in them: URLs with passwords or signatures, the forms of keys of common services, and the
    values of secrets that the environment or the command line has.
    """
    if is_secret_name(key) and isinstance(value, str | int | float) and value not in ("", True):
        return REDACTED
    if isinstance(value, dict):
        inner = key if is_secret_name(key) else ""
        return {k: redact(v, inner or str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [redact(v, key) for v in value]
    if not isinstance(value, str):
        return value
    typed = WHOLE.fullmatch(value)
    if typed is not None and is_secret_name(typed["key"]):
        return f"{typed[1]}={REDACTED}"
    return redact_message(value)


def redact_message(text: str) -> str:
    """Hide secrets in a sentence, a log line or a traceback."""
    for secret in sorted({*_known, *_environment()}, key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    if "=" in text or ":" in text:
        text = QUERY.sub(rf"\1{REDACTED}", LONE_USER.sub(f"{REDACTED}@", _without_user(text)))
        text = PAIR.sub(_pair, text)
    if LONG.search(text):
        text = SECRET_VALUE.sub(REDACTED, text)
        for pattern in _patterns():
            text = pattern.sub(REDACTED, text)
    return text


def _without_user(text: str) -> str:
    return USER.sub(f"{REDACTED}@", text)


def _pair(match: re.Match[str]) -> str:
    key = match["key"] or match["name"]
    return f"{match['start']}{REDACTED}" if is_secret_name(key) else match[0]


@cache
def _patterns() -> tuple[re.Pattern[str], ...]:
    """Return the forms of keys that `detect-secrets` knows; imported once a text is long enough."""
    from detect_secrets.plugins import (
        aws,
        azure_storage_key,
        discord,
        github_token,
        gitlab_token,
        jwt,
        mailchimp,
        npm,
        openai,
        private_key,
        pypi_token,
        sendgrid,
        slack,
        square_oauth,
        stripe,
        telegram_token,
        twilio,
    )

    detectors = (
        aws.AWSKeyDetector,
        azure_storage_key.AzureStorageKeyDetector,
        discord.DiscordBotTokenDetector,
        github_token.GitHubTokenDetector,
        gitlab_token.GitLabTokenDetector,
        jwt.JwtTokenDetector,
        mailchimp.MailchimpDetector,
        npm.NpmDetector,
        openai.OpenAIDetector,
        private_key.PrivateKeyDetector,
        pypi_token.PypiTokenDetector,
        sendgrid.SendGridDetector,
        slack.SlackDetector,
        square_oauth.SquareOAuthDetector,
        stripe.StripeDetector,
        telegram_token.TelegramBotTokenDetector,
        twilio.TwilioKeyDetector,
    )
    return tuple(pattern for detector in detectors for pattern in detector().denylist)


def _environment() -> set[str]:
    """Return the values of variables that are named like secrets; not paths, and not short ones."""
    return {
        value
        for name, value in os.environ.items()
        if len(value) >= 8 and not value.startswith(("/", "~", ".")) and is_secret_variable(name)
    }


def remember(arguments: Iterable[str]) -> None:
    """Keep the values of secret keys that were typed, so that they are hidden wherever they go."""
    for argument in arguments:
        typed = WHOLE.fullmatch(argument)
        if typed is not None and is_secret_name(typed["key"]):
            _keep(argument.partition("=")[2])
        for pair in PAIR.finditer(argument):
            if is_secret_name(pair["key"] or pair["name"]):
                _keep(pair["value"])


def _keep(value: str) -> None:
    bare = value.strip("'\"")
    if len(bare) >= 6 and not bare.startswith(("${", "[", "{", REDACTED)):
        _known.add(bare)


def is_secret_name(name: str) -> bool:
    """Whether a key is named like a secret."""
    return SECRET_KEY.search(name) is not None


def is_secret_variable(name: str) -> bool:
    """Whether an environment variable is named like a secret."""
    return SECRET_VARIABLE.search(name) is not None
