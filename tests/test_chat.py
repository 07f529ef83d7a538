"""Conversations: what is trained on, character by character and token by token."""

import json

import pytest
from chat_styles import (
    CALL,
    STYLES,
    SYSTEM,
    TALK,
    TOOLS,
    WITH_TOOL,
    row_of,
    spaceless,
    tokenizer_of,
)
from datasets import Dataset
from shaping import batch_of
from standins import write_jsonl
from tokenizers import Tokenizer, models, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hydralight.data.chat_templates import NAMED
from hydralight.data.columns import rename_roles
from hydralight.data.mix import Mix
from hydralight.data.roles import Where
from hydralight.data.rows import read_rows
from hydralight.data.shapes.chat import Chat
from hydralight.data.source import Source
from hydralight.data.splits import Splits
from hydralight.data.targets import tokens_of
from hydralight.data.turns import ChatTemplate, turns_of
from hydralight.errors import UserError
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


BASES = {"bytes": spaceless, "unigram": unigram}


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
        if base == "bytes":  # SentencePiece puts a space before a piece that stands alone
            assert trained == alone
            assert processor.decode(trained) == "".join(spans)
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


# ------------------------------------------------------------ rows


def prepared(rows, **columns):
    """The messages of rows, as they are prepared."""
    where = Where("my.csv", columns)
    named = rename_roles(Dataset.from_list(rows), Chat.roles, where, Chat.optional_roles)
    return [json.loads(said) for said in Chat().prepare(named, where)["messages"]]


def exchange(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def test_rows_of_every_form():
    brief = [SYSTEM, *exchange("a b", "c")]
    sharegpt = [("system", "Be brief."), ("human", "a b"), ("gpt", "c")]
    sharegpt = [{"from": who, "value": what, "weight": None} for who, what in sharegpt]
    openai = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in brief[1:]]
    for row in (
        {"messages": brief},
        {"messages": json.dumps(brief)},
        {"conversations": sharegpt, "id": "7"},
        {"messages": openai, "system": "Be brief."},
        {"prompt": "a b", "completion": "c", "system": "Be brief."},
        {"prompt": brief[:2], "completion": brief[2:]},
        {"prompt": brief[:2], "completion": brief},
        {"instruction": "a b", "input": "", "output": "c", "system": "Be brief."},
    ):
        assert prepared([row]) == [brief], row
    # UltraFeedback's table has a prompt, and pairs of conversations; Anthropic's has texts
    talk = exchange("a b", "c")
    both = {"prompt": "a b", "chosen": talk, "rejected": exchange("a b", "d"), "score_chosen": 8.0}
    assert prepared([both], messages="chosen") == [talk]
    assert prepared([{**both, "messages": talk}]) == [talk]
    said = "\n\nHuman: a b\n\nAssistant: c\n\nHuman: d\n\nAssistant: e"
    assert prepared([{"chosen": said}], messages="chosen") == [[*talk, *exchange("d", "e")]]
    alpaca = {"instruction": "Add.", "input": "1 1", "output": "2", "text": "…"}
    assert prepared([alpaca]) == [exchange("Add.\n\n1 1", "2")]
    dolly = {"instruction": "Who?", "context": "", "response": "She.", "category": "qa"}
    named = {"prompt": "{instruction} ({context})", "completion": "response"}
    assert prepared([dolly], **named) == [exchange("Who? ()", "She.")]


def test_json_that_somebody_says_is_a_text():
    """Only messages are read as messages; a list of anything else is what was asked or answered."""
    people = '[{"name": "Bo", "age": 3}, {"name": "Al", "age": 2}]'
    asked = {"instruction": "Sort.", "input": people, "output": people}
    assert prepared([asked]) == [exchange(f"Sort.\n\n{people}", people)]
    assert prepared([{"prompt": people, "completion": people}]) == [exchange(people, people)]
    talk = exchange("a", "b")
    said = {"prompt": json.dumps(talk[:1]), "completion": json.dumps(talk[1:])}
    assert prepared([said]) == [talk]
    with pytest.raises(UserError, match="the messages are no JSON"):
        prepared([{"prompt": '[{"role": "user", "content": "a', "completion": "b"}])


def test_calls_of_tools_keep_their_own_arguments():
    """A table fills up mappings that differ, and OpenAI writes arguments as JSON."""
    calls = [{**CALL, "function": {"name": "stop", "arguments": '{"now": true, "by": null}'}}, CALL]
    rows = [{"messages": [WITH_TOOL[0], {"role": "assistant", "tool_calls": [c]}]} for c in calls]
    texts = [{"messages": json.dumps(row["messages"])} for row in rows]
    (_, first), (_, second) = prepared(texts)
    assert first["tool_calls"][0]["function"]["arguments"] == {"now": True, "by": None}
    assert second == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    table = Dataset.from_list([{"messages": [WITH_TOOL[1], WITH_TOOL[2]]}])
    assert table[0]["messages"][1] != WITH_TOOL[2]  # filled up
    (messages,) = prepared([{"messages": [*WITH_TOOL], "tools": TOOLS}])
    assert messages == WITH_TOOL


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"messages": []}, "row 2: there is no conversation: messages, conversations, prompt"),
        ({"messages": [{"role": "usr", "content": "a"}]}, "it is 'usr'; did you mean 'user'"),
        ({"messages": [{"content": "a", "name": "b"}]}, r"no role of .* \(there is .*name"),
        ({"messages": "[{]"}, "the messages are no JSON"),
        ({"conversations": [{"from": "human", "value": 3}]}, "message 1 holds no text"),
        ({"prompt": "a", "completion": "b", "tools": "x"}, "the tools are no JSON"),
        ({"prompt": "a", "completion": 3}, "there should be a text or messages, not 3"),
        ({"instruction": 3, "output": 4}, "there should be a text or messages, not 3"),
    ],
)
def test_what_is_no_conversation_is_named(row, sentence):
    good = {"messages": TALK[:2], "conversations": TALK[:2], "prompt": "a", "completion": "b"}
    first = {name: good.get(name, "[]") for name in row}
    if 3 in row.values():
        first = row
    if isinstance(row.get("messages"), str):
        first = {"messages": json.dumps(TALK)}
    with pytest.raises(UserError, match=sentence):
        prepared([first, row])


def test_a_group_stays_together_and_sets_of_other_forms_are_mixed(tmp_path):
    rows = [{"messages": exchange(f"q{i}", "a"), "topic": i % 5} for i in range(20)]
    path, other = write_jsonl(tmp_path / "a.jsonl", rows), tmp_path / "b.jsonl"
    write_jsonl(other, [{"instruction": f"do {i}", "input": "", "output": "x"} for i in range(9)])
    mix = Mix(mix={"alpaca": {"path": str(other), "weight": 0.5}})
    source = Source(path=str(path))
    splits = read_rows(source, Splits(group_by="topic"), Mix(), Chat()).splits
    questions = [{json.loads(m)[0]["content"] for m in splits[s]["messages"]} for s in splits]
    topics = [{int(question[1:]) % 5 for question in some} for some in questions]
    assert not topics[0] & topics[1]
    mixed = read_rows(source, Splits(), mix, Chat())
    assert {json.loads(m)[0]["content"][0] for m in mixed.splits["train"]["messages"]} == {"q"}
    assert {json.loads(m)[0]["content"][0] for m in mixed.sets["alpaca"]["messages"]} == {"d"}


def test_a_table_without_conversations_is_answered_with_what_there_is():
    with pytest.raises(UserError, match=r"no column for any of .* its columns are body \(text\)"):
        prepared([{"body": "a"}])
    with pytest.raises(UserError, match="row 1: the assistant does not answer the user in it"):
        Chat().encode(row_of(TALK[:1]), [0], tokenizer_of("chatml"), "train")


def test_rows_without_an_answer_are_left_out_and_counted(tmp_path, caplog):
    rows = [{"instruction": f"do {i}", "input": "", "output": "x" * (i % 4)} for i in range(12)]
    path = str(write_jsonl(tmp_path / "a.jsonl", rows))
    caplog.set_level("WARNING", "hydralight")
    splits = read_rows(Source(path=path), Splits(), Mix(), Chat()).splits
    texts = [messages for rows_of in splits.values() for messages in rows_of["messages"]]
    said = sorted((json.loads(one)[0]["content"] for one in texts), key=lambda one: int(one[3:]))
    assert said == [row["instruction"] for row in rows if row["output"]]
    assert "3 of 12 rows are left out, as the assistant does not answer in them" in caplog.text
    assert "(the first is row 1)" in caplog.text


# ------------------------------------------------------------ encoding


def trained_texts(processor, messages, tools=None, **options):
    """The prompts and the trained texts of each example of a row."""
    encoded = Chat(**options).encode(row_of(messages, tools), [0], processor, "train")
    pairs = zip(encoded["input_ids"], encoded["labels"], strict=True)
    rows = [{"input_ids": ids, "labels": labels} for ids, labels in pairs]
    return [[t for t, on in Chat().parts(row, processor) if on] for row in rows], encoded


def test_the_last_turn_alone():
    processor = tokenizer_of("chatml")
    (all_turns,), _ = trained_texts(processor, SYSTEM_TALK)
    (last,), encoded = trained_texts(processor, SYSTEM_TALK, train_on="last_turn")
    assert last == all_turns[1:]
    assert FIRST in processor.decode(encoded["input_ids"][0])


def test_what_is_said_before_anybody_asks_is_no_answer():
    hello = [{"role": "assistant", "content": "Hello."}, *TALK[:2]]
    (trained,), encoded = trained_texts(tokenizer_of("chatml"), hello)
    assert trained == [f"{FIRST}<|im_end|>"]
    assert "Hello." in tokenizer_of("chatml").decode(encoded["input_ids"][0])


def test_reasoning_is_trained_on_where_it_is_asked_for():
    """Qwen3 leaves it out of earlier turns: there they are only read."""
    thought = {"role": "assistant", "content": "It is far.", "reasoning_content": "Hm."}
    messages = [TALK[0], thought, TALK[2], {**thought, "content": "Now near."}]
    texts, encoded = trained_texts(tokenizer_of("qwen-3"), messages)
    assert texts == [
        ["<think>\nHm.\n</think>\n\nIt is far.<|im_end|>"],
        ["<think>\nHm.\n</think>\n\nNow near.<|im_end|>"],
    ]
    assert encoded["row"] == [0, 0]
    assert tokenizer_of("qwen-3").decode(encoded["input_ids"][1]).count("Hm.") == 1
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    plain, _ = trained_texts(tokenizer_of("qwen-3"), TALK, **off)
    assert plain == [[f"{FIRST}<|im_end|>"], [f"{SECOND}<|im_end|>"]]
    with pytest.raises(UserError, match=r"row 1: the chat template's prompt for message 2 ends in"):
        trained_texts(tokenizer_of("qwen-3"), messages, **off)


def test_long_conversations_are_cut_between_turns():
    processor = tokenizer_of("chatml")
    long = [SYSTEM, *TALK, *TALK, *TALK]
    (whole,), encoded = trained_texts(processor, long)
    assert len(whole) == 6
    for number in (4, 2, 1):  # turns that are left
        kept = [SYSTEM, *long[-2 * number :]]
        size = len(processor(processor.apply_chat_template(kept, tokenize=False))["input_ids"])
        (texts,), cut = trained_texts(processor, long, max_length=size)
        assert texts == whole[-number:]
        assert cut["too_long"] == [True]
        text = processor.apply_chat_template(kept, tokenize=False)
        assert processor.decode(cut["input_ids"][0]) == processor.decode(
            processor(text.rstrip(), add_special_tokens=False)["input_ids"]
        )
    last, end = encoded["input_ids"][0][encoded["prompt_length"][0] :], encoded["input_ids"][0]
    (texts,), cut = trained_texts(processor, long, max_length=len(last) + 9)  # not one exchange
    assert texts == whole[-1:]
    assert cut["input_ids"] == [end[-len(last) - 9 :]]
    assert cut["prompt_length"] == [9]
    (texts,), cut = trained_texts(processor, long, max_length=10)  # not one answer
    assert cut["input_ids"] == [[*end[-len(last) - 5 : -len(last)], *last[:5]]]
    assert whole[-1].startswith(texts[0])
    assert cut["length"] == [10]
    assert encoded["too_long"] == [False]
    prompts = Chat(max_length=60).encode(row_of(long), [0], processor, "predict")
    assert prompts["prompt"][0].count("<|im_start|>user") == 1
    assert prompts["prompt"][0].startswith("<|im_start|>system\nBe brief.<|im_end|>")
    assert prompts["prompt"][0].endswith("<|im_start|>assistant\n")
    assert prompts["too_long"] == [True]


@pytest.mark.parametrize("name", NAMED)
def test_templates_for_tokenizers_that_have_none(name, tmp_path):
    with pytest.raises(UserError, match="the tokenizer has no chat template: take"):
        Chat().ready(spaceless())
    processor = Chat(chat_template=name).ready(spaceless())
    (trained,), encoded = trained_texts(processor, SYSTEM_TALK)
    end = {"chatml": "<|im_end|>", "llama-3": "<|eot_id|>", "zephyr": "</s>"}[name]
    assert [text.strip() for text in trained] == [f"{FIRST}{end}", f"{SECOND}{end}"]
    reference, _ = trained_texts(tokenizer_of(name), SYSTEM_TALK)
    assert [trained] == reference
    assert processor.convert_tokens_to_ids(end) in encoded["labels"][0]
    processor.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert trained_texts(again, SYSTEM_TALK)[1] == encoded
    file = tmp_path / "chat_template.jinja"
    assert Chat(chat_template=str(file)).ready(spaceless()).chat_template
    with pytest.raises(UserError, match="is no file, and none of chatml, llama-3, zephyr; did you"):
        Chat(chat_template="chat-ml").ready(spaceless())


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", "has no prompt for"),
        (
            "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
            "{% if add_generation_prompt %}assistant: {% endif %}",
            "puts nothing behind the assistant's turn that ends it",
        ),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}\n{% endfor %}", "not show"),
        ("{{ raise_exception('no') }}", r"takes no such conversation \(no\)"),
    ],
)
def test_a_template_that_cannot_be_learnt_is_refused(template, sentence):
    processor = spaceless()
    processor.chat_template = template
    with pytest.raises(UserError, match=sentence):
        Chat().ready(processor)


def test_an_end_need_not_be_a_token():
    """Gemma's tokenizer and others have tokens of white space, which end nothing."""
    processor = spaceless()
    processor.add_tokens(["\n", "\n\n", "  "])
    processor.chat_template = STYLES["chatml"][0].replace("<|im_end|>", "\n\n###\n")
    assert Chat().ready(processor).eos_token == "</s>"
    assert Chat().end_of_turn(processor) == "###"
    (trained,), _ = trained_texts(processor, TALK)
    assert trained == [f"{FIRST}\n\n###", f"{SECOND}\n\n###"]


def test_a_row_that_the_template_refuses_is_named():
    with pytest.raises(UserError, match=r"row 1: the chat template takes no .*System role not sup"):
        Chat().encode(row_of(SYSTEM_TALK), [0], tokenizer_of("gemma"), "train")


def test_packed_conversations_keep_their_labels():
    processor = tokenizer_of("zephyr")
    rows = {
        "messages": [json.dumps(m) for m in (TALK, SYSTEM_TALK, TALK[:2])],
        "tools": ["null"] * 3,
    }
    shape = Chat(packing=True)
    encoded = shape.encode(rows, [0, 1, 2], processor, "train")
    batch = batch_of(shape, encoded, processor, "train")
    starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
    width = batch["input_ids"].shape[1]
    found = []
    for start, stop in zip(starts, [*starts[1:], width], strict=True):
        part = slice(start, stop)
        found.append((batch["input_ids"][0, part].tolist(), batch["labels"][0, part].tolist()))
    assert sorted(found) == sorted(zip(encoded["input_ids"], encoded["labels"], strict=True))
    assert "attention_mask" not in batch
    padded = batch_of(shape, encoded, processor, "evaluate")
    assert padded["labels"].shape == padded["attention_mask"].shape
    assert padded["prompt_length"].tolist() == encoded["prompt_length"]
