"""An ordinary script with Trainer: do two sentences say the same?"""

import sys
from dataclasses import dataclass

from datasets import load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
)


@dataclass
class ScriptArguments:
    model_name_or_path: str
    train_file: str
    max_seq_length: int = 64


def main():
    parser = HfArgumentParser((ScriptArguments, TrainingArguments))
    script, args = parser.parse_json_file(sys.argv[1])
    rows = load_dataset("json", data_files=script.train_file, split="train")
    tokenizer = AutoTokenizer.from_pretrained(script.model_name_or_path)
    model = AutoModelForSequenceClassification.from_pretrained(script.model_name_or_path)

    def encode(batch):
        pair = (batch["sentence1"], batch["sentence2"])
        return tokenizer(*pair, truncation=True, max_length=script.max_seq_length)

    Trainer(
        model,
        args,
        DataCollatorWithPadding(tokenizer),
        rows.map(encode, batched=True),
        processing_class=tokenizer,
    ).train()


if __name__ == "__main__":
    main()
