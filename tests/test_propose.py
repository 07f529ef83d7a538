"""A mapping of columns that does not fit is answered with one that does."""

import csv
import shlex
from functools import partial

import datasets
import pytest
from datasets import ClassLabel, Dataset
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import OmegaConf
from standins import images, write_jsonl

import hydralight
from hydralight.config.project import CONFIG_DIR
from hydralight.data.mix import Mix
from hydralight.data.readings import headless
from hydralight.data.rows import read_rows
from hydralight.data.source import Source
from hydralight.data.splits import Splits
from hydralight.dealing import dealt
from hydralight.errors import UserError

datasets.disable_progress_bars()


def text(i, words=8):
    return " ".join(f"w{(i * 7 + j * j) % 97}" for j in range(words))


def pair(i, **more):
    return {"idx": i, "sentence1": text(i), "sentence2": text(i + 1), **more}


def ending(i, of=4):
    return [text(i + j, 3) for j in range(of)]


def csqa(i):
    choices = [{"label": x, "text": text(i + j, 2)} for j, x in enumerate("ABCDE")]
    question = {"question_concept": "w", "stem": text(i), "choices": choices}
    return {"id": str(i), "answerKey": "ABCDE"[i % 5], "question": question}


def arc(i):
    names = "ABCD" if i % 2 else "1234"
    choices = {"text": ending(i), "label": list(names)}
    return {"question": text(i), "choices": choices, "answerKey": names[i % 4]}


def swag(i):
    parts = {"ctx_a": text(i), "ctx_b": "she", "endings": ending(i), "label": str(i % 4)}
    return {"ind": i, "activity_label": "Cooking", **parts}


def letters(i):
    return {"prompt": text(i), **dict(zip("ABCD", ending(i), strict=True)), "answer": "ABCD"[i % 4]}


def squad(i):
    answer = {"text": [text(i).split()[0]], "answer_start": [0]}
    return {"q": f"what {i}?", "passage": text(i, 30), "answers": answer}


def alpaca(i):
    more = text(i, 9) if i % 2 else ""
    return {"instruction": text(i, 6), "input": more, "output": text(i, 12)}


def chat(i):
    said = [{"role": "user", "content": text(i, 12)}, {"role": "bot", "content": text(i, 5)}]
    return {"messages": said}


KINDS = ["entailment", "neutral", "contradiction"]
FITTING = {  # a recipe, rows, and the line
    "sst2": (
        "bert_mrpc",
        lambda i: {"idx": i, "sentence": text(i), "label": i % 2},
        "'data.columns={text: sentence, text_pair: null, label: label}'",
    ),
    "mnli": (
        "bert_mrpc",
        lambda i: {"premise": text(i), "hypothesis": text(i + 1, 5), "label": KINDS[i % 3]},
        "'data.columns={text: premise, text_pair: hypothesis, label: label}' "
        "optimized_metric=val/f1_macro",
    ),
    "mrpc.tsv": (
        "bert_mrpc",
        lambda i: {"Quality": i % 2, "#1 ID": i, "#1 String": text(i), "#2 String": text(i + 1)},
        '\'data.columns={text: "#1 String", text_pair: "#2 String", label: Quality}\'',
    ),
    "stsb": (
        "bert_stsb",
        lambda i: pair(i, similarity_score=i % 7 / 2),
        "'data.columns={text: sentence1, text_pair: sentence2, label: similarity_score}'",
    ),
    "no numbers": (
        "bert_stsb",
        lambda i: {"review": text(i), "sentiment": ["bad", "good"][i % 2]},
        "'data.columns={text: review, text_pair: null, label: sentiment}' "
        "data.problem_type=single_label_classification optimized_metric=val/loss",
    ),
    "ag news": (
        "distilbert_emotion",
        lambda i: {"Class Index": i % 4 + 1, "Title": text(i, 3), "Description": text(i, 20)},
        "'data.columns={text: Description, label: Class Index}' optimized_metric=val/f1_macro",
    ),
    "samsum": (
        "bart_cnn",
        lambda i: {"id": str(i), "dialogue": text(i, 40), "summary": text(i, 7)},
        "'data.columns={text: dialogue, summary: summary}'",
    ),
    "alpaca": (
        "t5_xsum",
        alpaca,
        "'data.columns={text: \"{instruction} {input}\", summary: output}'",
    ),
    "dolly": (
        "bart_cnn",
        lambda i: {
            **{"instruction": text(i, 6), "context": text(i, 9) if i % 2 else ""},
            **{"response": text(i, 12), "category": "open_qa"},
        },
        "'data.columns={text: \"{instruction} {context}\", summary: response}'",
    ),
    "alpaca, whole": (
        "distilgpt2_sonnets",
        alpaca,
        "'data.columns={text: \"{instruction} {input} {output}\"}'",
    ),
    "chat": (
        "bart_cnn",
        chat,
        '\'data.columns={text: "messages[0].content", summary: "messages[1].content"}\'',
    ),
    "dialogues": (
        "qwen_sft_chat",
        lambda i: {"id": i, "dialogue": chat(i)["messages"]},
        "'data.columns={messages: dialogue}'",
    ),
    "hh": (
        "qwen_sft_chat",
        lambda i: {
            name: f"\n\nHuman: {text(i)}\n\nAssistant: {text(i + j, 4)}"
            for j, name in enumerate(("chosen", "rejected"))
        },
        "'data.columns={messages: chosen}'",
    ),
    "answers": (
        "qwen_sft_chat",
        lambda i: {"source": "web", "question": text(i, 6), "response": text(i, 20)},
        "'data.columns={prompt: question, completion: response}'",
    ),
    "csqa": (
        "bert_swag",
        csqa,
        "'data.columns={context: question.stem, question: null, "
        'endings: "question.choices[*].text", '
        'ending_labels: "question.choices[*].label", label: answerKey}\'',
    ),
    "arc": (
        "bert_swag",
        arc,
        "'data.columns={context: question, question: null, endings: choices.text, "
        "ending_labels: choices.label, label: answerKey}'",
    ),
    "hellaswag": (
        "bert_swag",
        swag,
        "'data.columns={context: ctx_a, question: ctx_b, endings: endings, label: label}'",
    ),
    "letters": (
        "bert_swag",
        letters,
        "'data.columns={context: prompt, question: null, endings: [A, B, C, D], label: answer}'",
    ),
    "squad": (
        "bert_squad",
        squad,
        "'data.columns={question: q, context: passage, answers: answers}'",
    ),
    "wnut": (
        "bert_ner_conll2003",
        lambda i: {"words": text(i).split(), "ner": ["O", "B-LOC"] * 4},
        "'data.columns={tokens: words, tags: ner}'",
    ),
    "multi30k": (
        "marian_wmt16_en_ro",
        lambda i: {"en": text(i), "de": text(i + 1)},
        "'data.columns={source: en, target: de}'",
    ),
    "wmt": (
        "marian_wmt16_en_ro",
        lambda i: {"translation": {"en": text(i), "de": text(i + 1)}},
        "'data.columns={source: translation.en, target: translation.de}'",
    ),
    "pairs": (
        "minilm_nli",
        lambda i: {"query": text(i), "passage": text(i, 20)},
        "'data.columns={anchor: query, positive: passage}'",
    ),
    "wikipedia": (
        "roberta_mlm_wikitext",
        lambda i: {"title": text(i, 2), "content": text(i, 50), "url": f"http://{i}"},
        "'data.columns={text: content}'",
    ),
}
NOTHING = {
    "numbers": ("bert_mrpc", lambda i: {"a": i, "b": i * 2.5}, "a (integers), b (numbers)"),
    "no summary": ("bart_cnn", lambda i: {"text": text(i), "n": i}, "text (text), n (integers)"),
    "ids": ("distilbert_emotion", lambda i: {"u": f"u{i}", "body": text(i)}, "u (text), body"),
    "an ending too few": (
        "bert_swag",
        lambda i: {"ctx": text(i), "endings": ending(i, 3), "label": i % 4},
        "endings (lists of text)",
    ),
    "wrong starts": (
        "bert_squad",
        lambda i: squad(i) | {"answers": {"text": ["nowhere"], "answer_start": [2]}},
        "answers.text (lists of text)",
    ),
    "unequal": (
        "bert_ner_conll2003",
        lambda i: {"words": text(i).split(), "ner": ["O"]},
        "words (lists of text), ner",
    ),
}


def read(recipe, overrides, **source):
    with initialize_config_dir(str(CONFIG_DIR)):
        cfg = compose("train", [f"experiment={recipe}", *overrides])
    keys = {key: cfg.data[key] for key in cfg.data if key not in ("seed", "_target_")}
    keys = OmegaConf.to_container(OmegaConf.create(keys))
    known = {"columns": keys["columns"], "image_dir": keys.get("image_dir"), **source}
    shape = dealt(get_class(cfg.data._target_), keys)
    return read_rows(Source(**known), Splits(validation_fraction=0), Mix(), shape)


def refused(read):
    with pytest.raises(UserError) as caught:
        read([])
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", FITTING)
def test_a_line_that_fits(name):
    recipe, row, line = FITTING[name]
    rows = [row(i) for i in range(40)]
    one = partial(read, recipe, source=lambda: {"train": rows})
    message = refused(one)
    assert message.endswith(f": try {line}")
    found = one(shlex.split(line)).splits["train"]
    assert len(found) == 40


@pytest.mark.parametrize("name", NOTHING)
def test_nothing_is_proposed_where_nothing_fits(name):
    recipe, row, listed = NOTHING[name]
    rows = [row(i) for i in range(40)]
    message = refused(partial(read, recipe, source=lambda: {"train": rows}))
    assert "try" not in message
    assert listed in message


def test_sorted_classes_and_declared_ones():
    """Rows are looked at from all over the data; a class need not be among the first."""
    data = Dataset.from_list([{"review": text(i), "kind": i // 500} for i in range(1000)])
    for one in (data, data.cast_column("kind", ClassLabel(names=["bad", "good"]))):
        message = refused(partial(read, "bert_mrpc", source=lambda one=one: {"train": one}))
        assert message.endswith("'data.columns={text: review, text_pair: null, label: kind}'")


def test_images_that_a_table_names(tmp_path):
    folder = images(tmp_path / "images", 8)
    lines = [f"{i}.png,{['Mass', 'Edema|Mass', 'No Finding'][i % 3]}\n" for i in range(8)]
    table = tmp_path / "table.csv"
    table.write_text("Image Index,Finding Labels\n" + "".join(lines))
    place = [f"data.image_dir={folder}"]
    with pytest.raises(UserError) as caught:
        read("vit_cxr14", place, path=str(table))
    line = "'data.columns={image: Image Index, label: Finding Labels}' 'data.label_delimiter=\"|\"'"
    assert str(caught.value).endswith(f": try {line}")
    found = read("vit_cxr14", [*place, *shlex.split(line)], path=str(table))
    assert found.splits["train"]["label"][1] == ["Edema", "Mass"]


def test_a_folder_a_class(tmp_path):
    """What a recipe for several labels is told where an image has one."""
    for name in ("cat", "dog"):
        (images(tmp_path / "train" / name, 3) / "metadata.jsonl").unlink()
    one = partial(read, "vit_cxr14", path=str(tmp_path))
    line = (
        "'data.columns={image: image, label: label}' data.problem_type=single_label_classification "
        "data.labels=null optimized_metric=val/loss"
    )
    assert refused(one).endswith(f": try {line}")
    assert one(shlex.split(line)).shape.label_names == ["cat", "dog"]


def cells(i):
    return [text(i, 12), ["joy", "anger", "fear"][i % 3]]


READINGS = {  # a file's name, its lines, what to type for its reader, and what is the first text
    "label first": ("a.csv", [",".join(cells(i)[::-1]) for i in range(60)], "column_names: [a, b]"),
    "text first": ("a.csv", [",".join(cells(i)) for i in range(60)], "column_names: [a, b]"),
    "numbers": ("a.csv", [f"{i % 4},{text(i, 2)}" for i in range(60)], "column_names: [a, b]"),
    "equal cells": (
        *("a.csv", [f"{i % 2},{text(i, 12)},{i % 2}" for i in range(60)]),
        "column_names: [a, b, c]",
    ),
    "tabs": ("a.csv", ["t\tl", *("\t".join(cells(i)) for i in range(60))], 'sep: "\\t"'),
    "no header, semicolons": (
        *("a.txt", [";".join(cells(i)) for i in range(60)]),
        'format: csv, sep: ";", column_names: [a, b]',
    ),
}


@pytest.mark.parametrize("name", READINGS)
def test_a_table_without_header_or_with_another_separator(name, tmp_path):
    file, lines, reader = READINGS[name]
    path = tmp_path / file
    path.write_text("\n".join(lines))
    said = refused(partial(read, "distilbert_emotion", path=str(path)))
    assert f": try 'data.reader={{{reader}}}'" in said
    line = shlex.split(said.partition(": try ")[2])
    with initialize_config_dir(str(CONFIG_DIR)):
        cfg = compose("train", ["experiment=distilbert_emotion", *line])
    found = read("distilbert_emotion", line, path=str(path), reader=dict(cfg.data.reader))
    assert len(found.splits["train"]) == 60
    assert found.splits["train"]["text"][0] == text(0, 2 if name == "numbers" else 12)


@pytest.mark.parametrize("names", [["0", "1", "text"], ["sentence", "a question of five words"]])
def test_a_header_is_a_header(names):
    rows = Dataset.from_list([dict.fromkeys(names, text(i)) for i in range(9)])
    assert not headless(rows)


@pytest.mark.parametrize("key", ["extra_eval", "mix"])
def test_a_further_set(key, recipe, tmp_path):
    """Its line is of its own columns; a set that is a path alone keeps that."""
    rows = [{"review": text(i), "other": text(i + 1), "stars": i % 2} for i in range(30)]
    path = write_jsonl(tmp_path / "other.jsonl", rows)
    one = path if key == "extra_eval" else f"{{path: {path}, weight: 0.5}}"
    typed = [*recipe("bert_mrpc"), f"data.{key}={{more: {one}}}", "trainer.max_steps=1"]
    with pytest.raises(UserError) as caught:
        hydralight.train(typed)
    line = f"'data.{key}.more.columns={{text: review, text_pair: other, label: stars}}'"
    line = f"'data.{key}.more={{path: \"{path}\"}}' {line}" if key == "extra_eval" else line
    assert str(caught.value).endswith(f": try {line}")
    run = hydralight.train([*typed, *shlex.split(line)])
    assert (key == "mix") != ("val/more/f1" in run.metrics["last"])


def test_a_table_of_metadata(tmp_path):
    """Its column of file names is the one that names the images."""
    folder = images(tmp_path / "images", 8)
    (folder / "metadata.jsonl").unlink()
    rows = [{"Kind": ["a", "b|a"][i % 2], "File": f"{i}.png", "n": i} for i in range(8)]
    table = str(write_jsonl(tmp_path / "table.jsonl", rows))
    one = partial(read, "vit_cxr14", path=str(folder), metadata=table)
    message = refused(one)
    line = "'data.columns={image: File, label: Kind}' 'data.label_delimiter=\"|\"'"
    assert message.endswith(f": try {line} data.labels=null")
    found = one([*shlex.split(line), "data.labels=null"]).splits["train"]
    assert found["label"][:2] == [["a"], ["b", "a"]]


PASTED = {  # a recipe, a file's name, and its rows
    "one text": ("bert_mrpc", "a.csv", lambda i: {"review": text(i), "mood": ["ok", "bad"][i % 2]}),
    "pairs": ("bert_mrpc", "a.jsonl", lambda i: {"q1": text(i), "q2": text(i + 1), "same": i % 2}),
    "three classes": ("bert_mrpc", "a.csv", FITTING["mnli"][1]),
    "tags": (
        *("bert_ner_conll2003", "a.jsonl"),
        lambda i: {"words": text(i).split(), "ner": ["O", "B-LOC", "I-LOC", *["O"] * 5]},
    ),
    "squad": ("bert_squad", "a.jsonl", squad),
    "letters": ("bert_swag", "a.jsonl", csqa),
    "summaries": ("bart_cnn", "a.csv", lambda i: {"dialogue": text(i, 20), "tl_dr": text(i, 4)}),
    "no header": ("distilbert_emotion", "a.csv", lambda i: dict(enumerate(cells(i)[::-1]))),
}


@pytest.fixture
def unmapped(tmp_path):
    """A function from a name of `PASTED` to a file whose columns no recipe names."""

    def written(name):
        _, file, row = PASTED[name]
        rows, path = [row(i) for i in range(30)], tmp_path / file
        if path.suffix == ".jsonl":
            return write_jsonl(path, rows)
        lines = [] if name == "no header" else [list(rows[0])]
        lines += [list(one.values()) for one in rows]
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows(lines)
        return path

    return written


@pytest.mark.parametrize("name", PASTED)
def test_the_line_is_pasted(name, recipe, unmapped):
    """By the command itself, once; then a step is trained."""
    typed = [*recipe(PASTED[name][0]), f"data.path={unmapped(name)}", "trainer.max_steps=1"]
    typed.append("callbacks.samples=null")
    with pytest.raises(UserError, match=": try '") as caught:
        hydralight.train(typed)
    run = hydralight.train([*typed, *shlex.split(str(caught.value).partition(": try ")[2])])
    assert run.metrics["last"]["step"] == 1
