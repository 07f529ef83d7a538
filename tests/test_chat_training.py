"""Training on conversations: the loss, packing, how turns end, what is shown and predicted."""

import io
import json
import sys

import numpy as np
import pytest
import torch
from standins import dialogue
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

import hydralight
from hydralight.commands import start
from hydralight.errors import UserError
from hydralight.tasks.task import Task

NO_DROPOUT = "model.config={attention_dropout: 0}"


@pytest.fixture
def chat(recipe):
    short = ["trainer.max_epochs=1", "trainer.accumulate_grad_batches=1", "data.batch_size=13"]
    return [*recipe("qwen_sft_chat"), NO_DROPOUT, *short, "optimizer.lr=1e-3"]


def loss_by_hand(model, tokenizer, conversations):
    """Mean negative log-likelihood of the answers and their ends, token by token."""

    def tokens(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    (begin,), (end,) = tokens("<|im_start|>"), tokens("<|im_end|>")
    total, number = 0.0, 0
    for messages in conversations:
        ids, targets = [], []
        for message in messages:
            said = tokens(f"{message['role']}\n{message['content']}")
            if message["role"] == "assistant":
                header = 1 + len(tokens("assistant\n"))
                targets += range(len(ids) + header, len(ids) + 1 + len(said) + 1)
            ids += [begin, *said, end, *tokens("\n")]
        with torch.no_grad():
            logits = model(torch.tensor([ids[: targets[-1] + 1]])).logits[0].double()
        for place in targets:
            total -= float(logits[place - 1].log_softmax(-1)[ids[place]])
        number += len(targets)
    return total / number, number


def test_the_loss_is_that_of_the_answers_and_their_ends(chat, monkeypatch):
    """And the same packed and padded: losses, gradients and weights."""
    seen: list = []

    def see(task):
        seen.append({name: value.clone() for name, value in task.model.state_dict().items()})

    monkeypatch.setattr(Task, "on_train_start", see, raising=False)
    runs = [
        hydralight.train([*chat, f"data.packing={on}", "trainer.max_epochs=2", f"tags=[p{on}]"])
        for on in ("true", "false")
    ]
    packed = runs[0]
    tokenizer = AutoTokenizer.from_pretrained(packed.path / "model")
    assert tokenizer.chat_template
    model = AutoModelForCausalLM.from_pretrained(packed.path / "model").eval()
    val = [dialogue(20 + i) for i in range(7)]
    assert packed.metrics["best"]["val/loss"] == pytest.approx(
        loss_by_hand(model, tokenizer, val)[0], abs=1e-6
    )
    model.load_state_dict(seen[0])
    first, number = loss_by_hand(model, tokenizer, [dialogue(i) for i in range(13)])
    assert number > 100
    for run in runs:
        assert run.history["train/loss"].dropna().iloc[0] == pytest.approx(first, abs=1e-6)
    for name in ("train/loss", "train/grad_norm", "val/loss"):
        ours, reference = (run.history[name].dropna().to_numpy() for run in runs)
        np.testing.assert_allclose(ours, reference, rtol=1e-6, atol=1e-6)
    # a model that is left to its defaults looks across, and a mask of the whole is another loss
    whole = [json.loads(json.dumps(dialogue(i)).replace("user", "assistant")) for i in range(13)]
    assert abs(loss_by_hand(model, tokenizer, whole)[0] - first) > 1e-3
    weights = [AutoModelForCausalLM.from_pretrained(run.path / "model") for run in runs]
    for one, other in zip(*(model.parameters() for model in weights), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_turns_end_as_they_were_learnt(chat, monkeypatch, capsys):
    quick = ["+trainer.limit_val_batches=1", "callbacks.last_checkpoint=null"]
    learnt = ["trainer.max_epochs=60", "optimizer.lr=1e-2", "generation.max_new_tokens=40"]
    rare = ["trainer.val_check_interval=60"]
    run = hydralight.train([*chat, *quick, *learnt, *rare])
    tokenizer = AutoTokenizer.from_pretrained(run.path / "model")
    config = json.loads((run.path / "model" / "generation_config.json").read_text())
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert set(config["eos_token_id"]) == {end, tokenizer.eos_token_id}
    first, last = sorted((run.path / "samples").glob("step-*.jsonl"))
    before, after = (
        [json.loads(line) for line in f.read_text().splitlines()] for f in (first, last)
    )
    for number, row in enumerate(after):
        messages = dialogue(20 + number)
        assert row["reference"] == messages[-1]["content"]
        prompt = tokenizer.apply_chat_template(
            messages[:-1], tokenize=False, add_generation_prompt=True
        )
        ids = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in (row["prompt"], prompt)]
        assert tokenizer.decode(ids[0]).split() == tokenizer.decode(ids[1]).split()
    assert before[0]["prediction"] != after[0]["prediction"]
    assert after[0]["prediction"].split() == ["No."]  # and there it stopped
    asked = [{"role": "user", "content": "And then?"}]
    lines = json.dumps({"messages": asked}) + "\n" + json.dumps({"prompt": "And then?"}) + "\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    ours, same = hydralight.predict([f"run={run.path}", "input=-"])
    assert ours["prediction"] == same["prediction"]
    pipe = pipeline("text-generation", model=str(run.path / "model"), device="cpu")
    assert pipe(asked)[0]["generated_text"][-1]["content"].strip() == ours["prediction"].strip()
    (text,) = hydralight.predict([f"run={run.path}", "input=And then?"])
    assert text["prediction"] == ours["prediction"]
    with pytest.raises(UserError, match=r"eos_token_id=2 is not the end of a turn, <\|im_end\|> "):
        hydralight.train([*chat, "+generation.eos_token_id=2", "debug=fdr"])


def test_a_check_shows_what_is_trained_on(chat, capsys):
    start("train", [*chat, "check=true"])
    shown = capsys.readouterr().out
    assert shown.count("training example") == 3
    assert "⟦No.<|im_end|>⟧" in shown
    assert shown.count("⟦") == sum(len(dialogue(i)) // 2 for i in range(3))


def test_a_template_of_the_data_is_that_of_the_run(chat, tmp_path, capsys):
    """It goes with the tokenizer, so that its file is not needed again; another one is encoded."""
    file = tmp_path / "mine.jinja"
    file.write_text(
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    own = [*chat, f"data.chat_template={file}"]
    run = hydralight.train(own)
    best = run.metrics["best"]["val/loss"]
    file.write_text(file.read_text().replace("[", "<").replace("]", ">"))
    other = hydralight.train(own)
    assert other.metrics["best"]["val/loss"] != best  # not found in the cache
    file.unlink()
    capsys.readouterr()
    start("eval", [f"run={run.path}"])
    assert json.loads(capsys.readouterr().out)["val/loss"] == pytest.approx(best, abs=1e-6)


def test_prompts_of_a_file_are_answered_before_during_and_after(chat, tmp_path, capsys):
    """Texts and messages alike, and without a validation too."""
    file = tmp_path / "prompts.jsonl"
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "And then?"}]
    lines = [{"prompt": "What came?"}, {"messages": asked}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = f"callbacks.samples.prompts={file}"
    run = hydralight.train([*chat, given, "trainer.max_epochs=2"])
    texts = tmp_path / "prompts.txt"
    texts.write_text("What came?\n\nAnd then?\n")  # a blank line is no prompt
    blind = ["trainer.limit_val_batches=0", f"callbacks.samples.prompts={texts}"]
    without = hydralight.train([*chat, *blind])
    texts.write_text("What came?\nAnd then?\n")
    for one, steps in ((run, [0, 1, 2]), (without, [0, 1])):
        found = sorted((one.path / "samples").glob("prompts-step-*.jsonl"))
        assert [int(path.stem.rpartition("-")[2]) for path in found] == steps
        rows = [json.loads(line) for line in found[-1].read_text().splitlines()]
        assert "What came?" in rows[0]["prompt"]
        assert ["Be brief" in row["prompt"] for row in rows] == [False, one is run]
        name = f"input={file if one is run else texts}"
        predicted = hydralight.predict([f"run={one.path}", name])
        if one is without or one.metrics["best"]["step"] == 2:
            assert [row["prediction"] for row in predicted] == [row["prediction"] for row in rows]
    assert len(list((run.path / "samples").glob("step-*.jsonl"))) == 3
    assert not list((without.path / "samples").glob("step-*.jsonl"))
    with pytest.raises(UserError, match=r"samples.prompts=nowhere.txt is no file"):
        hydralight.train([*chat, "callbacks.samples.prompts=nowhere.txt", "check=true"])
    file.write_text('{"prompt": "a"}\n{"promt": "b"}\n')
    with pytest.raises(UserError, match=r"prompts.jsonl.*line 2|line 2.*prompts.jsonl|row 2"):
        hydralight.train([*chat, given, "trainer.max_epochs=3"])
