"""Texts of real lengths: those of real data where they are at hand, else made-up ones.

The lengths of made-up texts, in words, follow quantiles that were counted once: those of
the sentences of MRPC's train split, of the first 300 articles of CNN/DailyMail's, and of
Shakespeare's sonnets.
"""

import csv
import json
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"

# words at every twentieth part of the texts, from the shortest to the longest
SENTENCES = (7, 13, 14, 16, 17, 18, 19, 19, 20, 21, 22, 23, 23, 24, 25, 26, 27, 29, 30, 31, 39)
# fmt: off
ARTICLES = (50, 226, 256, 301, 333, 357, 405, 461, 481, 531, 582,
            622, 645, 663, 721, 757, 825, 881, 939, 1032, 1665)
HIGHLIGHTS = (26, 30, 33, 34, 35, 36, 38, 39, 40, 42, 43, 43, 44, 45, 46, 48, 49, 50, 51, 54, 62)
SONNETS = (89, 105, 106, 108, 109, 110, 111, 112, 112, 113, 114,
           115, 116, 116, 117, 118, 118, 120, 121, 123, 130)
# fmt: on

Rows = list[dict[str, str | int]]


def mrpc(split: str) -> Rows:
    """Return MRPC's `train` or `dev` split: `sentence1`, `sentence2` and a `label` of 0 or 1."""
    with (SHARED / "mrpc" / f"{split}.tsv").open(encoding="utf-8-sig", newline="") as file:
        lines = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [
            {
                "sentence1": line["#1 String"],
                "sentence2": line["#2 String"],
                "label": int(line["Quality"]),
            }
            for line in lines
        ]


def pairs(number: int, real: bool = True) -> Rows:
    """Return pairs of sentences, `sentence1` and `sentence2`, with a `label` of 0 or 1."""
    if real and (SHARED / "mrpc" / "train.tsv").is_file():
        return repeated(mrpc("train"), number)
    rng = random.Random(0)
    made: Rows = []
    for index in range(number):
        place = rng.random()  # both sentences say much the same, and are about as long
        first, second = (words(rng, SENTENCES, place + rng.gauss(0, 0.1)) for _ in range(2))
        made.append({"sentence1": first, "sentence2": second, "label": index % 2})
    return made


def articles(number: int, real: bool = True) -> Rows:
    """Return articles, `article`, with their `highlights`."""
    folder = SHARED / "cnn_dailymail"
    if real and folder.is_dir():
        rows: Rows = []
        for name in ("train_first300.csv", "validation_500.csv"):
            with (folder / name).open(encoding="utf-8", newline="") as file:
                rows += [
                    {"article": line["article"], "highlights": line["highlights"]}
                    for line in csv.DictReader(file)
                ]
        return repeated(rows, number)
    rng = random.Random(1)
    return [
        {
            "article": words(rng, ARTICLES, rng.random()),
            "highlights": words(rng, HIGHLIGHTS, rng.random()),
        }
        for _ in range(number)
    ]


def sonnets(number: int, real: bool = True) -> Rows:
    """Return documents of about 150 tokens, as `text`."""
    path = SHARED / "shakespeare" / "sonnets.csv"
    if real and path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            rows: Rows = [{"text": line["text"]} for line in csv.DictReader(file)]
        return repeated(rows, number)
    rng = random.Random(2)
    return [{"text": words(rng, SONNETS, rng.random())} for _ in range(number)]


def sentences(number: int, real: bool = True) -> Rows:
    """Return documents of a sentence, as `text`."""
    return [{"text": row["sentence1"]} for row in pairs(number, real)]


def repeated(rows: Rows, number: int) -> Rows:
    """Return that many rows, beginning again at the first where there are fewer."""
    return [rows[index % len(rows)] for index in range(number)]


def words(rng: random.Random, quantiles: Sequence[int], place: float) -> str:
    """Return a made-up text whose length stands at a place (0 to 1) of a distribution."""
    position = min(max(place, 0.0), 1.0) * (len(quantiles) - 1)
    low = min(int(position), len(quantiles) - 2)
    length = quantiles[low] + (position - low) * (quantiles[low + 1] - quantiles[low])
    lexicon, weights = zipf()
    return " ".join(rng.choices(lexicon, cum_weights=weights, k=max(1, round(length)))) + "."


@cache
def zipf() -> tuple[list[str], list[float]]:
    """Return 20,000 made-up words and their summed frequencies, by Zipf's law."""
    rng = random.Random(3)
    parts = [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]
    made: dict[str, None] = {}
    while len(made) < 20_000:
        # frequent words are short
        size = 1 + int(len(made) > 50) + int(len(made) > 1_000) + int(len(made) > 8_000)
        made["".join(rng.choices(parts, k=size))] = None
    total, summed = 0.0, []
    for rank in range(1, len(made) + 1):
        total += 1 / rank
        summed.append(total)
    return list(made), summed


def write(rows: Rows, path: Path) -> Path:
    """Write rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
