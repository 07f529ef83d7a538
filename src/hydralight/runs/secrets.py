"""Secrets, hidden in everything that is written down or printed."""

import os
import re
from collections.abc import Iterable
from functools import cache, partial
from typing import Any

REDACTED = "<redacted>"  # in the place of a secret

# Special tokens of a tokenizer are no secrets; all else that is called somebody's token may be one,
# unless its value says that it is none.
SECRET_KEY = re.compile(
    r"(^|\.)token$"
    r"|(^|[._-])(?!(bos|eos|pad|unk|mask|sep|cls|sos|image|audio|video|start|end|stop|first|last"
    r"|special|sentinel|prefix|suffix|middle|fill|per|lang|language|next|new|each)[_-])"
    r"[a-z0-9]+[_-]token$"
    r"|(^|[._-])(my|our|your|the|api|access|auth|bearer|hf|id|refresh|session)token$"
    r"|(^|[._-])((api|access|private|account|storage|shared|master|signing|encryption|ssh|auth"
    r"|session|license|subscription|service|comet|kaggle|neptune|wandb|openai|aws|azure|gcp|hf)"
    r"[_-]?key(_id)?|webhook(_ur[il])?"
    r"|[a-z0-9]*apikey|\w*secrets?(_\w+)?|passwords?|passwd|pwd|pass|pw|passphrase"
    r"|credentials?|jwt|cookie|authorization|sas|pat|connection_string)$",
    re.IGNORECASE,
)
TOKEN_KEY = re.compile(r"token$", re.IGNORECASE)
SPECIAL = re.compile(r"<.*>|\[[A-Z0-9_ ]+\]|\d{1,7}")  # a special token, or its number
# `key` may be that of a column too: then its value is a word, if with a number at its end.
BARE_KEY = re.compile(r"(^|\.)key$", re.IGNORECASE)
KEY_VALUE = re.compile(r"(?=.*[A-Za-z]\d+[A-Za-z])[A-Za-z0-9]{10,}")
PASS_KEY = re.compile(r"(?=.*\d)[A-Za-z0-9-]{8,}")  # beside a user's name
ACCOUNT = {"user", "username", "user_name", "login"}
SECRET_VARIABLE = re.compile(
    r"(^|_)(\w*TOKEN|KEY|PRIVATEKEY|APIKEY|SECRET|SECRETS|PASS|PASSWD|PASSWORD|PWD|CREDENTIALS?|JWT"
    r"|COOKIE|DSN|PAT|SAS)($|_)",
    re.IGNORECASE,
)
# What the library does not know: Hugging Face, newer OpenAI, GitHub, GitLab, W&B, Slack, Google.
SECRET_VALUE = re.compile(
    r"\b(hf_[A-Za-z0-9]{30,}|api_org_[A-Za-z0-9]{30,}|sk-[\w-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}"
    r"|github_pat_\w{20,}|gl[a-z]{2,6}-[\w-]{20,}|wandb_v\d+_[\w-]{20,}|xapp-[\w-]{20,}"
    r"|xox[a-z]-[\w-]{10,}|AIza[\w-]{35}|dapi[0-9a-f]{32}|npm_[A-Za-z0-9]{30,}|gsk_\w{20,}"
    r"|xai-[\w-]{20,}|r8_\w{20,}|do[opr]_v1_[0-9a-f]{30,}|hv[sbr]\.[\w-]{20,}|lin_api_\w{20,}"
    r"|pul-[0-9a-f]{40}|local-[0-9a-f]{40}|\w{14}\.atlasv1\.[\w-]{40,}|AGE-SECRET-KEY-1\w{50,}"
    r"|eyJhcGlf[\w+/=-]{20,}|shp(at|ca|pa|ss)_[0-9a-fA-F]{30,}|GOCSPX-[\w-]{20,}|ya29\.[\w-]{20,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY.*?(-----END [A-Z ]*PRIVATE KEY( BLOCK)?-----|\Z)"
    r"|\bBearer\s+[\w.~+/-]{16,}=*",
    re.DOTALL,
)
# What stands behind words that say so: a header, a flag, a login of W&B or of curl.
SAID = re.compile(
    r"((?i:\bauthorization['\"]?\s*[:=]\s*['\"]?(basic|bearer|token|digest)\s+)"
    r"|(?<![\w-])-u\s+[^\s:'\"]+:"
    r"|(?i:(?<![a-z])wandb[\W_]{0,3}(login|(api[\s_-]?)?key)\b\W{1,3}))[^\s,'\"}\]]+"
)
FLAG = re.compile(r"((?<![\w-])--(?P<key>[\w-]+)\s+)(?P<value>'[^']*'|\"[^\"]*\"|(?!-)\S+)")
# A line of YAML or a header: the text may go on after a word.
LINE = re.compile(
    r"(^[ \t]*(-[ \t]+)?['\"]?(?P<key>[\w.-]+)['\"]?:[ \t]+)(?P<value>\S.*)$", re.MULTILINE
)
# user:password@ of a URL, up to the last @ before its host; not host:port/…@ of a host that
# has a dot, or is this one
USER = re.compile(
    r"(?<=://)(?!(localhost|[\w-]{1,255}\.[\w.-]{1,255}):\d{1,5}(/|$))[^\s/:'\"]{0,500}:"
    r"[^\s'\"]{0,500}@(?=[\w.\[-]{1,255}([:/?#,\s'\"]|$))"
)
LONE_USER = re.compile(r"(?<=://)[^\s/:@'\"]{16,}@")
# What stands behind the name of a service in an address, and lets anybody post there.
WEBHOOK = re.compile(
    r"(://(?:[^\s'\"]{0,200}?[/.])?(?:(?:web)?hooks?\b[^\s/'\"]*/|(?=api\.telegram\.org/)[^/]+/bot))"
    r"[^\s'\",}\]]+",
    re.IGNORECASE,
)
QUERY = re.compile(
    r"([?&;#][\w.-]*(token|sig|signature|key|keyid|secret|password|passwd|pwd|pass|pw|credential"
    r"|auth|jwt|code)=)[^&\s'\"#]+",
    re.IGNORECASE,
)
# key=value, or "key": value within braces, anywhere in a text
PAIR = re.compile(
    r"(?P<start>(?<![\w.@/-])(?P<key>[\w.@/-]+)=|[{,]\s*['\"]?(?P<name>[\w.-]+)['\"]?\s*:\s*)"
    r"(?P<value>'(\\.|[^'\\])*'|\"(\\.|[^\"\\])*\"|\[[^\]]*\]|\{[^}]*\}"
    r"|[^\s,{}\]&;'\"]+)"
)
NAMES = re.compile(r"[{,\s]['\"]?(\w+)['\"]?\s*[:=]")
LOGIN_KEY = re.compile(r"(^|[._-])(basic_?)?auth$", re.IGNORECASE)
LOGIN = re.compile(r"['\"]?[^\s:/]+:[^\s:].*")  # me:password
WHOLE = re.compile(r"([+~]{0,2}(?P<key>[^=\s{}]*))=.*", re.DOTALL)  # a typed override, or like one
HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")  # where a word begins in camelCase
LONG = re.compile(r"[\w.+/=:-]{16}|BEGIN ")  # no form of a key is shorter
# What is looked at as one: the time for some patterns grows with the square of a text's length.
PIECE = re.compile(r".{1,4000}(?:\n|\Z)|.{1,4000}(?:\s|\Z)|.{1,4000}", re.DOTALL)
DEEPEST = 20  # lists within lists in a text
SHORTEST = 8  # characters of a variable's value that is taken for a secret

_known: set[str] = set()  # values that were typed or set as secrets


def redact(value: Any, key: str = "") -> Any:
    """Return a copy in which the values of secret keys, and what looks like one, are hidden.

    Strings of the form `key=value` (typed overrides) are judged by their key, all strings by what
    is in them: URLs with passwords or signatures, the forms of keys of common services, and the
    values of secrets that the environment or the command line has.
    """
    if isinstance(value, str | int | float) and value not in ("", True) and is_secret(key, value):
        return REDACTED
    if isinstance(value, dict | list | tuple) and LOGIN_KEY.search(key):
        key = "auth.password"  # a login in parts
    if isinstance(value, dict):
        inner = key if is_secret_name(key) else ""
        if ACCOUNT & value.keys() and PASS_KEY.fullmatch(str(value.get("key"))):
            value = {**value, "key": REDACTED}
        keys = {k: redact_message(k) if isinstance(k, str) else k for k in value}
        return {keys[k]: redact(v, inner or str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [redact(v, key) for v in value]
    if not isinstance(value, str):
        return value
    if LOGIN_KEY.search(key) and LOGIN.fullmatch(value):
        return REDACTED
    typed = WHOLE.fullmatch(value)
    if typed is not None and is_secret(typed["key"], value[len(typed[1]) + 1 :]):
        return f"{typed[1]}={REDACTED}"
    return redact_message(value)


def redact_message(text: str) -> str:
    """Hide secrets in a sentence, a log line or a traceback."""
    of_others = _environment() if len(text) >= SHORTEST else set()
    for secret in sorted(_known | of_others, key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    if LONG.search(text):
        text = SECRET_VALUE.sub(REDACTED, text)  # of which some go over many lines
    return "".join(map(_redact_piece, PIECE.findall(text)))


def _redact_piece(text: str) -> str:
    if "=" in text or ":" in text:
        text = WEBHOOK.sub(rf"\1{REDACTED}", text)
        text = QUERY.sub(rf"\1{REDACTED}", LONE_USER.sub(f"{REDACTED}@", _without_user(text)))
        text = LINE.sub(_line, PAIR.sub(_pair, text))
    text = SAID.sub(rf"\1{REDACTED}", FLAG.sub(_line, text))
    if LONG.search(text):
        for pattern in _patterns():
            text = pattern.sub(REDACTED, text)
    return text


def _without_user(text: str) -> str:
    return USER.sub(f"{REDACTED}@", text)


def _pair(match: re.Match[str], depth: int = 0) -> str:
    key, value = match["key"] or match["name"], match["value"]
    inner = value.startswith(("[", "{"))  # whose mappings have keys of their own
    login = (LOGIN_KEY.search(key) and inner) or _beside_account(match, key, value)
    if login or is_secret(key, value) or depth > DEEPEST:
        return f"{match['start']}{REDACTED}"
    return match["start"] + (PAIR.sub(partial(_pair, depth=depth + 1), value) if inner else value)


def _beside_account(match: re.Match[str], key: str, value: str) -> bool:
    if not (BARE_KEY.search(key) and PASS_KEY.fullmatch(value.strip("'\""))):
        return False
    near = match.string[max(0, match.start() - 200) : match.end() + 200]  # a text may be long
    return bool(ACCOUNT & set(NAMES.findall(near)))


def _line(match: re.Match[str]) -> str:
    value = match["value"]
    secret = is_secret(match["key"], value) and value not in ("null", "None", REDACTED)
    login = LOGIN_KEY.search(match["key"]) and LOGIN.fullmatch(value)
    return f"{match[1]}{REDACTED}" if secret or login else match[0]


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
        if len(value) >= SHORTEST
        and not value.startswith(("/", "~", "."))
        and is_secret_variable(name)
    }


def remember(arguments: Iterable[str]) -> None:
    """Keep the values of secret keys that were typed, so that they are hidden wherever they go."""
    for argument in arguments:
        typed = WHOLE.fullmatch(argument)
        if typed is not None and is_secret(typed["key"], argument.partition("=")[2]):
            _keep(argument.partition("=")[2])
        _keep_pairs(argument)


def _keep_pairs(text: str, depth: int = 0) -> None:
    for pair in PAIR.finditer(text):
        if is_secret(pair["key"] or pair["name"], pair["value"]):
            _keep(pair["value"])
        elif pair["value"].startswith(("[", "{")) and depth < DEEPEST:
            _keep_pairs(pair["value"], depth + 1)


def _keep(value: str) -> None:
    bare = value.strip("'\"")
    if len(bare) >= 6 and not bare.startswith(("${", "[", "{", REDACTED)):
        _known.add(bare)


def is_secret_name(name: str) -> bool:
    """Whether a key is named like a secret."""
    return SECRET_KEY.search(HUMP.sub("_", name).replace("-", "_")) is not None


def is_secret(key: str, value: Any) -> bool:
    """Whether a key is named like a secret, and its value may be one."""
    bare = str(value).strip("'\"")
    if is_secret_name(key):
        return not (TOKEN_KEY.search(key) and SPECIAL.fullmatch(bare))
    return BARE_KEY.search(key) is not None and KEY_VALUE.fullmatch(bare) is not None


@cache  # each text that is written asks for all of the environment's
def is_secret_variable(name: str) -> bool:
    """Whether an environment variable is named like a secret."""
    return SECRET_VARIABLE.search(name) is not None
