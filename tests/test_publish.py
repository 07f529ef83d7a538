"""What is published of a run: all of it in one commit, or nothing and a sentence."""

import hashlib
import json
import os
import shutil

import pytest
import standins
import torch
import yaml
from hubbing import READ, WRITE, hubbing
from huggingface_hub import ModelCard
from omegaconf import OmegaConf

import hydralight
from hydralight import publishing
from hydralight.commands import start
from hydralight.errors import UserError
from hydralight.runs.checksums import verify, write_checksums
from hydralight.runs.files import new_folder, replace_folder
from hydralight.uploads.card import card_of
from hydralight.uploads.commit import commit_folder, open_repo
from hydralight.uploads.folder import snapshot, warn_of_base


@pytest.fixture
def hub(monkeypatch):
    with hubbing(monkeypatch) as server:
        yield server


@pytest.fixture
def calm(monkeypatch):
    """Nothing waits before another attempt."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.fixture(scope="module")
def run(checkpoints, tmp_path_factory):
    """A tiny run that has finished, which nothing here changes."""
    folder = tmp_path_factory.mktemp("published")
    own = standins.overrides_for("bert_mrpc", folder / "data", checkpoints)
    own += ["trainer.accelerator=cpu", "trainer.max_epochs=1", "callbacks.rich_progress=null"]
    return hydralight.train(["experiment=bert_mrpc", *own, f"paths.log_dir={folder / 'logs'}"])


@pytest.fixture
def folder(tmp_path):
    """What a model of two shards is."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, size in [("a.safetensors", 70_001), ("b.safetensors", 50_000), ("config.json", 20)]:
        (folder / name).write_bytes(hashlib.shake_128(name.encode()).digest(size))
    (folder / "checksums.json").write_text('{"a.safetensors": "", "b.safetensors": ""}')
    return folder


def bytes_of(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def publish(path, **keys):
    """As the command does, once the config is composed."""
    config = OmegaConf.load(path / "config.yaml")
    config |= {"run": str(path), "repo": "me/model", **keys}
    return publishing.publish(config, path)


def refused(path, **keys):
    with pytest.raises(UserError) as caught:
        publish(path, **keys)
    return str(caught.value)


def told(command, *arguments):
    with pytest.raises(UserError) as caught:
        start(command, arguments)
    return str(caught.value)


def test_a_run_is_one_commit_with_all_that_it_is(hub, run, capsys):
    before = bytes_of(run.path)
    address = hydralight.publish([f"run={run.path}", "repo=me/model", "private=true"])
    assert address == f"{hub.url}/me/model/commit/{hub.commits()[-1]['oid']}"
    assert capsys.readouterr().out.strip() == address
    assert hub.private["me/model"]
    assert len(hub.commits()) == 2  # the hub's own is the first
    assert hub.commits()[-1]["summary"] == f"The model of step {run.metrics['best']['step']}"
    sent, model = hub.files(), bytes_of(run.path / "model")
    results = {f"results/{name}" for name in ("metrics.json", "config.yaml", "curves.png")}
    assert sent.keys() == model.keys() | results
    own = {"README.md", "checksums.json"}  # with the results, and with their checksums
    assert {n: sent[n] for n in model.keys() - own} == {n: model[n] for n in model.keys() - own}
    assert sent["results/metrics.json"] == before["metrics.json"]
    after = bytes_of(run.path)
    assert {n: after[n] for n in after if not n.endswith(".log")} == {
        n: before[n] for n in before if not n.endswith(".log")
    }
    # once more, nothing has changed: no commit, and no byte of an object
    arrived = list(hub.arrived)
    assert publish(run.path) == address
    assert hub.arrived == arrived
    assert len(hub.commits()) == 2


def test_what_was_published_is_the_model(hub, run, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    publish(run.path, revision="second")
    assert len(hub.commits()) == 1
    theirs = AutoModelForSequenceClassification.from_pretrained(
        "me/model", revision="second", cache_dir=tmp_path / "cache"
    ).eval()
    batch = run.tokenizer("storm river", "a river", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(theirs(**batch).logits, run.model(**batch).logits)
    own = AutoTokenizer.from_pretrained("me/model", revision="second", cache_dir=tmp_path / "cache")
    assert own("storm river")["input_ids"] == run.tokenizer("storm river")["input_ids"]
    for name, content in hub.files(revision="second").items():
        path = tmp_path / "theirs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    verify(tmp_path / "theirs")  # whose list knows what was added
    (tmp_path / "theirs/results/more.json").touch()
    with pytest.raises(UserError, match=r"more\.json is not among the files"):
        verify(tmp_path / "theirs")


def test_the_card_has_what_the_hub_reads(hub, run):
    publish(run.path)
    sent = hub.files()
    card = ModelCard(sent["README.md"].decode())
    assert card.data.base_model is None  # a folder here, which the hub refuses
    best = {n.removeprefix("val/"): v for n, v in run.metrics["best"].items() if "/" in n}
    results = {one.metric_type: one for one in card.data.eval_results}
    values = {name: one.metric_value for name, one in results.items()}
    assert values == pytest.approx(best, abs=1e-6)
    assert {(one.task_type, one.dataset_split) for one in results.values()} == {
        ("text-classification", "validation")
    }
    assert card.data.tags == ["hydralight"]
    config = yaml.safe_load(sent["results/config.yaml"])
    assert config["optimizer"]["lr"] == run.config.optimizer.lr
    for name in ("README.md", "results/config.yaml"):
        assert str(run.path) not in sent[name].decode()
    assert config["callbacks"]["best_model"]["dirpath"] == "<run>/model"


@pytest.mark.parametrize("base", ["org/base", "base", "./base", "/far/base", "../base"])
def test_an_adapters_base_is_named_if_others_can_have_it(base, tmp_path, caplog):
    named = base[0] not in "./"
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    warn_of_base(tmp_path)
    assert caplog.messages == [] if named else f"base model is {base}, which" in caplog.messages[0]
    config = OmegaConf.create({"data": {"path": "nyu-mll/glue", "name": "mrpc"}})
    text = f'---\nbase_model: "{base}"\n---\n# A model\n- base_model: {base}\n'
    (tmp_path / "metrics.json").write_text('{"best": {"step": 4, "val/f1": 0.5, "val/nan": "NaN"}}')
    card = ModelCard(card_of(text, tmp_path, config, "me/model"))
    assert card.data.base_model == (base if named else None)
    assert f"- base_model: {base if named else 'base'}\n" in card.text
    assert card.data.datasets == ["nyu-mll/glue"]
    (result,) = card.data.eval_results
    assert (result.dataset_type, result.dataset_config) == ("nyu-mll/glue", "mrpc")
    assert (result.metric_type, result.metric_value) == ("f1", 0.5)


def test_what_looks_like_a_secret_is_not_sent(hub, run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    (copy / "model/checksums.json").unlink()
    config = json.loads((copy / "model/config.json").read_text())
    config["label2id"] = {"PASSWORD": 0, "OTHER": 1}  # what people label is none
    (copy / "model/config.json").write_text(json.dumps(config))
    text = (copy / "config.yaml").read_text().partition("\n")[2]
    (copy / "config.yaml").write_text(f"{text}\ntags: [{WRITE}]\n".replace("\ntags: []", ""))
    publish(copy)
    assert WRITE not in str(hub.files())
    assert "<redacted>" in hub.files()["results/config.yaml"].decode()
    config["origin"] = f"https://me:{WRITE}@somewhere.org"
    (copy / "model/config.json").write_text(json.dumps(config))
    said = refused(copy)
    assert "model/config.json holds what looks like a secret" in said
    assert len(hub.commits()) == 2
    assert not list(copy.glob("*.partial"))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"create": [401]}, "the hub does not know this token: run `hf auth login` again"),
        ({"preupload": [403]}, "the token has no right to write to me/model"),
        ({"batch": [(403, "Private repository storage limit reached")]},
         "no room for this in me/model: Private repository storage limit reached."),
        ({"info": [404]}, "the hub has no me/model that this token may see"),
        ({"commit": [(400, "bad words")]}, "refuses what is to be sent to me/model: bad words."),
        ({"commit": [503] * 9}, "the hub does not take it at the moment (503: no)"),
        ({"create": ["cut"] * 9}, "the hub cannot be reached at http://127.0.0.1"),
    ],
)  # fmt: skip
def test_what_the_hub_refuses_is_a_sentence(hub, run, calm, fault, said):
    hub.faults = fault
    sentence = refused(run.path)
    assert said in sentence
    assert "\n" not in sentence
    assert len(hub.repos.get("me/model", {"main": [0]})["main"]) == 1
    assert not list(run.path.glob("*.partial"))


def test_what_is_wrong_is_told_before_anything_is_asked(hub, run, monkeypatch, tmp_path):
    assert refused(run.path, run=None).startswith("name a run: ")
    assert refused(run.path, repo=None).startswith("name a repository: ")
    assert "private=7" in refused(run.path, private=7)
    for name in ("model", "me/my/model", "me/mo del", "me/model.git"):
        assert f"repo={name} is no name of a repository" in refused(run.path, repo=name)
    for key in ("token", "+hf_token", "callbacks.push.token"):
        said = told("publish", f"{key}={WRITE}")
        assert "a token is not typed" in said
        assert WRITE not in said
    assert "train.py takes no repo=" in told("train", "repo=me/model")
    shutil.copytree(run.path / ".hydra", tmp_path / ".hydra")
    shutil.copy(run.path / "config.yaml", tmp_path)
    assert "has no model" in refused(tmp_path)
    monkeypatch.delenv("HF_TOKEN")
    assert "there is no token for the hub: run `hf auth login`" in refused(run.path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refused(run.path)
    assert hub.asked == []


def test_a_config_that_was_read_says_nothing_of_where_to(hub, run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    path = copy / ".hydra/config.yaml"
    path.write_text(path.read_text().partition("\n")[2] + "repo: evil/model\n")
    assert told("publish", f"run={copy}").startswith("name a repository: ")
    (copy / "resume.json").write_text('["++repo=evil/model"]')
    assert "resume.json sets repo, which is taken only from what is typed" in told(
        "publish", f"run={copy}"
    )
    assert hub.asked == []


def test_faults_are_tried_again_until_all_has_arrived(hub, folder, calm):
    hub.faults = {
        "create": [503, "cut"],
        "lfs": ["cut", 500, 503],
        "info": [502],
        "preupload": [429],
        "commit": [503, "cut", 500],
    }
    open_repo("me/model", None, None)
    commit_folder(folder, "me/model", None, "All")
    assert not any(hub.faults.values())
    assert hub.files() == bytes_of(folder)
    assert [one["summary"] for one in hub.commits()] == ["", "All"]
    # each object once, whatever became of the commits after it
    assert sorted(hub.arrived) == sorted(set(hub.arrived))


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, folder, calm):
    hub.make("me/model")
    lost = []
    original = hub.RequestHandlerClass.commit

    def commit(self, **asked):
        if not lost:
            lost.append(True)
            send, self.send = self.send, lambda *_: None
            original(self, **asked)
            self.send = send
            self.send(503, {"error": "no"})
            return
        original(self, **asked)

    hub.RequestHandlerClass = type("Losing", (hub.RequestHandlerClass,), {"commit": commit})
    commit_folder(folder, "me/model", None, "All")
    assert lost
    assert len(hub.commits()) == 2
    assert hub.files() == bytes_of(folder)


def test_large_files_go_in_parts(monkeypatch, folder, calm):
    with hubbing(monkeypatch, part=32_768) as hub:
        hub.faults = {"part": [None, "cut", 500]}
        hub.make("me/model")
        commit_folder(folder, "me/model", None, "All")
        assert hub.files() == bytes_of(folder)
        assert hub.asked.count("part") == 3 + 2 + 2  # of two files, and two again


def test_what_has_arrived_is_not_sent_again(hub, folder, calm):
    hub.make("me/model")
    hub.faults = {"commit": [403]}
    with pytest.raises(UserError):
        commit_folder(folder, "me/model", None, "All")
    assert len(hub.arrived) == 2
    assert len(hub.commits()) == 1
    commit_folder(folder, "me/model", None, "All")
    assert len(hub.arrived) == 2
    assert hub.files() == bytes_of(folder)


def test_an_earlier_model_goes_and_what_others_have_added_stays(hub, folder):
    hub.make("me/model", **{"README.md": b"mine", "LICENSE": b"MIT"})
    commit_folder(folder, "me/model", None, "First")
    hub.commits()[-1]["files"]["model.gguf"] = b"of somebody"
    (folder / "b.safetensors").rename(folder / "c.safetensors")
    (folder / "checksums.json").write_text('{"a.safetensors": "", "c.safetensors": ""}')
    commit_folder(folder, "me/model", None, "Second")
    kept = {"model.gguf": b"of somebody", "README.md": b"mine", "LICENSE": b"MIT"}
    assert hub.files() == bytes_of(folder) | kept
    assert len(hub.commits()) == 3


def test_a_repository_with_another_model_is_left_alone(hub, folder):
    hub.make("me/model", **{"pytorch_model.bin": b"theirs", "vocab.txt": b"theirs"})
    with pytest.raises(UserError, match=r"not of a run \(pytorch_model\.bin, vocab\.txt\)"):
        commit_folder(folder, "me/model", None, "All")
    assert len(hub.commits()) == 1


def test_a_commit_stands_upon_what_is_there(hub, folder):
    """Somebody commits after the files were listed: they are listed again."""
    hub.make("me/model")

    def meanwhile():
        if len(hub.commits()) == 1:
            files = {"c.safetensors": b"other", "checksums.json": b'{"c.safetensors": ""}'}
            hub.commits().append({"oid": "b" * 40, "summary": "Theirs", "files": files})

    hub.faults = {"batch": [meanwhile]}
    commit_folder(folder, "me/model", None, "Ours")
    assert [one["summary"] for one in hub.commits()] == ["", "Theirs", "Ours"]
    assert hub.files() == bytes_of(folder)


def test_a_token_that_may_only_read_is_told(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", READ)
    with pytest.raises(UserError, match="has no right to write"):
        open_repo("me/model", None, None)


def test_a_snapshot_is_of_one_model_if_another_takes_its_place_meanwhile(
    run, tmp_path, monkeypatch
):
    copy, linked, link = tmp_path / "run", [], os.link
    shutil.copytree(run.path, copy)
    model = copy / "model"

    def version(number):
        new = new_folder(model)
        shutil.copytree(run.path / "model", new, dirs_exist_ok=True)
        (new / "a.json").write_text(json.dumps({"number": number}))
        (new / "model.safetensors").write_bytes(bytes(1000 + number))
        write_checksums(new)
        replace_folder(new, model)

    def between(source, target):
        linked.append(source)
        if len(linked) == 3:
            version(2)
        link(source, target)

    version(1)
    monkeypatch.setattr("os.link", between)
    folder = snapshot(copy, model, "me/model")
    verify(folder)
    assert json.loads((folder / "a.json").read_text()) == {"number": 2}
    assert (folder / "model.safetensors").stat().st_size == 1002
