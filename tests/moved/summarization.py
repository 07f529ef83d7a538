"""An ordinary script with Seq2SeqTrainer: articles and their highlights."""

import sys
from dataclasses import dataclass

from datasets import load_dataset
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    HfArgumentParser,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)


@dataclass
class ScriptArguments:
    model_name_or_path: str
    train_file: str


def main():
    parser = HfArgumentParser((ScriptArguments, Seq2SeqTrainingArguments))
    script, args = parser.parse_json_file(sys.argv[1])
    rows = load_dataset("json", data_files=script.train_file, split="train")
    tokenizer = AutoTokenizer.from_pretrained(script.model_name_or_path)
    model = AutoModelForSeq2SeqLM.from_pretrained(script.model_name_or_path)

    def encode(batch):
        made = tokenizer(batch["article"], max_length=128, truncation=True)
        targets = tokenizer(text_target=batch["highlights"], max_length=32, truncation=True)
        return {**made, "labels": targets["input_ids"]}

    Seq2SeqTrainer(
        model,
        args,
        DataCollatorForSeq2Seq(tokenizer, model),
        rows.map(encode, batched=True, remove_columns=rows.column_names),
        processing_class=tokenizer,
    ).train()


if __name__ == "__main__":
    main()
