"""Tiny checkpoints and files that stand in for those of the recipes, with the same columns."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import AutoConfig, ViTImageProcessor

from hydralight.tokenizers import Trained

WORDS = "storm river council mayor bridge market harbour festival train school garden tower".split()
NUMBERS = ["two", "three", "four", "five", "six", "seven"]

HEADS = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
BERT = {"hidden_size": 32, **HEADS, "max_position_embeddings": 128}
SEQ2SEQ = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64}
SEQ2SEQ |= {"decoder_ffn_dim": 64, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
SEQ2SEQ |= {"max_position_embeddings": 256}
CONFIGS = {
    "bert": ("BertForMaskedLM", BERT),
    "distilbert": (
        "DistilBertForMaskedLM",
        {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 128},
    ),
    "roberta": ("RobertaForMaskedLM", BERT),
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 128}),
    "bart": ("BartForConditionalGeneration", SEQ2SEQ),
    "marian": ("MarianMTModel", SEQ2SEQ),
    "t5": (
        "T5ForConditionalGeneration",
        {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2},
    ),
    "llama": (
        "LlamaForCausalLM",
        {"hidden_size": 32, **HEADS, "num_key_value_heads": 2, "max_position_embeddings": 128},
    ),
    "vit": ("ViTForImageClassification", {"hidden_size": 32, **HEADS, "image_size": 16}),
}
CONFIGS["vit"][1]["patch_size"] = 8


def article(index: int) -> dict[str, str]:
    """A row with CNN/DailyMail's own column names; texts differ in length."""
    subject, place = WORDS[index % 12], WORDS[(5 * index + 3) % 12]
    number = NUMBERS[index % 6]
    body = [f"The {subject} near the {place} was seen by {number} people on that day."]
    body += [f"Then {WORDS[(index + k) % 12]} came {k} times." for k in range(index % 5)]
    summary = f"{number} people saw the {subject}." + " It was the end." * (index % 3)
    return {"article": " ".join(body), "highlights": summary}


@cache
def tokenizer():
    """A byte-level BPE tokenizer of 400 tokens."""
    return Trained(vocab_size=400).train([t for i in range(60) for t in article(i).values()])


def checkpoint(model_type: str, folder: Path) -> Path:
    """Write a random model of some ten thousand parameters, with a tokenizer, as an HF folder."""
    class_name, values = CONFIGS[model_type]
    config = AutoConfig.for_model(model_type)
    if model_type == "vit":
        processor = ViTImageProcessor(size={"height": 16, "width": 16})
        processor.save_pretrained(folder)
    else:
        ids = {
            f"{n}_token_id": getattr(tokenizer(), f"{n}_token_id") for n in ("bos", "eos", "pad")
        }
        values = {**values, **ids, "vocab_size": len(tokenizer())}
        if config.is_encoder_decoder:
            values["decoder_start_token_id"] = ids["eos_token_id"]
        tokenizer().save_pretrained(folder)
    torch.manual_seed(0)
    getattr(transformers, class_name)(type(config)(**values)).save_pretrained(folder)
    return folder


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def dialogue(index: int) -> list[dict[str, str]]:
    """A conversation of one exchange or two."""
    body, summary = article(index).values()
    turns = [("user", body), ("assistant", summary), ("user", "And then?"), ("assistant", "No.")]
    said = turns[: 4 if index % 3 else 2]
    return [{"role": role, "content": content} for role, content in said]


def preferred(index: int) -> dict:
    """Two answers to a question, as UltraFeedback has them."""
    body, summary = article(index).values()
    chosen, rejected = (
        [{"role": "user", "content": body}, {"role": "assistant", "content": answer}]
        for answer in (summary, f"No idea. {summary[: 5 * (index % 4)]}")
    )
    return {"chosen": chosen, "rejected": rejected, "score_chosen": 5.0, "score_rejected": 2.0}


def judged(index: int) -> dict:
    """An answer that somebody has judged."""
    pair = preferred(index)
    asked, answer = pair["rejected" if index % 3 == 0 else "chosen"]
    return {"prompt": [asked], "completion": [answer], "label": index % 3 != 0}


def row_for(experiment: str, index: int) -> dict:
    """A row with the columns of the recipe's own data."""
    body, summary = article(index).values()
    subject = WORDS[index % 12]
    start = body.index(subject)
    answers = {"text": [subject], "answer_start": [start]}
    if index % 2 and experiment == "bert_squad_v2":
        answers = {"text": [], "answer_start": []}
    words = body.split()[:8]
    pair = {"sentence1": body, "sentence2": summary}
    scene = {
        "sent1": body,
        "sent2": "Then",
        **{f"ending{k}": WORDS[k + index % 4] for k in range(4)},
    }
    squad = {"id": str(index), "question": "What?", "context": body, "answers": answers}
    rows = {
        "bart_cnn": article(index),
        "bert_mrpc": {**pair, "label": index % 2},
        "bert_mrpc_ddp": {**pair, "label": index % 2},
        "bert_mrpc_lora": {**pair, "label": index % 2},
        "bert_stsb": {**pair, "label": index % 5 + 0.5},
        "distilbert_emotion": {"text": summary, "label": index % 6},
        "bert_ner_conll2003": {"tokens": words, "ner_tags": ["O", "B-LOC", *["O"] * 6]},
        "bert_squad": squad,
        "bert_squad_v2": squad,
        "bert_swag": {**scene, "label": index % 4},
        "marian_wmt16_en_ro": {"translation": {"en": body, "ro": summary}},
        "t5_xsum": {"document": body, "summary": summary},
        "roberta_mlm_wikitext": {"text": body},
        "gpt2_scratch": {"content": body},
        "gpt2_openwebtext": {"text": body},
        "llama_fineweb": {"text": body},
        "distilgpt2_sonnets": {"text": body},
        "transformer_xl_reviews": {"text": body, "label": 1},
        "minilm_nli": {"anchor": body, "positive": summary},
        "qwen_sft_chat": {"messages": dialogue(index)},
        "qwen_dpo": preferred(index),
        "reward_model": preferred(index),
        "kto": judged(index),
        "dpo_quickstart": preferred(index),
        "llama_lora_alpaca": {"instruction": body, "input": subject, "output": summary},
    }
    return rows[experiment]


MODELS = {
    "bart_cnn": "bart",
    "distilbert_emotion": "distilbert",
    "marian_wmt16_en_ro": "marian",
    "t5_xsum": "t5",
    "qwen_sft_chat": "llama",
    "qwen_dpo": "llama",
    "reward_model": "llama",
    "kto": "llama",
    "dpo_quickstart": "llama",
    "llama_lora_alpaca": "llama",
    "roberta_mlm_wikitext": "roberta",
    "distilgpt2_sonnets": "gpt2",
    "vit_cxr14": "vit",
}
FROM_SCRATCH = ("gpt2_scratch", "gpt2_openwebtext", "llama_fineweb", "transformer_xl_reviews")
SMALLER = {
    "bart_cnn": ["data.max_source_length=128", "generation.max_new_tokens=5"],
    "t5_xsum": ["data.max_source_length=128", "generation.max_new_tokens=5"],
    "marian_wmt16_en_ro": ["generation.max_new_tokens=5"],
    "bert_mrpc": ["data.max_length=64"],
    "bert_squad": ["data.max_length=32", "data.doc_stride=8"],
    "bert_squad_v2": ["data.max_length=32", "data.doc_stride=8"],
    "roberta_mlm_wikitext": ["data.block_size=32"],
    "distilgpt2_sonnets": ["data.max_length=64", "generation.max_new_tokens=5"],
    "gpt2_scratch": [
        *("tokenizer.vocab_size=400", "model.config={n_embd: 32, n_layer: 1, n_head: 2}"),
        *("data.block_size=16", "generation.max_new_tokens=5"),
    ],
    "gpt2_openwebtext": [
        *("tokenizer.vocab_size=400", "model.config={n_embd: 32, n_layer: 1, n_head: 2}"),
        *("data.block_size=16", "data.batches_per_step=2", "data.validation_hash=null"),
        *("trainer.max_steps=-1", "trainer.max_epochs=1", "trainer.val_check_interval=1.0"),
        *("scheduler.warmup_steps=1", "generation.max_new_tokens=5"),
    ],
    "llama_fineweb": [
        *("tokenizer.vocab_size=400", "tokenizer.sample_texts=null", "data.validation_hash=null"),
        "model.config={hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1}",
        *("model.config.num_attention_heads=2", "model.config.num_key_value_heads=2"),
        *("data.block_size=16", "data.batches_per_step=2", "scheduler.warmup_steps=1"),
        *("trainer.max_steps=2", "trainer.val_check_interval=1", "generation.max_new_tokens=5"),
    ],
    "transformer_xl_reviews": [
        *("tokenizer.vocab_size=400", "task.segment_length=8", "task.memory_length=8"),
        "model.config={hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1}",
        *("model.config.num_attention_heads=2", "model.config.num_key_value_heads=2"),
        "generation.max_new_tokens=5",
    ],
    "qwen_sft_chat": [
        *("data.chat_template=chatml", "data.max_length=112", "generation.max_new_tokens=5"),
        "trainer.val_check_interval=1.0",
    ],
    "qwen_dpo": [
        *("data.chat_template=chatml", "data.max_length=112", "generation.max_new_tokens=5"),
        *("trainer.val_check_interval=1.0", "trainer.max_steps=-1", "trainer.max_epochs=1"),
    ],
    "reward_model": [
        *("data.chat_template=chatml", "data.max_length=112", "trainer.val_check_interval=1.0"),
    ],
    "dpo_quickstart": [
        *("data.chat_template=chatml", "data.max_length=112", "data.batch_size=8"),
    ],
    "kto": [
        *("data.chat_template=chatml", "data.max_length=112", "generation.max_new_tokens=5"),
        "trainer.val_check_interval=1.0",
    ],
    "llama_lora_alpaca": [
        *("data.chat_template=zephyr", "data.max_length=112", "generation.max_new_tokens=5"),
        *("scheduler.warmup_steps=1", "trainer.val_check_interval=1.0"),
    ],
    "vit_cxr14": ["tokenizer.options.size={height: 16, width: 16}"],
    "grpo_sort": [
        *("data.num_train=13", "data.num_eval=7", "task.num_generations=4"),
        *("task.num_iterations=2", "task.beta=0.1", "trainer.max_steps=-1"),
    ],
}


def images(folder: Path, number: int, labels: int = 15) -> Path:
    """Write random grayscale images with a `metadata.jsonl` of N-hot labels."""
    rng = np.random.default_rng(number)
    rows = []
    for index in range(number):
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{index}.png"
        Image.fromarray(rng.integers(0, 255, (20, 20), dtype=np.uint8)).save(folder / name)
        hot = [int((index >> place) & 1) for place in range(labels)]
        rows.append({"file_name": name, "labels": hot})
    write_jsonl(folder / "metadata.jsonl", rows)
    return folder


def overrides_for(experiment: str, folder: Path, checkpoints) -> list[str]:
    """Overrides that run a recipe on stand-ins, whose files are written to a folder."""
    overrides = [*SMALLER.get(experiment, [])]
    if experiment in ("quickstart", "sft_quickstart", "vit_digits", "grpo_sort"):
        return overrides
    if experiment == "gpt2_openwebtext":
        overrides.append(f"data.prepared={folder}/shards")
    if experiment not in FROM_SCRATCH:
        overrides.append(f"checkpoint={checkpoints(MODELS.get(experiment, 'bert'))}")
    sizes = {"train": 13, "validation": 7, "test": 4}
    files = {}
    for number, (split, size) in enumerate(sizes.items()):
        if experiment == "vit_cxr14":
            files[split] = images(folder / split, size)
        else:
            rows = [row_for(experiment, 20 * number + i) for i in range(size)]
            files[split] = write_jsonl(folder / f"{split}.jsonl", rows)
    return [*overrides, f"data.path={{{','.join(f'{s}:{p}' for s, p in files.items())}}}"]
