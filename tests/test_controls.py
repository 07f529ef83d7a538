"""What the checks of a corpus's rows and bytes would find: each fails where it should."""

import random
import shutil
from contextlib import suppress
from itertools import chain
from unittest.mock import ANY

import pytest
from exact import check_order, check_passes, trained
from test_corpus import expected, module, small, tokens_of, write_jsonl  # noqa: F401
from test_corpus import rows as texts_of
from test_corpus_cache import Server, shards_of

from hydralight.data.corpus import cache, corpus
from hydralight.data.corpus import rows as sharded
from hydralight.data.corpus.windows import Windows
from hydralight.data.order import Batches
from hydralight.errors import UserError

SHARDS, ROWS, BATCH = 8, 12, 4  # six steps a pass
NUMBER = SHARDS * ROWS
ALONE = [(1, 12)]  # two passes
KILLED = [(2, 1), (1, 2), (4, 1), (1, 1), (2, 3), (4, 4)]


def windows(place, taken):
    """The order that is ours."""
    sizes, how = (ROWS,) * SHARDS, {"batch_size": BATCH, "window_shards": 3, "batches_per_step": 4}
    batches = Batches(Windows(sizes=sizes, seed=1, **how), place)
    batches.epoch, batches.position = divmod(taken, len(batches))
    return ([row for _, row in batch] for batch in chain(batches, batches, batches))


def cut(rows):
    """Batches of rows."""
    rows = list(rows)
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]


def buffered(place, taken, size=16):
    """Rows file by file through a shuffle buffer; its state is where the files were read up to."""
    rng = random.Random(1)
    start = taken * BATCH * place.world_size + (size if taken else 0)
    left = [row % NUMBER for row in range(start, 3 * NUMBER)]
    buffer, left = left[:size], left[size:]
    rows = []
    for row in left:
        place_in_buffer = rng.randrange(size)
        rows.append(buffer[place_in_buffer])
        buffer[place_in_buffer] = row
    return iter(cut(rows)[place.rank :: place.world_size])


def dealt_to_ranks(place, taken):
    """A list of shards for each rank, which reads its own to the end, again and again."""
    shards = range(SHARDS)[place.rank :: place.world_size]
    rows = [shard * ROWS + row for _ in range(3) for shard in shards for row in range(ROWS)]
    return iter(cut(rows)[taken:])


def dealt_to_workers(number):
    """The same for loader workers, whose batches come in turns."""

    def begun(place, taken):
        own = [
            cut(
                shard * ROWS + row for shard in range(SHARDS)[worker::number] for row in range(ROWS)
            )
            for worker in range(number)
        ]
        turns = [batch for turn in zip(*own, strict=True) for batch in turn]
        return iter((3 * turns)[taken * place.world_size :][place.rank :: place.world_size])

    return begun


def test_rows_come_once_in_one_order_however_often_a_run_is_killed():
    whole, other = trained(windows, ALONE), trained(windows, KILLED)
    check_passes(whole, NUMBER)
    check_passes(other, NUMBER)
    check_order(whole, other)
    assert whole[:NUMBER] != whole[NUMBER:]


def test_a_shuffle_buffer_is_found():
    """Rows do not come twice as long as it is not interrupted."""
    assert len(set(trained(buffered, [(1, 3)]))) == 3 * BATCH * 4
    with pytest.raises(AssertionError, match=r"\d+ rows never came, \d+ came twice"):
        check_passes(trained(buffered, [(1, 2), (1, 4)]), NUMBER)
    with pytest.raises(AssertionError, match="the orders part at row 32"):
        check_order(trained(buffered, [(1, 3)]), trained(buffered, [(1, 2), (1, 1)]))


def test_shards_dealt_to_ranks_are_found():
    check_passes(trained(dealt_to_ranks, [(2, 12)]), NUMBER)
    with pytest.raises(AssertionError, match="the orders part at row 8"):
        check_order(trained(dealt_to_ranks, ALONE), trained(dealt_to_ranks, [(2, 12)]))
    with pytest.raises(AssertionError, match=r"\d+ rows never came, \d+ came twice"):
        check_passes(trained(dealt_to_ranks, [(2, 2), (1, 4)]), NUMBER)


def test_shards_dealt_to_loader_workers_are_found():
    one, two = (trained(dealt_to_workers(number), ALONE) for number in (1, 2))
    check_passes(one, NUMBER)
    check_passes(two, NUMBER)
    with pytest.raises(AssertionError, match="the orders part at row 4"):
        check_order(one, two)


# ---------------------------------------------------------------- bytes


def check_flips(where, folder, tmp_path):
    """Assert that no flipped bit is trained on, of a folder, at a URL, or in the cache."""
    served = Server(folder)
    try:
        for number, shard in enumerate(shards_of(folder)[:3]):
            shutil.rmtree(tmp_path / "cache", ignore_errors=True)
            place = folder if where == "folder" else served.url
            path = folder / shard.file
            if where == "cache":
                assert tokens_of(module(tmp_path / "gone/*.jsonl", place)) == expected()
                (path,) = (tmp_path / "cache").rglob(path.name)
            whole = path.read_bytes()
            flipped = bytearray(whole)
            flipped[11 * number] ^= 1 << number
            path.write_bytes(flipped)
            with suppress(UserError):
                found = tokens_of(module(tmp_path / "gone/*.jsonl", place))
                assert found == expected(), "a flipped bit is trained on"
            path.write_bytes(whole)
    finally:
        served.shutdown()


@pytest.mark.parametrize("where", ["folder", "url", "cache"])
def test_flipped_bits_are_found_and_not_without_checksums(tmp_path, monkeypatch, where):
    monkeypatch.setattr(cache, "tried", lambda call: call())
    monkeypatch.setattr(corpus, "cache_folder", lambda kind: tmp_path / "cache")
    write_jsonl(tmp_path / "files/0.jsonl", texts_of(0, 60))
    module(tmp_path / "files/*.jsonl", tmp_path / "shards").encoded("train")
    shutil.rmtree(tmp_path / "files")
    check_flips(where, tmp_path / "shards", tmp_path)
    for one in (cache, sharded):
        monkeypatch.setattr(one, "checksum", lambda path: ANY)
    with pytest.raises(AssertionError, match="a flipped bit is trained on"):
        check_flips(where, tmp_path / "shards", tmp_path)
