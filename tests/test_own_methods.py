"""Methods of one's own: named, refused in one sentence, and used as any other."""

from pathlib import Path

import pytest
import torch
from models import clip_vision, pixels

import hf_vtp
from hf_vtp import VTPConfig, apply_vtp, list_methods, register_method, register_scorer, vtp_stats
from hf_vtp.methods.table import METHODS, PARTS

PAGES = Path(hf_vtp.__file__).parent / "methods"
PLAIN = {"scorer": "token_norm", "selector": "top_k", "merger": "drop"}


@pytest.fixture
def forget():
    """Undoes what a test registers."""
    tables = [METHODS, *PARTS.values()]
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)


def test_parts_of_ones_own_get_a_name(forget):
    @register_scorer("first_channel", needs=("key",))
    def first_channel(tokens, *, sign: float = 1.0):
        return sign * tokens.hidden_states[:, :, 0].float()

    register_method(
        "channel",
        scorer="first_channel",
        selector="top_k",
        merger="absorb",
        scorer_options={"sign": -1.0},
        merger_options={"lloyd": 1},
        layers=lambda num_layers: [1],
        summary="the first channel",
        differs="Nobody released it.",
    )
    row = list_methods()["channel"]
    assert row["needs"] == "key" and row["where"] == "after layers that it chooses"
    assert row["summary"] == "the first channel" and row["differs"] == "Nobody released it."
    model, pixel_values = clip_vision(), pixels(2)
    kept = []
    for config in (
        VTPConfig(method="channel", keep_ratio=0.5),
        VTPConfig(
            method="qk_topk",
            keep_ratio=0.5,
            layer=[1],
            scorer="first_channel",
            merger="absorb",
            scorer_options={"sign": -1.0},
            merger_options={"lloyd": 1},
        ),
    ):
        apply_vtp(model, config)
        states = model(pixel_values).last_hidden_state
        kept.append((states, vtp_stats(model).stages[0].scores[0]))
    assert torch.equal(kept[0][0], kept[1][0]) and torch.equal(kept[0][1], kept[1][1])


REFUSED = [
    (ValueError, "the method 'vtp' exists already", "vtp", {}),
    (
        ValueError,
        "unknown scorer 'knrom'; choose from ['calibrated_attention', 'cls_attention'",
        "mine",
        {"scorer": "knrom"},
    ),
    (ValueError, "unknown selector 'best'; choose from", "mine", {"selector": "best"}),
    (ValueError, "unknown merger 'add'; choose from", "mine", {"merger": "add"}),
    (TypeError, "the name of a method must be a string, not 3", 3, {}),
    (TypeError, "merger of a method must be a string, not None", "mine", {"merger": None}),
    (TypeError, "differs of a method must be a string, not True", "mine", {"differs": True}),
    (TypeError, "unknown argument 'sumary' of a method; choose from ['scorer'", "mine", {"sumary": "x"}),
    (ValueError, "unknown option 'of' for 'token_norm'", "mine", {"scorer_options": {"of": "k"}}),
    (ValueError, "order of 'token_norm' must be one of", "mine", {"scorer_options": {"order": "up"}}),
    (ValueError, "rounds of 'lloyd' must be", "mine", {"merger_options": {"lloyd": -1}}),
    (TypeError, "selector_options of method 'mine' must be a dict, not 4", "mine", {"selector_options": 4}),
    (TypeError, "layers of method 'mine' must be a function", "mine", {"layers": [1]}),
    (
        ValueError,
        "unknown schedule 'slow'; choose from",
        "mine",
        {"schedule": "slow"},
    ),
    (TypeError, "for_language of method 'mine' must be a dict", "mine", {"for_language": "spread"}),
    (ValueError, "unknown part 'layer' in for_language", "mine", {"for_language": {"layer": 1}}),
    (ValueError, "unknown option 'of'", "mine", {"for_language": PLAIN | {"scorer_options": {"of": "k"}}}),
    (ValueError, "unknown part 'encoder' in after_features", "mine", {"after_features": {"encoder": "x"}}),
    (ValueError, "unknown scorer 'x'", "mine", {"after_features": {"scorer": "x"}}),
    (ValueError, "both observe earlier layers", "mine", {"scorer": "flow", "selector": "anchors_buffers"}),
]


@pytest.mark.parametrize(("kind", "words", "name", "change"), REFUSED, ids=[row[1] for row in REFUSED])
def test_a_method_that_cannot_be_is_refused_in_one_sentence(kind, words, name, change):
    before = dict(METHODS)
    with pytest.raises(kind) as error:
        register_method(name, **{**PLAIN, **change})
    assert words in str(error.value) and "\n" not in str(error.value)
    assert dict(METHODS) == before


def test_a_method_names_all_its_parts():
    for part in PLAIN:
        with pytest.raises(TypeError, match=f"method 'mine' must name a {part}; choose from"):
            register_method("mine", **{key: value for key, value in PLAIN.items() if key != part})


def test_the_default_is_listed_first_and_the_others_by_the_names_of_their_pages():
    first, *pages = dict.fromkeys(map(page_of, METHODS))
    assert first == "vtp" and pages == sorted(pages) and len(pages) > 20


def page_of(method):
    """The page that registers a method; every method of the package has one."""
    row = f'register_method(\n    "{method}",'
    found = [path.stem for path in PAGES.glob("*.py") if row in path.read_text()]
    assert len(found) == 1, method
    return found[0]


def test_what_differs_is_one_sentence_and_said_of_no_method_without_a_source():
    for name, row in list_methods().items():
        words = row["differs"]
        assert set(row) >= {"summary", "paper", "differs"} and "\n" not in words and "|" not in words
        assert not words or (words[0].isalpha() and words.endswith(".") and len(words) < 300), name
        assert not words or "arXiv:" in row["paper"], name
