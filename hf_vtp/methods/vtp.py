"""vtp: this project's own method, and the default.

Inside a tower: Ward's clustering of the hidden states. Those two groups merge, again and again, whose union
adds least weighted squared error. A token weighs as many as it stands for, times the root of the attention
that [CLS] pays it (without a [CLS], that a sample of the tokens does). A group becomes its weighted mean, at
the mean length of its members, and counts in later attention by its size.

A language model gives a token the same weight however many it stands for, so that coverage of the image
matters more. In the last stage before one, tokens are ranked by the L2 norms of their queries and keys; those
stay that are farthest, in content and in the image, from any that ranks above, and the others join the kept
one they resemble.

Source: this project. Ward's criterion is of JASA 58 (1963), size-weighted attention of ToMe
(arXiv:2210.09461), suppression in one parallel step after Fast NMS (YOLACT, arXiv:1904.02689). There is no
other code to compare with: the loops in tests/references, and scipy's Ward, are the reference.
"""

from .table import register_method

register_method(
    "vtp",
    scorer="importance",
    selector="ward",
    merger="weighted_mean",
    summary=(
        "the default: those tokens merge whose union adds least error; where a language model reads them, "
        "those far apart stay and absorb the rest"
    ),
    paper="this project",
    for_language={
        "scorer": "qk_norm",
        "scorer_options": {"of": "qk"},
        "selector": "spread",
        "merger": "absorb",
        "merger_options": {"lloyd": 2},
    },
    before_language={"selector_options": {"power": 0.25}},  # importance for [CLS] is not that for a text
    after_features={"scorer": "token_norm"},  # no queries and keys are there
)
