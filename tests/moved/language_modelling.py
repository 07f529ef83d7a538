"""An ordinary script with Trainer: a model that goes on with texts."""

import sys
from dataclasses import dataclass

from datasets import load_dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
)


@dataclass
class ScriptArguments:
    model_name_or_path: str
    train_file: str


def main():
    parser = HfArgumentParser((ScriptArguments, TrainingArguments))
    script, args = parser.parse_json_file(sys.argv[1])
    rows = load_dataset("json", data_files=script.train_file, split="train")
    tokenizer = AutoTokenizer.from_pretrained(script.model_name_or_path)
    model = AutoModelForCausalLM.from_pretrained(script.model_name_or_path)

    def encode(batch):
        return tokenizer(batch["text"])  # which puts an end token behind each

    def collate(examples):
        batch = dict(tokenizer.pad(examples, return_tensors="pt"))
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        labels[:, 0] = -100  # which nothing predicts, and Trainer would count
        return {**batch, "labels": labels}

    Trainer(
        model,
        args,
        collate,
        rows.map(encode, batched=True, remove_columns=["text"]),
        processing_class=tokenizer,
    ).train()


if __name__ == "__main__":
    main()
