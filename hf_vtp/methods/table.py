"""Named methods: a scorer, a selector and a merger under one name, with the options their source uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..pruning.registry import Table
from .layers import at, every_layer, every_other_layer
from .mergers import MERGERS
from .scorers import SCORERS
from .selectors import SELECTORS


@dataclass(frozen=True)
class Method:
    """A bundle of parts; `summary` and `paper` are what the README's table says of it."""

    scorer: str
    selector: str
    merger: str
    summary: str
    paper: str = ""
    # where tokens leave unless the user says: "output", or layers of a tower with so many; None = the
    # family's
    layers: Callable[[int], list[int]] | str | None = None
    schedule: str = "geometric"  # how several stages share the reduction; or "linear"
    after_features: dict = field(default_factory=dict)  # parts that stand in where no tower's layers are seen
    scorer_options: dict = field(default_factory=dict)
    selector_options: dict = field(default_factory=dict)
    merger_options: dict = field(default_factory=dict)


PARTS = {"scorer": SCORERS, "selector": SELECTORS, "merger": MERGERS}


METHODS: Table = Table("method")
METHODS.update(
    vtp=Method(
        "qk_norm",
        "spread",
        "absorb",
        "the default: rank by Q/K norm, suppress repeats near by, let the kept absorb the rest",
        "this project",
        scorer_options={"of": "qk"},
        merger_options={"lloyd": 2},
        after_features={"scorer": "token_norm"},  # no queries and keys are there
    ),
    qk_topk=Method(
        "qk_norm",
        "top_k",
        "drop",
        "the plain recipe: the largest Q/K norms stay, the rest is dropped",
        "Vision-Token-Pruning (denis7-jean, 2025)",
        scorer_options={"of": "qk"},
    ),
    dynamic=Method(
        "token_norm",
        "threshold",
        "drop",
        "layer after layer, tokens with a small norm leave; the count follows the image",
        "Dynamic Token Pruning (ECE1512 report, 2024)",
        every_layer,
    ),
    tome=Method(
        "equal",
        "bipartite",
        "bipartite",
        "the most similar pairs merge after every layer (ToMe's own place, before the MLP, is beyond hooks)",
        "ToMe (arXiv:2210.09461)",
        every_layer,
        "linear",
    ),
    fastervlm=Method(
        "cls_attention",
        "top_k",
        "drop",
        "what [CLS] attends to most stays",
        "FasterVLM (arXiv:2412.01818)",
        "output",
    ),
    visionzip=Method(
        "cls_attention",
        "top_k",
        "contextual",
        "what [CLS] attends to most stays, a few more tokens sum up the rest",
        "VisionZip (arXiv:2412.04467)",
        "output",
    ),
    vispruner=Method(
        "cls_attention",
        "important_plus_diverse",
        "drop",
        "half of the places by attention of [CLS], half by diversity",
        "VisPruner (arXiv:2412.01818v2)",
        "output",
    ),
    prumerge=Method(
        "cls_attention",
        "iqr",
        "knn_weighted",
        "outliers of the attention of [CLS] stay and gather their neighbours; the count follows the image",
        "LLaVA-PruMerge (arXiv:2403.15388)",
        "output",
    ),
    divprune=Method(
        "equal",
        "max_min_diversity",
        "drop",
        "the most diverse set, farthest first",
        "DivPrune (arXiv:2503.02175)",
        "output",
    ),
    cdpruner=Method(
        "text_relevance",
        "dpp",
        "drop",
        "a diverse set by a determinantal point process, weighted by likeness to the prompt",
        "CDPruner (arXiv:2506.10967)",
        "output",
    ),
    hiprune=Method(
        "received_attention",
        "anchors_buffers",
        "drop",
        "anchors of a middle layer with their neighbours, then what a deep layer attends to",
        "HiPrune (arXiv:2508.00553)",
        "output",
    ),
    holov=Method(
        "cls_attention",
        "crop_quota",
        "drop",
        "every crop of the image keeps its share",
        "HoloV (arXiv:2510.02912)",
        "output",
    ),
    flowcut=Method(
        "flow",
        "entropy",
        "drop",
        "information flow, accumulated over the layers; the pace follows the entropy of attention",
        "FlowCut (arXiv:2505.19536)",
        every_other_layer,
    ),
    fopru_rank=Method(
        "received_attention",
        "top_k",
        "drop",
        "the most attended tokens stay",
        "FoPru (arXiv:2411.14164)",
        "output",
    ),
    fopru_row=Method(
        "received_attention",
        "image_rows",
        "drop",
        "the most attended rows of the image stay",
        "FoPru (arXiv:2411.14164)",
        "output",
    ),
    todre=Method(
        "equal",
        "least_similar",
        "drop",
        "greedily the token least similar to the chosen ones",
        "ToDRE (arXiv:2505.18757)",
        "output",
    ),
    scope=Method(
        "cls_attention",
        "scope",
        "drop",
        "greedily the token that covers most of the rest, weighted by attention of [CLS]",
        "SCOPE (arXiv:2510.24214)",
        "output",
    ),
    mmtok=Method(
        "equal",
        "max_coverage",
        "drop",
        "greedily the token that covers most of the prompt and the image",
        "MMTok (arXiv:2508.18264)",
        "output",
    ),
    dart=Method(
        "qk_norm",
        "pivots",
        "drop",
        "a few tokens with large K norms, and what resembles them least",
        "DART (arXiv:2502.11494)",
        "output",
    ),
    zero_tprune=Method(
        "pagerank",
        "unlike_ranked",
        "drop",
        "PageRank on the attention graph, then what resembles a better token leaves",
        "Zero-TPrune (arXiv:2305.17328)",
        at(1 / 12, 3 / 12, 6 / 12, 9 / 12, 11 / 12),
    ),
    gtp=Method(
        "own_and_received",
        "top_k",
        "propagate",
        "what leaves after every layer is passed on to its neighbours",
        "GTP-ViT (arXiv:2311.03035)",
        every_layer,
        "linear",
    ),
    token_transforming=Method(
        "received_attention",
        "top_k",
        "many_to_many",
        "the most attended tokens become mixtures of all",
        "Token Transforming (arXiv:2506.05709)",
        at(1 / 4, 2 / 4, 3 / 4),
    ),
    recoverable=Method(
        "cls_attention",
        "recovered",
        "knn_weighted",
        "outliers of attention, what the prompt asks for, and centres that gather the rest",
        "Recoverable Compression (arXiv:2409.01179)",
        "output",
    ),
    random=Method("random", "top_k", "drop", "a floor: tokens drawn at random, seeded"),
    uniform=Method("uniform", "top_k", "drop", "a floor: a regular grid of tokens"),
)
