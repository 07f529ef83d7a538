"""Made-up text by the gigabyte: words by Zipf's law in documents of many lengths, in files.

The words are syllables put together, frequent ones short. They come in phrases, of which there are
many, so that making text takes a hundredth of what encoding it takes. Which phrases come, and how
long a document is, is drawn by the number of the file, so that any file can be made alone.
"""

import random
from collections.abc import Iterator, Sequence
from functools import cache
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import zstandard

WORDS = 400_000
PHRASES, PHRASE = 250_000, 16  # and words of one
MEDIAN, SIGMA = 24, 1.1  # phrases of a document: log-normal, as pages of the web are
PLAIN, PACKED = 1_000_000_000, 200_000_000  # bytes of text of a file of each kind


def lexicon() -> list[str]:
    """Return the words, the most frequent first."""
    rng = random.Random(0)
    onsets = ["", *"bcdfghjklmnprstvw", "br", "ch", "cl", "fr", "gr", "pl", "sh", "st", "th", "tr"]
    nuclei = ["a", "e", "i", "o", "u"] * 5 + ["ai", "ea", "ee", "io", "ou"] * 2 + ["é", "ü"]
    codas = ["", "", "", *"lmnrst", "nd", "ng", "rs", "nt"]
    syllables = [a + b + c for a in onsets for b in nuclei for c in codas]
    made: dict[str, None] = {}
    while len(made) < WORDS:
        size = 1 + sum(len(made) > bound for bound in (150, 4_000, 60_000))
        word = "".join(rng.choices(syllables, k=size))
        made[word.capitalize() if rng.random() < 0.06 else word] = None
        if rng.random() < 0.02:
            made[str(rng.randrange(10 ** rng.randrange(1, 6)))] = None
    return list(made)[:WORDS]


@cache
def phrases() -> list[bytes]:
    """Return the phrases, as they stand in a string of JSON."""
    rng, words = np.random.default_rng(1), lexicon()
    shares = (np.arange(WORDS) + 2.7) ** -1.15  # Zipf's law, as Mandelbrot wrote it
    drawn = rng.choice(WORDS, (PHRASES, PHRASE), p=shares / shares.sum())
    marks = np.array([" "] * 85 + [", "] * 7 + [". "] * 6 + [".\\n"] * 2, dtype=object)
    behind = rng.choice(marks, (PHRASES, PHRASE))
    lists = zip(drawn.tolist(), behind.tolist(), strict=True)
    return [
        "".join([words[n] + mark for n, mark in zip(*pair, strict=True)]).encode() for pair in lists
    ]


def documents(seed: int) -> Iterator[bytes]:
    """Yield documents without end."""
    known, rng = phrases(), np.random.default_rng([7, seed])
    while True:
        lengths = np.clip(rng.lognormal(np.log(MEDIAN), SIGMA, 1_000), 1, 10_000).astype(int)
        numbers = rng.integers(0, PHRASES, int(lengths.sum())).tolist()
        start = 0
        for length in lengths.tolist():
            yield b"".join([known[number] for number in numbers[start : start + length]])
            start += length


def lines(seed: int, size: int) -> Iterator[bytes]:
    """Yield JSON lines with `text` and `id` until they have a number of bytes."""
    for number, document in enumerate(documents(seed)):
        line = b'{"text": "%b", "id": %d}\n' % (document, number)
        yield line
        size -= len(line)
        if size <= 0:
            return


def write(path: Path, seed: int, size: int) -> int:
    """Write a file with so many bytes of JSON lines, packed if its name says so.

    Returns:
        The bytes of its lines. Those of a file that is there already are in its name's `.size`.
    """
    noted, total = path.parent.parent / f"{path.name}.size", 0
    if noted.is_file():
        return int(noted.read_text())
    with path.open("wb", buffering=2**22) as plain:
        packed = path.suffix == ".zst"
        out = zstandard.ZstdCompressor(level=2).stream_writer(plain) if packed else plain
        for line in lines(seed, size):
            total += len(line)
            out.write(line)
        if packed:
            out.close()  # the end of the frame
    noted.write_text(str(total))
    return total


def corpus(folder: Path, size: int, processes: int) -> tuple[Sequence[Path], int]:
    """Write about so many bytes of text: half of it in large files, half in packed ones.

    Returns:
        The files, and the bytes of their lines.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arguments: list[tuple[Path, int, int]] = []
    for suffix, most in ((".jsonl", PLAIN), (".jsonl.zst", PACKED)):
        left = size // 2
        while left > 0:
            number = len(arguments)
            arguments.append((folder / f"{number:05}{suffix}", number, min(left, most)))
            left -= most
    with Pool(processes) as pool:
        made = pool.starmap(write, arguments, chunksize=1)
    return [path for path, _, _ in arguments], sum(made)
