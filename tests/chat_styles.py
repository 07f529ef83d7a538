"""Chat templates in the styles of well-known models, written from their public descriptions."""

import copy
import json

from standins import tokenizer
from tokenizers.pre_tokenizers import ByteLevel

CHATML = """\
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

# a system message of its own where there is none; tools in it; answers of tools are the user's
QWEN_2 = """\
{%- set own = messages[0].role == 'system' %}
{{- '<|im_start|>system\n' + (messages[0].content if own else 'You are a helpful assistant.') }}
{%- if tools %}{{ '\n\n# Tools\n<tools>' }}{% for t in tools %}{{ '\n' + t | tojson }}{% endfor %}
{{- '\n</tools>' }}{% endif %}{{ '<|im_end|>\n' }}
{%- for m in messages %}
{%- if m.role == 'user' or m.role == 'assistant' and not m.tool_calls %}
{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}
{%- elif m.role == 'assistant' %}{{ '<|im_start|>assistant' }}
{%- if m.content %}{{ '\n' + m.content }}{% endif %}
{%- for call in m.tool_calls %}{% set call = call.function or call %}
{{- '\n<tool_call>\n{"name": "' + call.name + '", "arguments": ' }}
{{- call.arguments | tojson + '}\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\n' }}
{%- elif m.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}
{{- '<|im_start|>user' }}{% endif %}
{{- '\n<tool_response>\n' + m.content + '\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

# the reasoning of turns before the last question is left out, and the last turn has an empty one
QWEN_3 = """\
{%- set ns = namespace(last=0) %}
{%- for m in messages if m.role == 'user' %}{% set ns.last = messages.index(m) %}{% endfor %}
{%- for m in messages %}
{%- if m.role == 'assistant' %}
{%- set thought = m.reasoning_content or '' %}{% set said = m.content %}
{%- if '</think>' in said %}
{%- set thought = said.split('</think>')[0].split('<think>')[-1].strip('\n') %}
{%- set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}
{{- '<|im_start|>assistant\n' }}
{%- if loop.index0 > ns.last %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}
{{- said + '<|im_end|>\n' }}
{%- else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined and not enable_thinking %}
{{- '<think>\n\n</think>\n\n' }}{% endif %}
{%- endif %}"""

LLAMA_3 = """\
{{- bos_token }}
{%- for m in messages %}
{%- if m.tool_calls %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "' + m.tool_calls[0].function.name }}
{{- '", "parameters": ' + m.tool_calls[0].function.arguments | tojson + '}<|eot_id|>' }}
{%- else %}
{{- '<|start_header_id|>' + ('ipython' if m.role == 'tool' else m.role) + '<|end_header_id|>\n\n' }}
{%- if loop.first and tools %}{{ 'Tools: ' + tools | tojson + '\n\n' }}{% endif %}
{{- m.content | trim + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""

# version 0.3: the system's message stands before the last of the user's, and so moves
MISTRAL = """\
{%- set system = messages[0].content if messages[0].role == 'system' else none %}
{%- set rest = messages[1:] if system is not none else messages %}
{{- bos_token }}
{%- for m in rest %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('roles must alternate user/assistant') }}{% endif %}
{%- if m.role == 'user' %}
{%- set later = rest[loop.index:] | selectattr('role', 'eq', 'user') | list %}
{%- if system is not none and not later %}
{{- '[INST] ' + system + '\n\n' + m.content + '[/INST]' }}
{%- else %}{{ '[INST] ' + m.content + '[/INST]' }}{% endif %}
{%- else %}{{ ' ' + m.content | trim + eos_token }}{% endif %}
{%- endfor %}"""

LLAMA_2 = """\
{%- set system = messages[0].content if messages[0].role == 'system' else none %}
{%- set rest = messages[1:] if system is not none else messages %}
{%- for m in rest %}
{%- if m.role == 'user' %}{{ bos_token + '[INST] ' }}
{%- if loop.first and system is not none %}{{ '<<SYS>>\n' + system + '\n<</SYS>>\n\n' }}{% endif %}
{{- m.content | trim + ' [/INST]' }}
{%- else %}{{ ' ' + m.content | trim + ' ' + eos_token }}{% endif %}
{%- endfor %}"""

GEMMA = """\
{{- bos_token }}
{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for m in messages %}
{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}
{{- m.content | trim + '<end_of_turn>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""

# version 3: a conversation that is not to be continued ends with one more token
PHI = """\
{%- for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"""

ZEPHYR = """\
{%- for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}
{%- if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"""

DEEPSEEK = """\
{%- set ns = namespace(tool=false) %}{{ bos_token }}
{%- for m in messages %}
{%- if m.role == 'system' %}{{ m.content }}
{%- elif m.role == 'user' %}{% set ns.tool = false %}{{ '<|User|>' + m.content }}
{%- elif m.role == 'tool' %}{% set ns.tool = true %}
{{- '<|tool_output_begin|>' + m.content + '<|tool_output_end|>' }}
{%- elif m.tool_calls %}{{ '<|Assistant|>' + m.content + '<|tool_call_begin|>' }}
{{- m.tool_calls[0].function.name + '\n' + m.tool_calls[0].function.arguments | tojson }}
{{- '<|tool_call_end|>' + eos_token }}
{%- else %}{{ ('' if ns.tool else '<|Assistant|>') + m.content.split('</think>')[-1] + eos_token }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt and not ns.tool %}{{ '<|Assistant|>' }}{% endif %}"""

STYLES = {  # with the special tokens beside the first and the last one
    "chatml": (CHATML, ["<|im_start|>", "<|im_end|>"]),
    "qwen-2": (QWEN_2, ["<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"]),
    "qwen-3": (QWEN_3, ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]),
    "llama-3": (LLAMA_3, ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]),
    "mistral": (MISTRAL, ["[INST]", "[/INST]"]),
    "llama-2": (LLAMA_2, []),
    "gemma": (GEMMA, ["<start_of_turn>", "<end_of_turn>"]),
    "phi": (PHI, ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]),
    "zephyr": (ZEPHYR, []),
    "deepseek": (
        DEEPSEEK,
        [
            *("<|User|>", "<|Assistant|>", "<|tool_call_begin|>", "<|tool_call_end|>"),
            *("<|tool_output_begin|>", "<|tool_output_end|>"),
        ],
    ),
}

SYSTEM = {"role": "system", "content": "Be brief."}
TALK = [
    {"role": "user", "content": "Where is the storm?"},
    {"role": "assistant", "content": "Near the river."},
    {"role": "user", "content": "And then, \n\n 東京?"},
    {"role": "assistant", "content": "It ended:\n- naïve 🎉\n- two  spaces"},
]
CALL = {"type": "function", "function": {"name": "find", "arguments": {"what": "storm"}}}
WITH_TOOL = [
    {"role": "user", "content": "Where is the storm?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "river"},
    {"role": "assistant", "content": "Near the river."},
]
TOOLS = [{"type": "function", "function": {"name": "find", "description": "Finds it."}}]


def spaceless():
    """A byte-level tokenizer that puts no space before texts, as those of language models."""
    made = copy.deepcopy(tokenizer())
    made.backend_tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    return made


def tokenizer_of(style, base=None):
    """A tokenizer with the template of a style and its special tokens."""
    made = base or spaceless()
    made.chat_template, special = STYLES[style]
    made.add_special_tokens({"extra_special_tokens": special})
    return made


def row_of(messages, tools=None):
    """A prepared row."""
    return {"messages": [json.dumps(messages)], "tools": [json.dumps(tools)]}
