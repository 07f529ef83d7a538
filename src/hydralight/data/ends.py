"""The end tokens that a tokenizer puts behind texts: a prompt that is to be continued has none."""

import copy
import json
from typing import Any

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerBase


def left_open(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return a tokenizer that puts no end token behind a text, so that a prompt stays one.

    It is a copy, or the tokenizer itself where it puts none (or is slow). Pairs of texts are still
    closed, which tells what was left off (`left_off`), also once the tokenizer was saved.
    """
    if not tokenizer.is_fast or not ends_of(tokenizer, tokenizer("a")["input_ids"]):
        return tokenizer
    opened: Any = copy.deepcopy(tokenizer)
    backend = opened.backend_tokenizer
    post = json.loads(backend.post_processor.__getstate__())
    tokens = {*tokenizer.convert_ids_to_tokens(list(end_ids(tokenizer)))}
    state = json.loads(Tokenizer(models.BPE()).to_str())
    state["post_processor"] = _without_end(post, tokens)
    backend.post_processor = Tokenizer.from_str(json.dumps(state)).post_processor
    for name in ("add_bos_token", "add_eos_token"):  # from which it would be made again
        opened.init_kwargs.pop(name, None)
    return opened


def _without_end(post: dict[str, Any], ends: set[str]) -> dict[str, Any]:
    """Return the state of a post-processor that leaves the ends of single texts off."""
    kind = post["type"]
    if kind == "Sequence":
        return {**post, "processors": [_without_end(one, ends) for one in post["processors"]]}
    if kind in ("BertProcessing", "RobertaProcessing"):
        template = _as_template(post)
        if kind == "BertProcessing":
            return _without_end(template, ends)
        trim = {name: post[name] for name in ("add_prefix_space", "trim_offsets")}
        spaces = {"type": "ByteLevel", "use_regex": True, **trim}
        return {"type": "Sequence", "processors": [spaces, _without_end(template, ends)]}
    if kind != "TemplateProcessing":
        return post
    single = list(post["single"])
    while single and single[-1].get("SpecialToken", {}).get("id") in ends:
        single.pop()
    return {**post, "single": single}


def _as_template(post: dict[str, Any]) -> dict[str, Any]:
    """Return what BERT's and RoBERTa's own post-processors do as a template."""
    of_bert = post["type"] == "BertProcessing"

    def special(name: str, kind: int = 0) -> dict[str, Any]:
        return {"SpecialToken": {"id": post[name][0], "type_id": kind}}

    def text(name: str, kind: int = 0) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": kind}}

    second = 1 if of_bert else 0
    single = [special("cls"), text("A"), special("sep")]
    pair = [*single, *([] if of_bert else [special("sep")])]
    pair += [text("B", second), special("sep", second)]
    tokens = {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in (post["cls"], post["sep"])}
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}


def end_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids of what may end a text."""
    return {i for i in (tokenizer.eos_token_id, tokenizer.sep_token_id) if i is not None}


def ends_of(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """Return the end tokens that stand behind a text."""
    return ids[len(without_end(tokenizer, ids)) :]


def left_off(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the end tokens that a tokenizer puts behind a pair of texts, and not behind one."""
    if ends_of(tokenizer, tokenizer("a")["input_ids"]):
        return []
    return ends_of(tokenizer, tokenizer("a", "a")["input_ids"])


def without_end(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """Take off the end tokens that a tokenizer puts behind a text: a prompt has not ended."""
    while len(ids) > 1 and ids[-1] in end_ids(tokenizer):
        ids = ids[:-1]
    return ids
