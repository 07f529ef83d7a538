"""The same bits on 1, 2 and 4 processes (`trainer.same_bits=true`)."""

import torch
from test_invariance import together

import hydralight

FOUR = ["data.batch_size=2", "data.batches_per_step=4"]
SETTINGS = {
    "bart_cnn": FOUR,
    "bert_mrpc": [*FOUR, "callbacks=ema", "data.group_by_length=true"],
    "bert_ner_conll2003": ["data.max_tokens=60", "data.batches_per_step=4"],
    "roberta_mlm_wikitext": [*FOUR, "trainer.gradient_clip_val=0.1"],
    "distilgpt2_sonnets": ["data.batch_size=1", "data.batches_per_step=8", "precision=bf16-mixed"],
    "vit_cxr14": FOUR,
}


def overrides_of(recipe, experiment):
    """13 rows: two epochs of whole and short steps, with dropout, AdamW and clipping."""
    return [
        *recipe(experiment),
        *SETTINGS[experiment],
        "trainer.max_epochs=2",
        "trainer.val_check_interval=1.0",
        "trainer.same_bits=true",
        "callbacks.samples=null",
    ]


def whole_state(run):
    """All that a run computes: its checkpoint, and what it logged, but the throughput."""
    checkpoint = torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)
    kept = {name: checkpoint[name] for name in ("state_dict", "optimizer_states", "callbacks")}
    history = run.history.drop(columns=[c for c in run.history if "per_sec" in c])
    return {**kept, "history": history.to_dict("list"), "best": run.metrics["best"]}


def differences(one, other, where=""):
    """Yield the places where two structures are not equal, bit by bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            yield from differences(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{where}/{index}")
    elif isinstance(one, torch.Tensor):
        if not torch.equal(one, other):
            yield where
    elif one != other and not (one != one and other != other):
        yield where


def test_the_same_bits(recipe, checkpoints, tmp_path):
    jobs, alone = {}, {}
    for experiment in SETTINGS:
        overrides = overrides_of(recipe, experiment)
        alone[experiment] = whole_state(hydralight.train([*overrides, f"paths.log_dir={tmp_path}/1"]))
        files = (tmp_path / "data").rename(tmp_path / f"{experiment}_data")
        jobs[experiment] = [o.replace(f"{tmp_path}/data/", f"{files}/") for o in overrides]
    for world in (2, 4):
        found = together(jobs, tmp_path / f"of_{world}", world, outcome=whole_state)
        for name, state in found.items():
            assert list(differences(alone[name], state)) == [], (name, world)
