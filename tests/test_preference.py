"""Pairs of answers: what formats hold, what is left out, how they are cut and put together."""

import copy
import json

import pytest
import torch
from datasets import Dataset
from preferring import TEMPLATE
from shaping import MY_CSV, batch_of
from standins import tokenizer

from hydralight.data.pairs import pair_of
from hydralight.data.shapes.preference import Preference
from hydralight.data.turns import ChatTemplate
from hydralight.errors import UserError
from hydralight.tasks.preference_losses import WITH_REFERENCE, WITHOUT, LogProbs

ASKED = {"role": "user", "content": "Is the storm near?"}
GOOD, BAD = ({"role": "assistant", "content": text} for text in ("Two days off.", "No idea."))
HEAD = "\n\nHuman: Is the storm near?\n\nAssistant:"
FORMATS = {
    # Anthropic's HH-RLHF: whole dialogues as texts, which differ in the last turn
    "hh": {"chosen": f"{HEAD} Two days off.", "rejected": f"{HEAD} No idea."},
    # UltraFeedback binarized: the prompt is a text, which both lists repeat
    "ultrafeedback": {
        **{"prompt": ASKED["content"], "prompt_id": "0", "messages": [ASKED, GOOD]},
        **{"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
        **{"score_chosen": 8.5, "score_rejected": 2.0},
    },
    "implicit prompt": {"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
    "explicit prompt": {"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD]},
    "texts": {"prompt": ASKED["content"], "chosen": "Two days off.", "rejected": "No idea."},
    "as json": {"chosen": json.dumps([ASKED, GOOD]), "rejected": json.dumps([ASKED, BAD])},
}


def chatting(template=TEMPLATE):
    own = copy.deepcopy(tokenizer())
    own.chat_template = template
    return own


def encoded(rows, processor, **settings):
    shape = Preference(**settings)
    processor = shape.ready(processor)
    names = {name for row in rows for name in row} & {*shape.roles}
    table = Dataset.from_list([{n: row.get(n) for n in names} for row in rows])
    prepared = shape.prepare(table, MY_CSV)
    columns = shape.encode(prepared[:], list(range(len(prepared))), processor, "train")
    return shape, processor, columns


def said(columns, processor, row=0):
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    return [processor.decode(columns[name][row]).strip() for name in names]


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name):
    """The template writes all of them alike: the prompt, and each answer up to its end."""
    _, processor, columns = encoded([FORMATS[name]], chatting())
    prompt, chosen, rejected = said(columns, processor)
    spaced = "[user] Is the storm near?</s>[assistant]"
    assert prompt.replace(" ", "") == spaced.replace(" ", "")
    assert (chosen, rejected) == ("Two days off.</s>", "No idea.</s>")


def test_plain_texts():
    """Without a template the texts stand as they are: a start, and an end token, once."""
    for processor, settings in ((tokenizer(), {}), (chatting(), {"plain_texts": True})):
        _, own, columns = encoded([FORMATS["hh"], FORMATS["texts"]], processor, **settings)
        prompt, chosen, rejected = said(columns, own)
        assert prompt.replace(" ", "") == f"<s>{HEAD}".replace(" ", "")
        assert (chosen, rejected) == ("Two days off.</s>", "No idea.</s>")
        ends = [ids.count(own.eos_token_id) for ids in columns["chosen_ids"]]
        assert ends == [1, 1]
    # what has no prompt begins alike, up to a word's beginning
    row = {"chosen": "The storm is bright today", "rejected": "The storm is broad today"}
    _, own, columns = encoded([row], tokenizer())
    assert said(columns, own) == ["<s> The storm is", "bright today</s>", "broad today</s>"]


def test_json_that_is_said_is_a_text():
    people = '[{"name": "Bo"}]'
    row = {"prompt": f"{people} backwards", "chosen": people, "rejected": "No idea."}
    for processor in (tokenizer(), chatting()):
        _, own, columns = encoded([row], processor)
        found = [one.replace(" ", "") for one in said(columns, own)[1:]]
        assert found == [f"{people}</s>".replace(" ", ""), "Noidea.</s>"]


def test_what_teaches_nothing_is_left_out(caplog):
    same = {"chosen": [ASKED, GOOD], "rejected": [ASKED, GOOD]}
    empty = {"chosen": [ASKED, GOOD], "rejected": [ASKED, {**BAD, "content": " "}]}
    longer = {"chosen": [ASKED, GOOD, ASKED, GOOD], "rejected": [ASKED, BAD]}
    rows = [FORMATS["implicit prompt"], same, empty, longer, same]
    _, _, columns = encoded(rows, chatting())
    assert len(columns["length"]) == 1
    assert (
        "of 5 pairs these are left out: 2 with the same answer (the first is row 2)" in caplog.text
    )
    assert "1 with no answer (the first is row 3)" in caplog.text
    assert "1 with more than their answers apart (the first is row 4)" in caplog.text
    with pytest.raises(UserError, match="there is none left"):
        encoded([same], chatting())


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"chosen": "", "rejected": "a"}, "the chosen is missing or empty"),
        ({"prompt": "p", "chosen": "c", "rejected": None}, "the rejected is missing"),
        ({"chosen": "one", "rejected": "other"}, "chosen and rejected do not begin alike"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "chosen and rejected do not begin with the same"),
        (
            {"prompt": "Another?", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
            "the chosen begins with another prompt than the prompt of the row",
        ),
    ],
)
def test_bad_rows(row, sentence):
    with pytest.raises(UserError, match=rf"^my.csv, row 1: {sentence}"):
        encoded([row], chatting())


def test_messages_need_a_template():
    with pytest.raises(UserError, match=r"row 1: there are messages, and the tokenizer has no"):
        encoded([FORMATS["implicit prompt"]], tokenizer())
    rows = [{**FORMATS["texts"], "margin": margin} for margin in (1.0, None)]
    with pytest.raises(UserError, match=r"the margin \(column 'margin'\) of pair 2 is None"):
        encoded(rows, chatting())


def test_what_is_too_long_loses_the_front_of_its_prompt():
    """The oldest turns go first, the system's message stays; both answers keep one prompt."""
    system = {"role": "system", "content": "Be brief."}
    early = [{"role": "user", "content": "Hello. " * 9}, {"role": "assistant", "content": "Yes."}]
    head = [system, *early, ASKED]
    row = {"chosen": [*head, GOOD], "rejected": [*head, BAD]}
    short = {"chosen": [system, ASKED, GOOD], "rejected": [system, ASKED, BAD]}
    _, _, whole = encoded([short], chatting())
    limit = whole["length"][0]
    _, _, columns = encoded([row], chatting(), max_length=limit)
    assert columns["too_long"] == [True]
    assert {**columns, "too_long": [False]} == whole
    _, _, cut = encoded([row], chatting(), max_length=limit - 5)
    assert cut["prompt_ids"][0] == whole["prompt_ids"][0][5:]
    assert cut["chosen_ids"] == whole["chosen_ids"]
    answer = len(whole["chosen_ids"][0])
    _, _, cut = encoded([row], chatting(), max_length=answer - 2)
    room = (answer - 2) // 2
    assert len(cut["prompt_ids"][0]) == room
    assert cut["chosen_ids"][0] == whole["chosen_ids"][0][: answer - 2 - room]


def test_a_batch_has_the_chosen_answers_first():
    rows = [FORMATS["texts"], {**FORMATS["texts"], "rejected": "No idea, none at all, today."}]
    rows = [{**row, "margin": margin} for row, margin in zip(rows, (0.5, 1.0), strict=True)]
    shape, processor, columns = encoded(rows, chatting())
    batch = batch_of(shape, columns, processor, "train")
    assert batch["input_ids"].shape == batch["labels"].shape == (4, max(columns["length"]))
    assert batch["margins"].view(torch.float32).tolist() == [0.5, 1.0]
    assert batch["row"].tolist() == [0, 1]
    for place, name in enumerate(("chosen_ids", "chosen_ids", "rejected_ids", "rejected_ids")):
        row = place % 2
        labels = batch["labels"][place]
        assert labels[labels != -100].tolist() == columns[name][row]
        ids = batch["input_ids"][place][batch["attention_mask"][place] == 1]
        assert ids.tolist() == columns["prompt_ids"][row] + columns[name][row]


def test_the_prompt_is_what_is_asked_for_later():
    """What an answer is trained behind is what a prediction continues."""
    shape, processor, columns = encoded([FORMATS["ultrafeedback"]], chatting())
    rows = {"prompt": [ASKED["content"]]}
    asked = shape.encode(rows, [0], processor, "predict")
    assert asked["input_ids"] == columns["prompt_ids"]
    answered = shape.encode({"messages": [[ASKED, GOOD]]}, [0], processor, "predict")
    assert answered["input_ids"] == columns["prompt_ids"]
    assert answered["whole"][0] == columns["prompt_ids"][0] + columns["chosen_ids"][0]
    assert ChatTemplate(processor).end == "</s>"


# ---------------------------------------------------------------- losses

CHOSEN, REJECTED = torch.tensor([-6.0, -2.0]), torch.tensor([-3.0, -8.0])
POLICY = LogProbs(CHOSEN, REJECTED, torch.tensor([3, 2]), torch.tensor([1, 4]))
REFERENCE = torch.tensor([-5.0, -3.0]), torch.tensor([-4.0, -7.0])


@pytest.mark.parametrize("name", [*WITH_REFERENCE, *WITHOUT])
def test_a_loss_is_of_each_pair_alone(name):
    """Whoever is beside it; and more of the right answer costs less."""
    function = {**WITH_REFERENCE, **WITHOUT}[name]
    referring = name in WITH_REFERENCE

    def losses(policy, rows=slice(None)):
        own = LogProbs(*(one[rows] for one in policy[:4]))
        reference = tuple(one[rows] for one in REFERENCE)
        return function(own, *((reference,) if referring else ())).losses

    both = losses(POLICY)
    alone = torch.cat([losses(POLICY, slice(row, row + 1)) for row in range(2)])
    torch.testing.assert_close(both, alone, rtol=0, atol=0)
    assert (losses(POLICY._replace(chosen=CHOSEN + 0.1)) < both).all()


def test_smoothing_counts_the_other_answer():
    plain, flipped, smooth = (
        WITH_REFERENCE["sigmoid"](policy, reference, label_smoothing=smoothing).losses
        for policy, reference, smoothing in (
            (POLICY, REFERENCE, 0.0),
            (LogProbs(REJECTED, CHOSEN, *POLICY[2:4]), REFERENCE[::-1], 0.0),
            (POLICY, REFERENCE, 0.25),
        )
    )
    torch.testing.assert_close(smooth, 0.75 * plain + 0.25 * flipped)
    robust = WITH_REFERENCE["robust"](POLICY, REFERENCE, label_smoothing=0.25).losses
    # its mean over flips as often as that is the loss without any
    other = WITH_REFERENCE["robust"](
        LogProbs(REJECTED, CHOSEN, *POLICY[2:4]), REFERENCE[::-1], label_smoothing=0.25
    ).losses
    torch.testing.assert_close(0.75 * robust + 0.25 * other, plain)


@pytest.mark.parametrize(
    ("row", "pair"),
    [
        # answers that begin like their prompt, and texts that repeat it
        (("2", "2 is prime", "21"), ("2", "2 is prime", "21")),
        (("Hi", "Hi there", "Hi you"), ("Hi", "Hi there", "Hi you")),
        (("Who is it?", "Who is it? Ada", "Who is it? Ben"), ("Who is it?", " Ada", " Ben")),
    ],
)
def test_a_repeated_prompt_is_told_from_a_like_beginning(row, pair):
    assert pair_of(dict(zip(("prompt", "chosen", "rejected"), row, strict=True))) == pair


def test_an_empty_prompt_is_told_as_such():
    with pytest.raises(UserError, match="the prompt is missing or empty"):
        pair_of({"prompt": "", "chosen": "a", "rejected": "b"})
