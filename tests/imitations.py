"""Small imitations of well-known data sets, in the formats in which they are published."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from standins import NUMBERS, WORDS, article, write_jsonl

SIZES = {"train": 8, "validation": 4, "test": 3}


def sentence(i: int) -> str:
    return f"the {WORDS[i % 12]} by the {WORDS[(5 * i + 3) % 12]} has {NUMBERS[i % 6]} doors"


def table(path: Path, rows: list[list], sep: str = ",") -> None:
    with path.open("w", newline="") as stream:
        csv.writer(stream, delimiter=sep, lineterminator="\n").writerows(rows)


def numbered():
    """Yield each split with the numbers of its rows."""
    start = 0
    for split, size in SIZES.items():
        yield split, range(start, start + size)
        start += size


def glue(folder):
    """SST-2: the test split has numbers of rows, and no labels."""
    for split, rows in numbered():
        name = {"validation": "dev"}.get(split, split)
        if split == "test":
            content = [["index", "sentence"], *([i, sentence(i)] for i in rows)]
        else:
            content = [["sentence", "label"], *([sentence(i), i % 2] for i in rows)]
        table(folder / f"{name}.tsv", content, "\t")


def conll(folder):
    """CoNLL-2003, where documents begin with a line of their own, in IOB1."""
    names = {"train": "train", "validation": "valid", "test": "test"}
    for split, rows in numbered():
        lines = ["-DOCSTART- -X- O O", ""]
        for i in rows:
            places = [("Old", "B"), (WORDS[i % 12].title(), "I")]
            lines += [f"{NUMBERS[i % 6]} CD B-NP O", "in IN B-PP O"]
            lines += [f"{word} NNP I-NP I-LOC" for word, _ in places] + [". . O O", ""]
        (folder / f"{names[split]}.txt").write_text("\n".join(lines) + "\n")


def squad(folder, version):
    for split, rows in numbered():
        if split == "test":
            continue
        paragraphs = []
        for i in rows:
            context, word = sentence(i), WORDS[i % 12]
            answer = {"text": word, "answer_start": context.index(word)}
            qa = {"id": f"56be{i}", "question": "What has doors?", "answers": [answer]}
            if version == "v2.0":
                qa["is_impossible"] = bool(i % 2)
                if i % 2:
                    qa |= {"answers": [], "plausible_answers": [answer]}
            paragraphs.append({"context": context, "qas": [qa]})
        content = {"version": version, "data": [{"title": "Doors", "paragraphs": paragraphs}]}
        name = {"validation": "dev"}.get(split, split)
        (folder / f"{name}-{version}.json").write_text(json.dumps(content))


def swag(folder):
    head = "video-id fold-ind startphrase sent1 sent2 gold-source ending0 ending1 ending2 ending3"
    names = {"train": "train", "validation": "val", "test": "test"}
    for split, rows in numbered():
        labelled = split != "test"
        content = [["", *head.split(), *(["label"] if labelled else [])]]
        for i in rows:
            first, second = f"{sentence(i)}.", "Somebody"
            endings = [f"opens the {WORDS[(i + k) % 12]}." for k in range(4)]
            row = [i, f"lsmdc{i}", 100 + i, f"{first} {second}", first, second, "gold", *endings]
            content.append([*row, *([(i + 1) % 4] if labelled else [])])
        table(folder / f"{names[split]}.csv", content)


def hellaswag(folder):
    names = {"train": "train", "validation": "val", "test": "test"}
    for split, rows in numbered():
        made = []
        for i in rows:
            row = {"ind": i, "activity_label": "Doors", "ctx_a": f"{sentence(i)}.", "ctx_b": "then"}
            row |= {"ctx": f"{sentence(i)}. then", "split": split, "source_id": f"a~{i}"}
            row["endings"] = [f"the {WORDS[(i + k) % 12]} closes." for k in range(4)]
            made.append(row | ({} if split == "test" else {"label": (i + 1) % 4}))
        write_jsonl(folder / f"hellaswag_{names[split]}.jsonl", made)


def commonsense_qa(folder):
    names = {"train": "train_rand_split", "validation": "dev_rand_split"}
    names["test"] = "test_rand_split_no_answers"
    for split, rows in numbered():
        made = []
        for i in rows:
            choices = [{"label": "ABCDE"[k], "text": WORDS[(i + k) % 12]} for k in range(5)]
            question = {"question_concept": "doors", "choices": choices}
            row = {"id": f"q{i}", "question": {**question, "stem": f"Where is {sentence(i)}?"}}
            made.append({**({} if split == "test" else {"answerKey": "ABCDE"[(i + 1) % 5]}), **row})
        write_jsonl(folder / f"{names[split]}.jsonl", made)


def arc(folder):
    """Most rows have four endings, some three or five; most have letters, some numbers."""
    for split, rows in numbered():
        made = []
        for i in rows:
            names = ["ABCD", "1234", "ABC", "ABCDE"][i % 4]
            choices = {"text": [WORDS[(i + k) % 12] for k in range(len(names))]}
            row = {"id": f"Mercury_{i}", "question": f"Where is {sentence(i)}?"}
            row |= {"choices": {**choices, "label": list(names)}}
            made.append({**row, "answerKey": names[(i + 1) % len(names)]})
        write_jsonl(folder / f"{split}.jsonl", made)


def ag_news(folder):
    for split, rows in numbered():
        if split != "validation":
            lines = [
                f'"{i % 4 + 1}","Title {i}","Of ""{sentence(i)}"", it is said"\n' for i in rows
            ]
            (folder / f"{split}.csv").write_text("".join(lines))


def cola(folder):
    """The test split, which has a header and no labels, is of another format than the rest."""
    for split, rows in numbered():
        content = [["gj04", i % 2, "" if i % 2 else "*", f'{sentence(i)} "now"'] for i in rows]
        if split == "test":
            content = [["index", "sentence"], *([i, sentence(i)] for i in rows)]
        name = {"validation": "dev"}.get(split, split)
        text = "".join("\t".join(map(str, row)) + "\n" for row in content)
        (folder / f"{name}.tsv").write_text(text)


def piqa(folder):
    names = {"train": "train", "validation": "valid", "test": "tests"}
    for split, rows in numbered():
        made = []
        for i in rows:
            row = {"id": str(i), "goal": f"{sentence(i)}?"}
            row |= {f"sol{k + 1}": f"the {WORDS[(i + k) % 12]}" for k in range(2)}
            made.append(row | ({} if split == "test" else {"label": (i + 1) % 2}))
        write_jsonl(folder / f"{names[split]}.jsonl", made)


def imdb(folder):
    """A file a review, in a folder a class; those of `unsup` have none."""
    for split, labels in [("train", ("neg", "pos", "unsup")), ("test", ("neg", "pos"))]:
        for label in labels:
            (folder / "aclImdb" / split / label).mkdir(parents=True, exist_ok=True)
            for i in dict(numbered())[split]:
                text = f"{label}: {sentence(i)}<br /><br />{i}"
                (folder / "aclImdb" / split / label / f"{i}_7.txt").write_text(text)


def emotion(folder):
    six = ["sadness", "joy", "love", "anger", "fear", "surprise"]
    names = {"train": "train", "validation": "val", "test": "test"}
    for split, rows in numbered():
        lines = [f"i feel {sentence(i)};{six[i % 6]}\n" for i in rows]
        (folder / f"{names[split]}.txt").write_text("".join(lines))


def dialogue(i: int, name: str) -> dict:
    said = f"{name}: {sentence(i)}\r\nBob: I saw it\r\n{name}: <file_gif>"
    return {"dialogue": said, "summary": f"{name} tells Bob that {sentence(i)}."}


def samsum(folder):
    names = {"train": "train", "validation": "val", "test": "test"}
    for split, rows in numbered():
        made = [{"id": str(13818000 + i), **dialogue(i, "Ann")} for i in rows]
        (folder / f"{names[split]}.json").write_text(json.dumps(made, indent=1))


def dialogsum(folder):
    for split, name in [("train", "train"), ("validation", "dev")]:
        rows = dict(numbered())[split]
        made = [{"fname": f"t_{i}", **dialogue(i, "#Person1#"), "topic": "doors"} for i in rows]
        write_jsonl(folder / f"dialogsum.{name}.jsonl", made)


def cnn_dailymail(folder):
    for split, rows in numbered():
        content = [["id", "article", "highlights"]]
        content += [[f"{i:040x}", *article(i).values()] for i in rows]
        table(folder / f"{split}.csv", content)


WIKI = " \n = Valkyria {0} = \n \n The {0} <unk> of the {1} is a game . \n \n = = Plot = = \n \n"


def wikitext(folder):
    for split, name in [("train", "train"), ("validation", "valid"), ("test", "test")]:
        pages = [WIKI.format(WORDS[i % 12], WORDS[(i + 1) % 12]) for i in dict(numbered())[split]]
        (folder / f"wiki.{name}.tokens").write_text("".join(pages))


PLAY = "".join(
    f"ACT {i}\r\n\r\n\r\nFIRST CITIZEN:\r\n  {sentence(i).capitalize()};\r\n\r\n" for i in range(20)
)


def play(folder):
    (folder / "play.txt").write_bytes(PLAY.encode())


def alpaca(folder):
    rows = [
        {
            "instruction": f"Say what {sentence(i)}.",
            "input": f"in {i}" if i % 2 else "",
            "output": f"{WORDS[i % 12]} {i}",
        }
        for i in range(20)
    ]
    (folder / "alpaca_data.json").write_text(json.dumps(rows, indent=4))


def sharegpt(folder):
    rows = []
    for i in range(20):
        said = [("human", f"Say what {sentence(i)}."), ("gpt", f"{WORDS[i % 12]} {i}")]
        said += [("human", "Again!"), ("gpt", f"{WORDS[i % 12]} again")] if i % 2 == 0 else []
        turns = [{"from": who, "value": what} for who, what in said]
        rows.append({"id": f"a_{i}", "conversations": turns})
    (folder / "sharegpt.json").write_text(json.dumps(rows, indent=2))


def hh(folder):
    """HH-RLHF: two dialogues a row, which differ in the last answer."""
    for split, rows in numbered():
        lines = []
        for i in rows:
            asked = f"\n\nHuman: Say what {sentence(i)}.\n\nAssistant:"
            answers = {"chosen": f" {WORDS[i % 12]} {i}", "rejected": " no"}
            lines.append(json.dumps({name: asked + said for name, said in answers.items()}))
        packed = gzip.compress("\n".join(lines).encode())
        (folder / f"{split}.jsonl.gz").write_bytes(packed)


def ultrafeedback(folder):
    """UltraFeedback binarized: the prompt as a text, which both lists of messages repeat."""
    rows = []
    for i in range(20):
        prompt = f"Say what {sentence(i)}."
        asked = {"content": prompt, "role": "user"}
        good, bad = (
            [asked, {"content": text, "role": "assistant"}]
            for text in (f"{WORDS[i % 12]} {i}", "no")
        )
        row = {"prompt": prompt, "prompt_id": f"{i:064x}", "chosen": good, "rejected": bad}
        rows.append({**row, "messages": good, "score_chosen": 8.5, "score_rejected": 3.0})
    pq.write_table(pa.Table.from_pylist(rows), folder / "train_prefs.parquet")


CIFAR = "airplane automobile bird cat deer dog frog horse ship truck".split()


def picture(path, seed, size=32, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size, size, 3) if mode == "RGB" else (size, size)
    pixels = np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def cifar(folder):
    for number, label in enumerate(CIFAR):
        for split, size in [("train", 2), ("test", 1)]:
            for i in range(size):
                picture(folder / "cifar10" / split / label / f"{i:04}.png", 10 * number + i)


FINDINGS = ["Cardiomegaly", "Cardiomegaly|Emphysema", "No Finding", "Hernia|Mass|Nodule"]


def xrays(folder):
    head = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender"
    content = [[*head.split(","), "View Position", "OriginalImage[Width", "Height]"]]
    for i in range(20):
        name = f"{i // 2 + 1:08}_{i % 2:03}.png"
        picture(folder / "images" / name, i, 24, "L")
        content.append([name, FINDINGS[i % 4], i % 2, i // 2 + 1, 58, "M", "PA", 2682, 2749])
    table(folder / "Data_Entry_2017.csv", content)


def sonnets(folder):
    poems = [f"From fairest {WORDS[i % 12]} {i},\n  That {sentence(i)}" for i in range(20)]
    (folder / "sonnets.txt").write_text("\n\n".join(poems) + "\n")
