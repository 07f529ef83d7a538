"""Answers found in a context."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from transformers import AutoModelForQuestionAnswering

from hydralight.config.ranges import Positive
from hydralight.metrics.squad import SquadScores
from hydralight.tasks.data import Batch
from hydralight.tasks.evaluation import Scores
from hydralight.tasks.losses import number
from hydralight.tasks.task import Task


@dataclass(kw_only=True, eq=False, repr=False)
class QuestionAnsweringTask(Task):
    """Extractive question answering: the first and the last token of the answer.

    The answer is the best span of all windows of a context, by the sum of its two logits; no span
    leaves the context or is longer than `max_answer_length`.

    Args:
        version_2_with_negative: Whether there are questions without an answer (SQuAD 2.0). The
            answer is then empty where the first token's score is above the best span's by more
            than `null_score_diff_threshold`.
        null_score_diff_threshold: See there.
        max_answer_length: In tokens.
    """

    version_2_with_negative: bool = False
    null_score_diff_threshold: float = 0.0
    max_answer_length: Positive = 30

    auto_class = AutoModelForQuestionAnswering
    inputs = ("id", "question")
    sample_columns = ("question", "answer", "reference")

    def build_metrics(self) -> dict[str, Metric]:
        """Return SQuAD's scores."""
        return {"squad": SquadScores()}

    def own_loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum, over windows, the mean cross-entropy of start and end."""
        mask, smoothing = batch["attention_mask"] == 0, self.label_smoothing
        losses = []
        for side in ("start", "end"):
            logits = getattr(outputs, f"{side}_logits").float()
            # padding is no place for an answer, and must not change the loss of the others
            scores = logits.masked_fill(mask, -torch.inf).log_softmax(-1)
            right = scores.gather(1, batch[f"{side}_positions"].unsqueeze(1))
            others = scores.masked_fill(mask, 0).sum(dim=1) / (~mask).sum(dim=1)
            losses.append(-((1 - smoothing) * right.sum() + smoothing * others.sum()))
        return (losses[0] + losses[1]) / 2, number(len(mask), mask)

    def forward(self, batch: Batch) -> Any:
        """Call the model without the positions: the loss is the task's."""
        positions = ("start_positions", "end_positions")
        return super().forward({n: v for n, v in batch.items() if n not in positions})

    def score(self, outputs: Any, batch: Batch, columns: Mapping[str, list]) -> Scores:
        """Compare the answers with the references."""
        answers = columns["answer"], columns["reference"]
        return {"squad": answers, "further": answers}

    def decode(self, outputs: Any, batch: Batch) -> dict[str, list]:
        """Return the answers, where they are in the context, and their scores.

        `score` is the probability among all spans (and no answer).
        """
        scores, starts, ends = spans(outputs, batch, self.max_answer_length)
        nulls = (outputs.start_logits[:, 0] + outputs.end_logits[:, 0]).float()
        answers: list[dict[str, Any]] = []
        sizes = batch["windows"].tolist()
        parts = [t.split(sizes) for t in (scores, starts, ends, nulls)]
        for context, score, start, end, null in zip(batch["context"], *parts, strict=True):
            best = int(score.argmax())
            window, place = divmod(best, score[0].numel())
            everything = score.flatten()
            chosen, least_null = everything[best], null.min()
            if self.version_2_with_negative:
                everything = torch.cat([everything, least_null[None]])
            total = everything.logsumexp(0)
            span = [int(side[window].flatten()[place]) for side in (start, end)]
            empty = not torch.isfinite(chosen)
            if self.version_2_with_negative:
                empty = empty or bool(least_null - chosen > self.null_score_diff_threshold)
            if empty:
                chosen, span = least_null, [0, 0]
            score_of_all = float((chosen - total).exp()) if torch.isfinite(total) else 0.0
            text = context[span[0] : span[1]]
            span[0] += len(text) - len(text.lstrip())  # some tokens hold the space before them
            text = text.strip()
            span[1] = span[0] + len(text)
            answers.append(
                {"answer": text, "score": score_of_all, "start": span[0], "end": span[1]}
            )
        columns = {name: [answer[name] for answer in answers] for name in answers[0]}
        if "answers" in batch:
            columns["reference"] = [list(answer["text"]) for answer in batch["answers"]]
        return columns


def spans(outputs: Any, batch: Batch, max_answer_length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Score every span of context tokens.

    Returns:
        Scores (windows, lengths, tokens), minus infinity where there is no such span; and the
        characters at which the spans start and end, of the same shape.
    """
    begin, stop = batch["starts"], batch["ends"]
    width = begin.shape[1]
    lengths = min(max_answer_length, width)
    context = begin >= 0
    start_logits = outputs.start_logits.float().masked_fill(~context, -torch.inf)
    end_logits = outputs.end_logits.float().masked_fill(~context, -torch.inf)
    # of a span of length n, the end stands n - 1 tokens behind the start
    place = torch.arange(width, device=begin.device) + torch.arange(
        lengths, device=begin.device
    ).unsqueeze(1)
    outside, place = place >= width, place.clamp(max=width - 1)
    scores = (start_logits.unsqueeze(1) + end_logits[:, place]).masked_fill(outside, -torch.inf)
    return scores, begin.unsqueeze(1).expand_as(scores), stop[:, place]
