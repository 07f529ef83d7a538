"""The data's part of a start: CPU seconds until the first batch of training is there, by steps.

python -m benchmarks.first_batch <overrides of train.py>

Where the data are a prepared corpus, also until the first batch of a run that goes on in the middle
of an epoch, by a data module of its own.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def main(overrides: Sequence[str]) -> None:
    """Print each step and its seconds."""
    begun = time.process_time()

    def noted(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        start, wall = time.process_time(), time.perf_counter()
        value = function(*arguments)
        cpu, seconds = time.process_time() - start, time.perf_counter() - wall
        print(f"{what:40} {cpu:8.2f} s of CPU time, {seconds:8.2f} s", flush=True)
        return value

    def imports() -> Any:
        from benchmarks import ours

        return ours

    ours = noted("imports", imports)
    with TemporaryDirectory() as folder:
        for place in ("beginning", "middle"):
            one = [*overrides, "data.num_workers=0"]
            _, data, _ = noted("the objects", ours.built, one, Path(folder))
            noted("rows, tokenizer and shards", data.encoded, "train")
            if place == "middle":
                if data.corpus.prepared is None:
                    break
                number = len(data.train_dataloader())
                data.consumed, data._batches_per_epoch = number // 2, number
            loader = noted("the loader", data.train_dataloader)
            noted(f"a batch at the {place}", next, iter(loader))
    print(f"{'together':40} {time.process_time() - begun:8.2f} s of CPU time")


if __name__ == "__main__":
    main(sys.argv[1:])
