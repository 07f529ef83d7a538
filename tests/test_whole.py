"""Files that are not there in full, or are something else, are never read in part or for ever."""

import bz2
import gzip
import io
import lzma
import os
import socket
import sys
import zipfile

import datasets
import pytest
import zstandard
from datasets import Dataset

from hydralight.data.read.inputs import read_input
from hydralight.data.read.whole import ends_with_a_frame
from hydralight.data.source import Source
from hydralight.errors import UserError

datasets.disable_progress_bars()
LINES = [f"line {i} with words of {i * 7919 % 1000}" for i in range(4000)]
TEXT = "".join(f"{line}\n" for line in LINES).encode()


def zipped(data):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", data)
    return out.getvalue()


def zst(data, **options):
    writer = zstandard.ZstdCompressor(**options).compressobj()
    return writer.compress(data) + writer.flush()  # a stream, whose frame tells no size


PACK = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zip": zipped,
    "zst": zstandard.compress,
    "stream.zst": zst,
    "checked.zst": lambda data: zst(data, write_checksum=True),
}


def read(path, **settings):
    return Source(path=str(path), **settings).read()["train"]


def refused(path, **settings):
    with pytest.raises(UserError) as caught:
        read(path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("packed", PACK)
def test_a_packed_file_is_read_whole_or_not_at_all(tmp_path, packed):
    data = PACK[packed](TEXT)
    path = tmp_path / f"a.txt.{packed.split('.')[-1]}"
    for part in (0.9, 0.5):
        path.write_bytes(data[: int(len(data) * part)])
        os.utime(path, (part, part))
        assert str(path) in refused(path, reader={"format": "text"})
        assert f"{path} is damaged" in refused(path)
    path.write_bytes(data)
    assert read(path)["text"][:] == LINES


def test_every_cut_of_zst_data_is_found():
    """Also where frames follow one another, with one that is to be skipped between them."""
    skipped = b"\x53\x2a\x4d\x18\x05\0\0\0five!"
    whole = zstandard.compress(TEXT[:5000]) + skipped + zst(TEXT[:300000]) + zst(b"x" * 300000)
    ends = [len(zstandard.compress(TEXT[:5000]))]
    ends += [ends[0] + len(skipped), len(whole) - len(zst(b"x" * 300000)), len(whole)]
    rest = [size for size in range(1, len(whole), 37) if size not in ends]
    assert all(ends_with_a_frame(whole[:size]) for size in ends)
    assert not any(ends_with_a_frame(whole[:size]) for size in rest)
    assert not ends_with_a_frame(whole + b"more")


def test_frames_that_follow_one_another_are_all_read(tmp_path):
    path = tmp_path / "a.txt.zst"
    path.write_bytes(zst(TEXT) + zstandard.compress(TEXT))
    assert read(path)["text"][:] == LINES * 2


def test_a_bad_line_behind_the_first_frame_is_named(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zst(b'{"a": 1}\n{"a": 2}\n') + zst(b'{"a": 3}\n{"a": \n'))
    assert f"Line 4 of {path} is not valid JSON" in refused(path)


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    assert f"{tmp_path}/a.csv is a pipe, and no file" in refused(tmp_path / "a.csv")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "b.csv"))
        assert "is a socket" in refused(tmp_path / "b.csv")
    assert "/dev/zero is a device" in refused("/dev/zero", reader={"format": "text"})
    (tmp_path / "c.csv").mkdir()
    assert f"The folder {tmp_path}/c.csv holds no data files" in refused(tmp_path / "c.csv")
    with pytest.raises(UserError, match="is a pipe"):
        Source().read_input(str(tmp_path / "a.csv"), Named())


class Named:
    """As much of a shape as an input needs."""

    roles, targets, file_roles, optional_roles, unfold = ("text",), (), (), (), None


@pytest.mark.parametrize("path", ["", " ", [], [""], {"train": ""}, {"train": ["a.csv", ""]}])
def test_an_empty_path(path):
    with pytest.raises(UserError, match=r"data\.path is empty: give data\.path="):
        Source(path=path)


ODD = {
    "UTF-16": ("a.csv", "a,b\n1,é\n".encode("utf-16"), "data.reader={{encoding: utf-16}}"),
    "UTF-16, no mark": ("a.csv", "a,b\n1,x\n".encode("utf-16-le"), "NUL bytes"),
    "UTF-16 text": ("a.txt", "ab\ncd\n".encode("utf-16-be"), "{} has NUL bytes in it"),
    "packed UTF-16": ("a.txt.gz", gzip.compress("a\nb".encode("utf-16")), "encoding: utf-16"),
    "zeros at the end": ("a.txt", b"a line\n" * 2000 + b"\0" * 512, "{} has NUL bytes in it"),
    "no bytes": ("a.json", b"", "{} has no rows."),
    "nothing packed": ("a.txt.gz", gzip.compress(b""), "{} has no rows."),
    "not packed": ("a.txt.zst", b"plain\n", "{} is damaged, or not what its suffix says"),
    "torn": ("a.jsonl", b'{"a": 1}\n{"a": "tw', "Line 2 of {} is not valid JSON"),
    "too many": ("a.csv", b"1,2,3\n", "Line 1 of {} has 3 fields where data.reader.column_names"),
    "too few": ("a.csv", b"1,2\n3\n", "Line 2 of {} has 1 field where data.reader.column_names"),
    "a csv": ("a.txt", b"x;joy\n", "data.reader={{format: csv, sep: …}} reads them as csv"),
}


@pytest.mark.parametrize(("file", "data", "sentence"), ODD.values(), ids=ODD)
def test_odd_files(tmp_path, file, data, sentence):
    path = tmp_path / file
    path.write_bytes(data)
    reader = {"column_names": ["a", "b"]} if "column_names" in sentence else {}
    reader |= {"sep": ";"} if "sep" in sentence else {}
    assert sentence.format(path) in refused(path, reader=reader)


def test_a_parquet_file_that_was_cut(tmp_path):
    path = tmp_path / "a.parquet"
    Dataset.from_dict({"a": list(range(10000))}).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-2000])
    assert f"{path} is damaged, or not what its suffix says" in refused(path)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    """Root may read all files, so that a missing right is played."""
    path = tmp_path / "a.csv"
    path.write_text("a\n1\n")

    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("hydralight.data.read.whole.open", denied, raising=False)
    assert refused(path) == f"{path} cannot be opened: Permission denied."


def given(monkeypatch, data):
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO(data), "ascii", "surrogateescape")
    )
    return read_input("-", "text", None, {})[0]["text"][:]


def test_standard_input_is_utf8_whatever_the_locale_is(monkeypatch):
    lines = "\ufeffé one\r\n\ntwo\x0c2\u2028\n".encode()
    assert given(monkeypatch, lines) == ["é one", "two\x0c2\u2028"]
    with pytest.raises(UserError, match="Line 2 of standard input is not UTF-8 text"):
        given(monkeypatch, b"one\nd\xe9j\xe0\n")
