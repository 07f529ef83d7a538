import re
from itertools import islice

import pytest
from rouge_score.rouge_scorer import RougeScorer

from hydralight.data.newswire import newswire

# Digits anywhere, and capitalised words that do not merely start a sentence.
NAMES_AND_NUMBERS = re.compile(r"\d+|(?<!^)(?<!\. )\b[A-Z][a-z]+")


def test_rows_depend_on_seed_and_index_only():
    rows = list(newswire(100, seed=1))
    assert rows == list(newswire(100, seed=1))
    assert rows[:10] == list(newswire(10, seed=1))
    assert rows[:10] == list(islice(newswire(10**9, seed=1), 10))
    assert not any(row == other for row, other in zip(rows, newswire(100, seed=2), strict=True))


def test_first_row_is_the_same_everywhere():
    [row] = newswire(1, seed=0)
    assert row["highlights"].startswith("Dario Jessop rescued 63 climbers near Fernwick")


def test_held_out_rows_are_new():
    train = list(newswire(2000, seed=1))
    held_out = list(newswire(200, seed=2))
    assert not {row["article"] for row in train} & {row["article"] for row in held_out}
    highlights = {row["highlights"] for row in train}
    assert sum(row["highlights"] in highlights for row in held_out) <= 2


@pytest.mark.parametrize("sentences", [1, 3])
def test_first_sentences_are_no_summary(sentences):
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    scores = []
    for row in newswire(200, seed=3):
        lead = " ".join(re.split(r"(?<=\.) ", row["article"])[:sentences])
        scores.append(scorer.score(row["highlights"], lead)["rougeL"].fmeasure)
    assert sum(scores) / len(scores) < 0.45


def test_names_and_numbers_of_the_highlight_are_in_the_article():
    for row in newswire(1000, seed=4):
        assert "{" not in row["article"] + row["highlights"]
        facts = NAMES_AND_NUMBERS.findall(row["highlights"])
        assert len(facts) >= 2
        assert set(facts) <= set(re.findall(r"\w+", row["article"])), row
