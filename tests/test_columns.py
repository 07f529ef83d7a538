"""Data of all kinds, by configuration alone: what columns are written as, and how text is cut."""

import gzip
import json
import re
import shlex

import datasets
import pytest
from conftest import ROOT
from datasets import Dataset
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from standins import tokenizer

from hydralight.config.project import CONFIG_DIR
from hydralight.data.columns import rename_roles
from hydralight.data.mix import Mix
from hydralight.data.roles import Where
from hydralight.data.rows import read_rows
from hydralight.data.shapes.causal_lm import CausalLM
from hydralight.data.shapes.multiple_choice import MultipleChoice
from hydralight.data.shapes.seq2seq import Summarization, Translation
from hydralight.data.shapes.text_classification import TextClassification
from hydralight.data.shapes.token_classification import TokenClassification
from hydralight.data.source import Source
from hydralight.data.splits import Splits
from hydralight.errors import UserError

datasets.disable_progress_bars()


def read(path, shape, columns=None, reader=None, **splits):
    source = Source(path=path, columns=columns, reader=reader)
    return read_rows(source, Splits(**{"validation_fraction": 0, **splits}), Mix(), shape)


def write(path, content):
    path.write_text(content if isinstance(content, str) else "".join(map(line, content)))
    return str(path)


def line(row):
    return json.dumps(row) + "\n"


CHAT = [
    {
        "messages": [{"role": "user", "content": f"q{i}"}, {"role": "bot", "content": f"a{i}"}],
        "q": {"stem": f"stem {i}", "tags": ["x", "y"]},
        "n": i,
        "a.b": "dotted",
        "{c}": "braced",
        "none": None if i else "one",
    }
    for i in range(3)
]


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        ("messages[0].content", ["q0", "q1", "q2"]),
        ("messages[-1].content", ["a0", "a1", "a2"]),
        ("messages[7].content", [None] * 3),
        ("messages[*].content", [["q0", "a0"], ["q1", "a1"], ["q2", "a2"]]),
        ("q.tags[1]", ["y"] * 3),
        ("q.stem", ["stem 0", "stem 1", "stem 2"]),
        ("a.b", ["dotted"] * 3),
        ("{c}", ["braced"] * 3),
        ("{q.stem}? {{{n}}} {a.b}", [f"stem {i}? {{{i}}} dotted" for i in range(3)]),
        ("{messages[*].content}!", ["q0\na0!", "q1\na1!", "q2\na2!"]),
        ("say {none}{none}", ["say oneone", None, None]),
        ("{n}{none}", ["0one", "1", "2"]),
        (["q.stem", "<{messages[0].content}>"], [[f"stem {i}", f"<q{i}>"] for i in range(3)]),
        (["q.tags[*]", "q.tags"], [[["x", "y"]] * 2] * 3),
    ],
)
def test_what_a_column_is_written_as(spec, values):
    data = Dataset.from_list(CHAT)
    where = Where("my.jsonl", {"text": spec, "n": "n"})
    found = rename_roles(data, ["text", "n"], where)
    assert found.column_names == ["text", "n"]
    assert found["text"][:] == values
    assert found["n"][:] == [0, 1, 2]
    assert rename_roles(data, ["text", "n"], where)._fingerprint == found._fingerprint


REFUSED = {
    "{stem}": "no column 'stem' for the role text; its columns are messages (lists of {role, ",
    "{q.stm}": "has no column 'q.stm' for the role text",
    "{q.stem": "data.columns.text={q.stem: expected '}' before end of string (braces of the text",
    "{}": "braces hold the names of columns, and nothing else",
    "{n:03d}": "braces hold the names of columns, and nothing else",
    "{n!r}": "braces hold the names of columns, and nothing else",
    "messages.content": "each of a list is written messages[*].content",
    "messages[*].contnt": "messages[*] has no field 'contnt'; did you mean 'content'",
    "messages[x].content": "'messages[x].content' cannot be read",
    "messages[0]content": "'messages[0]content' cannot be read",
    "n[0]": "n holds no lists, and has no items",
}


@pytest.mark.parametrize(("spec", "sentence"), REFUSED.items())
def test_columns_that_are_not_there(spec, sentence):
    with pytest.raises(UserError) as caught:
        rename_roles(Dataset.from_list(CHAT), ["text"], Where("my.jsonl", {"text": spec}))
    assert sentence in str(caught.value)


@pytest.mark.parametrize("spec", [0, [], [0], {"a": "n"}])
def test_what_is_no_name(spec):
    with pytest.raises(UserError, match=r"data\.columns\.text=.* should be the name of a column"):
        rename_roles(Dataset.from_list(CHAT), ["text"], Where("my.jsonl", {"text": spec}))


@pytest.mark.parametrize("shape", [TextClassification(), CausalLM(), Summarization()])
@pytest.mark.parametrize(
    ("column", "hint"),
    [
        ("messages", "'messages[0].content', or join them as '{messages[*].content}'"),
        ("q.tags", "'q.tags[0]', or join them as '{q.tags[*]}'"),
        ("q", "name a field as 'q.stem'"),
        ("n", "name it as '{n}'"),
        (["a.b", "q.stem"], 'data.columns={text: "{a.b} {q.stem}"}\' joins them'),
    ],
)
def test_lists_and_numbers_where_text_is_wanted(tmp_path, shape, column, hint):
    path = write(tmp_path / "a.jsonl", CHAT)
    columns = {"text": column, **{r: "n" for r in shape.roles if r not in ("text", "text_pair")}}
    with pytest.raises(UserError) as caught:
        read(path, shape, columns)
    assert "and the text is text" in str(caught.value)
    assert hint in str(caught.value)


# ---------------------------------------------------------------- multiple choice


def choices(rows, shape=None, columns=None, **splits):
    source = Source(source=lambda: {"train": rows}, columns=columns)
    read = read_rows(
        source, Splits(validation_fraction=0, **splits), Mix(), shape or MultipleChoice()
    )
    rows = read.splits["train"]
    return read.shape.encode(rows[:], list(range(len(rows))), tokenizer(), "train")["labels"]


def questions(labels, endings=4):
    return [
        {"context": "why?", "endings": [f"e{k}" for k in range(endings)], "label": label}
        for label in labels
    ]


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [
        ([0, 3, 1], [0, 3, 1]),
        (["B", "A", "d"], [1, 0, 3]),
        (["1", "4", "2"], [0, 3, 1]),
        ([4, 1, 2], [3, 0, 1]),
        ([1.0, 0.0, None], None),
        (["1", "3", "2"], [1, 3, 2]),  # numbers from 0, as nothing says otherwise
        (["0", "4"], None),
        (["E"], None),
        (["yes"], None),
        ([-1], None),
    ],
)
def test_what_calls_an_ending_right(labels, numbers):
    if numbers is None:
        with pytest.raises(UserError, match=r"row \d: the label .* is no"):
            choices(questions(labels))
    else:
        assert choices(questions(labels)) == numbers


def test_labels_of_endings_that_are_said():
    assert choices(questions(["x", "z"]), MultipleChoice(labels=list("wxyz"))) == [1, 3]
    one = MultipleChoice(labels=[1, 2, 3, 4])
    assert choices(questions(["1", "3"]), one) == [0, 2]
    with pytest.raises(UserError, match=r"row 1: the label '0' is none of 1, 2, 3, 4"):
        choices(questions(["0"]), one)


def test_commonsense_qa_and_arc():
    """Endings in a list of records, or in a record of lists; labels that each row says itself."""

    def listed(i, names):
        parts = [{"label": name, "text": f"t{name}"} for name in names]
        return {"answerKey": names[i], "question": {"stem": f"why {i}?", "choices": parts}}

    columns = {"context": "question.stem", "endings": "question.choices[*].text"}
    columns |= {"label": "answerKey", "question": None}
    assert choices([listed(i, "ABCDE") for i in (4, 0, 2)], columns=columns) == [4, 0, 2]
    columns |= {"ending_labels": "question.choices[*].label"}
    mixed = [listed(3, "ABCD"), listed(3, "1234"), listed(0, "1234")]
    mixed += [listed(2, "ABC"), listed(4, "12345")]  # as ARC has them
    assert choices(mixed, columns=columns) == [3, 3, 0, 2, 4]
    record = [
        {"q": "why?", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": str(i)}
        for i in (1, 2)
    ]
    columns = {"context": "q", "endings": "choices.text", "label": "answerKey"}
    assert choices(record, columns={**columns, "ending_labels": "choices.label"}) == [0, 1]
    bad = [{**record[0], "choices": {"text": ["a", "b"], "label": ["1", "1"]}}]
    with pytest.raises(UserError, match="row 1: the ending_labels are one for each ending"):
        choices(bad, columns={**columns, "ending_labels": "choices.label"})


def test_null_is_no_column_though_there_is_one_of_the_roles_name():
    """The records of `question` are none of the endings' opening, nor a text anywhere."""
    rows = [{"q": "why?", "question": {"stem": "s"}, "endings": ["a", "b"], "label": 1}] * 2
    columns = {"context": "q", "question": None}

    def read(**changed):
        source = Source(source=lambda: {"train": rows}, columns={**columns, **changed})
        return read_rows(source, Splits(validation_fraction=0), Mix(), MultipleChoice())

    assert "question" not in read().splits["train"].column_names
    with pytest.raises(UserError, match=r"holds struct.*name a field as 'question.stem'"):
        read(question="question")
    with pytest.raises(UserError, match=r"takes question, which holds \{stem\}: name one of these"):
        read(context="{question}")
    with pytest.raises(UserError, match=r"data\.columns\.label is null, and the task needs it"):
        read(label=None)
    pairs = Dataset.from_list([{"text": "a", "text_pair": "b", "label": 0}])
    where = Where("my.csv", {"text_pair": None})
    taken = rename_roles(pairs, TextClassification.roles, where, TextClassification.optional_roles)
    assert taken.column_names == ["text", "label"]


# ---------------------------------------------------------------- files and long texts


def test_ag_news_without_a_header_and_with_numbers_from_1(tmp_path):
    rows = [f'"{i % 4 + 1}","Title {i}","Body, {i}"\n' for i in range(8)]
    path = write(tmp_path / "train.csv", "".join(rows))
    columns = {"text": "{title}: {body}"}
    reader = {"column_names": ["label", "title", "body"]}
    found = read(path, TextClassification(), columns, reader)
    assert found.splits["train"]["text"][:2] == ["Title 0: Body, 0", "Title 1: Body, 1"]
    assert found.splits["train"]["label"][:2] == ["1", "2"]
    assert found.shape.label_names == ["1", "2", "3", "4"]
    path = write(tmp_path / "train.tsv", "".join(f"{i % 2 + 1}\tt\tb{i}\n" for i in range(8)))
    assert len(read(path, TextClassification(), columns, reader).splits["train"]) == 8


def test_label_words_behind_a_semicolon(tmp_path):
    path = write(tmp_path / "train.txt", 'i feel "good;joy\ni am low;sadness\n')
    reader = {"format": "csv", "sep": ";", "column_names": ["text", "label"], "quoting": 3}
    found = read(path, TextClassification(), None, reader)
    assert found.splits["train"]["text"][:] == ['i feel "good', "i am low"]
    assert found.shape.label_names == ["joy", "sadness"]


def test_a_txt_is_predicted_on_as_it_was_trained_on(tmp_path, caplog):
    """Its label words are no part of the text; what is not of its format is read by lines."""
    test = write(tmp_path / "test.txt", "i feel fine;joy\ni am low;sadness\n")
    plain = write(tmp_path / "plain.txt", "i feel fine\ni am low\n")
    reader = {"format": "csv", "sep": ";", "column_names": ["text", "label"]}
    source = Source(path="unused.txt", reader=reader)
    for file in (test, plain):
        rows, _ = source.read_input(file, TextClassification())
        assert rows["text"][:] == ["i feel fine", "i am low"]
        assert (f"{file} is read as plain text" in caplog.text) == (file == plain)
    conll = write(tmp_path / "conll.txt", "-DOCSTART- -X- O O\n\nTwo CD I-NP O\n. . O O\n\n")
    reader = {"format": "conll", "delimiter": " ", "column_names": ["tokens", "pos", "c", "tags"]}
    source = Source(path="unused.txt", reader=reader)
    rows, _ = source.read_input(conll, TokenClassification())
    assert rows["tokens"][:] == [["Two", "."]]
    caplog.clear()
    rows, _ = source.read_input(plain, TokenClassification())
    assert rows["tokens"][:] == ["i feel fine", "i am low"]
    assert f"{plain} is read as plain text" in caplog.text


PLAY = "".join(f"ACT {i}\n\n\nLine {i} of the play.\n  More of {i}.\n\n" for i in range(200))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("asked", [{"split_by": "position"}, {}])
def test_a_long_text_is_cut_between_lines_and_nothing_is_lost(tmp_path, asked, end, caplog):
    """The splits are the file, with its blank lines and line ends; a single text needs no key."""
    caplog.set_level("INFO")
    play = PLAY.replace("\n", end)
    path = tmp_path / "play.txt"
    path.write_bytes(play.encode())
    asked = {"validation_fraction": 0.1, "test_fraction": 0.05, **asked}
    reader = {"sample_by": "document"}
    splits = read(str(path), CausalLM(), None, reader, **asked).splits
    texts = [splits[s]["text"][:] for s in ("train", "validation", "test")]
    assert [len(one) for one in texts] == [1, 1, 1]
    assert "".join(one[0] for one in texts) == play
    assert texts[0][0].endswith(end)
    assert texts[1][0].endswith(end)
    assert [len(one[0]) / len(play) for one in texts] == pytest.approx([0.85, 0.1, 0.05], abs=0.01)
    again = read(str(path), CausalLM(), None, reader, **asked).splits
    assert [again[s]._fingerprint for s in again] == [splits[s]._fingerprint for s in splits]
    said = "has 1 row: the end of its text becomes validation and test, as data.split_by=position"
    assert (said in caplog.text) == ("split_by" not in asked)
    assert "data.max_length=1024 keeps the beginning: data.block_size=1024 makes" in caplog.text


def test_a_text_with_a_mark_or_packed_is_read_as_it_is(tmp_path):
    for name, content in {
        "a.txt": PLAY.encode("utf-8-sig"),
        "a.txt.gz": gzip.compress(PLAY.encode()),
        "b.txt": "süß\r\n\r\nß".encode("utf-16"),
    }.items():
        (tmp_path / name).write_bytes(content)
        reader = {"sample_by": "document"} | ({"encoding": "utf-16"} if name == "b.txt" else {})
        rows = read(str(tmp_path / name), CausalLM(), None, reader).splits["train"]
        assert rows["text"][:] == ["süß\r\n\r\nß" if name == "b.txt" else PLAY]
    with pytest.raises(UserError, match="no option 'sample_b'"):
        read(str(tmp_path / "a.txt"), CausalLM(), None, {"sample_b": "document"})


def test_texts_in_a_folder_a_class(tmp_path):
    """IMDB's reviews: a file each, with its line ends."""
    for folder, text in [("neg", "bad\r\n"), ("pos", "good <br /><br />\n\n"), ("unsup", "none")]:
        (tmp_path / "train" / folder).mkdir(parents=True)
        (tmp_path / "train" / folder / "0_9.txt").write_bytes(text.encode())
    columns, reader = {"label": "folder"}, {"sample_by": "document"}
    path = str(tmp_path / "train" / "[np]*" / "*.txt")
    found = read(path, TextClassification(), columns, reader)
    assert found.splits["train"]["label"][:] == ["neg", "pos"]
    assert found.splits["train"]["text"][:] == ["bad\r\n", "good <br /><br />\n\n"]
    assert found.shape.label_names == ["neg", "pos"]


@pytest.mark.parametrize("by", ["stratify_by", "group_by"])
def test_a_single_text_has_no_groups(tmp_path, by):
    path = write(tmp_path / "play.txt", PLAY)
    with pytest.raises(UserError, match="too few to carve validation"):
        read(
            path,
            CausalLM(),
            None,
            {"sample_by": "document"},
            validation_fraction=0.1,
            **{by: "text"},
        )


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_paragraphs_are_what_stands_between_blank_lines(tmp_path, end):
    path = tmp_path / "sonnets.txt"
    path.write_bytes(
        "I\n\nFrom fairest\n  creatures\n\n\n\nII\n\nThe end\n".replace("\n", end).encode()
    )
    rows = read(str(path), CausalLM(), None, {"sample_by": "paragraph"}).splits["train"]
    assert [text.strip("\n") for text in rows["text"]] == [
        *("I", "From fairest\n  creatures", "II", "The end")
    ]
    whole = write(tmp_path / "play.txt", PLAY)
    assert len(read(whole, CausalLM(), None, {"sample_by": "paragraph"}).splits["train"]) == 400


def test_rows_by_position(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"source": f"a{i}", "target": f"b{i}"} for i in range(20)])
    asked = {"validation_fraction": 0.2, "test_fraction": 0.1, "split_by": "position"}
    splits = read(path, Translation(), **asked).splits
    found = {s: [int(text[1:]) for text in rows["source"]] for s, rows in splits.items()}
    assert found == {"train": [*range(14)], "validation": [*range(14, 18)], "test": [18, 19]}
    with pytest.raises(UserError, match=r"leave out data\.stratify_by, data\.group_by"):
        read(path, Translation(), group_by="target", **asked)
    one = write(tmp_path / "b.jsonl", [{"source": "a", "target": "b"}])
    with pytest.raises(UserError, match="1 row, too few to carve validation and test"):
        read(one, Translation(), **asked)


# ---------------------------------------------------------------- the document

DOCUMENT = (ROOT / "docs" / "data.md").read_text()
COMMANDS = re.findall(r"^\| .* \| `(experiment=.*)` \|$", DOCUMENT, flags=re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS, ids=range(len(COMMANDS)))
def test_commands_of_the_document_are_composed(command):
    overrides = shlex.split(command.replace("\\|", "|"))
    with initialize_config_dir(str(CONFIG_DIR)):
        cfg = compose("train", overrides)
    shape = get_class(cfg.data._target_)
    roles = {role for role, column in (cfg.data.columns or {}).items() if column is not None}
    assert roles <= set(shape.roles)
    assert cfg.data.path is not None


def test_the_document_has_a_command_for_each_kind():
    assert len(COMMANDS) == 33
