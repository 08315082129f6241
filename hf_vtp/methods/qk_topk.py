"""Vision-Token-Pruning, the plain recipe: the tokens with the largest norms of queries and keys stay, the
rest is dropped.

Source: Vision-Token-Pruning (denis7-jean, 2025), a repository without a paper. Not compared with its code on
equal tensors; the loops in tests/references are the reference.
"""

from .table import register_method

register_method(
    "qk_topk",
    scorer="qk_norm",
    selector="top_k",
    merger="drop",
    summary="the plain recipe: the largest Q/K norms stay, the rest is dropped",
    paper="Vision-Token-Pruning (denis7-jean, 2025)",
    scorer_options={"of": "qk"},
)
