"""Learning from rewards: what is written, how it is judged, and what a step does not depend on."""

import math

import numpy as np
import pytest
import torch
from compared import differences
from judges import length, letters
from standins import write_jsonl
from test_invariance import difference, outcome, shown, together
from transformers import AutoModelForCausalLM, AutoTokenizer

import hydralight
from hydralight.errors import UserError
from hydralight.tasks.grpo import GRPOTask
from hydralight.tasks.policy_loss import advantages_of
from hydralight.tasks.rewards import judge, names_of, total
from hydralight.tasks.rollouts import laid_out
from hydralight.tasks.sampling import Policy, Sampling


@pytest.fixture
def policy(checkpoints):
    folder = checkpoints("llama")
    model = AutoModelForCausalLM.from_pretrained(folder, attention_dropout=0.5).train()
    model.generation_config.repetition_penalty = 5.0  # not the policy's own probabilities
    return model, Policy(AutoTokenizer.from_pretrained(folder))


def padded(rows, width):
    ids = torch.ones(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, width - len(row) :] = torch.tensor(row)
        mask[place, width - len(row) :] = 1
    return ids, mask


def test_completions_are_a_function_of_the_prompts_own_seed(policy):
    """Not of what else is in the batch, of its padding, of the global stream, or of dropout."""
    model, writer = policy
    rows, seeds, sampling = [[7, 8, 9], [10, 11], [12] * 6], [1, 2, 3], Sampling(12)
    whole = writer.generate(
        model, *padded(rows, 6), num_generations=4, seeds=seeds, sampling=sampling
    )
    assert model.training
    for place, row in enumerate(rows):
        torch.manual_seed(place)
        alone = writer.generate(
            model, *padded([row], 9), num_generations=4, seeds=[seeds[place]], sampling=sampling
        )
        assert alone.tolist() == whole[4 * place : 4 * place + 4].tolist()
    other = writer.generate(
        model, *padded(rows, 6), num_generations=4, seeds=[1, 2, 4], sampling=sampling
    )
    same = [one == two for one, two in zip(other.tolist(), whole.tolist(), strict=True)]
    assert same[:8] == [True] * 8
    assert not any(same[8:])
    assert len({tuple(row) for row in whole.tolist()}) == 12


def test_tokens_are_drawn_by_their_probabilities(policy):
    model, writer = policy
    ids, mask = padded([[7, 8, 9]], 3)
    with torch.no_grad():
        logits = model.eval()(ids).logits[0, -1] / 0.05  # such that some are likely
    probabilities = logits.softmax(-1)
    kept = probabilities.topk(20)
    for sampling, expected in (
        (Sampling(1, temperature=0.05), probabilities),
        (
            Sampling(1, temperature=0.05, top_k=20),
            torch.zeros_like(probabilities).scatter(
                0, kept.indices, kept.values / kept.values.sum()
            ),
        ),
    ):
        number = 20_000
        drawn = writer.generate(
            model, ids, mask, num_generations=number, seeds=[5], sampling=sampling
        )
        shares = torch.bincount(drawn[:, 0], minlength=len(expected)) / number
        spread = (expected * (1 - expected) / number).sqrt()
        assert float(((shares - expected).abs() / (spread + 1e-4)).max()) < 5
    likely = writer.generate(model, ids, mask, num_generations=1, seeds=None, sampling=Sampling(1))
    assert int(likely) == int(logits.argmax())


def test_advantages_are_within_a_group():
    rewards = torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 5.0, 1.0, math.nan, 3.0, *[math.nan] * 3])
    scaled = advantages_of(rewards, 3, "group").reshape(4, 3)
    plain = advantages_of(rewards, 3, "none").reshape(4, 3)
    assert plain[0].tolist() == [-2.0, -1.0, 3.0]
    torch.testing.assert_close(scaled[0], plain[0] / (rewards[:3].std() + 1e-4))
    assert scaled[1].tolist() == [0.0, 0.0, 0.0]
    assert plain[2].tolist() == [-1.0, 0.0, 1.0]  # who judges nothing moves nothing
    assert scaled[3].tolist() == [0.0, 0.0, 0.0]


def test_prompts_and_completions_stand_at_the_positions_they_were_written_at():
    ids, mask = padded([[7, 8, 9], [10]], 4)
    batch = laid_out(ids, mask, [[1, 2], [3], [4, 5, 6], [2]], 0)
    assert batch["input_ids"].tolist() == [
        *([7, 8, 9, 1, 2], [7, 8, 9, 3, 0], [10, 4, 5, 6, 0], [10, 2, 0, 0, 0]),
    ]
    assert batch["labels"].tolist()[0] == [-100, -100, -100, 1, 2]
    assert batch["attention_mask"].tolist()[3] == [1, 1, 0, 0, 0]


# ---------------------------------------------------------------- rewards


def test_functions_are_called_as_trl_calls_them():
    seen = {}

    def look(prompts, completions, answer, **kwargs):
        seen.update(prompts=prompts, completions=completions, answer=answer, more=sorted(kwargs))
        return [1, None]

    messages = '[{"role": "user", "content": "Hi"}]'
    rest = ['{"answer": 1, "prompt": "x"}', '{"answer": null, "level": "hard"}']
    table = judge([look, length], ['"a"', messages], rest, ["oh", "no"], [[1], [2, 3]])
    assert seen == {
        "prompts": ["a", [{"role": "user", "content": "Hi"}]],
        "completions": ["oh", [{"role": "assistant", "content": "no"}]],
        "answer": [1, None],
        "more": ["completion_ids", "level"],
    }
    assert torch.equal(table.isnan(), torch.tensor([[False, False], [True, False]]))
    torch.testing.assert_close(total(table, [2.0, 10.0])[0], torch.tensor(12.0))
    assert names_of([look, look, letters]) == ["look", "look_2", "letters"]


@pytest.mark.parametrize("kind", [list, np.array, np.float32, torch.tensor])
def test_rewards_are_numbers_of_any_library(kind):
    values = [0.5, -2.0]
    given = list(map(kind, values)) if kind in (np.float32, torch.tensor) else kind(values)
    table = judge([lambda completions: given], ['"a"'] * 2, ["{}"] * 2, ["b", "c"], [[1], [2]])
    assert table.flatten().tolist() == values


def test_a_mapping_is_no_list_of_rewards():
    with pytest.raises(UserError, match="returns a mapping"):
        judge([lambda completions: {1: 2.0}], ['"a"'], ["{}"], ["b"], [[1]])


@pytest.fixture
def own(checkpoints, quick, judges, tmp_path):
    """Overrides that train a tiny model on prompts of one's own."""
    rows = [{"prompt": f"Say {i} {'again ' * (i % 3)}", "answer": str(i)} for i in range(8)]
    files = [write_jsonl(tmp_path / f"{s}.jsonl", rows) for s in ("train", "validation")]
    return [
        *("task=grpo", "data=prompts", "experiment=null", "scheduler=constant"),
        f"checkpoint={checkpoints('llama')}",
        f"data.path={{train:{files[0]},validation:{files[1]}}}",
        *("data.batch_size=4", "task.num_generations=4", "generation.max_new_tokens=6"),
        *("task.rewards=[{_target_: judges.letters}]", "trainer.max_epochs=1"),
        *("optimized_metric=val/reward", "callbacks.samples=null", *quick),
    ]


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ("infinite", "infinite returns inf, which is no finite number"),
        ("too_few", "too_few returns 1 rewards for "),
        ("failing", "task.rewards: failing fails ("),
        ("needy", "needy needs 'grade', and the data has no such column (there are: answer)"),
        ("missing", "judges.missing cannot be imported"),
    ],
)
def test_a_function_that_cannot_be_used_is_named(named, sentence, own):
    with pytest.raises(UserError) as told:
        hydralight.train([*own, f"task.rewards=[{{_target_: judges.{named}}}]"])
    assert sentence in str(told.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["task.rewards=[]"], "task.rewards is empty"),
        (["task.rewards=[judges.letters]"], "should be {_target_: a function}"),
        (["task.reward_weights=[1,2]"], "give one for each of letters"),
        (["task.num_generations=1"], "at least 2"),
        (["data.num_iterations=3"], "should be the same"),
        (["task.loss_type=bnpo"], "should be grpo or dr_grpo or dapo"),
        (["data=causal_lm", "data.columns={text: prompt}"], "take data=prompts"),
    ],
)
def test_options_that_do_not_go_together(options, sentence, own):
    with pytest.raises(UserError) as told:
        hydralight.train([*own, *options])
    assert sentence in str(told.value)


def test_a_function_of_ones_own_with_arguments(own):
    """Named by config; the columns of the data come to it, and its values to the metrics."""
    named = "task.rewards=[{_target_: judges.bonus, size: 3.0}, {_target_: judges.letters}]"
    run = hydralight.train([*own, named, "task.reward_weights=[1, 0]"])
    history = run.history
    assert {"val/reward", "val/reward/bonus", "val/completion_length"} <= {*history}
    trained = history.dropna(subset=["train/loss"])
    assert (trained["train/reward"] - trained["train/reward/bonus"]).abs().max() < 1e-6
    assert trained["train/reward"].iloc[0] % (3.0 / 16) == pytest.approx(0, abs=1e-6)
    assert trained["train/completion_length"].between(1, 6).all()
    hydralight_rows = hydralight.predict([f"run={run.path}", "input=Say 3"])
    assert hydralight_rows[0].keys() >= {"prompt", "prediction"}


# ---------------------------------------------------------------- what a step does not depend on


def of_eight(own, split):
    batch_size, batches_per_step = split
    return [
        *own,
        *(f"data.batch_size={batch_size}", f"data.batches_per_step={batches_per_step}"),
        *("trainer.max_epochs=3", "trainer.gradient_clip_val=null", "task.num_iterations=2"),
        *("optimizer._target_=torch.optim.SGD", "optimizer.lr=0.1", "task.beta=0.1"),
        *("task.loss_type=grpo", "task.epsilon=0.01", "callbacks.last_checkpoint=last_checkpoint")[
            :2
        ],
    ]


def test_eight_prompts_at_once_and_in_two_micro_batches(own):
    whole, parts = (outcome(hydralight.train(of_eight(own, split))) for split in ((8, 1), (4, 2)))
    found = difference(whole, parts)
    print(shown(found))
    assert max(found.values()) < 1e-5
    assert whole["history"]["train/kl"].max() > 0


@pytest.mark.thorough
def test_eight_prompts_on_one_process_and_on_two(own, tmp_path):
    whole = outcome(hydralight.train(of_eight(own, (8, 1))))
    (shared,) = together({"two": of_eight(own, (4, 2))}, tmp_path).values()
    found = difference(whole, shared)
    print(shown(found))
    assert max(found.values()) < 1e-5
    columns = [c for c in whole["history"] if c.startswith("train/")]
    rows = [one["history"][columns].dropna() for one in (whole, shared)]
    assert float((rows[0] - rows[1]).abs().max(axis=None)) < 1e-5


@pytest.mark.parametrize(
    "adapter", [[], ["adapter=lora", "model.adapter.target_modules=all-linear"]]
)
def test_a_resumed_run_has_the_completions_and_the_reference(adapter, own, tmp_path):
    """From a checkpoint between two steps on the same completions; the reference is the start."""
    typed = [*own, *adapter, "task.num_iterations=2", "task.beta=0.5", "optimizer.lr=1e-2"]
    typed += ["data.batch_size=2", "callbacks.last_checkpoint.every_n_train_steps=1"]
    typed += ["callbacks.last_checkpoint.save_total_limit=null"]
    whole, other = tmp_path / "whole", tmp_path / "other"
    hydralight.train([*typed, f"hydra.run.dir={whole}"])
    hydralight.train([*typed, f"hydra.run.dir={other}", "trainer.max_steps=3"])
    saved = torch.load(other / "checkpoints/last.ckpt", weights_only=True)
    assert [one["uses"] for one in saved["rollouts"].values()] == [1]
    assert ("reference" in saved) == (not adapter)
    hydralight.train([f"resume={other}", "trainer.max_steps=-1"])
    ends = [
        torch.load(path / "checkpoints/last.ckpt", weights_only=True) for path in (whole, other)
    ]
    assert ends[0]["global_step"] == ends[1]["global_step"] == 8
    for name, weight in ends[0]["state_dict"].items():
        assert torch.equal(weight, ends[1]["state_dict"][name]), name
    assert [p for p in differences(whole, other) if "metrics.csv" in p] == []


def test_an_adapter_that_is_trained_on_is_its_own_reference(own, tmp_path):
    """Without it, the model is not the one before training."""
    lora = ["adapter=lora", "model.adapter.target_modules=all-linear", "optimizer.lr=1e-1"]
    first = hydralight.train([*own, *lora, f"hydra.run.dir={tmp_path / 'first'}"])
    further = [f"model.adapter={first.path}", "task.beta=1.0", "task.scale_rewards=none"]
    run = hydralight.train([*own, *further, "task.reward_weights=[0.0]"])
    step = run.history.dropna(subset=["train/loss"]).iloc[0]
    assert step["train/kl"] == pytest.approx(0, abs=1e-6)
    assert step["train/loss"] == pytest.approx(0, abs=1e-6)


def test_a_reference_of_other_weights_is_refused(own, checkpoints, tmp_path):
    typed = [*own, "task.beta=0.5", "trainer.max_steps=1", f"hydra.run.dir={tmp_path / 'run'}"]
    hydralight.train(typed)
    other = AutoModelForCausalLM.from_pretrained(checkpoints("llama"))
    with torch.no_grad():
        other.lm_head.weight += 1e-3
    other.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(checkpoints("llama")).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match=r"weighed against other weights"):
        hydralight.train(
            [
                f"resume={tmp_path / 'run'}",
                f"checkpoint={tmp_path / 'other'}",
                "trainer.max_steps=2",
            ]
        )


def test_gradients_are_there_in_16_bits(own):
    """Autocast keeps what it has cast; what it cast while completions were written has none."""
    short = ["trainer.max_steps=1", "+trainer.limit_val_batches=0"]
    norms = [
        hydralight.train([*own, *short, f"precision={bits}"]).history["train/grad_norm"].iloc[0]
        for bits in ("32-true", "bf16-mixed")
    ]
    assert norms[1] == pytest.approx(norms[0], rel=0.1)


def test_a_long_prompt_leaves_room(own, checkpoints, tmp_path):
    """GPT-2 has no more positions than 128: of a prompt the end is read, and trained behind."""
    rows = [{"prompt": "storm " * (20 + 4 * i), "answer": "x"} for i in range(8)]
    for split in ("train", "validation"):
        write_jsonl(tmp_path / f"{split}.jsonl", rows)
    long = [f"checkpoint={checkpoints('gpt2')}", "data.max_length=128", "task.beta=0.1"]
    run = hydralight.train([*own, *long, "generation.max_new_tokens=100"])
    assert run.history["train/completion_length"].max() > 50


def test_completions_that_were_cut_off_are_left_out(own, monkeypatch):
    kept = []
    original = GRPOTask.rollout
    monkeypatch.setattr(GRPOTask, "rollout", lambda *args: kept.append(original(*args)) or kept[-1])
    masked = [*own, "task.mask_truncated_completions=true", "generation.max_new_tokens=30"]
    run = hydralight.train([*masked, "trainer.max_steps=1", "+trainer.limit_val_batches=0"])
    (rollout,) = kept
    ended = [bool((row == 2).any()) for row in rollout.input_ids]
    assert [bool((row != -100).any()) for row in rollout.labels] == ended
    assert run.history["train/ended"].iloc[0] == sum(ended) / len(ended)


# ---------------------------------------------------------------- a server in the model's place


def test_a_plug_writes_in_the_models_place(own):
    run = hydralight.train([*own, "task.generator={_target_: judges.Parrot}"])
    first = run.history.dropna(subset=["train/loss"]).iloc[0]
    assert first["train/completion_length"] == pytest.approx((3 + 6) / 2)
    assert first["train/ended"] == 0.5


# ---------------------------------------------------------------- learning

QUICK = ["data.num_digits=2", "data.num_train=96", "data.num_eval=2", "data.batch_size=16"]


def test_it_learns(quick):
    """Two digits: an answer that does not read the prompt has 19 % of them in their place."""
    short = ["trainer.max_steps=150", "trainer.val_check_interval=150", "callbacks.samples=null"]
    run = hydralight.train(["experiment=grpo_sort", *QUICK, *short, "optimizer.lr=5e-3", *quick])
    reward = run.history["train/reward"].dropna()
    print(f"from {reward.iloc[0]:.2f} to {reward.iloc[-10:].mean():.2f}")
    assert reward.iloc[0] < 0.15
    assert reward.iloc[-10:].mean() > 0.4


@pytest.mark.thorough
def test_grpo_sort(quick):
    run = hydralight.train(["experiment=grpo_sort", *quick])
    best = run.metrics["best"]
    print(f"{best['val/reward']:.3f}, whole rows {best['val/reward/all_in_place']:.3f}")
    assert run.history["train/reward"].dropna().iloc[0] < 0.15
    assert best["val/reward"] > 0.9


# ---------------------------------------------------------------- prompts


def test_texts_are_continued_and_messages_are_answered(own, checkpoints, tmp_path):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    write_jsonl(tmp_path / "train.jsonl", [{"prompt": messages, "answer": 1}] * 4)
    own = [*own, "task.rewards=[{_target_: judges.length}]"]
    with pytest.raises(UserError, match=r"no chat template: take data\.chat_template="):
        hydralight.train([*own, "trainer.max_steps=1"])
    run = hydralight.train(
        [*own, "data.chat_template=chatml", "trainer.max_steps=1", "data.validation_fraction=0.1"]
    )
    evaluated = hydralight.evaluate([f"run={run.path}"])
    assert evaluated
    rows = run.predictions("validation")
    assert rows[0]["prompt"].startswith("Say ")  # a text, as it is
    chat = hydralight.train(
        [*own, "data.chat_template=chatml", "data.chat=true", "trainer.max_steps=1"]
    )
    hydralight.evaluate([f"run={chat.path}"])
    prompt = chat.predictions("validation")[0]["prompt"]
    assert prompt == "<|im_start|>user\nSay 0 <|im_end|>\n<|im_start|>assistant\n"
