"""sacreBLEU and chrF."""

from collections.abc import Sequence
from itertools import zip_longest

from sacrebleu import corpus_bleu
from sacrebleu.metrics import CHRF

from hydralight.metrics.gathered import GatheredMetric


class SacreBLEU(GatheredMetric):
    """BLEU (Post, 2018) and chrF (Popović, 2015) of a corpus by `sacrebleu`, from 0 to 100.

    Args:
        tokenize: sacrebleu's tokenizer, such as `zh`; by default that of WMT (`13a`).
        lowercase: Whether case counts for nothing.
    """

    names = ("bleu", "chrf")

    def __init__(self, tokenize: str | None = None, lowercase: bool = False) -> None:
        super().__init__()
        self.tokenize = tokenize
        self.lowercase = lowercase

    def score(
        self, predictions: list[str], references: Sequence[str | Sequence[str]]
    ) -> dict[str, float]:
        """Score texts against one reference each, or several: sacrebleu takes any number."""
        listed = [[one] if isinstance(one, str) else one for one in references]
        streams = list(zip_longest(*listed))  # the first of each, the second of each or None, …
        options = {"tokenize": self.tokenize} if self.tokenize else {}
        bleu = corpus_bleu(predictions, streams, lowercase=self.lowercase, **options)
        chrf = CHRF(lowercase=self.lowercase).corpus_score(predictions, streams)
        return {"bleu": bleu.score, "chrf": chrf.score}
