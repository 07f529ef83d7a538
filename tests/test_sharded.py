"""Sharded over two processes (FSDP2, over gloo), a training does what it does elsewhere."""

import pytest
from test_invariance import difference, overrides_of, shown, together

OTHERS = ["bert_squad", "bert_stsb", "bert_swag", "distilbert_emotion", "t5_xsum"]
OTHERS += ["marian_wmt16_en_ro", "roberta_mlm_wikitext", "gpt2_scratch", "minilm_nli"]
UNUSED = "trainer.strategy.find_unused_parameters=true"  # as MiniLM's pooler


@pytest.mark.thorough
def test_the_other_recipes(recipe, tmp_path):
    jobs = {}
    for experiment in OTHERS:
        overrides = overrides_of(recipe, experiment, tmp_path, (2, 4), dropout=True)
        files = (tmp_path / "data").rename(tmp_path / f"{experiment}_data")
        overrides = [o.replace(f"{tmp_path}/data/", f"{files}/") for o in overrides]
        overrides.append("trainer.accumulate_grad_batches=1")
        jobs[experiment] = [*overrides, "trainer=ddp_cpu", UNUSED]
        jobs[f"{experiment}, sharded"] = [*overrides, "trainer=fsdp_cpu"]
    found = together(jobs, tmp_path)
    for experiment in OTHERS:
        apart = difference(found[experiment], found[f"{experiment}, sharded"])
        print(f"{experiment}: {shown(apart)}")
        if experiment == "bert_stsb":  # its correlations are of scores that are nearly equal
            assert apart.pop("metrics") < 1e-2
        assert max(apart.values()) < 1e-5, (experiment, apart)
