"""The chat templates of well-known models that TRL comes with: what of each is trained on."""

import re
from pathlib import Path

import pytest
import trl
from chat_styles import SYSTEM, TALK, spaceless
from transformers.utils.chat_template_utils import render_jinja_template

from hydralight.data.turns import ChatTemplate, turns_of
from hydralight.errors import UserError

FOLDER = Path(trl.__file__).parent / "chat_templates"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jinja"))
# what is one token in the models' own tokenizers
SPECIAL = re.compile(r"<[|\uff5c][^<>\s'\"{}]+[|\uff5c]>|<\w+_of_\w+>|<turn\|>|<\|turn>|</?think>")
ANSWERS = [message["content"] for message in TALK if message["role"] == "assistant"]
# what stands between the prompt for an answer and the answer, and is to be learnt, too
BEFORE = {
    "qwen3": "<think>\n\n</think>\n\n",
    "glm4moe": "\n<think></think>\n",
    "gptoss": "<|channel|>final<|message|>",
    "muse_glimmer": " to=user<|message|>",
} | dict.fromkeys(("qwen3_5_think", "qwen3_6", "qwen3_8"), "\n</think>\n\n")
ENDS = ["<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<turn|>", "<|end|>", "<|eot|>", "<|return|>"]
ENDS += ["<|END_OF_TURN_TOKEN|>", "<|END_RESPONSE|>"]
THINKING_OFF = {"enable_thinking": False}  # their prompts ask for thoughts, unless told so
REFUSED = {
    "deepseek_r1_distill": "ends in '<think>",  # whatever the messages say
    "deepseekv3": "ends in '<think>",
    "glm4moe": "does not end message",
    "idefics3": "does not show what the assistant says",  # pictures: contents are lists
    "smolvlm": "does not show what the assistant says",
    "llava_next": "takes no such conversation",
}


def template_of(name):
    made = spaceless()
    made.chat_template = (FOLDER / f"{name}.jinja").read_text()
    specials = sorted(set(SPECIAL.findall(made.chat_template)))
    made.add_special_tokens({"extra_special_tokens": specials})
    return ChatTemplate(made, THINKING_OFF if name.startswith("nemotron") else {})


def test_there_are_many():
    assert len(NAMES) > 60
    assert {name.removesuffix("_training") for name in NAMES} >= {*BEFORE, *REFUSED}


@pytest.mark.parametrize("name", NAMES)
def test_the_answers_and_their_ends_are_trained_on(name):
    """And nothing else, in the very place where they are asked for."""
    template, model = template_of(name), name.removesuffix("_training")
    if model in REFUSED and name != "glm4moe_training":  # that one ends turns
        with pytest.raises(UserError, match=REFUSED[model]):
            template.examples(TALK, turns_of(TALK))
        return
    end = "<|user|>" if model == "glm4moe" else None
    for messages in [TALK] if model == "gemma" else [TALK, [SYSTEM, *TALK]]:
        examples = template.examples(messages, turns_of(messages))
        trained = [e.text[start:stop] for e in examples for start, stop in e.spans]
        for text, answer in zip(trained, ANSWERS, strict=True):
            found = text.removeprefix(BEFORE.get(model, "")).removeprefix(answer)
            assert found == end or (end is None and found in ENDS), text
        for example in examples:
            for turn, (start, _) in zip(example.turns, example.spans, strict=True):
                assert example.text[:start] == template.render(messages[:turn], prompt=True)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("_training")])
def test_what_trl_marks_is_the_same_but_for_its_borders(name):
    """It marks more, in some: the line break behind an end, what the prompt for an answer has."""
    template = template_of(name)
    if name.removesuffix("_training") in REFUSED and name != "glm4moe_training":
        return
    (rendered,), (marked,) = render_jinja_template(
        conversations=[TALK],
        chat_template=template.tokenizer.chat_template,
        return_assistant_tokens_mask=True,
        **{"bos_token": "<s>", "eos_token": "</s>", **template.arguments},
    )
    examples = template.examples(TALK, turns_of(TALK))
    ours = [(e.text[:a], e.text[a:b]) for e in examples for a, b in e.spans]
    theirs = {place for start, stop in marked for place in range(start, stop)}
    for _, text in ours:
        start = rendered.find(text.replace("<|return|>", ""))
        stop = start + len(text.replace("<|return|>", ""))
        assert start >= 0
        assert theirs >= set(range(start, stop))
        theirs -= set(range(start, stop))
    left = "".join(rendered[place] for place in sorted(theirs))
    known = (
        r"<think>|</think>|<\|start\|>assistant|</s>|<\|END_OF_TURN_TOKEN\|>|<\|end\|>|<\|return\|>"
    )
    assert not re.sub(known, "", left).strip(), left
