import gzip
import io
import json
import os
import subprocess
import sys

import datasets
import pytest
import zstandard
from datasets import Dataset, DatasetDict
from standins import images

from hydralight.data.columns import rename_roles
from hydralight.data.read.stdin import standard_input
from hydralight.data.roles import Where
from hydralight.data.shapes.image_classification import ImageClassification
from hydralight.data.source import Source
from hydralight.errors import UserError

datasets.disable_progress_bars()  # as `quiet_libraries` does

ROWS = [{"text": 'a "b"', "n": 1}, {"text": "None", "n": 2}, {"text": "NA, c", "n": 3}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
CONTENT = {
    "csv": '\ufefftext,n\n"a ""b""",1\nNone,2\n"NA, c",3\n',
    "tsv": 'text\tn\n"a ""b"""\t1\nNone\t2\nNA, c\t3\n',
    "json": json.dumps(ROWS, indent=1),
    "jsonl": LINES,
    "ndjson": LINES,
}


def write(path, content):
    data = content.encode() if isinstance(content, str) else content
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = zstandard.compress(data)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return str(path)


def numbers(count):
    return "n\n" + "".join(f"{i}\n" for i in range(count))


def load_splits(path, **settings):
    known = path if isinstance(path, dict) else ()
    return Source(path=path, **settings).read(known=known)


def refused(*args, **kwargs):
    with pytest.raises(UserError) as caught:
        load_splits(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("suffix", CONTENT)
def test_formats(tmp_path, suffix, packed):
    path = write(
        tmp_path / (f"my.{suffix}{packed}" if packed else f"my [1].{suffix}"), CONTENT[suffix]
    )
    found = load_splits(path)
    assert list(found) == ["train"]
    assert found["train"].to_list() == ROWS


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_text_is_a_row_a_line(tmp_path, packed):
    path = write(tmp_path / f"a.txt{packed}", ("" if packed else "\ufeff") + "one\n\ntwo\x0c2\n")
    assert load_splits(path)["train"]["text"][:] == ["one", "", "two\x0c2"]
    assert load_splits(path, reader={"sample_by": "document"})["train"].num_rows == 1


def test_parquet_and_reader_options(tmp_path):
    Dataset.from_list(ROWS).to_parquet(tmp_path / "a.parquet")
    assert load_splits(str(tmp_path / "a.parquet"))["train"].to_list() == ROWS
    odd = write(tmp_path / "b.csv", 'é;n\n"x;1\n'.encode("latin-1"))
    found = load_splits(odd, reader={"sep": ";", "quoting": 3, "encoding": "latin-1"})
    assert found["train"].to_list() == [{"é": '"x', "n": 1}]
    squad = write(tmp_path / "c.json", json.dumps({"version": 1, "data": ROWS}))
    assert load_splits(squad, reader={"field": "data"})["train"].to_list() == ROWS
    captions = write(tmp_path / "train.en", "one\ntwo\n")
    assert load_splits(captions, reader={"format": "text"})["train"]["text"][:] == ["one", "two"]


def test_an_empty_cell_is_missing(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\nnull,NaN\nx,\n")
    assert load_splits(path)["train"]["label"][:] == ["NaN", None]


def test_a_changed_file_is_read_anew(tmp_path):
    path = write(tmp_path / "a.csv", "a\n1\n")
    assert load_splits(path)["train"]["a"][:] == [1]
    write(tmp_path / "a.csv", "a\n2\n")
    os.utime(path, (1, 1))
    assert load_splits(path)["train"]["a"][:] == [2]


def test_mapping_globs_lists_and_slices(tmp_path):
    path = write(tmp_path / "a.csv", numbers(250))
    more = write(tmp_path / "b1.csv", "n\n-1.5\n")
    write(tmp_path / "b2.csv.gz", "n\n-2.5\n")
    found = load_splits(
        {
            "train": [f"{path}[:2]", f"{path}[-1:]"],
            "validation": f"{path}[10%:11%]",
            "test": str(tmp_path / "b*"),
            "extra": [more, f"{path}[:1]"],
        }
    )
    assert {split: rows["n"][:] for split, rows in found.items()} == {
        "train": [0, 1, 249],
        "validation": [25, 26, 27],  # HF rounds 27.5 to even, 28
        "test": [-1.5, -2.5],
        "extra": [-1.5, 0.0],
    }


@pytest.mark.parametrize(
    "place", ["http://127.0.0.1:9/a.txt", "ELSEWHERE/b.txt", "../b.txt", "x/../../b.txt"]
)
@pytest.mark.parametrize("name", ["README.md", ".huggingface.yaml"])
def test_a_folder_that_names_data_elsewhere(tmp_path, place, name):
    """It may be somebody's: what is read is what lies in it."""
    write(tmp_path / "b.txt", "mine\n")
    place = place.replace("ELSEWHERE", str(tmp_path))
    for where, refuses in ((place, True), ("a.txt", False)):
        said = f"configs:\n- config_name: x\n  data_files:\n  - {{split: train, path: {where}}}\n"
        folder = tmp_path / f"data-{refuses}"
        write(folder / "a.txt", "a\n")
        write(folder / name, f"---\n{said}---\nHello\n" if name == "README.md" else said)
        if refuses:
            with pytest.raises(UserError, match="is not in the folder"):
                load_splits(str(folder))
        else:
            assert load_splits(str(folder))["train"].to_list() == [{"text": "a"}]


def test_folders(tmp_path):
    data = Dataset.from_list(ROWS)
    data.save_to_disk(tmp_path / "one")
    DatasetDict({"train": data, "test": data.select([1])}).save_to_disk(tmp_path / "two")
    write(tmp_path / "three/train.csv", CONTENT["csv"])
    write(tmp_path / "three/dev.csv", CONTENT["csv"])
    assert load_splits(str(tmp_path / "one"))["train"].to_list() == ROWS
    two = load_splits(str(tmp_path / "two"))
    assert {split: rows.to_list() for split, rows in two.items()} == {
        "train": ROWS,
        "test": ROWS[1:2],
    }
    assert load_splits(f"{tmp_path}/two/train[:50%]")["train"].to_list() == ROWS[:2]
    three = load_splits(str(tmp_path / "three"))
    assert {split: rows.to_list() for split, rows in three.items()} == {
        "train": ROWS,
        "validation": ROWS,
    }
    picked = load_splits({"validation": str(tmp_path / "two/test"), "test": str(tmp_path / "two")})
    assert [rows.num_rows for rows in picked.values()] == [1, 1]
    message = refused({"validation": str(tmp_path / "two")})
    assert message.endswith("two has no split validation; its splits are train, test.")


PACKED = gzip.compress(numbers(9999).encode())
BAD = {
    "a long row": ("a.csv", 'a,b\n1,"x\ny"\n2,3,4\n', "Line 4 of {} has 3 fields where the header"),
    "a long first row": (
        "a.csv",
        "a,b\n1,2,3\n2,3\n",
        "Line 2 of {} has 3 fields where the header",
    ),
    "long rows": ("a.csv", "a,b\n1,2,3\n4,5,6\n", "Line 2 of {} has 3 fields where the header"),
    "a short row": ("a.csv", "a,b\n1,2\n\n1\n", "Line 4 of {} has 1 field where the header has 2"),
    "an open quote": ("a.csv.gz", 'a,b\n1,"x\n2,3\n', "The quotes on line 2 of {} do not enclose"),
    "plain quotes": ("a.tsv", 'a\tb\n1\t"x" y\n2\t3\n', "data.reader={{quoting: 3}}"),
    "not UTF-8": ("a.csv", "a,b\n1,2\né,3\n".encode("latin-1"), "Line 3 of {} is not UTF-8 text"),
    "text not UTF-8": ("a.txt", "é\n".encode("latin-1"), "data.reader={{encoding: latin-1}}"),
    "bad line": ("a.jsonl", '{"a": 1}\n{"a": \n{"a": 2}\n', "Line 2 of {} is not valid JSON"),
    "bad line, zst": ("a.json.zst", '{"a": 1}\n{"a": 2}}\n', "Line 2 of {} is not valid JSON"),
    "no object": ("a.jsonl", '{"a": 1}\n[2, 3]\n', "Line 2 of {} is not a JSON object: [2, 3]"),
    "bad list": ("a.json", '[{"a": 1},\n {"a": }]', "Line 2 of {} is not valid JSON"),
    "cut off": (
        "a.csv.gz",
        PACKED[: len(PACKED) // 2],
        "{} is damaged, or not what its suffix says",
    ),
    "no parquet": ("a.parquet", "hello", "{} is damaged, or not what its suffix says"),
    "empty": ("a.jsonl", "", "{} has no rows."),
    "only a header": ("a.csv", "a,b\n", "{} has no rows."),
    "unknown suffix": ("a.xlsx", "a", "The suffix of {} is not one of .csv, .tsv, .json"),
}


@pytest.mark.parametrize(("file", "content", "sentence"), BAD.values(), ids=BAD)
def test_bad_files(tmp_path, capfd, file, content, sentence):
    path = tmp_path / file
    write(path, content)
    if sentence == BAD["cut off"][2] and file.endswith(".gz"):
        path.write_bytes(content)
    assert sentence.format(path) in refused(str(path))
    assert sentence.format(path) in refused({"test": str(path)})  # the first failure left nothing
    assert capfd.readouterr() == ("", "")


def test_bad_paths(tmp_path):
    path = write(tmp_path / "train.csv", "a\n1\n")
    (tmp_path / "void").mkdir()
    assert f"did you mean '{path}'?" in refused(str(tmp_path / "trian.csv"))
    assert refused(f"{tmp_path}/*.json") == f"No file matches {tmp_path}/*.json."
    assert f"The folder {tmp_path}/void holds no data files" in refused(f"{tmp_path}/void")
    other = write(tmp_path / "b.jsonl", '{"a": 1}\n')
    assert "must have one format" in refused({"train": [path, other]})
    third = write(tmp_path / "c.csv", "b\n1\n")
    assert f"{third} has the columns b, but {path}" in refused({"train": [path, third]})
    assert "do not have the same columns" in refused(f"{tmp_path}/*.csv")
    assert refused(f"{path}[:200%]").startswith(f"The slice {path}[:200%]: ")
    assert refused(f"{path}[1:]") == f"The slice {path}[1:] has no rows: there are 1 in all."
    assert "did you mean 'sep'?" in refused(path, reader={"sepp": ";"})
    assert "has no field 'c'; it has a." in refused(
        write(tmp_path / "d.json", '{"a":\n [{"b": 1}]}'), reader={"field": "c"}
    )


def test_rows_are_as_long_as_the_names_that_they_are_given(tmp_path):
    """pandas would take the first field of each for an index."""
    path = write(tmp_path / "a.csv", "1,2,3\n4,5,6\n")
    named = {"column_names": ["a", "b"]}
    assert f"Line 1 of {path} has 3 fields where data.reader.col" in refused(path, reader=named)
    whole = load_splits(path, reader={"column_names": ["a", "b", "c"]})["train"]
    assert whole.to_list() == [{"a": 1, "b": 2, "c": 3}, {"a": 4, "b": 5, "c": 6}]


def test_standard_input_is_utf_8_whatever_the_locale_is(monkeypatch):
    for content, expected in (("é\n\nü".encode(), ["é", "", "ü"]), (b"\xef\xbb\xbfa", ["a"])):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), "latin-1"))
        assert standard_input() == expected


HUB = """
import sys
from datasets import Dataset, config
from hydralight.errors import UserError
from hydralight.data.source import Source
import logging; logging.disable(logging.CRITICAL)
asked = [{"train": "test[:1]", "test": "test"}, {"train": "x"}]
for arguments in [{}, *[{"splits": splits} for splits in asked], {"name": "x"}]:
    try:
        print({k: v["a"][:] for k, v in Source(path=sys.argv[1], **arguments).read().items()})
    except UserError as error:
        print(error)
"""


def test_hub_ids_without_a_network(tmp_path):
    from datasets import load_dataset

    def run(hub_id):
        env = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "home")}
        env["HF_HUB_OFFLINE"] = "0"
        out = subprocess.run(
            [sys.executable, "-c", HUB, hub_id], env=env, capture_output=True, text=True, timeout=60
        )
        return out.stdout.splitlines()

    lines = run("me/absent")
    assert len(lines) == 4
    assert all("http://127.0.0.1:9 cannot be reached" in line for line in lines)
    assert "name local files in data.path, a mirror in HF_ENDPOINT" in lines[0]
    # A data set that was loaded before is found in the cache.
    write(tmp_path / "tiny/train.csv", "a\n1\n2\n")
    write(tmp_path / "tiny/test.csv", "a\n3\n4\n")
    load_dataset(str(tmp_path / "tiny"), cache_dir=tmp_path / "home/datasets")
    (cached,) = (tmp_path / "home/datasets/tiny").iterdir()
    cached.parent.rename(tmp_path / "home/datasets/me___tiny")
    lines = run("me/tiny")
    assert lines[:2] == ["{'train': [1, 2], 'test': [3, 4]}", "{'train': [3], 'test': [3, 4]}"]
    assert 'Unknown split "x". Should be one of [' in lines[2]
    assert "for config 'x' Available configs in the cache" in lines[3]


def test_what_a_hub_is_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: asked.append((a, k)) or [poem])
    poem = Dataset.from_dict({"text": ["a"]})
    source = Source(path="me/poems", name="en", revision="v2", splits={"train": "train[:1]"})
    assert source.read() == {"train": poem}
    assert asked == [(("me/poems", "en"), {"revision": "v2", "split": ["train[:1]"]})]


def renamed(data, columns, roles):
    return rename_roles(data, roles, Where("my.csv (train)", columns))


def test_rename_roles():
    data = Dataset.from_dict(
        {
            "text": ["title"],
            "body": ["long"],
            "translation": [{"en": "yes", "ro": "da"}],
            "other": [1],
        }
    )
    assert renamed(data, {"text": "body", "summary": "text"}, ["text", "summary"])[0] == {
        "text": "long",
        "summary": "title",
    }
    pair = {"source": "translation.en", "target": "translation.ro", "again": "translation.en"}
    nested = renamed(data.select([0]), pair, ["source", "target", "again", "text"])
    assert nested[0] == {"source": "yes", "target": "da", "again": "yes", "text": "title"}
    assert renamed(data, {}, ["translation"])[0] == {"translation": data[0]["translation"]}


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (
            {"text": "bodi"},
            "my.csv (train) has no column 'bodi' for the role text; its columns are",
        ),
        ({"text": "bodi"}, "title (text), body (text); did you mean 'body'?"),
        ({"summry": "body"}, "roles are text, summary; did you mean 'summary'?"),
    ],
)
def test_rename_roles_refuses(columns, sentence):
    data = Dataset.from_dict({"title": ["a"], "body": ["b"]})
    with pytest.raises(UserError) as caught:
        renamed(data, columns, ["text", "summary"])
    assert sentence in str(caught.value)


def test_line_aligned_files(tmp_path):
    english, german = tmp_path / "a.en", tmp_path / "a.de"
    write(english, "one\ntwo\nthree\n")
    write(german, "eins\nzwei\ndrei\n")
    files = {"en": str(english), "de": f"{german}[:3]"}
    assert load_splits({"train": files})["train"][1] == {"en": "two", "de": "zwei"}
    write(german, "eins\nzwei\n")
    os.utime(german, (1, 1))
    message = refused({"train": files})
    assert f"{english} has 3 lines and {german}[:3] has 2 lines" in message


def test_conll_columns(tmp_path):
    path = write(tmp_path / "a.conll", "-DOCSTART- O\n\nNew\tB-LOC\nYork\tI-LOC\n\n.\tO\n")
    rows = [
        {"tokens": ["New", "York"], "tags": ["B-LOC", "I-LOC"]},
        {"tokens": ["."], "tags": ["O"]},
    ]
    assert load_splits(path)["train"].to_list() == rows
    odd = write(tmp_path / "b.annotated", "New York|B-LOC\n")
    reader = {"format": "conll", "delimiter": "|"}
    assert load_splits(odd, reader=reader)["train"][0]["tokens"] == ["New York"]
    message = refused(path, reader={"column_names": ["tokens", "pos", "tags"]})
    assert message.startswith(f"Line 3 of {path} has 2 columns (New, B-LOC), and")
    tabs = write(tmp_path / "c.conll", "New York\tB-LOC\n")
    assert load_splits(tabs, reader={"delimiter": "\\t"})["train"][0]["tags"] == ["B-LOC"]


def poems(language="en", number=2):
    return {"train": [{"text": f"{language} {i}"} for i in range(number)]}


def test_a_source_of_ones_own():
    """A function that returns splits, as dicts or data sets; a path that is typed goes before."""
    assert Source(source=poems).read()["train"]["text"][:] == ["en 0", "en 1"]
    ready = Dataset.from_dict({"text": ["a"]})
    assert Source(source=lambda: {"test": ready}).read() == {"test": ready}
    for wrong in (lambda: [1], lambda: {}, lambda: {"train": []}, lambda: {"train": [1, 2]}):
        with pytest.raises(UserError, match=r"^data\.source"):
            Source(source=wrong).read()


def test_a_typed_path_goes_before_a_source(tmp_path):
    path = write(tmp_path / "a.csv", "text\nx\n")
    assert Source(source=poems, path=path).read()["train"]["text"][:] == ["x"]


def test_the_splits_of_a_source_have_their_names():
    with pytest.raises(UserError, match=r"data\.source names the split 'validaton'; did you mean"):
        Source(source=lambda: {"validaton": poems()["train"]}).read()


def test_a_source_may_name_image_files(tmp_path):
    names = [path.name for path in images(tmp_path, 2).glob("*.png")]
    rows = [{"image": name, "label": "x"} for name in names]
    source = Source(source=lambda: {"train": rows}, image_dir=str(tmp_path))
    read = source.read(ImageClassification())["train"]
    assert {image["path"] for image in read["image"]} == {str(tmp_path / name) for name in names}


@pytest.mark.parametrize("name", ["columns", "reader", "splits"])
def test_settings_that_are_no_mappings_are_refused(name):
    with pytest.raises(UserError, match=rf"data\.{name}=\['a'\] should be a mapping"):
        Source(path="a.csv", **{name: ["a"]})


def test_conll_u(tmp_path):
    """Its ten columns have names, its comments are none, and `-` and `_` are words."""
    path = tmp_path / "a.conllu"
    lines = ["# sent_id = 1", "1\tDogs\tdog\tNOUN\tNNS\t_\t2\tnsubj\t_\t_"]
    lines += ["2\tbark #1\tbark\tVERB\tVBP\t_\t0\troot\t_\t_", "", "# sent_id = 2"]
    lines += ["1\tNo\tno\tINTJ\tUH\t_\t0\troot\t_\t_", ""]
    path.write_text("\n".join(lines))
    rows = Source(path=str(path)).read()["train"]
    assert rows["form"][:] == [["Dogs", "bark #1"], ["No"]]
    assert rows["upos"][:] == [["NOUN", "VERB"], ["INTJ"]]
