"""Zero-shot classes and retrieval, ranked from embeddings, and the metrics of both."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...metrics import load as load_metric

load = cache(load_metric)  # it takes a while, and a table has many rows
RECALL_AT = (1, 5, 10)
RANKS = (1, 5)  # of accuracies
BLOCK = 1024  # rows of similarities at a time


def ranked(queries: Tensor, targets: Tensor, count: int) -> list[list[int]]:
    """For each query [n, D] the `count` nearest targets [m, D] by cosine, best first."""
    count, unit = min(count, len(targets)), normalize(targets.float(), dim=-1)
    blocks = [(normalize(q.float(), dim=-1) @ unit.T).topk(count).indices for q in queries.split(BLOCK)]
    return torch.cat(blocks).tolist()


def zero_shot(images: Tensor, classes: Tensor, labels: list[int]) -> tuple[dict, dict]:
    """Top-1 and top-5 accuracy of image embeddings [n, D]: the numbers, and those of every item."""
    return top_k(ranked(images, classes, max(RANKS)), labels, len(classes))


def top_k(predictions: list[list[int]], labels: list[int], num_classes: int) -> tuple[dict, dict]:
    """The same of ranked classes, best first."""
    k = tuple(n for n in RANKS if n < num_classes or n == 1)  # of five classes, the top five are all
    result = load("top_k_accuracy").compute(predictions=predictions, references=labels, k=k, items=True)
    return split_items(result)


def retrieval(images: Tensor, captions: Tensor, owner: list[int]) -> tuple[dict, dict]:
    """Recall both ways; `owner[j]` is the image of caption j. An image scores the mean of its captions."""
    metric, result, items = load("recall_at_k"), {}, {}
    own: list[list[int]] = [[] for _ in images]
    for caption, image in enumerate(owner):
        own[image].append(caption)
    ways = {
        "i2t": (ranked(images, captions, max(RECALL_AT)), own),
        "t2i": (ranked(captions, images, max(RECALL_AT)), [[image] for image in owner]),
    }
    for way, (predictions, references) in ways.items():
        computed = metric.compute(predictions=predictions, references=references, k=RECALL_AT, items=True)
        values, each = split_items(computed)
        result |= {f"{way}_{name}": value for name, value in values.items()}
        items |= {f"{way}_{name}": scores for name, scores in each.items()}
    for name in each:
        items[f"t2i_{name}"] = _by_image(items[f"t2i_{name}"], owner, len(images))
    return result, items


def cosine(images: Tensor, reference: Tensor) -> tuple[dict, dict]:
    """Mean, p5 and minimum of the cosine with the unpruned embeddings."""
    embeds = {"predictions": images.numpy(), "references": reference.numpy()}
    result, items = split_items(load("embedding_cosine").compute(**embeds, items=True))
    return result, {"cosine_mean": items["cosine"]}


def cosines(items: list[float]) -> tuple[dict, dict]:
    """The same of cosines that are known."""
    low = {"cosine_p5": float(np.percentile(items, 5)), "cosine_min": min(items)}
    return {"cosine_mean": float(np.mean(items)), **low}, {"cosine_mean": items}


def split_items(result: dict) -> tuple[dict, dict]:
    """A metric's numbers, and the scores of its items by the name of the number."""
    items = {
        name.removesuffix("_items"): scores for name, scores in result.items() if name.endswith("_items")
    }
    return {name: value for name, value in result.items() if not name.endswith("_items")}, items


def _by_image(scores: list[float], owner: list[int], count: int) -> list[float]:
    sums = np.bincount(owner, weights=scores, minlength=count)
    return (sums / np.bincount(owner, minlength=count)).tolist()
