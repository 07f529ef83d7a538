"""`python train.py`: the embedded quickstart learns what it says it learns."""

import json

import hydralight


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
