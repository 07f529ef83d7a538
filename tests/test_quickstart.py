"""`python train.py`: the embedded quickstart learns what it says it learns."""

import json

import pytest

import hydralight
from hydralight.data.belongings import EXCHANGES, conversations, is_right, pairs


def test_quickstart_learns_to_summarise(tmp_path):
    run = hydralight.train([f"paths.log_dir={tmp_path}", "callbacks.rich_progress=null"])
    # lead-3 stays below 0.45 (test_newswire); templates without the facts come to about 0.75
    assert run.metrics["best"]["val/rougeL"] > 0.85
    before, after = (
        [json.loads(line) for line in (run.path / f"samples/step-{step:08d}.jsonl").open()]
        for step in (0, run.metrics["last"]["step"])
    )
    assert [row["reference"] for row in before] == [row["reference"] for row in after]
    facts = [{word for word in row["reference"].split() if word[0].isupper()} for row in after]
    for kept, row in zip(facts, after, strict=True):
        assert len(kept & set(row["prediction"].split())) / len(kept) > 0.5
    for kept, row in zip(facts, before, strict=True):
        assert len(kept & set(row["prediction"].split())) / len(kept) < 0.5


def answers_of(run, folder):
    """What a run's model answers to all questions, and how many of these answers are right."""
    asked = folder / "asked.jsonl"
    lines = [{"messages": [{"role": "user", "content": one.question}]} for one in EXCHANGES]
    asked.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = hydralight.predict([f"run={run.path}", f"input={asked}"])
    told = [row["prediction"].strip() for row in rows]
    right = [is_right(one.question, said) for one, said in zip(EXCHANGES, told, strict=True)]
    return told, sum(right) / len(right)


@pytest.mark.thorough
def test_sft_quickstart_learns_who_has_what_and_preferences_shorten_it(tmp_path):
    typed = [f"paths.log_dir={tmp_path}", "trainer.accelerator=cpu", "callbacks.rich_progress=null"]
    run = hydralight.train(["experiment=sft_quickstart", *typed])
    told, right = answers_of(run, tmp_path)
    assert right > 0.9
    # most answers of the data are long, and they end where they should
    long = [one.long for one in EXCHANGES]
    assert sum(a == b for a, b in zip(told, long, strict=True)) > 0.8 * len(told)
    before = [json.loads(line) for line in (run.path / "samples/step-00000000.jsonl").open()]
    assert not any(row["reference"].strip() in row["prediction"] for row in before)

    run = hydralight.train(["experiment=dpo_quickstart", f"checkpoint={run.path}/model", *typed])
    told, right = answers_of(run, tmp_path)
    assert right > 0.9
    short = [one.short for one in EXCHANGES]
    assert sum(a == b for a, b in zip(told, short, strict=True)) > 0.8 * len(told)


def test_conversations_depend_on_seed_and_index_and_have_answers_of_both_kinds():
    rows = list(conversations(200, 1))
    assert rows[:10] == list(conversations(10, 1))
    assert rows != list(conversations(200, 2))
    assert len(EXCHANGES) == len({one.question for one in EXCHANGES}) == 80
    said = [m["content"] for row in rows for m in row if m["role"] == "assistant"]
    long = {one.long for one in EXCHANGES}
    assert 0.6 < sum(one in long for one in said) / len(said) < 0.8
    for row in rows:
        turns = zip(row[::2], row[1::2], strict=True)
        assert all(is_right(q["content"], a["content"]) for q, a in turns)
    for row in pairs(50, 1):
        question, (chosen,), (rejected,) = row["prompt"][0]["content"], *list(row.values())[1:]
        assert is_right(question, chosen["content"])
        assert is_right(question, rejected["content"])
        assert len(chosen["content"].split()) < 5 < len(rejected["content"].split())
    assert not is_right("What does Ada have?", "A blue drum.")
