"""GTP-ViT: what leaves is passed on over a graph of places and likeness, normalised on both sides."""

import numpy as np

from .arrays import COUNT, SIDE, attention, cosines, ranked, tower

INPUTS = ("q", "k", "hidden")
CASES = [{"num_keep": 32}, {"num_keep": 48}]
NEIGHBOURS, ALPHA = 8, 0.1


def graph_of(states):
    """1 from a token to what touches it and to its most similar; times (d_i d_j)^-1/2, d the row sums."""
    cos, graph = cosines(states), np.zeros((COUNT, COUNT))
    for i in range(COUNT):
        others = [j for j in range(COUNT) if j != i]
        for j in others:
            if max(abs(i // SIDE - j // SIDE), abs(i % SIDE - j % SIDE)) <= 1:
                graph[i][j] = 1.0
        for j in ranked(cos[i], others)[:NEIGHBOURS]:
            graph[i][j] = 1.0
    degree = graph.sum(axis=1) ** -0.5
    return degree[:, None] * graph * degree


def outputs(x, case):
    table, h = attention(x["q"], x["k"]), tower(x)
    graph, out = graph_of(h), {}
    out["graph"] = graph
    own = np.stack([head.diagonal() for head in table])[:, 1:]
    received = table.sum(axis=1)[:, 1:]
    scores = {"": own.mean(axis=0) * received.mean(axis=0), "_max": own.max(axis=0) * received.max(axis=0)}
    for suffix, score in scores.items():
        order = ranked(score)
        stay, leave = order[: case["num_keep"]], order[case["num_keep"] :]
        out[f"keep_order{suffix}"], out[f"keep{suffix}"] = stay, sorted(stay)
        passed = [sum(graph[i][j] * h[j] for j in leave) for i in stay]
        out[f"values{suffix}"] = h[stay] + ALPHA * np.array(passed)
    return out
