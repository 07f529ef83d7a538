"""Reward functions and a generator of a project of one's own."""

import torch


def letters(completions, **kwargs):
    return [sum(letter in "aeiou" for letter in text) / 10 for text in completions]


def some_length(completion_ids, completions, **kwargs):
    """None for some, which it does not judge."""
    pairs = zip(completions, completion_ids, strict=True)
    return [None if text.count("s") > 1 else len(ids) / 10 for text, ids in pairs]


def bonus(completions, answer, size=1.0):
    return [size * (right in text) for text, right in zip(completions, answer, strict=True)]


def infinite(completions, **kwargs):
    return [float("inf") for _ in completions]


def too_few(completions, **kwargs):
    return [0.0]


def failing(completions, **kwargs):
    raise KeyError("no such thing")


def needy(completions, grade):
    return grade


def length(completion_ids):
    return [len(ids) for ids in completion_ids]


class Parrot:
    """Writes what it is told, as a client of a server would."""

    def generate(self, model, input_ids, attention_mask, *, num_generations, seeds, sampling):
        assert seeds is None or len(seeds) == len(input_ids)
        ends = model.generation_config.eos_token_id
        ids = torch.full((len(input_ids) * num_generations, sampling.max_new_tokens), 50)
        ids[::2, 2] = ends if isinstance(ends, int) else ends[0]
        return ids
