"""How well the right text is found among all of a set, by its vector."""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

CHUNK = 512  # anchors that are compared at once


class RetrievalScores(Metric):
    """Mean reciprocal rank (10 at most) and accuracy of the nearest of all candidates of a set.

    The candidates of an anchor are the positives of all pairs, so that the values do not depend on
    batches or ranks. Vectors are kept until then, one for each text. Of equal scores the first
    candidate counts as the nearer one, so that equal vectors find no more than chance does.
    """

    higher_is_better = True
    full_state_update = False
    names = ("accuracy@1", "mrr@10")

    anchors: list[Tensor]
    positives: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("anchors", [], dist_reduce_fx="cat")
        self.add_state("positives", [], dist_reduce_fx="cat")

    def update(self, anchors: Tensor, positives: Tensor) -> None:
        """Add pairs of vectors (batch, width), of length 1."""
        self.anchors.append(anchors.detach())
        self.positives.append(positives.detach())

    def compute(self) -> dict[str, Tensor]:
        """Return the means over anchors."""
        anchors, positives = dim_zero_cat(self.anchors), dim_zero_cat(self.positives)
        ranks = []
        for start in range(0, len(anchors), CHUNK):
            scores = anchors[start : start + CHUNK] @ positives.T
            places = torch.arange(start, start + len(scores), device=scores.device)
            own = scores.gather(1, places.unsqueeze(1))
            earlier = torch.arange(len(positives), device=scores.device) <= places.unsqueeze(1)
            ranks.append(((scores > own) | ((scores == own) & earlier)).sum(dim=1))
        rank = torch.cat(ranks).float()
        reciprocal = torch.where(rank <= 10, 1 / rank, 0.0)
        return {"accuracy@1": (rank == 1).float().mean(), "mrr@10": reciprocal.mean()}
