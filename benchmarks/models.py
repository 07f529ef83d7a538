"""Random checkpoints of real shapes, named by them: `bert-6x384`, `bart-6+6x768`, `gpt2-12x768`."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedTokenizerBase

from benchmarks.lengths import Rows
from hydralight.errors import UserError
from hydralight.tokenizers import Trained

VOCABULARY = {"bert": 30_522, "bart": 50_265, "gpt2": 50_257}  # the originals' embeddings
# small enough to cut made-up and few real texts into about as many tokens as the originals would
TRAINED_VOCABULARY = 6_000
CLASSES = {
    "bert": "BertForSequenceClassification",
    "bart": "BartForConditionalGeneration",
    "gpt2": "GPT2LMHeadModel",
}


def checkpoint(shape: str, texts: Rows, folder: Path, vocabulary: int | None = None) -> Path:
    """Write a random model of a shape, with a tokenizer trained on texts, as an HF folder.

    Args:
        shape: Family, layers and width.
        texts: Rows, whose texts the tokenizer learns.
        folder: Where the checkpoint's folder is made.
        vocabulary: Embeddings; unless said, as many as the family's original has.

    Raises:
        UserError: the shape cannot be read.
    """
    found = re.fullmatch(r"(bert|bart|gpt2)-(\d+)(?:\+(\d+))?x(\d+)", shape)
    if found is None:
        raise UserError(f"{shape} is no shape: name one like bert-6x384 or bart-6+6x768.")
    family, layers, width = found[1], int(found[2]), int(found[4])
    path = folder / shape.replace("+", "-")
    if (path / "config.json").is_file():
        return path
    tokenizer = trained_tokenizer(family, texts)
    ids = {f"{n}_token_id": getattr(tokenizer, f"{n}_token_id") for n in ("bos", "eos", "pad")}
    values: dict[str, Any] = {**ids, **widths(family, layers, int(found[3] or layers), width)}
    values["vocab_size"] = vocabulary or VOCABULARY[family]
    config = AutoConfig.for_model(family, **values)
    torch.manual_seed(0)
    getattr(transformers, CLASSES[family])(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def widths(family: str, layers: int, decoder_layers: int, width: int) -> dict[str, Any]:
    """Return a family's own names for the numbers of layers, heads and hidden units."""
    heads = 12 if width >= 384 else 2
    if family == "bert":
        return {
            "num_hidden_layers": layers,
            "hidden_size": width,
            "num_attention_heads": heads,
            "intermediate_size": 4 * width,
        }
    if family == "gpt2":
        return {"n_layer": layers, "n_embd": width, "n_head": heads}
    return {
        "encoder_layers": layers,
        "decoder_layers": decoder_layers,
        "d_model": width,
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": 4 * width,
        "decoder_ffn_dim": 4 * width,
        "max_position_embeddings": 1024,
        "decoder_start_token_id": 2,
    }


def trained_tokenizer(family: str, rows: Rows) -> PreTrainedTokenizerBase:
    """Return a WordPiece tokenizer for BERT, a byte-level one for the others."""
    texts: Iterable[str] = (str(v) for row in rows for v in row.values() if isinstance(v, str))
    if family == "bert":
        recipe = Trained(model="wordpiece", lowercase=True, vocab_size=TRAINED_VOCABULARY)
    else:
        # a causal model's texts get their end from the data module
        recipe = Trained(vocab_size=TRAINED_VOCABULARY, add_special_tokens=family == "bart")
    return recipe.train(texts)
