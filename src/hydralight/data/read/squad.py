"""SQuAD's own json: articles of paragraphs of questions."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

from datasets import Dataset, Features, List, Value

ANSWER = {"text", "answer_start"}


def unfold(rows: Dataset) -> Dataset:
    """Flatten SQuAD's own json to a row a question; other data sets stay as they are.

    The article's `title` is no role, and there for `data.group_by`.
    """
    if "data" in rows.column_names and set(rows.column_names) <= {"data", "version"}:
        entries = rows["data"][:]
        if isinstance(entries[0], list):  # a row a file
            entries = list(chain.from_iterable(entries))
        articles = entries
        if "paragraphs" not in articles[0]:
            return Dataset.from_list(articles)  # flat already
    elif "paragraphs" in rows.column_names:
        articles = list(rows)
    else:
        return rows
    answers = {"text": List(Value("string")), "answer_start": List(Value("int64"))}
    titles = ("title",) if any("title" in article for article in articles) else ()
    names = ("id", "question", "context", *titles)
    features = Features({**{name: Value("string") for name in names}, "answers": answers})
    rows = ({name: row[name] for name in features} for row in questions(articles))
    return Dataset.from_list(list(rows), features=features)


def questions(articles: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the questions of SQuAD's articles, each with its context, answers and title."""
    for article in articles:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                answers = [] if qa.get("is_impossible") else qa.get("answers") or []
                yield {
                    "id": str(qa["id"]),
                    "question": qa["question"],
                    "context": paragraph["context"],
                    "title": article.get("title"),
                    "answers": {
                        "text": [answer["text"] for answer in answers],
                        "answer_start": [answer["answer_start"] for answer in answers],
                    },
                }
