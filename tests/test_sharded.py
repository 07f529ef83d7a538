"""Sharded over two processes (FSDP2, over gloo), a training does what it does elsewhere."""

from test_invariance import difference, overrides_of, shown, together

EXPERIMENTS = ["bart_cnn", "bert_mrpc", "bert_ner_conll2003", "distilgpt2_sonnets", "vit_cxr14"]


def test_losses(recipe, tmp_path):
    jobs = {}
    for experiment in EXPERIMENTS:
        overrides = overrides_of(recipe, experiment, tmp_path, (2, 4), dropout=True)
        files = (tmp_path / "data").rename(tmp_path / f"{experiment}_data")
        overrides = [o.replace(f"{tmp_path}/data/", f"{files}/") for o in overrides]
        jobs[experiment] = overrides
        jobs[f"{experiment}_sharded"] = [*overrides, "trainer=fsdp_cpu"]
    found = together(jobs, tmp_path)
    for experiment in EXPERIMENTS:
        d = difference(found[experiment], found[f"{experiment}_sharded"])
        print(experiment, shown(d))
