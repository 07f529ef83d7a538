"""A run from end to end: train, evaluate, predict, resume, hand on."""

import json
import re
import shutil

import pandas as pd
import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import hydralight
from hydralight.commands import start
from hydralight.errors import UserError
from hydralight.tasks.task import Task


@pytest.fixture(scope="module")
def run(tiny_bart, articles, tmp_path_factory):
    files = ",".join(f"{s}:{articles / s}.jsonl" for s in ("train", "validation", "test"))
    return hydralight.train(
        [
            "experiment=bart_cnn",
            f"checkpoint={tiny_bart}",
            f"data.path={{{files}}}",
            f"paths.log_dir={tmp_path_factory.mktemp('runs')}",
            "data.max_source_length=128",
            "generation.max_new_tokens=12",
            "optimizer.lr=0.02",
            "trainer.max_epochs=2",
            "trainer.accelerator=cpu",
            "trainer.log_every_n_steps=1",
            "callbacks.rich_progress=null",
            "test=true",
        ]
    )


def test_run_directory_is_complete(run):
    names = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    assert names >= {
        ".hydra/config.yaml",
        "config.yaml",
        "environment.json",
        "metrics.csv",
        "metrics.json",
        "curves.png",
        "samples/step-00000000.jsonl",
        "samples/step-00000004.jsonl",
        "samples/step-00000008.jsonl",
        "checkpoints/last.ckpt",
        "model/model.safetensors",
        "model/config.json",
        "model/generation_config.json",
        "model/tokenizer.json",
        "model/README.md",
        "predictions/test.jsonl",
    }
    assert not [name for name in names if "partial" in name]
    # a row a step, and one for each evaluation: after each epoch, and on the test split
    assert list(run.history["step"]) == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 8]
    assert run.metrics["status"] == "finished"
    assert run.metrics["last"]["step"] == 8
    best = run.history["val/rougeL"].max()
    assert run.metrics["best"]["val/rougeL"] == pytest.approx(best, abs=1e-6)
    names = ("loss", "rouge1", "rouge2", "rougeL", "rougeLsum", "gen_len")
    assert run.metrics["test"].keys() == {f"test/{name}" for name in names}


def test_rouge_is_that_of_the_written_predictions(run):
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    rows = run.predictions("test")
    scores = pd.DataFrame(
        {k: v.fmeasure for k, v in scorer.score(row["reference"], row["prediction"]).items()}
        for row in rows
    ).mean()
    assert [row["row"] for row in rows] == [0, 1, 2, 3]
    for name, value in scores.items():
        assert run.metrics["test"][f"test/{name}"] == pytest.approx(value, abs=1e-6)


def test_eval_reproduces_best(run):
    start("eval", [f"run={run.path}"])
    rows = run.predictions("validation")
    assert len(rows) == 7
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    scores = [scorer.score(r["reference"], r["prediction"])["rougeL"].fmeasure for r in rows]
    assert sum(scores) / 7 == pytest.approx(run.metrics["best"]["val/rougeL"], abs=1e-6)


def test_eval_takes_other_data_whole(run, articles, capsys):
    start("eval", [f"run={run.path}", f"data.path={articles / 'train.jsonl'}", "split=other"])
    printed = json.loads(capsys.readouterr().out)
    assert len(run.predictions("other-train")) == 13
    assert printed.keys() >= {"other/loss", "other/rougeL"}


def test_exported_model_is_an_ordinary_one(run):
    model = AutoModelForSeq2SeqLM.from_pretrained(run.path / "model")
    tokenizer = AutoTokenizer.from_pretrained(run.path / "model")
    assert model.generation_config.max_new_tokens == 12
    best = run.metrics["best"]["step"]
    samples = [
        json.loads(line)
        for line in (run.path / f"samples/step-{best:08d}.jsonl").read_text().splitlines()
    ]
    inputs = tokenizer([row["text"] for row in samples], padding=True, return_tensors="pt")
    ids = model.generate(inputs["input_ids"], attention_mask=inputs["attention_mask"])
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    assert [text.strip() for text in texts] == [row["prediction"] for row in samples]


def test_export_keeps_the_logits(run):
    """The weights in `model/` are those of the checkpoint, where the best step is the last."""
    state = torch.load(run.path / "checkpoints/step-00000008.ckpt", weights_only=True)
    trained = AutoModelForSeq2SeqLM.from_config(run.model.config)
    weights = {k.removeprefix("model."): v for k, v in state["state_dict"].items()}
    if run.metrics["best"]["step"] != 8:
        state = torch.load(run.path / "checkpoints/step-00000004.ckpt", weights_only=True)
        weights = {k.removeprefix("model."): v for k, v in state["state_dict"].items()}
    trained.load_state_dict(weights, strict=False)
    ids = torch.arange(3, 13).reshape(1, 10)
    with torch.no_grad():
        expected = trained.eval()(ids, decoder_input_ids=ids).logits
        exported = run.model(ids, decoder_input_ids=ids).logits
    assert torch.equal(expected, exported)


def test_predict_writes_a_line_for_a_line(run, tmp_path):
    texts = ["The mayor saw a storm near the river.", "A train was late.", "The tower fell."]
    (tmp_path / "in.txt").write_text("\n".join(texts) + "\n")
    output = tmp_path / "out.jsonl"
    start("predict", [f"run={run.path}", f"input={tmp_path / 'in.txt'}", f"output={output}"])
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["text"] for row in rows] == texts
    inputs = run.tokenizer(texts[1], return_tensors="pt")
    alone = run.model.generate(inputs["input_ids"], attention_mask=inputs["attention_mask"])
    text = run.tokenizer.decode(alone[0], skip_special_tokens=True).strip()
    assert rows[1]["prediction"] == text


def test_finished_run_has_nothing_left_until_it_is_extended(run):
    with pytest.raises(UserError, match="has nothing left to do: it is at epoch 2, step 8"):
        hydralight.train([f"resume={run.path}"])
    before = run.path / ".hydra/config.yaml"
    composed = before.read_text()
    extended = hydralight.train([f"resume={run.path}", "trainer.max_epochs=3"])
    assert extended.path == run.path
    assert before.read_text() == composed
    assert extended.metrics["last"]["step"] == 12
    steps = list(extended.history["step"])
    assert [step for step in steps if step > 8] == [9, 10, 11, 12, 12, 12]


def test_secrets_are_redacted(bart_cnn):
    token = "hf_" + "a1" * 16
    run = hydralight.train(
        [*bart_cnn, "debug=limit", "+callbacks.best_model.card.api_key=hunter2", f"tags=[{token}]"]
    )
    texts = {
        path: path.read_text(errors="ignore") for path in run.path.rglob("*") if path.is_file()
    }
    assert not [path for path, text in texts.items() if "hunter2" in text or token in text]
    assert "<redacted>" in texts[run.path / ".hydra/overrides.yaml"]
    assert run.config.generation.max_new_tokens == 12  # a word with "token" in it is no secret


def test_redaction_spares_what_is_no_secret(bart_cnn):
    from hydralight.runs.secrets import redact

    spared = {
        "eos_token": "</s>",
        "max_new_tokens": "12",
        "checkpoint": "./hf_bart_large_cnn_new",
    }
    assert redact(spared) == spared
    secret = {"hf_token": "a", "token": "b", "logger": {"wandb_api_key": "c"}, "password": "d"}
    assert redact(secret) == {
        "hf_token": "<redacted>",
        "token": "<redacted>",
        "logger": {"wandb_api_key": "<redacted>"},
        "password": "<redacted>",
    }
    assert redact(["+extra.token=x", "seed=1"]) == ["+extra.token=<redacted>", "seed=1"]
    assert redact("https://me:pass@example.org/x") == "https://<redacted>@example.org/x"


def test_preflight_builds_everything_and_leaves_nothing(bart_cnn, tmp_path, capsys):
    step = ["data.batch_size=2", "data.batches_per_step=4"]
    assert hydralight.train([*bart_cnn, *step, "check=true"]) is None
    printed = capsys.readouterr().out
    assert "4 micro-batches of 2 examples" in printed
    assert re.search(r"optimizer steps an epoch +│ 2 ", printed)
    assert "13 (0 were too long; 13 looked at)" in printed
    assert "val/rougeL" in printed
    for wrong in ("scheduler.name=lineer", "optimizer.lr=-1"):
        with pytest.raises(UserError, match=wrong.partition(".")[0]):
            hydralight.train([*bart_cnn, "check=true", wrong])
    assert not [path for path in (tmp_path / "logs").rglob("*") if path.is_file()]


@pytest.mark.parametrize("damage", ["cut", "no image"])
def test_damaged_image(damage, recipe, tmp_path):
    """In the training and the test split, whose batches a preflight would not come to."""
    overrides, folder = recipe("vit_cxr14"), tmp_path / "data"
    image, other = folder / "train" / "5.png", folder / "test" / "2.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:-60] if damage == "cut" else b"<html>404</html>")
    for more in (["check=true"], ["trainer.max_epochs=1"]):
        with pytest.raises(UserError, match=f"^{image} cannot be read as an image: .*\\.$"):
            hydralight.train([*overrides, *more])
    image.write_bytes(whole)
    other.write_bytes(b"")
    with pytest.raises(UserError, match=f"^{other} cannot be read as an image"):
        hydralight.train([*overrides, "check=true", "test=true"])


def test_missing_test_split_is_told_before_training(bart_cnn, articles):
    files = f"data.path={{train: {articles / 'train.jsonl'}}}"
    with pytest.raises(UserError, match="there is no 'test' split"):
        hydralight.train([*[o for o in bart_cnn if "data.path" not in o], files, "test=true"])


def test_an_extension_outlives_an_interruption(bart_cnn, monkeypatch):
    run = hydralight.train([*bart_cnn, "trainer.max_epochs=1"])
    with monkeypatch.context() as patch:
        patch.setattr(Task, "on_train_batch_start", stop_at(6), raising=False)
        with pytest.raises(InterruptedError):
            hydralight.train([f"resume={run.path}", "trainer.max_epochs=2"])
    resumed = hydralight.train([f"resume={run.path}"])
    assert resumed.metrics["last"]["step"] == 8
    assert "\n# bart_cnn\n" in (resumed.path / "model/README.md").read_text()


def test_resumes_add_up(bart_cnn, monkeypatch):
    """Interrupted at the end of an epoch and again in the next, then extended twice."""
    overrides = [*bart_cnn, "callbacks.last_checkpoint.every_n_train_steps=1"]
    whole = hydralight.train([*overrides, "trainer.max_epochs=3"])
    interrupted = [*overrides, "trainer.max_epochs=3"]
    for step in (4, 7):  # 4 steps an epoch
        with monkeypatch.context() as patch:
            patch.setattr(Task, "on_train_batch_start", stop_at(step), raising=False)
            with pytest.raises(InterruptedError):
                hydralight.train(interrupted)
        interrupted = [f"resume={max(whole.path.parent.iterdir())}"]
    resumed = hydralight.train(interrupted)
    assert resumed.path != whole.path
    assert whole.history.equals(resumed.history)
    for epochs in (4, 6):
        resumed = hydralight.train([f"resume={resumed.path}", f"trainer.max_epochs={epochs}"])
        assert resumed.metrics["last"]["step"] == 4 * epochs
        assert resumed.metrics["last"]["epoch"] == epochs
    with pytest.raises(UserError, match="it is at epoch 6, step 24"):
        hydralight.train([f"resume={resumed.path}"])


def test_eval_follows_what_a_resume_has_changed(bart_cnn, capsys):
    run = hydralight.train([*bart_cnn, "trainer.max_epochs=1", "optimizer.lr=0.02"])
    more = ["trainer.max_epochs=2", "generation.max_new_tokens=3", "optimized_metric=val/loss"]
    run = hydralight.train([f"resume={run.path}", *more])
    # the best of another metric is none of this one's: both its evaluations were looked at
    assert run.metrics["best"]["val/loss"] == run.history["val/loss"].min()
    capsys.readouterr()
    start("eval", [f"run={run.path}"])
    best = {name: value for name, value in run.metrics["best"].items() if name != "step"}
    assert json.loads(capsys.readouterr().out) == pytest.approx(best, abs=1e-6)
    assert max(len(row["prediction"].split()) for row in run.predictions("validation")) <= 3


def test_early_stopping_resumes_where_it_stood(bart_cnn, monkeypatch):
    overrides = [*bart_cnn, "callbacks=early_stopping", "callbacks.early_stopping.patience=2"]
    overrides += ["trainer.max_epochs=9", "optimizer.lr=0", "callbacks.rich_progress=null"]
    whole = hydralight.train(overrides)
    assert whole.metrics["last"]["step"] == 12  # the first evaluation is the best; two more
    with monkeypatch.context() as patch:
        patch.setattr(Task, "on_train_batch_start", stop_at(8), raising=False)
        with pytest.raises(InterruptedError):
            hydralight.train([*overrides, "tags=[interrupted]"])
    interrupted = max(whole.path.parent.iterdir())
    assert hydralight.train([f"resume={interrupted}"]).metrics["last"]["step"] == 12


def stop_at(step):
    def stop(task, *args):
        if task.global_step == step:
            raise InterruptedError

    return stop


def test_failed_eval_leaves_the_run_alone(bart_cnn, tmp_path):
    run = hydralight.train([*bart_cnn, "trainer.max_epochs=1"])
    for path in ("model", "samples", "checkpoints"):
        shutil.rmtree(run.path / path)
    for path in ("metrics.csv", "metrics.json"):
        (run.path / path).unlink()
    with pytest.raises(UserError, match="has no model"):
        start("eval", [f"run={run.path}"])
    assert (run.path / "config.yaml").is_file()


def test_eval_of_the_training_split_and_of_a_checkpoint(run, tiny_bart, bart_cnn, capsys):
    start("eval", [f"run={run.path}", "split=train"])
    assert json.loads(capsys.readouterr().out).keys() >= {"train/loss", "train/rougeL"}
    assert len(run.predictions("train")) == 13
    # the recipe's own model is random: with `checkpoint` it is not used
    path = start("eval", [*bart_cnn, f"checkpoint={run.path / 'model'}"])
    best = {k: v for k, v in run.metrics["best"].items() if k.startswith("val/")}
    assert path is not None
    measured = json.loads((path / "metrics.json").read_text())["validation"]
    assert measured == pytest.approx(best, abs=1e-6)


def test_training_without_validation_takes_all_rows(bart_cnn, articles):
    files = f"data.path={{train: {articles / 'train.jsonl'}}}"
    overrides = [*[o for o in bart_cnn if "data.path" not in o], files]
    overrides += ["data.validation_fraction=0", "+trainer.limit_val_batches=0"]
    run = hydralight.train([*overrides, "trainer.max_epochs=1"])
    assert run.metrics["last"]["step"] == 4
    assert run.model.num_parameters() > 0


def test_keys_of_the_user_are_recorded_as_they_were_typed(recipe):
    """They need no plus sign, which a record would hand on."""
    typed = ["data.columns={text: sentence2, text_pair: sentence1}", "data.reader.encoding=utf-8"]
    run = hydralight.train([*recipe("bert_mrpc"), *typed, "trainer.max_epochs=1"])
    recorded = (run.path / ".hydra" / "overrides.yaml").read_text()
    assert "+" not in recorded
    assert "- data.reader.encoding=utf-8" in recorded
    assert run.config.data.columns.text == "sentence2"
    again = hydralight.train(
        [f"resume={run.path}", "trainer.max_epochs=2", "data.reader.chunksize=1000000"]
    )
    resumed = json.loads((run.path / "resume.json").read_text())["values"]
    assert "data.reader.chunksize=1000000" in resumed
    assert again.config.data.reader.chunksize == 1000000
