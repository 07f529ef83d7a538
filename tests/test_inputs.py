"""What is to be predicted: typed, by standard input, or in files; and what is told of mistakes."""

import io
import json
import sys

import pytest
from PIL import Image

from hydralight.commands import start
from hydralight.data.shapes.causal_lm import CausalLM
from hydralight.data.shapes.image_classification import ImageClassification
from hydralight.data.shapes.multiple_choice import MultipleChoice
from hydralight.data.shapes.question_answering import QuestionAnswering
from hydralight.data.shapes.seq2seq import Translation
from hydralight.data.shapes.text_classification import TextClassification
from hydralight.data.shapes.text_pairs import TextPairs
from hydralight.data.shapes.token_classification import TokenClassification
from hydralight.data.source import Source
from hydralight.errors import UserError


@pytest.fixture
def read(monkeypatch):
    """A function from a shape and an input to its rows by role, prepared."""

    def rows(shape, given, format=None, source="-", **arguments):
        text = given if isinstance(given, str) else "\n".join(json.dumps(one) for one in given)
        stdin = io.TextIOWrapper(io.BytesIO(text.encode()), "latin-1")
        monkeypatch.setattr(sys, "stdin", stdin)
        found, where = Source(**arguments).read_input(source, shape, format)
        return shape.prepare(found, where).to_list()

    return rows


@pytest.fixture
def refused(read):
    """A function from the same to the sentence that is told."""

    def sentence(*arguments, **more):
        with pytest.raises(UserError) as caught:
            read(*arguments, **more)
        return str(caught.value)

    return sentence


TEXT = CausalLM()


@pytest.mark.parametrize(
    ("shape", "columns", "given", "expected"),
    [
        (TEXT, None, {"text": "a\nb"}, {"text": "a\nb"}),
        (TEXT, {"text": "body"}, {"body": "a", "n": 1}, {"text": "a"}),
        (TEXT, {"text": "body"}, {"text": "a"}, {"text": "a"}),  # by the role's own name
        (
            TextClassification(),
            {"text": "sentence1", "text_pair": "sentence2", "label": "label"},
            {"sentence1": "a", "sentence2": "b"},
            {"text": "a", "text_pair": "b"},
        ),
        (TokenClassification(), None, {"tokens": ["a", "b"]}, {"tokens": ["a", "b"]}),
        (
            Translation(),
            {"source": "translation.en", "target": "translation.ro"},
            {"translation": {"en": "a"}},
            {"source": "a"},
        ),
        (TextPairs(), None, {"anchor": "a"}, {"anchor": "a"}),
        (
            QuestionAnswering(),
            None,
            {"question": "a", "context": "b", "id": "7"},
            {"question": "a", "context": "b", "id": "7"},
        ),
        (
            MultipleChoice(),
            {"context": "c", "question": None, "endings": ["e0", "e1"]},
            {"c": "a", "e0": "b", "e1": "c"},
            {"context": "a", "endings": ["b", "c"]},
        ),
    ],
)
def test_an_object_a_line_for_every_task(read, shape, columns, given, expected):
    assert read(shape, [given, given], columns=columns) == [expected, expected]
    # an object that is typed
    assert read(shape, "", source=json.dumps(given), columns=columns) == [expected]


def test_images_by_name(read, tmp_path, monkeypatch):
    for name in "ab":
        Image.new("L", (2, 2)).save(tmp_path / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    shape = ImageClassification(labels=["x", "y"])
    lines = [{"file": "a.png"}, {"file": "b.png"}]
    expected = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    for given, columns in ((lines, {"image": "file"}), ("a.png\nb.png\n", None)):
        rows = read(shape, given, columns=columns)
        assert [row["image"]["path"] for row in rows] == expected


def test_texts_of_one_line_or_several(read, tmp_path):
    given = "one\n\ntwo\n"

    def texts(*arguments, **more):
        return [row["text"] for row in read(TEXT, *arguments, **more)]

    assert texts(given) == texts(given, "text") == ["one", "two"]
    assert texts(given, "document") == ["one\n\ntwo"]
    assert texts('"a\\nb"\n\n{"text": "c"}', "json") == ["a\nb", "c"]
    # what begins with a brace, and is no object, or is not meant to be one
    assert texts("{curly} a\nb") == ["{curly} a", "b"]
    assert texts('{"text": "a"}', "text") == ['{"text": "a"}']
    assert texts('"a" is a letter') == ['"a" is a letter']
    # typed, it is one text
    assert texts("", source="a\nb") == ["a\nb"]
    assert texts("", "text", source="a\nb") == ["a", "b"]
    assert texts("", "text", source='{"text": "a"}') == ['{"text": "a"}']
    # a file is told by its suffix, unless a format is said
    file = tmp_path / "a.txt"
    file.write_text('{"text": "a"}\n{"text": "b"}\n')
    assert texts("", source=str(file)) == ['{"text": "a"}', '{"text": "b"}']
    assert texts("", "json", source=str(file)) == ["a", "b"]
    assert texts("", "document", source=str(file)) == ['{"text": "a"}\n{"text": "b"}']
    assert texts("", source=str(tmp_path / "*.txt")) == ['{"text": "a"}', '{"text": "b"}']
    plain = file.rename(tmp_path / "a.en")  # no suffix of a format
    for more in ({"format": "text"}, {"reader": {"format": "text"}}):
        assert texts("", source=str(plain), **more) == ['{"text": "a"}', '{"text": "b"}']
    with pytest.raises(UserError, match=r"its suffix .* add format=text \(a text a line\)"):
        texts("", source=str(plain))
    plain.rename(file)
    lines = texts("", "text", source=str(file), reader={"sample_by": "document"})
    assert lines == ['{"text": "a"}', '{"text": "b"}']


def test_mistakes_are_told_with_their_line(refused):
    pair = '{"question": "a", "context": "b"}\n\n'

    def of(shape, given, *more, **arguments):
        return refused(shape, given, *more, **arguments)

    assert of(TEXT, '{"text": "a"}\n{"text": "b"\n').startswith(
        "line 2 of standard input is no JSON (Expecting ',' delimiter at character 13): mend it, "
        "or say format=text"
    )
    assert of(TEXT, '{"text": "a"}\nb').startswith("line 2 of standard input is no JSON")
    one_line = "where lines are texts; an object has one line of its own."
    assert of(TEXT, '{\n  "text": "a"\n}').endswith(one_line)
    assert of(TEXT, '[\n{"text": "a"}\n]').endswith(one_line)
    assert "holds a list, and should hold an object" in of(TEXT, '[{"text": "a"}]')
    assert "line 2 of standard input: 'text' holds a text that cannot be read" in of(
        TEXT, '{"text": "a"}\n{"text": "\\ud83d"}'
    )
    assert of(TEXT, "a", "json").startswith("line 1 of standard input is no JSON")
    assert "line 1 of standard input holds a number, and should hold an object, as" in of(
        TEXT, "5", "json"
    )
    assert "line 1 of standard input is nested too deeply" in of(TEXT, "[" * 100_000, "json")
    assert of(TEXT, "{}").startswith("line 1 of standard input is an object without fields")
    squad = QuestionAnswering()
    assert of(squad, pair + '{"question": "a"}') == (
        "line 3 of standard input: the context (field 'context') is missing or empty."
    )
    named = {"columns": {"question": "q"}}
    assert of(squad, '{"q": "a", "context": "b"}\n{"q": "", "context": "b"}', **named) == (
        "line 2 of standard input: the question (field 'q') is missing or empty."
    )
    assert of(squad, pair + '{"question": 5, "context": "b"}') == (
        "line 3 of standard input: 'question' holds a number that does not go with those of the "
        "lines before."
    )
    assert "standard input has no column 'context' for the role context" in of(
        squad, '{"question": "a", "contxt": "b"}'
    )
    assert of(squad, "a question") == (
        "standard input is a text, and this task reads question and context: give JSON lines "
        'instead, as {"question": …, "context": …}.'
    )
    assert of(TEXT, "a", "csv").startswith("format=csv is for files: standard input is one of")
    assert of(TEXT, "\n\n", "json").startswith("standard input is empty")


def test_format_is_a_key_of_predict(recipe):
    with pytest.raises(UserError, match="format=yaml should be text or document or json"):
        start("predict", [*recipe("bert_mrpc"), "input=a", "format=yaml"])
