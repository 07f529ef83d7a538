"""What a large corpus costs beside its text: with shards that are named, and files with holes.

python -m benchmarks.shard_index 400 32000

Seconds are of CPU time, in a process of its own for each number of shards.
"""

import os
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tabulate import tabulate

from benchmarks.measure import apart, peak_memory

ROWS, TOKENS, BLOCK = 4_000, 12_500_000, 1_024  # of a shard: documents, tokens; tokens of a row
EPOCH, SEED = 1, 0


def main(numbers: Sequence[int]) -> None:
    """Print a column for each number of shards."""
    found = {}
    for number in numbers:
        with TemporaryDirectory() as folder:
            apart(write_index, Path(folder), number)
            found[number] = apart(costs, Path(folder), number)
            found[number] |= apart(costs_of_files, Path(folder), number)
    rows = [[name, *(one[name] for one in found.values())] for name in found[numbers[0]]]
    print(tabulate(rows, ["", *(f"{n:,} shards" for n in numbers)], "github", floatfmt=",.3g"))


def timed(found: dict[str, float], name: str, function: Callable[[], Any]) -> Any:
    """Call a function, and note the seconds that it takes."""
    begun = time.process_time()
    value = function()
    found[f"{name}, s"] = time.process_time() - begun
    return value


def costs(folder: Path, number: int) -> dict[str, float]:
    """Return what the index of so many shards in a folder costs."""
    from hydralight.data.corpus import shards
    from hydralight.data.corpus.home import Here
    from hydralight.data.corpus.rows import Local, ShardedRows
    from hydralight.data.corpus.windows import Windows

    found: dict[str, float] = {}

    found["tokens, billions"] = number * TOKENS / 1e9
    found["index, MB"] = (folder / shards.INDEX).stat().st_size / 1e6
    before = peak_memory()
    index = timed(found, "reading the index", lambda: shards.read_index(Here(folder)))
    done = shards.Done.of(index)
    rows = timed(
        found, "the rows of it", lambda: ShardedRows(done.train, Local(folder), BLOCK, 50_000)
    )
    found["the most memory for it, MB"] = (peak_memory() - before) * 2**20 / 1e6
    found["rows, millions"] = len(rows) / 1e6
    timed(found, "what tells it from others", lambda: rows.identity(None))
    sent = timed(found, "sent to a loader worker", lambda: pickle.dumps(rows))
    found["sent to a loader worker, MB"] = len(sent) / 1e6
    plan = Windows(sizes=rows.sizes, batch_size=8, seed=SEED)
    epoch = timed(found, "the shards of an epoch", lambda: plan.batches(EPOCH))
    timed(found, "the first batch in the middle", lambda: epoch[len(epoch) // 2])
    timed(
        found,
        "1,000 batches from there",
        lambda: [epoch[len(epoch) // 2 + place] for place in range(1, 1_001)],
    )
    return found


def costs_of_files(folder: Path, number: int) -> dict[str, float]:
    """Return what the files cost that so many shards are of: plain ones of 1 GB."""
    from hydralight.data.corpus.cache import Cache
    from hydralight.data.corpus.inputs import UNIT_BYTES, Inputs
    from hydralight.data.corpus.shards import Shard

    for file in range(-(-number * UNIT_BYTES // 10**9)):
        path = folder / f"text/{file:05}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.truncate(path, 10**9)
    found: dict[str, float] = {}
    inputs = timed(found, "listing its files", lambda: Inputs.of(f"{folder}/text/*", {}))
    found["files"] = len(inputs.files)
    timed(found, "whether they have changed", inputs.states)
    found["units"] = len(timed(found, "the units that are prepared", inputs.units))
    found["units of a stream"] = len(timed(found, "the units of a stream", inputs.parts))
    cache = folder / "cache"
    cache.mkdir()
    for shard in range(number):
        (cache / f"{shard}.tokens").touch()
    one = Shard("a.tokens", 1, 1, 1, 10**6, "")
    room = Cache("", cache, 10**12)
    timed(found, "room for a shard, where all are in the cache", lambda: room._make_room(one))
    return found


def write_index(folder: Path, number: int) -> None:
    """Write the index of a corpus in so many shards, with sizes that differ."""
    from hydralight.data.corpus.shards import FORMAT, INDEX, Done, Shard, write_record

    made = [
        Shard(
            f"train/{i * 0x9E3779B97F4A7C15 % 2**64:016x}-000.tokens",
            ROWS + i % 97,
            TOKENS + i % 9_973,
            20_000,
            2 * (TOKENS + i % 9_973),
            f"xxh3_128:{i * 0x9E3779B97F4A7C15F39CC060 % 2**128:032x}",
        )
        for i in range(number)
    ]
    inputs = [
        {"file": f"text/{i:05}.jsonl.zst", "size": 80_000_000 + i, "time": 1_750_000_000 * 10**9}
        for i in range(number // 3)
    ]
    done = Done(made, [], {"read": ROWS * number, "train": ROWS * number})
    more = {"format": FORMAT, "inputs": inputs, "made_with": {}, "tokenizer": False}
    write_record(folder / INDEX, done, **more)


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    main([int(number) for number in sys.argv[1:]] or [400, 32_000])
