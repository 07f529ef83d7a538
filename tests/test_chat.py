"""Conversations: what is trained on, character by character and token by token."""


import pytest
from chat_styles import (
    STYLES,
    SYSTEM,
    TALK,
    TOOLS,
    WITH_TOOL,
    row_of,
    tokenizer_of,
)
from standins import tokenizer
from tokenizers import Tokenizer, models, processors
from transformers import PreTrainedTokenizerFast

from hydralight.data.shapes.chat import Chat
from hydralight.data.targets import tokens_of
from hydralight.data.turns import ChatTemplate, turns_of
from hydralight.tokenizers import Trained

FIRST, SECOND = "Near the river.", "It ended:\n- naïve 🎉\n- two  spaces"
SYSTEM_TALK = [SYSTEM, *TALK]
CALLED = '<tool_call>\n{"name": "find", "arguments": {"what": "storm"}}\n</tool_call>'

# style, conversation, and of each example what is trained on
EXPECTED = [
    ("chatml", SYSTEM_TALK, [[f"{FIRST}<|im_end|>", f"{SECOND}<|im_end|>"]]),
    ("qwen-2", TALK, [[f"{FIRST}<|im_end|>", f"{SECOND}<|im_end|>"]]),
    ("qwen-2", SYSTEM_TALK, [[f"{FIRST}<|im_end|>", f"{SECOND}<|im_end|>"]]),
    (
        "qwen-3",
        SYSTEM_TALK,
        [
            [f"<think>\n\n</think>\n\n{FIRST}<|im_end|>"],
            [f"<think>\n\n</think>\n\n{SECOND}<|im_end|>"],
        ],
    ),
    ("llama-3", SYSTEM_TALK, [[f"{FIRST}<|eot_id|>", f"{SECOND}<|eot_id|>"]]),
    (
        "llama-3",
        WITH_TOOL,
        [['{"name": "find", "parameters": {"what": "storm"}}<|eot_id|>', f"{FIRST}<|eot_id|>"]],
    ),
    ("mistral", TALK, [[f" {FIRST}</s>", f" {SECOND}</s>"]]),
    ("mistral", SYSTEM_TALK, [[f" {FIRST}</s>"], [f" {SECOND}</s>"]]),
    ("llama-2", SYSTEM_TALK, [[f" {FIRST} </s>", f" {SECOND} </s>"]]),
    ("gemma", TALK, [[f"{FIRST}<end_of_turn>", f"{SECOND}<end_of_turn>"]]),
    ("phi", SYSTEM_TALK, [[f"{FIRST}<|end|>", f"{SECOND}<|end|>"]]),
    ("zephyr", SYSTEM_TALK, [[f"{FIRST}</s>", f"{SECOND}</s>"]]),
    ("deepseek", SYSTEM_TALK, [[f"{FIRST}</s>", f"{SECOND}</s>"]]),
    (
        "deepseek",
        WITH_TOOL,
        [
            [
                '<|tool_call_begin|>find\n{"what": "storm"}<|tool_call_end|></s>',
                f"{FIRST}</s>",
            ]
        ],
    ),
]


def unigram():
    """A tokenizer that marks words by the space before them, as SentencePiece does."""
    texts = [m["content"] for m in SYSTEM_TALK] * 4
    return Trained(model="unigram", vocab_size=120).train(texts)


BASES = {"bytes": tokenizer, "unigram": unigram}


@pytest.mark.parametrize(
    ("style", "messages", "expected"), EXPECTED, ids=[f"{i}-{e[0]}" for i, e in enumerate(EXPECTED)]
)
def test_the_assistants_turns_and_their_ends_are_trained_on(style, messages, expected):
    template = ChatTemplate(tokenizer_of(style))
    examples = template.examples(messages, turns_of(messages))
    assert [[e.text[a:b] for a, b in e.spans] for e in examples] == expected
    for example in examples:  # in the very place where they are asked for
        for turn, (start, _) in zip(example.turns, example.spans, strict=True):
            prompt = template.render(messages[:turn], prompt=True)
            assert example.text[:start] == prompt
        assert template.render(example.messages).startswith(example.text)


def test_a_call_of_a_tool_is_a_turn():
    (example,) = ChatTemplate(tokenizer_of("qwen-2")).examples(WITH_TOOL, [1, 3], TOOLS)
    assert [example.text[a:b] for a, b in example.spans] == [
        f"{CALLED}<|im_end|>",
        f"{FIRST}<|im_end|>",
    ]
    assert "Finds it." in example.text[: example.spans[0][0]]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("style", STYLES)
def test_tokens_are_those_of_the_characters(style, base):
    """The trained tokens decode to the turns, and the others to the rest; none is added."""
    processor = tokenizer_of(style, BASES[base]())
    messages = TALK if style == "gemma" else SYSTEM_TALK
    examples = ChatTemplate(processor).examples(messages, turns_of(messages))
    encoded = Chat().encode(row_of(messages), [4], processor, "train")
    assert encoded["row"] == [4] * len(examples)
    for example, ids, labels, before in zip(
        examples, encoded["input_ids"], encoded["labels"], encoded["prompt_length"], strict=True
    ):
        whole = processor(example.text, add_special_tokens=False)["input_ids"]
        assert processor.decode(ids) == processor.decode(whole)
        assert ids.count(processor.bos_token_id) == example.text.count("<s>")
        trained = [i for i in labels if i != -100]
        assert all(label in (-100, i) for i, label in zip(ids, labels, strict=True))
        spans = [example.text[a:b] for a, b in example.spans]
        alone = [i for s in spans for i in processor(s, add_special_tokens=False)["input_ids"]]
        if base == "bytes":  # a piece alone gets a space before it
            assert "".join(processor.decode(trained).split(" ")) == "".join(
                processor.decode(alone).split(" ")
            )
        ends = processor.convert_tokens_to_ids(ChatTemplate(processor).end)
        assert trained.count(ends) == len(spans)
        assert trained[-1] == ids[-1] == ends
        start = example.spans[-1][0]
        prompt = processor(example.text[:start], add_special_tokens=False)["input_ids"]
        assert ids[:before] == prompt  # what is asked when the model is to answer


def test_a_token_on_both_sides_of_a_border_is_cut_there():
    """As where a turn begins with the line break that its header ends with."""
    vocabulary = {"a": 0, "b": 1, "\n": 2, "\n\n": 3, " ": 4, " a": 5}
    backend = Tokenizer(models.BPE(vocabulary, [("\n", "\n"), (" ", "a")]))
    processor = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert processor("a\n\nb a")["input_ids"] == [0, 3, 1, 5]
    found = tokens_of(processor, ["a\n\nb a"] * 3, [[(3, 5)], [(2, 4)], [(3, 4), (5, 6)]])
    assert found[0] == ([0, 3, 1, 4, 0], [-1, -1, 0, 0, -1])
    assert found[1] == ([0, 2, 2, 1, 5], [-1, -1, 0, 0, -1])
    assert found[2] == ([0, 3, 1, 4, 0], [-1, -1, 0, -1, 1])
    # GPT-2's kind takes the space into a word, and leaves it out of the word's place
    spaced = Trained(vocab_size=300).train(["river"] * 9)
    spaced.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    assert spaced("at river", return_offsets_mapping=True)["offset_mapping"][-1][0] == 3
    ((ids, numbers),) = tokens_of(spaced, ["at river"], [[(3, 8)]])
    assert spaced.decode(ids[: numbers.index(0)]).endswith("at ")
    ((ids, numbers),) = tokens_of(spaced, ["at river"], [[(2, 8)]])
    assert spaced.decode(ids[: numbers.index(0)]).endswith("at")
