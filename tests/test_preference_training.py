"""Training on preferences: references, metrics, formats by config alone, reward models."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from compared import differences
from preferring import files, messages, texts
from standins import write_jsonl
from test_invariance import difference, outcome, together
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

import hydralight
from hydralight.cached import cache_folder
from hydralight.commands import start
from hydralight.errors import UserError
from hydralight.tasks import reference
from hydralight.tasks.task import Task

SHORT = ["data.batch_size=4", "trainer.accumulate_grad_batches=1", "optimizer.lr=1e-3"]
SHORT += ["callbacks.samples=null"]


@pytest.fixture
def dpo(recipe):
    return [*recipe("qwen_dpo"), *SHORT]


@pytest.fixture
def computed(monkeypatch):
    """The splits whose references are computed, by the number of their rows."""
    seen: list[int] = []
    original = reference._of_batch

    def count(task, model, rows, indices, values):
        assert not model.training
        seen.append(len(indices))
        return original(task, model, rows, indices, values)

    monkeypatch.setattr(reference, "_of_batch", count)
    return seen


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def log_probs_by_hand(model, tokenizer, messages):
    """The summed log-probability of the last turn and its end, token by token."""
    prompt = tokenizer.apply_chat_template(
        messages[:-1], tokenize=False, add_generation_prompt=True
    )
    answer = messages[-1]["content"] + "<|im_end|>"
    before, whole = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, prompt + answer)
    )
    assert whole[: len(before)] == before
    with torch.no_grad():
        logits = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
    places = range(len(before), len(whole))
    return sum(float(logits[place - 1, whole[place]]) for place in places), len(places)


def test_rewards_are_those_of_the_model_before_and_after(dpo, monkeypatch):
    """By hand, with two models; and an evaluation of the run has them again."""
    first: dict = {}
    monkeypatch.setattr(
        Task,
        "on_train_start",
        lambda t: first.update({n: p.clone() for n, p in t.model.state_dict().items()}),
        raising=False,
    )
    run = hydralight.train([*dpo, "task.beta=0.5", "test=true"])
    model = AutoModelForCausalLM.from_pretrained(run.path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(run.path / "model")
    other = AutoModelForCausalLM.from_pretrained(run.path / "model").eval()
    other.load_state_dict(first)
    rows = lines_of(Path(run.config.data.path.validation))
    found: dict[str, list] = {name: [] for name in ("chosen", "rejected")}
    apart, tokens = 0.0, 0
    for row in rows:
        for name in found:
            (own, number), (before, _) = (
                log_probs_by_hand(one, tokenizer, row[name]) for one in (model, other)
            )
            found[name].append(0.5 * (own - before))
            apart, tokens = apart + own - before, tokens + number
    chosen, rejected = (np.array(values) for values in found.values())
    best = run.metrics["best"]
    assert best["val/rewards_chosen"] == pytest.approx(chosen.mean(), abs=1e-5)
    assert best["val/rewards_rejected"] == pytest.approx(rejected.mean(), abs=1e-5)
    assert best["val/margin"] == pytest.approx((chosen - rejected).mean(), abs=1e-5)
    assert best["val/accuracy"] == pytest.approx((chosen > rejected).mean())
    assert best["val/kl"] == pytest.approx(apart / tokens, abs=1e-6)
    loss = np.log1p(np.exp(-(chosen - rejected))).mean()
    assert best["val/loss"] == pytest.approx(loss, abs=1e-5)
    assert best["val/margin"] > 0.05  # it has learnt something
    assert run.history["train/margin"].dropna().iloc[0] == pytest.approx(0, abs=1e-6)
    assert run.metrics["test"]["test/margin"] > 0.01  # by the same reference, not by itself
    again = hydralight.evaluate([f"run={run.path}"])
    assert again == pytest.approx({n: v for n, v in best.items() if n != "step"}, abs=1e-6)


def test_references_are_not_rounded_with_the_weights(dpo):
    """The trainer makes 16 bits of a batch's numbers."""
    run = hydralight.train([*dpo, "trainer.precision=bf16-true", "data.batch_size=13"])
    # of sums of about -100, numbers of 16 bits are 0.5 apart
    assert abs(run.history["train/margin"].dropna().iloc[0]) < 1e-4


def test_references_are_found_again(dpo, computed):
    """By another run with other settings of the training; not by one of other weights or data."""
    shutil.rmtree(cache_folder("reference"))
    hydralight.train(dpo)
    assert sum(computed) == 13 + 7
    computed.clear()
    again = hydralight.train([*dpo, "task.beta=0.2", "optimizer.lr=1e-2", "seed=1", "data.seed=42"])
    # the template's new tokens have rows that are drawn by the seed
    assert sum(computed) in (0, 13 + 7)
    computed.clear()
    hydralight.train([*dpo, "task.loss_type=hinge"])
    assert computed == []
    shutil.rmtree(cache_folder("encoded"))  # the rows count, not the files that they are in
    hydralight.train(dpo)
    assert computed == []
    hydralight.train([*dpo, "data.max_length=40"])
    assert sum(computed) == 13 + 7
    computed.clear()  # the same weights, used otherwise
    run = hydralight.train([*dpo, "+model.config.rms_norm_eps=0.1"])
    assert sum(computed) == 13 + 7
    assert run.history["train/margin"].dropna().iloc[0] == pytest.approx(0, abs=1e-6)
    computed.clear()
    hydralight.train([*dpo, f"checkpoint={again.path / 'model'}"])
    assert sum(computed) == 13 + 7
    computed.clear()
    hydralight.train([*dpo, "task.loss_type=simpo"])
    assert computed == []


def test_adapters_share_the_reference_of_their_base(dpo, computed):
    """Whatever they are drawn as; what the base gives is what they begin with."""
    whole = [*dpo, "data.plain_texts=false", "data.chat_template=zephyr"]  # needs no new token
    hydralight.train(whole)
    computed.clear()
    lora = [*whole, "adapter=lora", "model.adapter.target_modules=all-linear"]
    runs = [hydralight.train([*lora, f"seed={seed}", "data.seed=42"]) for seed in (1, 2)]
    assert computed == []
    for run in runs:
        assert run.history["train/loss"].dropna().iloc[0] == pytest.approx(np.log(2), abs=1e-6)
        assert run.metrics["best"]["val/margin"] != 0
    best = {n: v for n, v in runs[0].metrics["best"].items() if n != "step"}
    assert hydralight.evaluate([f"run={runs[0].path}"]) == pytest.approx(best, abs=1e-6)
    assert computed == []
    # one to go on with has learnt something: the reference is what it is by then
    on = hydralight.train([*whole, f"model.adapter={runs[0].path}"])
    assert sum(computed) == 13 + 7
    assert on.history["train/loss"].dropna().iloc[0] == pytest.approx(np.log(2), abs=1e-6)
    assert on.history["train/margin"].dropna().iloc[0] == pytest.approx(0, abs=1e-6)


def test_a_resume_computes_lost_references_of_the_starting_weights(dpo, computed, tmp_path):
    whole, other = tmp_path / "whole", tmp_path / "other"
    typed = [*dpo, "trainer.max_epochs=2", "callbacks.last_checkpoint.save_total_limit=null"]
    hydralight.train([*typed, f"hydra.run.dir={whole}"])
    shutil.copytree(whole, other)
    for path in (other / "checkpoints").iterdir():
        if path.stem == "last" or int(path.stem.removeprefix("step-")) > 4:
            path.unlink()
    (other / "metrics.json").unlink()
    shutil.rmtree(cache_folder("reference"))
    computed.clear()
    hydralight.train([f"resume={other}"])
    assert sum(computed) == 13 + 7
    found = [place for place in differences(whole, other) if ".yaml" not in place]
    assert found == []


@pytest.mark.thorough
@pytest.mark.parametrize("trainer", ["ddp_cpu", "fsdp_cpu"])
def test_two_processes_share_the_reference(trainer, dpo, tmp_path):
    """Each computes a half of the batches, of whole weights or of shards."""
    template = "data.chat_template=zephyr"  # needs no new tokens: shards cannot be enlarged
    typed = [*dpo, template, "data.batch_size=2", "data.batches_per_step=2"]
    alone = outcome(hydralight.train([*typed, f"paths.log_dir={tmp_path / 'alone'}"]))
    kept = {path.name: path.read_bytes() for path in cache_folder("reference").rglob("*.npy")}
    shutil.rmtree(cache_folder("reference"))
    jobs = {"two": [*typed, f"trainer={trainer}"]}
    found = difference(alone, together(jobs, tmp_path)["two"])
    assert max(found.values()) < 1e-5, found
    made = list(cache_folder("reference").rglob("*.npy"))
    assert len(made) == 2
    assert {path.name for path in made} <= kept.keys()


def test_a_reference_of_its_own(dpo, checkpoints, computed):
    """Another model to refer to: the first loss is not that of no difference."""
    shutil.rmtree(cache_folder("reference"))
    run = hydralight.train([*dpo, f"task.reference={checkpoints('gpt2')}"])
    assert sum(computed) == 13 + 7
    assert abs(run.history["train/loss"].dropna().iloc[0] - np.log(2)) > 1e-3
    best = {n: v for n, v in run.metrics["best"].items() if n != "step"}
    assert hydralight.evaluate([f"run={run.path}"]) == pytest.approx(best, abs=1e-6)


def test_nothing_is_computed_where_nothing_is_trained(dpo, computed, capsys):
    start("train", [*dpo, "check=true"])
    shown = capsys.readouterr().out
    assert shown.count("training example") == 3
    hydralight.train([*dpo, "debug=fdr"])
    assert computed == []


@pytest.mark.parametrize("name", ["qwen_dpo", "kto"])
def test_a_file_of_prompts_has_no_reference(name, recipe, tmp_path):
    (tmp_path / "prompts.txt").write_text("Is the storm near?\n")
    given = f"callbacks.samples.prompts={tmp_path / 'prompts.txt'}"
    run = hydralight.train([*recipe(name), given, "trainer.max_steps=1"])
    files = sorted((run.path / "samples").glob("prompts-*.jsonl"))
    assert len(files) == 2  # before training and at its end
    assert all(len(lines_of(path)) == 1 for path in files)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("task.simpo_gamma=1", "task.simpo_gamma does nothing to task.loss_type=sigmoid"),
        ("task.nll_of=text", "task.nll_of does nothing to task.loss_type=sigmoid"),
        ("task.loss_type=dpo", "task.loss_type=dpo should be sigmoid or hinge or ipo"),
        ("task.beta=0", "task.beta=0 should be"),
        (
            "data=chat data.columns={messages:chosen}",
            "this task learns from pairs of answers: take",
        ),
        ("data.chat_template=null", "the tokenizer has no chat template"),
    ],
)
def test_what_does_nothing_is_refused(dpo, override, sentence):
    with pytest.raises(UserError, match=sentence):
        hydralight.train([*dpo, *override.split(" "), "debug=fdr"])


def test_a_text_and_messages_are_continued(dpo, tmp_path):
    run = hydralight.train([*dpo, "trainer.max_epochs=1"])
    asked = write_jsonl(tmp_path / "asked.jsonl", [{"prompt": "Why?"}, {"prompt": "And then?"}])
    rows = hydralight.predict([f"run={run.path}", f"input={asked}"])
    (text,) = hydralight.predict([f"run={run.path}", "input=Why?"])
    assert text["prediction"] == rows[0]["prediction"]
    assert text["prompt"] == "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    chat = [{"role": "user", "content": "And then?"}]
    lines = write_jsonl(tmp_path / "chat.jsonl", [{"messages": chat}])
    (row,) = hydralight.predict([f"run={run.path}", f"input={lines}"])
    assert row["prediction"] == rows[1]["prediction"]


def hh(index):
    row = texts(index)
    head = f"\n\nHuman: {row['prompt']}\n\nAssistant:"
    return {name: f"{head}{row[name]}" for name in ("chosen", "rejected")}


def ultrafeedback(index):
    row = messages(index)
    prompt = row["chosen"][0]["content"]
    return {"prompt": prompt, "prompt_id": str(index), "messages": row["chosen"], **row}


@pytest.mark.parametrize("row", [hh, ultrafeedback])
def test_files_of_the_fields_formats(row, dpo, tmp_path):
    """Without a word on their columns; the same numbers, as they say the same."""
    runs = [
        hydralight.train([*dpo, files(tmp_path / kind.__name__, kind), "trainer.max_epochs=1"])
        for kind in (row, messages)
    ]
    for name in ("train/loss", "val/loss", "val/kl"):
        one, other = (run.history[name].dropna().to_numpy() for run in runs)
        np.testing.assert_allclose(one, other, atol=1e-6)


# ---------------------------------------------------------------- reward models


@pytest.mark.parametrize("model", ["llama", "bert", "gpt2"])
def test_a_reward_model_learns_and_scores(model, recipe, checkpoints, tmp_path):
    """By its own prediction and by a pipeline, texts and messages."""
    checkpoint = tmp_path / model
    shutil.copytree(checkpoints(model), checkpoint)
    typed = [*recipe("reward_model"), f"checkpoint={checkpoint}", files(tmp_path / "f", messages)]
    typed += ["data.chat_template=zephyr", "trainer.max_epochs=6", "optimizer.lr=1e-2"]
    run = hydralight.train([*typed, "data.batch_size=4", "callbacks.samples.num_samples=2"])
    assert run.metrics["best"]["val/accuracy"] > 0.9
    samples = lines_of(run.path / "samples" / f"step-{run.metrics['best']['step']:08d}.jsonl")
    assert samples[0]["score_chosen"] > samples[0]["score_rejected"]
    row = messages(20)
    lines = [{"messages": row["chosen"]}, {"messages": row["rejected"]}]
    asked = write_jsonl(tmp_path / "asked.jsonl", lines)
    good, bad = hydralight.predict([f"run={run.path}", f"input={asked}"])
    assert good["score"] > bad["score"]
    assert good["score"] == pytest.approx(samples[0]["score_chosen"], abs=1e-3)
    pipe = pipeline("text-classification", model=str(run.path / "model"), device="cpu")
    tokens = pipe.tokenizer(good["text"], add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        score = pipe.model(**tokens).logits.item()
    assert score == pytest.approx(good["score"], abs=1e-5)
    assert pipe.model.config.pad_token_id == pipe.tokenizer.pad_token_id
    best = {n: v for n, v in run.metrics["best"].items() if n != "step"}
    assert hydralight.evaluate([f"run={run.path}"]) == pytest.approx(best, abs=1e-5)
