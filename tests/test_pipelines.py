"""What a run exports answers in plain transformers as `predict.py` does, for each task.

`predict.py` gets its rows as JSON lines by standard input, by the names of the run's own columns.
"""

import io
import json
import sys
from functools import cache

import pytest
import standins
import torch
from standins import row_for, write_jsonl
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, pipeline
from transformers.pipelines import SUPPORTED_TASKS

import hydralight

SENTENCE = "the storm came near the old bridge and seven people saw the harbour"
MARKER = "<|eos|>"


@pytest.fixture(scope="module")
def trained(checkpoints, tmp_path_factory):
    """A function from a recipe to a run of one step on stand-ins, made once."""

    @cache
    def run(experiment, *more):
        folder = tmp_path_factory.mktemp(experiment)
        return hydralight.train(
            [
                f"experiment={experiment}",
                *standins.overrides_for(experiment, folder / "data", checkpoints),
                *(f"paths.log_dir={folder}", "trainer.accelerator=cpu", "callbacks.samples=null"),
                *("callbacks.rich_progress=null", "+trainer.limit_val_batches=1"),
                *("trainer.max_steps=1", "callbacks.last_checkpoint=null"),
                *("callbacks.record=null", "callbacks.exact_resume=null", *more),
            ]
        )

    return run


@pytest.fixture
def predicted(monkeypatch):
    """A function from a run and rows to what `predict.py` answers to them."""

    def predict(run, *rows, typed=()):
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines), "ascii"))
        given = [f"run={run.path}"] if hasattr(run, "path") else run
        return hydralight.predict([*given, "input=-", *typed])

    return predict


def asked(task, run, *inputs, **options):
    """What `pipeline` answers, input by input."""
    pipe = pipeline(task, model=str(run.path / "model"), device="cpu")
    return [pipe(one, **options) for one in inputs]


def pair(experiment, *roles):
    rows = [row_for(experiment, index) for index in (1, 4, 9)]
    return rows, [{role: row[name] for role, name in roles} for row in rows]


# ------------------------------------------------------------ texts that are written


@pytest.fixture(scope="module")
def sonnets(trained, tmp_path_factory):
    """A function from overrides to a run that has learnt one sentence by heart, and its end."""
    path = write_jsonl(tmp_path_factory.mktemp("sonnets") / "a.jsonl", [{"text": SENTENCE}] * 16)
    common = (f"data.path={path}", "data.packing=false", "trainer.max_steps=40")
    common += ("trainer.val_check_interval=40", "optimizer.lr=1e-2", "scheduler.warmup_steps=4")
    common += ("generation.max_new_tokens=40", "generation.do_sample=null", "data.batch_size=8")
    greedy = ("generation.temperature=null", "generation.top_p=null", "generation.top_k=null")
    return lambda *more: trained(
        "distilgpt2_sonnets", *common, *greedy, "generation.stop_strings=null", *more
    )


PROMPTS = ["the storm", "the storm came near the old"]


def test_a_trained_tokenizer_leaves_a_prompt_open(sonnets, predicted):
    model = "model.config={model_type: gpt2, n_embd: 32, n_layer: 1, n_head: 2, n_positions: 64}"
    run = sonnets("tokenizer=train", "tokenizer.vocab_size=300", "model=scratch", model)
    rows = predicted(run, *({"text": prompt} for prompt in PROMPTS))
    assert [row["prompt"] + row["prediction"] for row in rows] == [SENTENCE, SENTENCE]
    answers = asked("text-generation", run, *PROMPTS)
    assert [one["generated_text"] for (one,) in answers] == [SENTENCE, SENTENCE]
    tokenizer = AutoTokenizer.from_pretrained(run.path / "model")
    assert tokenizer.tokenize(f"storm{MARKER}")[-1] == MARKER
    assert MARKER in tokenizer.all_special_tokens
    assert len(tokenizer) <= 300  # with the marker
    generation = json.loads((run.path / "model" / "generation_config.json").read_text())
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(MARKER)]
    assert generation["eos_token_id"] == ends
    assert generation["do_sample"] is False  # `pipeline` would sample
    # what is evaluated with it is what was trained on, the end token behind the marker included
    best = run.metrics["best"]["val/loss"]
    again = hydralight.evaluate([f"run={run.path}"])
    assert again["val/loss"] == pytest.approx(best, rel=1e-6)


def test_a_marker_of_several_tokens_is_a_stop_string(sonnets, predicted):
    """`pipeline` refuses a generation config with stop strings: the model card says how to ask."""
    run = sonnets()
    rows = predicted(run, *({"text": prompt} for prompt in PROMPTS))
    assert [row["prompt"] + row["prediction"] for row in rows] == [SENTENCE, SENTENCE]
    pipe = pipeline("text-generation", model=str(run.path / "model"), device="cpu")
    for prompt in PROMPTS:
        (one,) = pipe(prompt, stop_sequence=MARKER, tokenizer=pipe.tokenizer)
        assert one["generated_text"] == SENTENCE + MARKER
    assert f'stop_sequence="{MARKER}"' in (run.path / "model" / "README.md").read_text()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("experiment", "column"), [("bart_cnn", "article"), ("marian_wmt16_en_ro", "translation")]
)
def test_texts_for_texts(experiment, column, trained, predicted):
    """There is no pipeline of these any more: `generate` stands for it."""
    gone = {"summarization", "translation", "text2text-generation", "question-answering"}
    assert not gone & SUPPORTED_TASKS.keys()
    run = trained(experiment)
    rows = [{column: row_for(experiment, index)[column]} for index in (1, 4, 9)]
    tokenizer = AutoTokenizer.from_pretrained(run.path / "model")
    model = AutoModelForSeq2SeqLM.from_pretrained(run.path / "model")
    for row, answer in zip(rows, predicted(run, *rows), strict=True):
        text = row[column]["en"] if column == "translation" else row[column]
        ids = model.generate(**tokenizer(text, return_tensors="pt"))
        (written,) = tokenizer.batch_decode(ids, skip_special_tokens=True)
        assert answer["prediction"] == written.strip()


# ------------------------------------------------------------ labels and vectors


MRPC = (("text", "sentence1"), ("text_pair", "sentence2"))


def same(labels, scores):
    """Compare the labels of a pipeline with scores by label."""
    assert {one["label"]: one["score"] for one in labels} == pytest.approx(scores, abs=1e-5)


def test_labels_of_pairs(trained, predicted):
    run, (rows, pairs) = trained("bert_mrpc"), pair("bert_mrpc", *MRPC)
    answers = asked("text-classification", run, *pairs, top_k=None)
    for row, labels in zip(predicted(run, *rows), answers, strict=True):
        same(labels, row["scores"])
        assert labels[0]["label"] == row["label"]


def test_a_limited_prediction_is_of_the_first_rows(trained, predicted):
    """Batches are of like lengths otherwise, the long ones first."""
    rows = [{"sentence1": "a " * (row + 1), "sentence2": "b"} for row in range(7)]
    typed = ["data.batch_size=2", "+trainer.limit_predict_batches=2"]
    found = predicted(trained("bert_mrpc"), *rows, typed=typed)
    assert [row["text"] for row in found] == [row["sentence1"] for row in rows[:4]]


@pytest.mark.thorough
def test_a_number_for_a_pair(trained, predicted):
    run, (rows, pairs) = trained("bert_stsb"), pair("bert_stsb", *MRPC)
    answers = asked("text-classification", run, *pairs)
    for row, answer in zip(predicted(run, *rows), answers, strict=True):
        one = answer[0] if isinstance(answer, list) else answer
        assert row["score"] == pytest.approx(one["score"], abs=1e-5)


@pytest.mark.thorough
def test_labels_by_a_causal_model(trained, predicted, checkpoints):
    """It reads the last token that is no padding."""
    run = trained("distilbert_emotion", f"checkpoint={checkpoints('gpt2')}")
    texts = ["the storm", "seven people saw the old harbour near the bridge"]
    answers = asked("text-classification", run, *texts, top_k=None)
    rows = predicted(run, *({"text": text} for text in texts))
    for row, labels in zip(rows, answers, strict=True):
        same(labels, row["scores"])


def test_tags(trained, predicted):
    """A word has the tag of its first token."""
    run = trained("bert_ner_conll2003")
    sentences = [row_for("bert_ner_conll2003", index)["tokens"] for index in (1, 4)]
    rows = predicted(run, *({"tokens": words} for words in sentences))
    texts = [" ".join(words) for words in sentences]
    answers = asked("token-classification", run, *texts, ignore_labels=[])
    for row, words, tokens in zip(rows, sentences, answers, strict=True):
        starts = [len(" ".join([*words[:n], ""])) for n in range(len(words))]
        tags = {token["start"] + (token["word"][0] == "Ġ"): token["entity"] for token in tokens}
        tags |= {token["start"]: token["entity"] for token in tokens}
        assert row["tags"] == [tags[start] for start in starts]


def test_masks(trained, predicted):
    run = trained("roberta_mlm_wikitext")
    texts = ["the <mask> came near", "seven people saw <mask> near the <mask> bridge"]
    rows = predicted(run, *({"text": text} for text in texts))
    for row, answer in zip(rows, asked("fill-mask", run, *texts), strict=True):
        masks = answer if isinstance(answer[0], list) else [answer]
        assert len(masks) == len(row["masks"])
        for ours, theirs in zip(row["masks"], masks, strict=True):
            assert [one["token"] for one in ours] == [one["token_str"].strip() for one in theirs]
            scores = [one["score"] for one in theirs]
            assert [one["score"] for one in ours] == pytest.approx(scores, abs=1e-5)


@pytest.mark.thorough
def test_labels_of_images(trained, predicted, tmp_path):
    run = trained("vit_cxr14")
    standins.images(tmp_path, 3)
    files = [str(tmp_path / f"{number}.png") for number in range(3)]
    rows = predicted(run, *({"image": file} for file in files))
    answers = asked("image-classification", run, *files, top_k=15)
    for row, labels in zip(rows, answers, strict=True):
        same(labels, row["scores"])


@pytest.mark.thorough
def test_vectors(trained, predicted):
    """The mean of the tokens' states, of length 1."""
    run = trained("minilm_nli")
    texts = ["the storm", "seven people saw the old harbour"]
    rows = predicted(run, *({"anchor": text} for text in texts))
    answers = asked("feature-extraction", run, *texts, return_tensors=True)
    for row, states in zip(rows, answers, strict=True):
        mean = states[0].mean(dim=0)
        torch.testing.assert_close(torch.tensor(row["embedding"]), mean / mean.norm())


@pytest.mark.thorough
@pytest.mark.parametrize("experiment", ["bert_squad", "bert_swag"])
def test_tasks_without_a_pipeline_read_the_same_rows_from_a_file(
    experiment, checkpoints, predicted, tmp_path
):
    rows = [row_for(experiment, index) for index in (1, 4, 9)]
    for row in rows:
        for name in ("answers", "label"):
            row.pop(name, None)
    typed = [f"experiment={experiment}", f"checkpoint={checkpoints('bert')}"]
    typed += [f"paths.log_dir={tmp_path}", "trainer.accelerator=cpu"]
    typed += standins.SMALLER.get(experiment, [])
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    expected = hydralight.predict([*typed, f"input={file}"])
    assert predicted(typed, *rows) == expected
    assert len(expected) == 3
