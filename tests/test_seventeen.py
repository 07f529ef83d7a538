"""Well-known data sets, as they are published, go the whole way by the command of `docs/data.md`.

Each is imitated in a folder, in which its command is given as it stands in the document, with a
tiny checkpoint. All are loaded; a few train, evaluate, predict and are exported in `make test`, and
all of them in `make thorough`.
"""

import json
import math
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import imitations
import pytest
import transformers
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.utils import execution_whitelist
from imitations import CIFAR, FINDINGS, PLAY, dialogue, sentence
from standins import WORDS, article

import hydralight
from hydralight.building import build_data
from hydralight.config.project import CONFIG_DIR
from hydralight.config.whitelist import WHITELIST

DOCUMENT = (ROOT / "docs" / "data.md").read_text()
TABLE = dict(re.findall(r"^\| (.*) \| `(experiment=.*)` \|$", DOCUMENT, flags=re.MULTILINE))

EMOTIONS = ["anger", "fear", "joy", "love", "sadness", "surprise"]
SHORT = ["data.max_source_length=96", "data.max_target_length=24", "generation.max_new_tokens=4"]
TINY_VIT = ["tokenizer.options.size={height: 16, width: 16}"]


@dataclass
class Case:
    """What an imitation has to come to.

    Args:
        row: How the row of the document's table begins.
        write: Makes the files in a folder.
        sizes: Rows of train, validation and test, as read.
        first: The first row of the training split, by role, as it is prepared.
        target: What the labels of the first encoded row say.
        metric: One that an evaluation has.
        given: What `predict.py` is given: a file, or a text.
        predicted: Rows of it.
        auto: The class of Transformers that loads `model/`.
        model: The tiny checkpoint.
        labels: The labels of the model, in order.
        typed: What makes it small.
        always: Whether `make test` goes the whole way.
    """

    row: str
    write: Callable
    sizes: tuple[int, ...]
    first: dict
    target: object
    metric: str
    given: str
    predicted: int
    auto: str
    model: str = "bert"
    labels: list[str] | None = None
    typed: list[str] = field(default_factory=list)
    always: bool = False


def choice(context, question, endings, label):
    known = {"context": context, "question": question, "endings": endings, "label": label}
    return {role: value for role, value in known.items() if value is not None}


def closes(i):
    return [f"the {WORDS[(i + k) % 12]} closes." for k in range(4)]


def said(i, *more):
    texts = [f"Say what {sentence(i)}.", f"{WORDS[i % 12]} {i}", *more]
    speakers = ["user", "assistant"] * len(texts)
    return json.dumps(
        [{"role": who, "content": text} for who, text in zip(speakers, texts, strict=False)]
    )


CHAT = ["data.chat_template=chatml", "data.max_length=100", "generation.max_new_tokens=4"]
SEQUENCE, CHOICE = "AutoModelForSequenceClassification", "AutoModelForMultipleChoice"
TEXTS = ("AutoModelForMaskedLM", "AutoModelForCausalLM")
ANSWERS, SUMMARY = "AutoModelForQuestionAnswering", "AutoModelForSeq2SeqLM"
SQUAD = {
    "question": "What has doors?",
    "context": sentence(0),
    "answers": {"text": [WORDS[0]], "answer_start": [sentence(0).index(WORDS[0])]},
    "id": "56be0",
}
ANN, PERSON = dialogue(0, "Ann"), dialogue(0, "#Person1#")
PLACE = ["O", "O", "B-LOC", "I-LOC", "O"]  # IOB1 in the file
TEXT = "a text of one's own"
CASES = {
    "glue": Case(
        *("GLUE, one text", imitations.glue, (8, 4, 3)),
        {"text": sentence(0), "label": "negative"},
        *("negative", "accuracy", "test.tsv", 3, SEQUENCE),
        labels=["negative", "positive"],
        always=True,
    ),
    "cola": Case(
        *("CoLA", imitations.cola, (8, 4)),
        {"text": f'{sentence(0)} "now"', "label": "unacceptable"},
        *("unacceptable", "mcc", "dev.tsv", 4, SEQUENCE),
        labels=["unacceptable", "acceptable"],
    ),
    "imdb": Case(
        *("IMDB", imitations.imdb, (14, 2, 6)),
        {"text": f"neg: {sentence(0)}<br /><br />0", "label": "neg"},
        *("neg", "f1_macro", TEXT, 1, SEQUENCE),
        model="distilbert",
        labels=["neg", "pos"],
    ),
    "conll": Case(
        *("CoNLL's columns", imitations.conll, (8, 4, 3)),
        {"tokens": ["two", "in", "Old", "Storm", "."], "tags": PLACE},
        *(PLACE, "f1", "test.txt", 3, "AutoModelForTokenClassification"),
        labels=["B-LOC", "I-LOC", "O"],
    ),
    "squad 1": Case(
        *("SQuAD 1", lambda folder: imitations.squad(folder, "v1.1"), (8, 4)),
        *(SQUAD, WORDS[0], "exact_match", "dev-v1.1.json", 4, ANSWERS),
        typed=["data.max_length=48", "data.doc_stride=8"],
    ),
    "squad 2": Case(
        *("SQuAD 2", lambda folder: imitations.squad(folder, "v2.0"), (8, 4)),
        *(SQUAD, WORDS[0], "f1", "dev-v2.0.json", 4, ANSWERS),
        typed=["data.max_length=48", "data.doc_stride=8"],
    ),
    "swag": Case(
        *("SWAG", imitations.swag, (8, 4, 3)),
        choice(f"{sentence(0)}.", "Somebody", [f"opens the {WORDS[k]}." for k in range(4)], 1),
        *(1, "accuracy", "test.csv", 3, CHOICE),
    ),
    "hellaswag": Case(
        *("HellaSwag", imitations.hellaswag, (8, 4, 3)),
        choice(f"{sentence(0)}.", "then", closes(0), 1),
        *(1, "accuracy", "hellaswag_test.jsonl", 3, CHOICE),
    ),
    "commonsense qa": Case(
        *("CommonsenseQA", imitations.commonsense_qa, (8, 4, 3)),
        choice(f"Where is {sentence(0)}?", None, WORDS[:5], "B"),
        *(1, "accuracy", "test_rand_split_no_answers.jsonl", 3, CHOICE),
    ),
    "piqa": Case(
        *("PIQA", imitations.piqa, (8, 4, 3)),
        choice(f"{sentence(0)}?", None, [f"the {WORDS[k]}" for k in range(2)], 1),
        *(1, "accuracy", "tests.jsonl", 3, CHOICE),
    ),
    "arc": Case(
        *("ARC", imitations.arc, (8, 4, 3)),
        choice(f"Where is {sentence(0)}?", None, WORDS[:4], "B"),
        *(1, "accuracy", "test.jsonl", 3, CHOICE),
        always=True,
    ),
    "ag news": Case(
        *("AG News", imitations.ag_news, (7, 1, 3)),
        {"text": f'Title 0 Of "{sentence(0)}", it is said', "label": "World"},
        *("World", "f1_macro", "test.csv", 3, SEQUENCE),
        model="distilbert",
        labels=["World", "Sports", "Business", "Sci/Tech"],
    ),
    "emotion": Case(
        *("emotion", imitations.emotion, (8, 4, 3)),
        {"text": f"i feel {sentence(0)}", "label": "sadness"},
        *("sadness", "f1_macro", "test.txt", 3, SEQUENCE),
        model="distilbert",
        labels=EMOTIONS,
    ),
    "samsum": Case(
        *("SAMSum", imitations.samsum, (8, 4, 3)),
        {"text": ANN["dialogue"], "summary": ANN["summary"]},
        *(ANN["summary"], "rougeL", "test.json", 3, SUMMARY),
        model="bart",
        typed=[*SHORT, "data.max_target_length=64"],
    ),
    "dialogsum": Case(
        *("DialogSum", imitations.dialogsum, (8, 4)),
        {"text": PERSON["dialogue"], "summary": PERSON["summary"]},
        *(PERSON["summary"], "rougeL", "dialogsum.dev.jsonl", 4, SUMMARY),
        model="bart",
        typed=[*SHORT, "data.max_target_length=64"],
    ),
    "cnn dailymail": Case(
        *("CNN/DailyMail", imitations.cnn_dailymail, (8, 4, 3)),
        {"text": article(0)["article"], "summary": article(0)["highlights"]},
        *(article(0)["highlights"], "rougeL", "test.csv", 3, SUMMARY),
        model="bart",
        typed=SHORT,
    ),
    "wikitext": Case(
        *("WikiText", imitations.wikitext, (8 * 3, 4 * 3, 3 * 3)),
        {"text": f" = Valkyria {WORDS[0]} = "},
        *("= Valkyria", "loss", TEXT + " <mask>", 1, "AutoModelForMaskedLM"),
        model="roberta",
        typed=["data.block_size=32"],
    ),
    "a play": Case(
        *("one long text", imitations.play, (1, 1)),
        {"text": PLAY[: PLAY.index("ACT 18")]},
        *("ACT 0\r\n\r\n\r\nFIRST CITIZEN:", "loss", TEXT, 1, "AutoModelForCausalLM"),
        model="gpt2",
        typed=["generation.max_new_tokens=4"],
        always=True,
    ),
    "alpaca": Case(
        *("Alpaca", imitations.alpaca, (18, 2)),
        {"text": f"Say what {sentence(0)}. ", "summary": f"{WORDS[0]} 0"},
        *(f"{WORDS[0]} 0", "rougeL", "alpaca_data.json", 20, SUMMARY),
        model="bart",
        typed=SHORT,
    ),
    "sharegpt": Case(
        *("conversations to learn", imitations.sharegpt, (18, 2)),
        {"messages": said(0, "Again!", f"{WORDS[0]} again")},
        *(f"{WORDS[0]} 0<|im_end|>{WORDS[0]} again<|im_end|>", "loss", "sharegpt.json", 20),
        *("AutoModelForCausalLM", "llama"),
        typed=CHAT,
    ),
    "instructions": Case(
        *("instructions to learn", imitations.alpaca, (18, 2)),
        {"messages": said(0)},
        *(f"{WORDS[0]} 0<|im_end|>", "loss", "alpaca_data.json", 20, "AutoModelForCausalLM"),
        model="llama",
        typed=CHAT,
    ),
    "hh": Case(
        *("dialogues as one text", imitations.hh, (7, 1, 3)),
        {"messages": said(0)},
        *(f"{WORDS[0]} 0<|im_end|>", "loss", "test.jsonl.gz", 3, "AutoModelForCausalLM"),
        model="llama",
        typed=CHAT,
    ),
    "pairs of dialogues": Case(
        *("two answers, of which one is preferred", imitations.hh, (7, 1, 3)),
        {"chosen": json.dumps(f" {WORDS[0]} 0"), "rejected": json.dumps(" no")},
        *(f"{WORDS[0]} 0<|im_end|>", "accuracy", "What now?", 1, "AutoModelForCausalLM"),
        model="llama",
        typed=CHAT,
    ),
    "pairs of messages": Case(
        *("two answers as messages", imitations.ultrafeedback, (18, 2)),
        {"prompt": said(0).partition(', {"role": "assistant"')[0] + "]"},
        *(f"{WORDS[0]} 0<|im_end|>", "accuracy", "What now?", 1, "AutoModelForCausalLM"),
        model="llama",
        typed=CHAT,
    ),
    "cifar": Case(
        *("images, a folder a class", imitations.cifar, (18, 2, 10)),
        {"label": "airplane"},
        *("airplane", "accuracy", "cifar10/test", 10, "AutoModelForImageClassification"),
        model="vit",
        labels=CIFAR,
        typed=TINY_VIT,
    ),
    "x-rays": Case(
        *("NIH's X-rays", imitations.xrays, (18, 2)),
        {"label": FINDINGS[0].split("|")},
        *(FINDINGS[0].split("|"), "f1_micro", "images", 20, "AutoModelForImageClassification"),
        model="vit",
        labels=[
            *("Atelectasis Cardiomegaly Consolidation Edema Effusion Emphysema Fibrosis".split()),
            *("Hernia Infiltration Mass Nodule Pleural_Thickening Pneumonia".split()),
            *("Pneumothorax", "No Finding"),
        ],
        typed=TINY_VIT,
    ),
    "sonnets": Case(
        *("sonnets", imitations.sonnets, (18, 2)),
        {"text": f"From fairest {WORDS[0]} 0,\n  That {sentence(0)}"},
        *(
            f"from fairest {WORDS[0]} 0,\n  that {sentence(0)}",
            "loss",
            TEXT,
            1,
            "AutoModelForCausalLM",
        ),
        model="gpt2",
        typed=["generation.max_new_tokens=4"],
    ),
}


@pytest.fixture
def typed(tmp_path, monkeypatch, checkpoints):
    """A function from a case to its command, which is given in the folder of its files."""

    def command(case):
        (row,) = [row for row in TABLE if row.startswith(case.row)]
        case.write(tmp_path)
        monkeypatch.chdir(tmp_path)
        own = shlex.split(TABLE[row].replace("\\|", "|"))
        return [*own, *case.typed, f"checkpoint={checkpoints(case.model)}"]

    return command


def target_of(row, data):
    """What the labels of an encoded row say."""
    if "start_positions" in row:
        span = slice(row["start_positions"], row["end_positions"] + 1)
        return data.processor.decode(row["input_ids"][span]).strip()
    if "chosen_ids" in row:
        return data.processor.decode(row["chosen_ids"]).strip()
    names, labels = data.label_names, row.get("labels")
    if names is None and not isinstance(labels, int):
        chat = "prompt_length" in row  # whose ends are special tokens, and learnt
        ids = [i for i in labels or row["input_ids"] if i != -100]
        text = data.processor.decode(ids, skip_special_tokens=not chat)
        return text.lstrip(" ")  # the tokenizer puts one before each text
    if isinstance(labels, int):
        return labels if names is None else names[labels]
    if isinstance(labels[0], float):
        return [name for name, hot in zip(names, labels, strict=True) if hot]
    return [names[label] for label in labels if label != -100]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_is_read_as_it_is_meant(case, typed):
    with initialize_config_dir(str(CONFIG_DIR)), execution_whitelist(WHITELIST):
        data = build_data(compose("train", typed(case)))
    splits = data.rows().splits
    assert (
        tuple(len(splits[s]) for s in ("train", "validation", "test") if s in splits) == case.sizes
    )
    assert {role: splits["train"][0][role] for role in case.first} == case.first
    assert data.label_names == case.labels
    target = target_of(data.encoded("train")[0], data)
    if case.labels is None and case.auto in TEXTS:  # the beginning of a block or a text
        target = target[: len(case.target)]
    assert target == case.target


def test_a_play_is_cut_into_blocks_and_none_of_it_is_lost(typed, caplog):
    with initialize_config_dir(str(CONFIG_DIR)), execution_whitelist(WHITELIST):
        data = build_data(compose("train", typed(CASES["a play"])))
    parts = [data.rows().splits[split]["text"][:] for split in ("train", "validation")]
    assert "".join(text for part in parts for text in part) == PLAY
    blocks = [data.encoded(split)["input_ids"][:] for split in ("train", "validation")]
    assert [len(part) > 1 for part in blocks] == [True, False]
    assert {len(block) for block in blocks[0][:-1]} == {128}
    decode = partial(data.processor.decode, skip_special_tokens=True)
    read = ["".join(map(decode, part)) for part in blocks]
    # the tokenizer puts a space before each text, and the recipe a marker behind it
    texts = [text.removeprefix(" ").removesuffix("<|eos|>") for text in read]
    assert "".join(texts) == PLAY


WALKED = [
    pytest.param(c, id=name, marks=() if c.always else pytest.mark.thorough)
    for name, c in CASES.items()
]


@pytest.mark.parametrize("case", WALKED)
def test_it_goes_the_whole_way(case, typed, quick):
    """A step is trained; then the run evaluates and predicts, and its model is loaded."""
    small = ["trainer.max_steps=1", "callbacks.samples=null", "data.batch_size=4"]
    run = hydralight.train([*typed(case), *quick, *small])
    assert run.metrics["best"]["step"] == 1
    evaluated = hydralight.evaluate([f"run={run.path}"])
    assert math.isfinite(evaluated[f"val/{case.metric}"])
    assert evaluated[f"val/{case.metric}"] == pytest.approx(
        run.metrics["best"][f"val/{case.metric}"]
    )
    rows = hydralight.predict([f"run={run.path}", f"input={case.given}"])
    assert [row["row"] for row in rows] == list(range(case.predicted))
    model = getattr(transformers, case.auto).from_pretrained(run.path / "model")
    if case.labels is not None:
        assert model.config.id2label == dict(enumerate(case.labels))
        said = [row.get("label", row.get("tags")) for row in rows]
        named = {n for one in said for n in (one if isinstance(one, list) else [one])}
        assert named <= set(case.labels)
    kept = json.loads((run.path / "model" / "config.json").read_text()).get("label_values")
    assert (kept is not None) == ("data.labels=[" in " ".join(typed(case)))
