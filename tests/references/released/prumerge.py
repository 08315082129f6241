"""PruMerge(+): outliers of the attention of [CLS] gather their neighbours, one more token the rest."""

import numpy as np

from .arrays import COUNT, one_head, ranked, softmax, tower, unit

INPUTS = ("q_other", "k_other", "hidden")
CASES = [{"scale_q": 1.0}, {"scale_q": 0.5}]
NEIGHBOURS = 32


def quantile(values, share):
    """Linear between the sorted values."""
    values = sorted(values)
    place = share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (place - low) * (values[high] - values[low])


def attention_as_one_head(x, case):
    """Of [CLS] to every token, all heads side by side as one, [64]."""
    q, k = one_head(x["q_other"]) * case["scale_q"], one_head(x["k_other"])
    return softmax(q[0] @ k.T / q.shape[-1] ** 0.5)[1:]


def outliers(attention):
    """Those above Q3 + 1.5 · (Q3 - Q1), by falling attention."""
    first, third = quantile(attention, 0.25), quantile(attention, 0.75)
    bound = third + 1.5 * (third - first)
    return ranked(attention, [i for i in range(len(attention)) if attention[i] > bound])


def gathered(x, order, attention):
    """x_i + sum of a_j x_j over its neighbours by cosine of the keys; then that sum over all that leave."""
    h, keys = tower(x), unit(one_head(x["k_other"])[1:])
    values = []
    for i in order:
        near = ranked(keys @ keys[i], [j for j in range(COUNT) if j != i])[:NEIGHBOURS]
        values.append(h[i] + sum(attention[j] * h[j] for j in near))
    leave = [j for j in range(COUNT) if j not in order]
    return np.array([*values, sum((attention[j] * h[j] for j in leave), np.zeros(h.shape[1]))])


def with_stride(order):
    """PruMerge+: a stride of a third of 1 / share, beside what is kept already."""
    share = len(order) / COUNT
    step = int(int(1 / share) / 3)
    return order + [i for i in range(0, COUNT - 1, step) if i not in order]


def outputs(x, case):
    attention = attention_as_one_head(x, case)
    order = outliers(attention)
    plus = with_stride(order)
    return {
        "keep_order": order,
        "keep": sorted(order),
        "values": gathered(x, order, attention),
        "attention": attention,
        "keep_plus_order": plus,
        "values_plus": gathered(x, plus, attention),
    }
