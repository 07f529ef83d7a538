"""The benchmarks' own rules: both sides get the same examples and tokens, and the sums are right.

Nothing here is timed: a test that fails on a busy machine says nothing.
"""

import json
import re
import sys
from pathlib import Path

import pytest

from hydralight.config.project import CONFIG_DIR
from hydralight.errors import UserError

sys.path.insert(0, str(CONFIG_DIR.parent))  # the package `benchmarks` stands in the root

from benchmarks import cases, lengths, measure, models, results
from benchmarks.__main__ import main, setting, title
from benchmarks.rows import (
    NAMES,
    causal_lm,
    generation,
    overhead,
    recipe_mrpc,
    same_batches,
    summarization,
)


@pytest.fixture(autouse=True)
def small_vocabularies(monkeypatch):
    monkeypatch.setattr(models, "VOCABULARY", dict.fromkeys(models.VOCABULARY, 6_000))
    monkeypatch.setattr(models, "TRAINED_VOCABULARY", 1_000)


def counts(recorders):
    return {side: recorded[0].counts for side, recorded in recorders.items()}


@pytest.mark.parametrize("shape", ["bert-1x16", "bart-1+1x16", "gpt2-1x16"])
def test_same_batches_are_the_same(shape, tmp_path):
    recorders = same_batches.compared(shape, 2, 3, 1, 1, tmp_path, real=False)
    seen = counts(recorders)
    # with padding, which differs as soon as two examples come in different batches
    assert seen["ours"] == seen["trainer"] == seen["best"]
    assert seen["ours"]["steps"] == 3
    assert seen["ours"]["examples"] == 6
    assert all(recorder.seconds > 0 for recorded in recorders.values() for recorder in recorded)


def test_the_bare_loop_sees_the_same(tmp_path):
    seen = counts(overhead.compared(1, "bert-1x16", 3, 1, 2, False, tmp_path))
    assert seen["bare"] == seen["ours"] == seen["trainer"]


def test_recipe_sees_each_example_once(tmp_path):
    case = cases.classification("bert-1x16", 20, tmp_path, real=False)
    seen = counts(recipe_mrpc.compared(case, 1))
    tokens = sum(map(len, case.rows["input_ids"]))
    for side in seen.values():
        assert (side["examples"], side["tokens"]) == (20, tokens)
        assert side["padded"] >= tokens


def test_summarization_sees_each_token_once(tmp_path):
    case = cases.summarization("bart-1+1x16", 12, tmp_path, False, 128, 32)
    seen = {s: summarization.trained(s, case, 2, 0).counts for s in ("ours", "trainer", "best")}
    tokens = sum(map(len, [*case.rows["input_ids"], *case.rows["labels"]]))
    for side in seen.values():
        assert (side["examples"], side["tokens"]) == (12, tokens)


def test_causal_lm_sees_each_token_once(tmp_path):
    case = cases.language_modeling("gpt2-1x16", lengths.sentences(8, real=False), tmp_path, 70)
    seen = counts(causal_lm.compared(case, 2, 0, 1))
    tokens = sum(map(len, case.rows["input_ids"]))
    for side in seen.values():
        assert (side["examples"], side["tokens"]) == (8, tokens)
    assert seen["trainer"]["padded"] == 8 * causal_lm.PADDED
    assert seen["ours"]["padded"] <= seen["best"]["padded"]
    assert causal_lm.loss_difference(case, 2, steps=2) < 1e-5


def test_generation_writes_the_same(tmp_path):
    training = ("data.num_train=16", "data.num_eval=4", "trainer.max_epochs=1")
    sides = generation.compared(1, 6, 4, training, tmp_path)
    texts = {side: rows[0][1] for side, rows in sides.items()}
    assert texts["ours"] == texts["trainer"]
    assert sorted(texts["ours"]) == sorted(texts["best"])
    assert len(texts["ours"]) == 6


# ---------------------------------------------------------------- the sums


def test_a_line_is_judged_by_the_median_of_the_pairs():
    sides = {"ours": [2.0, 3.0, 8.0], "trainer": [2.0, 2.0, 4.0], "best": [4.0, 4.0, 4.0]}
    line = measure.line("x", "steps/s", sides, ratio_at_least=1.5)
    assert line["ours"] == {"median": 3.0, "min": 2.0, "max": 8.0}
    assert line["ratio"] == {"median": 1.5, "min": 1.0, "max": 2.0}
    assert line["ratio_best"] == {"median": 0.75, "min": 0.5, "max": 2.0}
    assert line["reached"] is True
    assert measure.line("x", "", sides, ratio_at_least=1.6)["reached"] is False
    assert measure.line("x", "", sides, ratio_at_most=1.4)["reached"] is False
    both = measure.line("x", "", sides, ratio_at_least=1.5, best_ratio_at_least=1.0)
    assert both["reached"] is False
    assert measure.line("x", "", sides, at_most=3.0)["reached"] is True
    assert measure.line("x", "", sides, at_most=2.9)["reached"] is False
    assert measure.line("x", "", sides, at_most=3.0, also=False)["reached"] is False
    assert measure.line("x", "", sides)["reached"] is None


def test_sides_take_turns():
    calls: list[str] = []

    def side(name, blocks):
        def run(turn):
            for _ in range(blocks):
                calls.append(name)
                turn()
            return name

        return run

    returned = measure.in_turns({"a": side("a", 3), "b": side("b", 2)}, 2)
    assert "".join(calls) == "ababa" + "babaa"
    assert returned == {"a": ["a", "a"], "b": ["b", "b"]}


def test_rounds_alternate():
    calls: list[str] = []
    sides = {name: lambda name=name: calls.append(name) or name for name in "abc"}
    returned = measure.alternate(sides, 3)
    assert "".join(calls) == "abccbaabc"
    assert returned == {name: [name] * 3 for name in "abc"}


def test_results_keep_the_other_rows(tmp_path):
    def row(value):
        return {
            "lines": [measure.line("what", "s", {"ours": [value]}, at_most=1.0)],
            "rounds": 1,
            "command": "python -m benchmarks",
            "time": "",
            "environment": {"git": None, "python": "3", "packages": {}},
        }

    results.update({"sweep": row(0.5), "encoding": row(2.0)}, "A Device, 2 cores", tmp_path)
    page = results.update({"sweep": row(0.25)}, "A Device, 2 cores", tmp_path)
    kept = json.loads((tmp_path / "a-device-2-cores.json").read_text())
    assert kept["device"] == "A Device, 2 cores"
    assert list(kept["rows"]) == ["encoding", "sweep"]  # in the table's order
    assert kept["rows"]["sweep"]["lines"][0]["ours"]["median"] == 0.25
    table = [line for line in page.read_text().splitlines() if line.startswith("| what ")]
    assert [re.split(r" *\| *", line)[-2] for line in table] == ["reached", "no", "yes"]


def test_figures():
    assert results.figure(12345.6) == "12,346"
    assert [results.figure(v) for v in (123.4, 12.34, 0.98765)] == ["123", "12.3", "0.988"]
    assert results.cell({"median": 2.0, "min": 1.0, "max": 3.0}) == "2.00 (1.00 to 3.00)"
    assert results.cell(None) == "—"


# ---------------------------------------------------------------- the command


def test_list_and_mistakes(capsys):
    assert main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(NAMES)
    assert all(title(name) for name in NAMES)
    assert main(["same_batch"]) == 1
    assert "there is no row 'same_batch'; did you mean 'same_batches'?" in capsys.readouterr().err
    with pytest.raises(UserError, match="should be a name and a value"):
        setting("shape")
    assert setting("number=3") == ("number", 3)
    assert setting("shape=bart-6+6x768") == ("shape", "bart-6+6x768")


def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["--gpu"]) == 1
    assert capsys.readouterr().err == "error: there is no CUDA GPU on this machine.\n"


def test_lengths_are_those_that_were_counted():
    words = sorted(len(row["article"].split()) for row in lengths.articles(400, real=False))
    assert abs(words[200] - lengths.ARTICLES[10]) < 60
    assert words[0] >= lengths.ARTICLES[0]
    assert words[-1] <= lengths.ARTICLES[-1]


def cells(row):
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_readme_shows_rows_that_were_measured():
    readme = (CONFIG_DIR.parent / "README.md").read_text()
    page = CONFIG_DIR.parent / re.search(r"\((benchmarks/results/[^)]+\.md)\)", readme).group(1)
    kept = json.loads(page.with_suffix(".json").read_text())
    assert list(kept["rows"]) == list(NAMES)
    assert page.read_text() == results.markdown(kept["rows"], kept["device"])
    lines = [line for row in kept["rows"].values() for line in row["lines"]]
    measured = [cells(row) for row in results.table(lines).splitlines()]
    table = re.search(r"^\| what +\| unit.*\n\|-.*\n((?:\|.*\n)+)", readme, re.MULTILINE)
    shown = [cells(row) for row in table.group(1).splitlines()]
    assert len(shown) == 6
    assert all(row in measured for row in shown)
    assert all(row in shown for row in measured if row[-1] == "no")  # a target that was missed


def test_no_path_of_a_machine_is_kept():
    for path in Path(results.FOLDER).glob("*.*"):
        assert str(Path.home()) not in path.read_text()
        assert str(CONFIG_DIR.parent) not in path.read_text()
