"""FasterVLM: the tokens stay that [CLS] attends to most.

Paper: arXiv:2412.01818. Compared with Theia-4869/FasterVLM, llava/model/llava_arch.py, commit f5d5f120, in
November 2026: the same tokens on equal tensors.
"""

from .table import register_method

register_method(
    "fastervlm",
    scorer="cls_attention",
    selector="top_k",
    merger="drop",
    summary="what [CLS] attends to most stays",
    paper="FasterVLM (arXiv:2412.01818)",
    layers="output",
)
