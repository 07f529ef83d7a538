"""Answers that are good or not: the loss beside TRL's, however a step is split, and the rows."""

import copy
import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from standins import judged, preferred, write_jsonl
from test_invariance import difference, outcome
from test_invariance import together as in_processes
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import KTOConfig, KTOTrainer

import hydralight
from hydralight.data.roles import Where
from hydralight.data.shapes.unpaired_preference import UnpairedPreference, others
from hydralight.errors import UserError
from hydralight.metrics.auroc import DefinedAUROC
from hydralight.metrics.kto import KTOLoss
from hydralight.tasks.task import Task

STEPS = 20


@pytest.fixture
def kto(recipe):
    return [
        *recipe("kto"),
        *("model.config={attention_dropout: 0}", "optimizer.lr=1e-3"),
        *("scheduler=constant", "scheduler.warmup_ratio=null"),
        *("callbacks.samples=null", "trainer.gradient_clip_val=null", "trainer.max_epochs=2"),
    ]


class Given(KTOTrainer):
    """TRL's trainer on batches that are given, which records losses and gradient norms."""

    def __init__(self, batches, **kwargs):
        self.batches, self.losses, self.norms = batches, [], []
        super().__init__(**kwargs)

    def get_train_dataloader(self):
        return torch.utils.data.DataLoader(self.batches, batch_size=None, shuffle=False)

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.losses.append(float(loss))
        parameters = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.norms.append(float(torch.nn.utils.get_total_norm(parameters)))
        return loss


def as_theirs(batch):
    masks = {"completion_mask": batch["labels"] != -100}
    masks["KL_completion_mask"] = batch["kl_labels"] != -100
    inputs = {n: batch[n].clone() for n in ("input_ids", "attention_mask")}
    inputs |= {f"KL_{n}": batch[f"kl_{n}"].clone() for n in ("input_ids", "attention_mask")}
    return {**inputs, **{n: one.long() for n, one in masks.items()}, "label": batch["desirable"]}


@pytest.mark.parametrize("loss_type", ["kto", "apo_zero_unpaired"])
def test_parity_with_trl(loss_type, kto, tmp_path, monkeypatch):
    batches, seen = [], {}

    def begin(task):
        seen["model"], seen["tokenizer"] = copy.deepcopy(task.model), task.datamodule.processor

    def record(task, batch, batch_idx):
        batches.append(as_theirs(batch))

    monkeypatch.setattr(Task, "on_train_start", begin, raising=False)
    monkeypatch.setattr(Task, "on_train_batch_start", record, raising=False)
    weights = {"desirable_weight": 1.3, "undesirable_weight": 0.8}
    run = hydralight.train(
        [
            *kto,
            *(f"task.{name}={value}" for name, value in weights.items()),
            f"task.loss_type={loss_type}",
            *("trainer.max_epochs=-1", f"trainer.max_steps={STEPS}", "data.batch_size=4"),
            *("+trainer.limit_val_batches=0", "optimizer.weight_decay=0.01"),
        ]
    )
    rows = [{"prompt": "a", "completion": "b", "label": label} for label in (True, False)]
    trainer = Given(
        batches,
        model=seen["model"],
        ref_model=copy.deepcopy(seen["model"]),
        processing_class=seen["tokenizer"],
        train_dataset=Dataset.from_list(rows),
        args=KTOConfig(
            output_dir=str(tmp_path / "trl"),
            max_steps=STEPS,
            learning_rate=1e-3,
            weight_decay=0.01,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            optim="adamw_torch",
            loss_type=loss_type,
            per_device_train_batch_size=2,
            disable_dropout=False,
            gradient_checkpointing=False,
            bf16=False,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            **weights,
        ),
    )
    trainer.train()
    history = run.history.dropna(subset=["train/loss"])
    for name, theirs in (("train/loss", trainer.losses), ("train/grad_norm", trainer.norms)):
        ours = history[name].to_numpy()
        apart = np.abs(ours - np.array(theirs)).max()
        print(f"{loss_type}: {name} {apart:.1e}")
        assert len(ours) == STEPS
        assert np.ptp(ours) > 0.01
        assert apart < 1e-5


def split(number):
    return [f"data.batch_size={8 // number}", f"data.batches_per_step={number}", "optimizer.lr=0.1"]


SGD = "optimizer._target_=torch.optim.SGD"


def test_the_split_of_a_step_does_not_matter(kto):
    """The baseline is that of the step."""
    whole, parted = (
        hydralight.train([*kto, *split(number), SGD, f"tags=[split{number}]"]) for number in (1, 4)
    )
    assert whole.history["val/kl"].dropna().max() > 1e-4  # there is a baseline
    assert max(difference(outcome(whole), outcome(parted)).values()) < 1e-5


@pytest.mark.thorough
def test_nor_do_devices(kto, tmp_path):
    whole = outcome(hydralight.train([*kto, *split(1), SGD]))
    shared = in_processes({"shared": [*kto, *split(4), SGD]}, tmp_path)["shared"]
    assert max(difference(whole, shared).values()) < 1e-5


def test_what_rows_become():
    shape = UnpairedPreference(plain_texts=True)
    rows = [
        {"prompt": "one", "completion": "a", "label": True},
        {"prompt": "one", "completion": "b", "label": "0"},
        {"prompt": "two", "completion": "c", "label": "True"},
        {"prompt": "two", "completion": " ", "label": "false"},
        {"prompt": "three", "completion": "d", "label": False},
    ]
    table = Dataset.from_dict({n: [str(row[n]) for row in rows] for n in rows[0]})
    found = shape.prepare(table, Where("x.csv"))
    assert found["label"][:] == [True, False, True, False]
    assert [json.loads(one) for one in found["completion"]] == ["a", "b", "c", "d"]
    assert [json.loads(one) for one in found["mismatched"]] == ["d", "d", "b", "c"]


def test_pairs_are_two_answers():
    rows = Dataset.from_list([preferred(index) for index in range(3)])
    found = UnpairedPreference().prepare(rows.select_columns(["chosen", "rejected"]), Where("x"))
    assert found["label"][:] == [True, False] * 3
    chosen = preferred(1)["chosen"]
    assert json.loads(found["prompt"][2]) == chosen[:1]
    assert json.loads(found["completion"][2]) == chosen[1:]
    assert json.loads(found["mismatched"][2]) == preferred(0)["rejected"][1:]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"label": "good"}, "x.csv, row 2: the label is 'good', and should be true or false"),
        ({"prompt": None}, "x.csv, row 2: the prompt is missing or empty"),
    ],
)
def test_bad_rows(row, sentence):
    good = {"prompt": "one", "completion": "a", "label": "true"}
    with pytest.raises(UserError, match=sentence):
        UnpairedPreference().prepare(Dataset.from_list([good, {**good, **row}]), Where("x.csv"))


def test_others_have_other_prompts():
    assert others(["a", "a", "b", "c", "c", "a"]) == [4, 4, 1, 2, 2, 4]
    assert others(["a", "b"]) == [1, 0]
    assert others(["a", "a", "a"]) == [2, 0, 1]


def test_the_loss_of_a_set_does_not_depend_on_its_batches():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 12, generator=generator)
    desirable = torch.arange(12) % 3 == 0
    values = []
    for size in (12, 4, 3):
        metric = KTOLoss(beta=0.5)
        for start in range(0, 12, size):
            part = slice(start, start + size)
            metric.update(rows[0, part], desirable[part], rows[1, part].abs(), rows[2, part] + 1)
        values.append(metric.compute())
    baseline = float((rows[2] + 1).double().mean())
    signs = torch.where(desirable, 1.0, -1.0)
    by_hand = (1 - torch.sigmoid(0.5 * signs * (rows[0] - baseline))) * rows[1].abs()
    assert baseline > 0
    for one in values:
        assert float(one["loss"]) == pytest.approx(float(by_hand.mean()), abs=1e-6)
        assert float(one["kl"]) == pytest.approx(baseline, abs=1e-6)


def test_a_file_of_rows_loads_by_configuration(kto, tmp_path):
    """Texts of a tokenizer without a template; the numbers are those of the model by hand."""
    path = tmp_path / "judged.jsonl"
    texts = [
        {
            "q": f"{j['prompt'][0]['content']}\n",
            "a": j["completion"][0]["content"],
            "ok": j["label"],
        }
        for j in map(judged, range(12))
    ]
    write_jsonl(path, texts)
    run = hydralight.train(
        [
            *kto,
            f"data.path={{train: {path}, validation: {path}, test: {path}}}",
            "data.splits=null",
            "data.columns={prompt: q, completion: a, label: ok}",
            "data.plain_texts=true",
            "data.chat_template=null",
            "data.batch_size=4",
        ]
    )
    hydralight.evaluate([f"run={run.path}", "split=train"])
    answered = hydralight.predict([f"run={run.path}", f"input={path}"])  # prompts alone
    assert [one["prompt"] for one in answered] == [row["q"] for row in texts]
    (rows,) = (run.path / "predictions").glob("*train*.jsonl")
    found = {one["row"]: one for one in map(json.loads, rows.read_text().splitlines())}
    (start,) = (one.partition("=")[2] for one in kto if one.startswith("checkpoint="))
    trained, begun = (
        AutoModelForCausalLM.from_pretrained(folder) for folder in (run.path / "model", start)
    )
    tokenizer = AutoTokenizer.from_pretrained(run.path / "model")
    row = next(row for row in found if row < len(texts))
    whole = tokenizer(texts[row]["q"] + texts[row]["a"])["input_ids"]
    head = tokenizer(texts[row]["q"])["input_ids"][:-1]  # without the end
    assert whole[: len(head)] == head
    assert found[row]["label"] == texts[row]["ok"]
    for model, name in ((trained, "logps"), (begun, "reference")):
        by_hand = log_probability(model, head, whole[len(head) :])
        assert found[row][name] == pytest.approx(by_hand, abs=1e-3)


def log_probability(model, prompt, answer):
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
    return float(sum(logits[place, token] for place, token in zip(places, answer, strict=True)))


def test_verdicts_of_one_kind_have_no_area():
    metric = DefinedAUROC()
    metric.update(torch.tensor([0.1, 0.9]), torch.tensor([1, 1]))
    assert metric.compute().isnan()
    metric.update(torch.tensor([0.5, 0.05]), torch.tensor([0, 0]))
    assert float(metric.compute()) == 0.75
