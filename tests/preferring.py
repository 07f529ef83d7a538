"""What the tests of preferences share: rows in the formats of the field's data sets."""

from standins import article, write_jsonl

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def texts(index: int) -> dict:
    """A prompt and two answers of different lengths, as texts."""
    body, summary = article(index).values()
    worse = f" No idea of {' '.join(body.split()[1 : 3 + index % 5])}."
    return {"prompt": f"{body}\n\nIn short:", "chosen": f" {summary}", "rejected": worse}


def messages(index: int) -> dict:
    """The same as messages, which UltraFeedback repeats in both."""
    row = texts(index)
    asked = {"role": "user", "content": row["prompt"]}
    answers = {
        name: [asked, {"role": "assistant", "content": row[name].strip()}]
        for name in ("chosen", "rejected")
    }
    return {**answers, "score_chosen": 5.0 + index, "score_rejected": 2.0}


def alike(index: int) -> dict:
    """Answers of as many tokens in every row, so that means of tokens are those of rows."""
    return {**texts(index), "chosen": " two", "rejected": " five"}


def files(folder, row, sizes=(13, 7, 4)) -> str:
    """Write rows as splits, and return the override that names them."""
    named = []
    for number, (split, size) in enumerate(
        zip(("train", "validation", "test"), sizes, strict=True)
    ):
        rows = [row(20 * number + i) for i in range(size)]
        named.append(f"{split}: {write_jsonl(folder / f'{split}.jsonl', rows)}")
    return f"data.path={{{', '.join(named)}}}"
