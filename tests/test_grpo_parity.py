"""Step by step what TRL's GRPOTrainer does with the same completions: one process.

The trainer is run here, on the same checkpoint; nothing is stored.
"""

import numpy as np
import pytest
import torch
from datasets import Dataset
from judges import letters, some_length
from standins import article, write_jsonl

import hydralight
from hydralight.tasks.grpo import GRPOTask
from hydralight.tasks.sampling import Policy
from hydralight.tasks.task import Task

STEPS, PROMPTS, EACH, LONGEST = 20, 3, 4, 10
# options of ours, and what they are called there
CASES = {
    "grpo": ({"loss_type": "grpo", "epsilon": 0.03, "beta": 0.1}, {}),
    "dr_grpo": (
        {"loss_type": "dr_grpo", "scale_rewards": "none", "temperature": 0.7, "epsilon": 0.01},
        {},
    ),
    "dapo": (
        {
            "loss_type": "dapo",
            "epsilon": 0.03,
            "epsilon_high": 0.04,
            "beta": 0.1,
            "use_bias_correction_kl": False,
            "mask_truncated_completions": True,
        },
        {},
    ),
    "bnpo": (
        {"loss_type": "dapo", "reward_weights": [0.3, 2.0], "epsilon": 0.03},
        {"loss_type": "bnpo"},
    ),
    "gspo": (
        {
            "loss_type": "grpo",
            "importance_sampling_level": "sequence",
            "epsilon": 1e-2,
            "epsilon_high": 1.5e-2,
            "beta": 0.1,
        },
        {},
    ),
}


def written(policy, model, input_ids, attention_mask, *, num_generations, seeds, sampling):
    """Random tokens, some of which end; random weights would hardly ever."""
    rng = torch.Generator().manual_seed((seeds or [0])[0] % 2**31)
    shape = (num_generations * len(input_ids), sampling.max_new_tokens)
    ids = torch.randint(5, model.config.vocab_size, shape, generator=rng)
    ids[torch.rand(shape, generator=rng) < 0.1] = policy.tokenizer.eos_token_id
    return ids


@pytest.mark.parametrize("case", CASES)
def test_parity_with_grpo_trainer(case, checkpoints, quick, judges, tmp_path, monkeypatch):
    from trl import GRPOConfig, GRPOTrainer

    ours, theirs = CASES[case]
    rows = [{"prompt": article(i)["article"]} for i in range(PROMPTS * STEPS // 2)]
    files = {s: write_jsonl(tmp_path / f"{s}.jsonl", rows) for s in ("train", "validation")}
    seen, steps = {}, []

    def begin(task):
        seen["tokenizer"] = task.datamodule.processor

    def record(task, batch):
        rollout = ROLLOUT(task, batch)
        steps.append((batch["prompt"], rollout))
        return rollout

    ROLLOUT = GRPOTask.rollout
    monkeypatch.setattr(Task, "on_train_start", begin, raising=False)
    monkeypatch.setattr(GRPOTask, "rollout", record)
    monkeypatch.setattr(Policy, "generate", written)
    rewards = "[{_target_: judges.letters}, {_target_: judges.some_length}]"
    run = hydralight.train(
        [
            *("task=grpo", "data=prompts", "experiment=null", "scheduler=constant"),
            f"checkpoint={checkpoints('llama')}",
            f"data.path={{train:{files['train']},validation:{files['validation']}}}",
            f"data.batch_size={PROMPTS}",
            f"task.rewards={rewards}",
            f"task.num_generations={EACH}",
            "task.num_iterations=2",
            *(f"task.{name}={value}" for name, value in ours.items()),
            f"generation.max_new_tokens={LONGEST}",
            *(
                "trainer.max_epochs=-1",
                f"trainer.max_steps={STEPS}",
                "trainer.gradient_clip_val=1.0",
            ),
            *("+trainer.limit_val_batches=0", "callbacks.samples=null"),
            # Adam makes steps of the rounding
            *(
                "optimizer._target_=torch.optim.SGD",
                "optimizer.lr=0.03",
                "optimizer.weight_decay=0",
            ),
            *quick,
        ]
    )
    ours_weights = torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert len(steps) == STEPS // 2  # each twice

    class Trainer(GRPOTrainer):
        def _tokenize_prompts(self, prompts):
            own = [seen["tokenizer"](prompt)["input_ids"] for prompt in prompts]
            return own, None, {}

        def _generate_single_turn(self, prompt_ids, *args, **kwargs):
            prompts, rollout = steps[self.at]
            self.at += 1
            heads = [
                seen["tokenizer"](prompt)["input_ids"] for prompt in prompts for _ in range(EACH)
            ]
            assert heads == prompt_ids
            found = [
                ids[len(head) : int(there.sum())].tolist()
                for head, ids, there in zip(
                    heads, rollout.input_ids, rollout.attention_mask, strict=True
                )
            ]
            return found, None

        def training_step(self, *args, **kwargs):
            loss = super().training_step(*args, **kwargs)
            self.losses.append(float(loss))
            return loss

    names = {"loss_type", "scale_rewards", "temperature", "epsilon", "epsilon_high", "beta"}
    names |= {"importance_sampling_level", "use_bias_correction_kl", "mask_truncated_completions"}
    names |= {"reward_weights"}
    config = GRPOConfig(
        output_dir=str(tmp_path / "trainer"),
        max_steps=STEPS,
        per_device_train_batch_size=PROMPTS * EACH,
        num_generations=EACH,
        num_iterations=2,
        max_completion_length=LONGEST,
        shuffle_dataset=False,
        learning_rate=0.03,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        optim="sgd",
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        **{**{name: value for name, value in ours.items() if name in names}, **theirs},
    )
    trainer = Trainer(
        model=str(checkpoints("llama")),
        reward_funcs=[letters, some_length],
        args=config,
        train_dataset=Dataset.from_list([{"prompt": p} for prompts, _ in steps for p in prompts]),
        processing_class=seen["tokenizer"],
    )
    trainer.at, trainer.losses = 0, []
    trainer.train()
    history = run.history.dropna(subset=["train/loss"])
    norms = [log["grad_norm"] for log in trainer.state.log_history if "grad_norm" in log]
    apart = history["train/loss"].to_numpy() - np.array(trainer.losses)
    norm_apart = history["train/grad_norm"].to_numpy() - np.array(norms)
    weights = max(
        float((ours_weights[f"model.{name}"] - weight).abs().max())
        for name, weight in trainer.model.named_parameters()
    )
    print(
        f"{case}: loss {np.abs(apart).max():.1e}, norm {np.abs(norm_apart).max():.1e}, "
        f"weights {weights:.1e}; clipped {history['train/clip_fraction'].max():.2f}"
    )
    assert np.abs(apart).max() < 1e-5
    assert np.abs(norm_apart).max() < 1e-5 * max(norms)
    assert weights < 1e-5
    assert 0.02 < history["train/clip_fraction"].max() < 0.98
