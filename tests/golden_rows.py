"""What each method is to reach of the golden files: which tokens, which options, which arrays.

`shown` says of the other arrays why they are not compared. Whoever makes a method equal changes its row where
its tokens or options change, and its `differs`.
"""

import golden_checks as own
from golden import Check, Golden, Row, in_order, keeps, keeps_values

ORDER = "the places of `keep`, in the order of the original; the library's ascend"
TOWER = "chosen among the tower's features; the released code chooses behind the projector"
NO_CLIP_TEXT = "embeddings by CLIP, whose text encoder the models do not have"
RECOVERABLE = ("vision", "recovered", "centres_mended")
ROWS = {
    "visionzip": Row(
        "visionzip",
        (keeps("keep"), keeps_values(in_order("keep_order"), ("keep_order",), "values")),
        {"dominant_by_attention": "part of `keep`", "targets": "part of `keep`"},
    ),
    "fastervlm": Row("fastervlm", (keeps("keep"),), {"keep_order": ORDER}),
    "scope": Row("scope", (keeps("keep"),), {"keep_order": ORDER}),
    "divprune": Row("divprune", (keeps("keep"),), {"keep_order": ORDER, "keep_of_tower_features": TOWER}),
    "cdpruner": Row(
        "cdpruner",
        (keeps("keep", text=slice(1)), Check(("relevance",), own.relevance)),
        {
            "keep_order": ORDER,
            "keep_of_tower_features": TOWER,
            "keep_its_sign": "relevance with the sign of CLIP's patches, which point away from their text",
            "keep_its_sign_order": "as `keep_its_sign`",
            "relevance_its_sign": "as `keep_its_sign`",
        },
        beyond=NO_CLIP_TEXT,
    ),
    "mmtok": Row(
        "mmtok",
        (
            keeps("keep"),
            keeps("keep_temperature_01", config={"selector_options": {"text_temperature": 0.01}}),
        ),
        {
            "keep_order": ORDER,
            "keep_q_projected_temperature_01": "the image's tokens too are compared behind the projector",
        },
    ),
    "vispruner": Row(
        "vispruner",
        (keeps("keep"),),
        {"keep_order": ORDER, "keep_raster_rounds": "the rest is put in raster order before every round"},
    ),
    "prumerge": Row(
        "prumerge",
        (keeps_values(in_order("keep_order"), ("keep", "keep_order"), "values", Golden.other),),
        {
            "attention": "what `keep` is chosen by",
            "keep_plus_order": "of prumerge_plus",
            "values_plus": "of prumerge_plus",
        },
    ),
    "prumerge_plus": Row(
        "prumerge",
        (keeps_values(in_order("keep_plus_order"), ("keep_plus_order",), "values_plus", Golden.other),),
        {
            "attention": "what `keep` is chosen by",
            "keep": "of prumerge",
            "keep_order": "of prumerge",
            "values": "of prumerge",
        },
    ),
    "hiprune": Row(
        "hiprune",
        (
            own.hiprune_keeps("keep"),
            own.hiprune_keeps("keep_border_true_neighbours", turned=True),
            Check(("anchor_layer",), own.anchor_layers),
        ),
        {
            "keep_order": ORDER,
            "anchors": "part of `keep`",
            "anchors_border": "part of `keep_border`",
            "keep_border": "a row's end runs on into the next row, and the first and last token are marked",
        },
        beyond="neighbours of an anchor at the border do not run on into the next row",
    ),
    "holov": Row(
        "holov",
        (keeps("keep_paper_square_crops"),),
        {
            "keep": "runs of tokens for crops, .09 of V, and inside a crop attention alone decides",
            "keep_order": "as `keep`",
            "keep_of_tower_features": "as `keep`, before the projector",
            "keep_paper_square_crops_of_tower_features": TOWER,
        },
        beyond="the paper's formulas on square crops, as the released code takes runs of tokens",
    ),
    "flowcut": Row(
        "flowcut",
        (
            keeps("keep", tokens=own.flow_tokens),
            keeps_values(in_order("keep_order"), ("keep_order",), "values", own.flow_tokens),
            Check(("scores_first_layer", "scores"), own.flow_scores),
            Check(("stage_layers",), own.flow_layers),
        ),
    ),
    "tome": Row(
        "tome",
        (own.tome_rounds("nocls", 0), own.tome_rounds("cls", 1)),
        beyond="the merge is between attention and MLP, which hooks cannot reach",
    ),
    "gtp": Row(
        "gtp",
        (
            keeps("keep_max"),
            keeps("keep", config={"scorer_options": {"over": "mean"}}),
            keeps_values(in_order("keep_order_max"), ("keep_order_max",), "values_max"),
        ),
        {
            "graph": "what `values` are made with",
            "keep_order": ORDER,
            "values": "means over heads; the largest head (`values_max`) is the best row of its table",
        },
        beyond="the graph is made once, of the embeddings",
    ),
    "recoverable": Row(
        "recoverable",
        (
            keeps_values(
                own.recoverable_rows,
                ("keep_mended", *RECOVERABLE),
                "values_mended",
                Golden.other,
                text=slice(1),
            ),
        ),
        {
            "similarity": "what `recovered` is chosen by",
            "keep": "with two slips: centres are a share of the channels, keys are of other tokens",
            "centres": "as `keep`",
            "values": "as `keep`",
        },
        beyond=f"{NO_CLIP_TEXT}, and two slips that are put right",
    ),
    "dart": Row(
        "dart",
        (keeps("keep_turns_by_norm"),),
        {
            "keep_turns_by_index": "turns by place; the original's follow a set and are arbitrary",
            "keep_turns_by_index_4_image_4_text": "as `keep_turns_by_index`",
            "keep_turns_by_norm_4_image_4_text": "pivots of the text, which has no keys where the tower ends",
        },
        beyond="keys are of an early layer of the language model, and half of the pivots are of the text",
    ),
    "todre": Row("todre", (keeps("keep"),), {"keep_order": ORDER, "keep_of_tower_features": TOWER}),
    "zero_tprune": Row("zero_tprune", (Check(("scores",), own.page_rank),)),
}
