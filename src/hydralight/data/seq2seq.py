"""Pairs of texts: a source and the target that a seq2seq model is to write."""

from typing import Any, ClassVar

from transformers import BatchEncoding, DataCollatorForSeq2Seq, PreTrainedTokenizerBase

from hydralight.data.datamodule import Batch, DataModule


def encode_pairs(
    rows: dict[str, list],
    indices: list[int],
    *,
    tokenizer: PreTrainedTokenizerBase,
    source: str,
    target: str,
    source_prefix: str,
    max_source_length: int,
    max_target_length: int,
) -> dict[str, list]:
    """Tokenize sources, and targets where there are any, and note which of them are too long."""
    inputs, too_long = encode_texts(
        tokenizer, [source_prefix + text for text in rows[source]], max_length=max_source_length
    )
    encoded = {"input_ids": inputs}
    if target in rows:
        encoded["labels"], target_too_long = encode_texts(
            tokenizer, text_target=rows[target], max_length=max_target_length
        )
        too_long = [a or b for a, b in zip(too_long, target_too_long, strict=True)]
    lengths = [len(ids) for ids in inputs]
    return {**encoded, "length": lengths, "too_long": too_long, "row": indices}


def encode_texts(
    tokenizer: PreTrainedTokenizerBase,
    text: list[str] | None = None,
    *,
    text_target: list[str] | None = None,
    max_length: int,
) -> tuple[list[list[int]], list[bool]]:
    """Tokenize, truncate at `max_length` tokens, and return the ids and which were longer."""
    options = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
    whole: BatchEncoding = tokenizer(text, text_target=text_target, **options)
    ids: list[list[int]] = whole["input_ids"]
    too_long = [len(row) > max_length for row in ids]
    texts = text if text is not None else text_target
    assert texts is not None
    longer = [text for text, is_longer in zip(texts, too_long, strict=True) if is_longer]
    if longer:
        side = {"text": longer} if text is not None else {"text_target": longer}
        cut = iter(
            tokenizer(**side, truncation=True, max_length=max_length, **options)["input_ids"]
        )
        ids = [
            next(cut) if is_longer else row for row, is_longer in zip(ids, too_long, strict=True)
        ]
    return ids, too_long


class Seq2SeqData(DataModule):
    """Data of seq2seq tasks.

    A batch holds `input_ids` and `attention_mask` (batch, source length) and `labels`
    (batch, target length, -100 where padded), each as long as its longest row.

    Args:
        max_source_length: In tokens; longer sources fall under `too_long`.
        max_target_length: In tokens; the same for targets, and the default for generation.
        source_prefix: Put before each source, such as T5's "summarize: ".
    """

    source: ClassVar[str]
    target: ClassVar[str]
    encode = staticmethod(encode_pairs)

    def __init__(
        self,
        *,
        max_source_length: int = 1024,
        max_target_length: int = 128,
        source_prefix: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_source_length = max_source_length
        self.max_target_length = max_target_length
        self.source_prefix = source_prefix

    def encode_arguments(self) -> dict[str, Any]:
        """Return the arguments of `encode_pairs`."""
        return {
            "source": self.source,
            "target": self.target,
            "source_prefix": self.source_prefix,
            "max_source_length": self.max_source_length,
            "max_target_length": self.max_target_length,
        }

    def pad(self, rows: list[dict[str, Any]]) -> Batch:
        """Pad sources with the tokenizer's padding token and targets with -100."""
        multiple = 8 if self.trainer is not None and "16" in str(self.trainer.precision) else None
        collator = DataCollatorForSeq2Seq(self.tokenizer, pad_to_multiple_of=multiple)
        batch = dict(collator(rows))
        if batch.get("labels", 0) is None:
            del batch["labels"]
        return batch

    @property
    def target_capacity(self) -> int:
        """Tokens of the longest targets that fit into a batch."""
        return self.batch_size * self.max_target_length


class SummarizationData(Seq2SeqData):
    """Texts and their summaries."""

    roles = ("text", "summary")
    targets = ("summary",)
    source = "text"
    target = "summary"
