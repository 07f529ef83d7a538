"""Records of a run that are torn, changed, emptied or gone are told from whole ones."""

import json
import math
import shutil
from types import SimpleNamespace

import pytest
import standins

import hydralight
from hydralight.cached import intact, seal
from hydralight.callbacks.best_model import BestModel
from hydralight.callbacks.predictions import write_json_lines
from hydralight.commands import start
from hydralight.errors import UserError
from hydralight.loggers import CSVLogger
from hydralight.runs.checksums import verify
from hydralight.runs.files import replace_folder, steadily
from hydralight.runs.lock import locked
from hydralight.runs.run import Run, model_folder, read_metrics, update_metrics
from hydralight.runs.sealed import (
    KEY,
    LABEL,
    checksum_of,
    sealed_json,
    sealed_yaml,
    unsealed_json,
    unsealed_yaml,
)


@pytest.fixture(scope="module")
def trained(checkpoints, tmp_path_factory):
    """Two epochs of 4 steps, the first of which has been evaluated and kept."""
    folder = tmp_path_factory.mktemp("trained")
    words = [
        "experiment=bert_mrpc",
        *standins.overrides_for("bert_mrpc", folder / "data", checkpoints),
        *("trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.log_every_n_steps=1"),
        *("data.batch_size=4", "callbacks.rich_progress=null", "callbacks.samples=null"),
    ]
    return hydralight.train([*words, f"paths.log_dir={folder / 'logs'}"])


@pytest.fixture
def run(trained, tmp_path):
    return Run(shutil.copytree(trained.path, tmp_path / "run"))


def test_every_flipped_bit_and_every_cut_of_a_record_is_found():
    content = {"last": {"step": 4, "val/loss": 0.123}, "status": "finished"}
    for kind, text, read in (
        ("mapping", sealed_json(content), unsealed_json),
        ("list", sealed_json(["seed=1", "a=b"]), unsealed_json),
        ("yaml", sealed_yaml("seed: 1\nmodel:\n  size: 3\n"), unsealed_yaml),
    ):
        whole, raw = read(text), text.encode()
        for place in range(len(raw) * 8):
            flipped = bytearray(raw)
            flipped[place // 8] ^= 1 << place % 8
            try:
                found = read(flipped.decode())
            except ValueError:
                continue
            assert found == whole, (kind, place)
        for end in range(raw.index(b"\n") + 1, len(raw) - 1):  # a line's part is no mapping
            with pytest.raises(ValueError, match=r"\w"):
                read(raw[:end].decode())


def test_no_json_has_a_bare_nan(tmp_path):
    """Strict readers take all that is written; ours read the same numbers, also of older files."""

    def strict(text):
        return json.loads(text, parse_constant=lambda word: pytest.fail(word))

    values = {"last": {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.5}, "of": ["x", 1]}
    written = sealed_json(values)
    assert strict(written)["last"] == {"a": "NaN", "b": "Infinity", "c": "-Infinity", "d": 0.5}
    assert repr(unsealed_json(written)) == repr(values)
    older = json.dumps({**values, KEY: LABEL + checksum_of(values)})
    assert "NaN" in older
    assert repr(unsealed_json(older)) == repr(values)
    update_metrics(tmp_path, last=values["last"])
    strict((tmp_path / "metrics.json").read_text())
    assert repr(read_metrics(tmp_path)["last"]) == repr(values["last"])
    rows = [{"row": 0, "text": "NaN", "score": math.nan, "scores": {"é": -math.inf}}]
    write_json_lines(tmp_path / "rows.jsonl", rows)
    (line,) = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert strict(line) == {"row": 0, "text": "NaN", "score": None, "scores": {"é": None}}


def test_a_split_that_a_path_names_alone_is_evaluated(run):
    """So a test set that came later needs no `split=test`."""
    files = {s: str(p) for s, p in run.config.data.path.items()}
    typed = [f"run={run.path}", f"data.path={{test: {files['train']}}}"]
    assert {name.partition("/")[0] for name in hydralight.evaluate(typed)} == {"test"}
    assert len(run.predictions("test-train")) == 13
    said = hydralight.evaluate([*typed, "split=validation"])
    assert {name.partition("/")[0] for name in said} == {"val"}


def test_a_config_cut_at_a_line_end_is_named(run):
    path = run.path / ".hydra/config.yaml"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]))
    for command, typed in (
        ("train", [f"resume={run.path}", "trainer.max_epochs=2"]),
        ("eval", [f"run={run.path}"]),
        ("predict", [f"run={run.path}", "input=a"]),
    ):
        with pytest.raises(UserError, match=r"config\.yaml is damaged, or was changed by hand"):
            start(command, typed)
    path.write_text("".join(lines[1:]).replace("seed: 42", "seed: 43"))  # on purpose
    assert run.metrics["best"]
    assert hydralight.evaluate([f"run={run.path}"])


def test_best_tells_what_the_folder_holds_whatever_a_checkpoint_knows(run):
    """A checkpoint stands before the evaluation of its step, which may come out otherwise again."""
    best = BestModel(str(run.path / "model"), "val/accuracy", "max", run_dir=str(run.path))
    best.best_step, best.best_metrics = 2, {"val/accuracy": 0.9}
    held = unsealed_json((run.path / "model/exported.json").read_text())
    assert held["step"] == 4
    best.record(SimpleNamespace(is_global_zero=True))
    assert run.metrics["best"] == held
    shutil.rmtree(run.path / "model")
    best.record(SimpleNamespace(is_global_zero=True))
    assert "best" not in run.metrics


def test_a_model_that_was_deleted_is_exported_anew(run, caplog):
    hydralight.train([f"resume={run.path}", "trainer.max_epochs=2"])
    shutil.rmtree(run.path / "model")
    hydralight.train([f"resume={run.path}", "trainer.max_epochs=3"])
    assert "model is gone: the next evaluation exports the model anew" in caplog.text
    assert run.metrics["best"] == unsealed_json((run.path / "model/exported.json").read_text())
    assert hydralight.evaluate([f"run={run.path}"])


@pytest.mark.parametrize("emptied", ["{}", "", "[]"])
def test_emptied_checksums_are_refused(run, emptied):
    path = run.path / "model/checksums.json"
    path.write_text(emptied)
    with pytest.raises(UserError, match=r"checksums\.json"):
        model_folder(run.path)


def test_checksums_that_are_gone_are_missed_and_foreign_folders_are_fine(run, checkpoints, caplog):
    (run.path / "model/checksums.json").unlink()
    model_folder(run.path)
    model_folder(run.path)
    assert caplog.text.count("has lost its checksums.json: its files cannot be checked") == 1
    caplog.clear()
    verify(checkpoints("bert"))
    assert caplog.text == ""


def test_a_cache_without_its_checksums_is_not_trusted(tmp_path):
    partial, path = tmp_path / "partial", tmp_path / "folder"
    partial.mkdir()
    (partial / "file").write_text("x")
    seal(partial, path)
    beside = tmp_path / "folder.xxh3"
    assert intact(path)
    text = beside.read_text()
    beside.write_text("")
    (path / "file").unlink()
    assert not intact(path)
    (path / "file").write_text("x")
    beside.write_text(text)
    assert intact(path)
    beside.unlink()
    assert not intact(path)


def test_a_reader_waits_between_two_renames_and_changes_nothing(run, monkeypatch):
    """The moment between the renames of a live run's export, and a run that was killed in it."""
    folder = run.path / "model"
    previous = folder.rename(run.path / "model.previous")

    def names():
        return sorted(path.name for path in run.path.iterdir())

    before = names()
    assert model_folder(run.path) == previous
    assert names() == before
    monkeypatch.setattr("time.sleep", lambda seconds: previous.exists() and previous.rename(folder))
    assert model_folder(run.path) == folder


def test_what_is_read_while_it_is_replaced_is_read_again(tmp_path):
    """Else a config of one export would go with the weights of the next."""
    folder, new = tmp_path / "model", tmp_path / "new"
    for path, text in ((folder, "old"), (new, "new")):
        path.mkdir()
        for name in ("config", "weights"):
            (path / name).write_text(text)

    def read(there):
        config = (there / "config").read_text()
        if new.exists():
            replace_folder(new, folder)
        return config, (there / "weights").read_text()

    assert steadily(folder, read) == ("new", "new")


def test_an_evaluation_leaves_the_metrics_to_a_training_that_is_at_work(run, caplog):
    path = run.path / "metrics.json"
    before = path.read_bytes()
    with locked(run.path):
        found = hydralight.evaluate([f"run={run.path}", "split=test"])
    assert path.read_bytes() == before
    assert "these metrics are not kept" in caplog.text
    assert hydralight.evaluate([f"run={run.path}", "split=test"]) == found == run.metrics["test"]


def test_best_is_what_the_model_comes_to_also_on_other_validation_data(run):
    other = run.config.data.path.test
    hydralight.train(
        [f"resume={run.path}", "trainer.max_epochs=2", f"data.path.validation={other}"]
    )
    best = {k: v for k, v in run.metrics["best"].items() if k != "step"}
    assert hydralight.evaluate([f"run={run.path}"]) == pytest.approx(best)


def test_a_row_that_is_being_written_is_left_out(run):
    path, whole = run.path / "metrics.csv", run.history
    update_metrics(run.path, logged=None)  # as in a run that is on
    path.write_bytes(path.read_bytes()[:-3])
    assert run.history["train/loss"].tolist() == whole["train/loss"].tolist()[:-1]


@pytest.mark.parametrize("off", ["callbacks.last_checkpoint=null", "logger=null"])
def test_a_resume_that_would_leave_holes_is_refused(run, off):
    before = {p.name: p.read_bytes() for p in run.path.glob("metrics.*")}
    with pytest.raises(UserError, match="resume it"):
        hydralight.train([f"resume={run.path}", "trainer.max_epochs=2", off])
    assert {p.name: p.read_bytes() for p in run.path.glob("metrics.*")} == before


def log_of(path, steps=6):
    log = CSVLogger(str(path))
    for step in range(1, steps + 1):
        log.log_metrics({"loss": step / 8}, step)
    return log


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda text: b"", "line 1 .*it is empty"),
        (lambda text: text.replace(b"3,0.375", b"3,\0.375"), "line 4 .*NUL"),
        (lambda text: text.replace(b"0.25\r\n", b"0.25"), "line 3 "),
        (lambda text: text.replace(b"0.375", b"0.475"), "first 5 lines .* was not logged"),
        (lambda text: text.replace(b"2,0.25\r\n", b""), "was not logged"),
    ],
)
def test_a_damaged_log_is_told_and_later_columns_are_not(tmp_path, harm, sentence):
    log = log_of(tmp_path, 4)
    known, whole = log.logged(), log.path.read_bytes()
    log.log_metrics({"val/loss": 1.0}, 4)
    log.log_metrics({"loss": 9.0}, 5)
    CSVLogger(str(tmp_path)).cut_after(4, known)
    kept = CSVLogger(str(tmp_path))
    kept.cut_after(4, known)
    assert kept.logged() == known
    assert [line.split(b",")[:2] for line in log.path.read_bytes().split()] == [
        line.split(b",") for line in whole.split()
    ]
    log.path.write_bytes(harm(whole))
    with pytest.raises(UserError, match=sentence):
        CSVLogger(str(tmp_path)).cut_after(4, known)
