"""What a parameter is, and how deep it lies, whatever the architecture calls it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

# Classes of norms: LayerNorm, LlamaRMSNorm, BatchNorm2d; not NormedEmbedding, whose norm is fixed.
NORM = re.compile(r"Norm(?!ed|al)")


@dataclass(frozen=True)
class Kind:
    """What is known of a parameter.

    Args:
        spared: Whether it takes no weight decay: a bias, a norm, or no more than a vector.
        embedding: Whether it is looked up, or added to what is: tokens, positions, a class token.
        matrix: Whether it multiplies in a layer: of two dimensions, and neither of the above.
        above: How many layers lie above it, the head being one: 0 in the head, 1 in the last layer
            of a stack; None in a model without layers.
    """

    spared: bool
    embedding: bool
    matrix: bool
    above: int | None


def kinds_of(model: nn.Module) -> dict[str, Kind]:
    """Return the kind of each parameter of a model by its name; of tied ones, of their first.

    A norm is known by its class, whatever the model calls it (transformers' Trainer goes by names,
    and decays `norm1` and `norm_f`); a bias by its name, also where that is a table, as T5's
    `relative_attention_bias` is; an embedding by its class, or by that of the module around it.

    Layers are the entries of lists of modules of one class. Each stack counts its own: encoder and
    decoder both begin at the embeddings, and end below the head. What is in no layer is an
    embedding, stands before all stacks, or has `embed` in its name, and then lies at the bottom;
    or else it belongs to the head.
    """
    modules = dict(model.named_modules())
    layers = dict(layers_of(model))
    deepest = max(layers.values(), default=None)
    first = next((n for n, _ in model.named_parameters() if layer_in(layers, n)), None)
    before, kinds = True, {}
    for name, parameter in model.named_parameters():
        path = name.rpartition(".")[0]
        module = modules[path]
        before = before and name != first
        inside = layer_in(layers, name)
        looked_up = isinstance(module, nn.Embedding) or (
            inside is None
            and path != ""
            and "Embed"
            in type(module).__name__  # a class token, say; and not what it multiplies by
            and not isinstance(module, nn.Linear | nn.Conv2d)
        )
        spared = (
            "bias" in name.lower()
            or NORM.search(type(module).__name__) is not None
            or parameter.ndim < 2
        )
        above = None
        if deepest is not None:
            bottom = before or looked_up or "embed" in path.lower()
            above = layers[inside] if inside else (deepest + 1 if bottom else 0)
        matrix = parameter.ndim == 2 and inside is not None and not (spared or looked_up)
        kinds[name] = Kind(spared, looked_up and not spared, matrix, above)
    return kinds


def layers_of(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Yield the layers of a model by name, with how many lie above each, the head being one."""
    outer: list[str] = []
    for name, module in model.named_modules():
        if any(name.startswith(f"{one}.") for one in outer):
            continue
        if isinstance(module, nn.ModuleList) and len({type(one) for one in module}) == 1:
            if next(module.parameters(), None) is None:
                continue
            outer.append(name)
            for number in range(len(module)):
                yield f"{name}.{number}", len(module) - number


def layer_in(layers: dict[str, int], name: str) -> str | None:
    """Return the layer that a parameter is in; None where it is in none."""
    parts = name.split(".")
    heads = (".".join(parts[:end]) for end in range(1, len(parts)))
    return next((head for head in heads if head in layers), None)
