"""The rows of a piece of a file, a batch at a time, however large the file is."""

import codecs
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from io import BufferedReader
from typing import Any, BinaryIO, cast

import pandas as pd
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq
from datasets.packaged_modules.csv.csv import CsvConfig

from hydralight.data.corpus.pieces import Piece
from hydralight.data.corpus.tars import rows_of_tar
from hydralight.data.read.faults import bad_csv_row, complaint, fault, refuse
from hydralight.data.read.headers import check_header
from hydralight.data.read.whole import check_whole
from hydralight.errors import UserError
from hydralight.packed import unpacked
from hydralight.stores.fetched import Changed, by_their_urls, fetched, forget, parquet
from hydralight.stores.listing import File, unchanged

ROWS, BYTES = 1000, 4_000_000  # of a batch, at most; a row alone may be larger

Batches = Iterator[tuple[pa.Table, int]]


def batches(piece: Piece, kind: str, options: Mapping[str, Any]) -> Batches:
    """Yield tables of some rows, each with the share of the piece that has been read, in bytes.

    A file at a URL that is read whole is fetched first, and its copy removed at the end; of one in
    pieces, or of Parquet, the ranges are read that a piece is made of.

    Args:
        piece: What is read.
        kind: The `datasets` builder for such files.
        options: Its options.

    Raises:
        UserError: the file is damaged, or has changed, or a row cannot be read; it is named.
    """
    if piece.remote is None or not piece.is_whole:
        yield from _read(piece, kind, options)
        if piece.remote is not None and not unchanged(piece.remote):
            raise Changed(piece.remote)
    else:
        with fetched_for_now(piece.remote) as copy, by_their_urls():
            yield from _read(replace(piece, file=copy, remote=None), kind, options)


def beginning(piece: Piece, kind: str, options: Mapping[str, Any]) -> Batches:
    """Yield what `batches` does, of which not all is asked for: a file at a URL is not fetched.

    Raises:
        UserError: as far as is read.
    """
    with by_their_urls():
        yield from _read(piece, kind, options)


@contextmanager
def fetched_for_now(file: File) -> Iterator[str]:
    """Have a copy of a file that is at a URL, which is removed at the end."""
    try:
        yield str(fetched(file))
    finally:
        forget(file)


def _read(piece: Piece, kind: str, options: Mapping[str, Any]) -> Batches:
    if piece.start == 0 and piece.remote is None:
        check_whole([piece.file], "" if kind == "arrow" else kind, options)
    read: dict[str, Callable[[Piece, Mapping[str, Any]], Batches]] = {
        "json": _json,
        "text": _text,
        "csv": _csv,
        "parquet": _parquet,
        "arrow": _arrow,
        "webdataset": _webdataset,
    }
    try:
        for table, done in read[kind](piece, options):
            table.validate(full=True)  # that texts are UTF-8, among others; Arrow does not look
            if table.num_rows:
                yield _typed(table), done
    except UserError:
        raise
    except (OSError, EOFError, ValueError, LookupError, RuntimeError) as error:
        _refuse_a_line(piece, kind, options)
        raise UserError(complaint(piece.file, error)) from error


def _refuse_a_line(piece: Piece, kind: str, options: Mapping[str, Any]) -> None:
    """Look for the line that is wrong, in all of the file."""
    if piece.remote is None:
        refuse([fault(piece.file, kind, options)])
    elif kind not in ("parquet", "webdataset"):
        with fetched_for_now(piece.remote) as copy, by_their_urls():
            refuse([fault(copy, kind, options)])


def rows_before(piece: Piece, kind: str) -> int:
    """Return how many rows of its file come before a piece, which messages count from."""
    if piece.start == 0:
        return 0
    if kind == "parquet":
        with _parquet_file(piece) as found:
            return sum(found.metadata.row_group(i).num_rows for i in range(piece.start))
    with piece.opened() as file:
        return sum(1 for _ in _lines(file, file, 0, piece.start))


def _typed(table: pa.Table) -> pa.Table:
    """Take columns that have no value here for texts, as others may have some."""
    for place, field in enumerate(table.schema):
        if pa.types.is_null(field.type):
            values = pa.nulls(table.num_rows, pa.string())
            table = table.set_column(place, field.name, values)
    return table


# ---------------------------------------------------------------- lines


def _lines(file: BinaryIO, raw: BinaryIO, start: int, stop: int | None) -> Iterator[bytes]:
    """Yield the lines that begin between two bytes of a file."""
    if start:
        raw.seek(start - 1)
        file.readline()  # the end of one that begins before
    place = raw.tell() if start else 0
    for line in file:
        if stop is not None and place >= stop:
            return
        place += len(line)
        yield line


def _line_batches(piece: Piece, mark: bytes) -> Iterator[tuple[list[bytes], int]]:
    """Yield lines, some at a time, and how many bytes of the file have been read by then."""
    with piece.opened() as raw:
        file = cast(BufferedReader, raw if piece.start else unpacked(raw))
        found: list[bytes] = []
        size = total = 0
        for number, line in enumerate(_lines(file, raw, piece.start, piece.stop)):
            if number == 0 and piece.start == 0:
                line = line.removeprefix(mark)
            found.append(line)
            size += len(line)
            total += len(line)
            if size >= BYTES or len(found) >= ROWS:
                packed = file is not raw
                yield found, raw.tell() if packed else total
                found, size = [], 0
        yield found, piece.size


def _encoding(piece: Piece, options: Mapping[str, Any]) -> str:
    encoding = str(options.get("encoding") or "utf-8")
    if "\n".encode(encoding) != b"\n" and codecs.lookup(encoding).name != "utf-8-sig":
        raise UserError(
            f"{piece.file}: data.prepared does not part text in {encoding} into lines: save it as "
            "UTF-8."
        )
    return "utf-8" if codecs.lookup(encoding).name == "utf-8-sig" else encoding


def _text(piece: Piece, options: Mapping[str, Any]) -> Batches:
    encoding, errors = _encoding(piece, options), options.get("encoding_errors") or "strict"
    for lines, done in _line_batches(piece, codecs.BOM_UTF8):
        texts = [line.rstrip(b"\r\n").decode(encoding, errors) for line in lines]
        yield pa.table({"text": pa.array(texts, pa.string())}), done


def _json(piece: Piece, options: Mapping[str, Any]) -> Batches:
    encoding = _encoding(piece, options)
    if options.get("field") is not None:
        raise UserError(f"{piece.file}: data.prepared reads JSON lines, and no data.reader.field.")
    for lines, done in _line_batches(piece, codecs.BOM_UTF8):
        if encoding != "utf-8":
            lines = [line.decode(encoding).encode() for line in lines]
        if piece.start == 0 and lines and lines[0].lstrip().startswith(b"["):
            raise UserError(f"{piece.file} is one JSON document: save it as JSON lines.")
        yield _table_of(lines), done


def _table_of(lines: list[bytes]) -> pa.Table:
    content = b"".join(lines)
    if not content.strip():
        return pa.table({})
    options = pyarrow.json.ReadOptions(use_threads=False, block_size=len(content) + 1)
    try:
        return pyarrow.json.read_json(pa.BufferReader(content), read_options=options)
    except pa.ArrowInvalid:  # perhaps numbers beside texts, which Python's own reader takes
        rows = [json.loads(line) for line in lines if line.strip()]
        names = {name: None for row in rows for name in row}
        return pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        kept = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
        return pa.array(kept, pa.string())


# ---------------------------------------------------------------- tables


def _csv(piece: Piece, options: Mapping[str, Any]) -> Batches:
    here = piece.remote is None
    if here:
        refuse([bad_csv_row(piece.file, options, rows=2)])
        check_header(piece.file, dict(options))
    arguments = CsvConfig(**options).pd_read_csv_kwargs
    missing = False
    with piece.opened() as raw:
        for frame in pd.read_csv(
            unpacked(raw), **{**arguments, "chunksize": ROWS, "iterator": True}
        ):
            table = pa.Table.from_pandas(frame, preserve_index=False)
            # a short row is filled up with missing values
            missing = missing or any(column.null_count for column in table.columns)
            yield table, raw.tell()
    if here and (missing or options.get("sep") == "\t"):
        refuse([bad_csv_row(piece.file, options)])


def _parquet_file(piece: Piece) -> pq.ParquetFile:
    if piece.remote is not None:
        return parquet(piece.remote)
    return pq.ParquetFile(piece.file, memory_map=True)


def groups_of(piece: Piece) -> Iterator[tuple[Piece, int]]:
    """Yield the row groups of a piece of Parquet as pieces, each with the number of its rows."""
    with _parquet_file(piece) as file:
        metadata = file.metadata
    for group in range(metadata.num_row_groups)[piece.start : piece.stop]:
        found = metadata.row_group(group)
        yield (
            replace(piece, start=group, stop=group + 1, size=found.total_byte_size),
            found.num_rows,
        )


def _parquet(piece: Piece, options: Mapping[str, Any]) -> Batches:
    with _parquet_file(piece) as file:
        groups = range(piece.start, piece.stop if piece.stop is not None else file.num_row_groups)
        number = sum(file.metadata.row_group(group).num_rows for group in groups)
        size = sum(file.metadata.row_group(group).total_byte_size for group in groups)
        rows = max(1, min(ROWS, BYTES * number // max(1, size)))
        done = 0
        for batch in file.iter_batches(rows, row_groups=list(groups), use_threads=False):
            done += batch.num_rows
            yield pa.Table.from_batches([batch]), piece.size * done // number


def _webdataset(piece: Piece, options: Mapping[str, Any]) -> Batches:
    if options:
        raise UserError(f"{piece.file}: a tar has no options: leave out data.reader.")
    return rows_of_tar(piece, ROWS, BYTES)


def _seekable(piece: Piece) -> pa.NativeFile:
    if piece.remote is not None:
        return pa.PythonFile(piece.opened())
    return pa.memory_map(piece.file)


def _arrow(piece: Piece, options: Mapping[str, Any]) -> Batches:
    with _seekable(piece) as source:
        try:
            reader = pa.ipc.open_stream(source)
        except pa.ArrowInvalid:
            source.seek(0)
            file = pa.ipc.open_file(source)
            found: Any = (file.get_batch(i) for i in range(file.num_record_batches))
        else:
            found = reader
        for batch in found:
            rows = max(1, min(ROWS, BYTES * batch.num_rows // max(1, batch.nbytes)))
            for start in range(0, batch.num_rows, rows):
                yield pa.Table.from_batches([batch.slice(start, rows)]), source.tell()
