"""Evaluations by lm-eval, on a task of local files, against log-likelihoods taken by hand."""

import json
import sys

import pytest
import torch
from standins import article, write_jsonl

import hydralight
from hydralight.commands import start
from hydralight.errors import UserError

SHORT = ["trainer.max_epochs=1", "callbacks.samples=null", "optimizer.lr=1e-2"]
CHOICES = ["storm", "council of the river", "tower"]
NUMBER = 12


@pytest.fixture
def tasks(tmp_path):
    """A folder with a task: which of three words goes on with a text."""
    folder = tmp_path / "tasks"
    rows = [
        {"text": article(i)["article"], "choices": CHOICES, "answer": i % 3} for i in range(NUMBER)
    ]
    data = write_jsonl(folder / "rows.jsonl", rows)
    (folder / "words.yaml").write_text(
        "task: which_word\n"
        "dataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: '{data}'}}}}\n"
        "test_split: test\n"
        "output_type: multiple_choice\n"
        "doc_to_text: '{{text}}'\n"
        "doc_to_choice: choices\n"
        "doc_to_target: answer\n"
        "metric_list: [{metric: acc}, {metric: acc_norm}]\n"
    )
    return folder


def by_hand(run, tasks, number=NUMBER):
    """Accuracy by the sum of the log-probabilities of each choice's tokens, and by character."""
    model, tokenizer = run.model.eval(), run.tokenizer
    right = [0, 0]
    for line in (tasks / "rows.jsonl").read_text().splitlines()[:number]:
        row = json.loads(line)
        scores = []
        for choice in row["choices"]:
            text = tokenizer(row["text"])["input_ids"]
            whole = tokenizer(f"{row['text']} {choice}")["input_ids"]
            with torch.no_grad():
                logits = model(torch.tensor([whole])).logits[0].log_softmax(-1)
            places = range(len(text), len(whole))
            scores.append(sum(float(logits[at - 1, whole[at]]) for at in places))
        lengths = [len(choice) for choice in row["choices"]]
        normal = [score / length for score, length in zip(scores, lengths, strict=True)]
        for place, one in enumerate((scores, normal)):
            right[place] += one.index(max(one)) == row["answer"]
    return [one / number for one in right]


def test_a_run_is_judged(recipe, tasks, capsys):
    """An adapter and a merged model alike; and a checkpoint with a recipe."""
    typed = [*recipe("distilgpt2_sonnets"), *SHORT, "trainer.val_check_interval=1"]
    asked = ["harness=[which_word]", f"harness_tasks={tasks}"]
    found = []
    for further in ([], ["callbacks.best_model.merge=true"]):
        run = hydralight.train([*typed, "adapter=lora", *further])
        values = hydralight.evaluate([f"run={run.path}", *asked])
        task = values["which_word"]
        assert [task["acc"], task["acc_norm"]] == pytest.approx(by_hand(run, tasks))
        assert task["rows"] == NUMBER
        written = json.loads((run.path / "harness.json").read_text())
        assert written == json.loads(json.dumps(values))
        assert written["versions"]["lm_eval"].startswith("0.4")
        assert "which_word" not in (run.path / "metrics.json").read_text()
        assert "which_word  acc        0.3333" in capsys.readouterr().out
        found.append(task)
    assert found[0] == found[1]
    assert {**found[0], "acc": 0, "acc_norm": 0} != found[0]
    few = ["harness_options={limit: 4, num_fewshot: 1, batch_size: 3}"]
    limited = hydralight.evaluate([f"run={run.path}", *asked, *few])["which_word"]
    assert (limited["rows"], limited["num_fewshot"]) == (4, 1)
    path = start("eval", [*typed, f"checkpoint={run.path}/model", *asked])
    assert json.loads((path / "harness.json").read_text())["which_word"] == found[1]


def test_what_cannot_be_judged_is_told(recipe, tasks, monkeypatch):
    typed = recipe("distilgpt2_sonnets")
    local = f"harness_tasks={tasks}"
    for asked, sentence in [
        (["harness=[which_wrd]", local], "lm_eval has no task 'which_wrd'; did you mean"),
        (["harness=[which_word]", "harness_tasks=nowhere"], "harness_tasks=nowhere is no folder"),
        ([local], r"harness_tasks is of harness=\[a task, …\], which is missing"),
        (["harness=[which_word]", local, "harness_options={limt: 3}"], "did you mean 'limit'"),
        (["harness=[which_word]", local, "harness_options={limit: x}"], "limit=x should be int or"),
    ]:
        with pytest.raises(UserError, match=sentence):
            hydralight.evaluate([*typed, *asked])
    with pytest.raises(UserError, match="judges language models: a TextClassificationTask is none"):
        hydralight.evaluate([*recipe("bert_mrpc"), "harness=[which_word]", local])
    with pytest.raises(UserError, match=r"train.py takes no harness=…, which is for eval.py"):
        hydralight.train([*typed, "harness=[which_word]"])
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UserError, match=r"not installed: pip install 'hydralight\[evaluation\]'"):
        hydralight.evaluate([*typed, "harness=[which_word]", local])


def test_a_recipe_cannot_ask_for_it(recipe, tmp_path, tasks):
    """A task's YAML may name functions: only what is typed is read."""
    run = hydralight.train([*recipe("distilgpt2_sonnets"), *SHORT, "trainer.val_check_interval=1"])
    config = run.path / ".hydra" / "config.yaml"
    text = config.read_text().split("\n", 1)[1]  # without its seal
    config.write_text(f"{text}harness: [which_word]\nharness_tasks: {tasks}\n")
    assert "val/loss" in hydralight.evaluate([f"run={run.path}"])
    assert not (run.path / "harness.json").exists()
