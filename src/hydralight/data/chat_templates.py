"""Chat templates for tokenizers that have none: three widespread styles, or a file."""

import logging
from pathlib import Path
from typing import Any

from hydralight.errors import UserError, did_you_mean

log = logging.getLogger(__name__)

CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

LLAMA_3 = """\
{{- bos_token or '' }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
{{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""

ZEPHYR = """\
{%- for message in messages %}
{{- '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- endif %}"""

# by name, with the tokens that it needs in one piece
NAMED = {
    "chatml": (CHATML, ("<|im_start|>", "<|im_end|>")),
    "llama-3": (LLAMA_3, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    "zephyr": (ZEPHYR, ()),  # turns end with the tokenizer's own end token
}


def give_template(tokenizer: Any, name: str | None) -> None:
    """See that a tokenizer has a chat template.

    Args:
        tokenizer: Gets the template, and those of its tokens that it lacks.
        name: One of `NAMED`, or a file; None keeps the tokenizer's own.

    Raises:
        UserError: there is none, or no such file.
    """
    if name is None:
        if not isinstance(tokenizer.chat_template, str):
            several = isinstance(tokenizer.chat_template, dict)
            what = "several chat templates" if several else "no chat template"
            raise UserError(
                f"the tokenizer has {what}: take data.chat_template={', '.join(NAMED)}, or a file."
            )
        return
    tokens: tuple[str, ...] = ()
    if name in NAMED:
        tokenizer.chat_template, tokens = NAMED[name]
    else:
        path = Path(name).expanduser()
        if not path.is_file():
            raise UserError(
                f"data.chat_template={name} is no file, and none of {', '.join(NAMED)}"
                f"{did_you_mean(name, NAMED)}"
            )
        tokenizer.chat_template = path.read_text(encoding="utf-8")
    known = tokenizer.get_vocab()
    if missing := [token for token in tokens if token not in known]:
        kept = list(getattr(tokenizer, "extra_special_tokens", None) or [])
        tokenizer.add_special_tokens({"extra_special_tokens": [*kept, *missing]})
        log.info(
            "data.chat_template=%s: the tokenizer gets %s, and the model has to learn what they "
            "stand for",
            *(name, ", ".join(missing)),
        )
