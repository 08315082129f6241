"""VTPConfig: what it accepts, what it refuses and in which words, and how ratios become stages and counts."""

import inspect
import math
from dataclasses import asdict, fields

import pytest

from hf_vtp import VTPConfig, apply_vtp, list_methods, vtp
from hf_vtp.methods.mergers import MERGERS
from hf_vtp.methods.scorers import SCORERS
from hf_vtp.methods.selectors import SELECTORS
from hf_vtp.pruning.tokens import num_keep

WRONG_TYPES = [
    ("keep_ratio", ("0.5", None, True, {}, [0.5, "0.3"], [True], 1j, {0.5}), "number"),
    (
        "layer",
        (0.5, True, {}, [None], ["output"], [[0]], [False]),
        "an int, a list of ints, 'output' or None",
    ),
    ("method", (None, 3, ["vtp"]), "a name"),
    ("scorer", (3, ["qk_norm"], True), "a name or None"),
    ("selector", (3,), "a name or None"),
    ("merger", (len,), "a name or None"),
    ("scorer_options", (None, [], "seed=1"), "a dict"),
    ("selector_options", (None,), "a dict"),
    ("merger_options", (2,), "a dict"),
    ("positions", (None, 1), "a name"),
    ("min_keep", (None, 1.0, "1", True), "an int"),
    ("max_keep", (2.0, "2", False), "an int or None"),
    ("base_model_name_or_path", (3,), "a name or None"),
    ("vtp_version", (None, 0.1), "a version"),
]
WRONG_VALUES = [
    ({"keep_ratio": 0}, "(0, 1]"),
    ({"keep_ratio": 0.0}, "(0, 1]"),
    ({"keep_ratio": -0.5}, "(0, 1]"),
    ({"keep_ratio": 1.5}, "(0, 1]"),
    ({"keep_ratio": 2}, "(0, 1]"),
    ({"keep_ratio": math.nan}, "(0, 1]"),
    ({"keep_ratio": math.inf}, "(0, 1]"),
    ({"keep_ratio": -math.inf}, "(0, 1]"),
    ({"keep_ratio": []}, "(0, 1]"),
    ({"keep_ratio": [0.5, math.nan]}, "(0, 1]"),
    ({"keep_ratio": [0.9, 0.0]}, "(0, 1]"),
    ({"keep_ratio": [0.5, 0.9]}, "must not rise"),
    ({"layer": "last"}, "'output'"),
    ({"layer": []}, "at least one layer"),
    ({"layer": [2, 1]}, "ascending"),
    ({"layer": [1, 1]}, "each once"),
    ({"method": "vpt"}, str(sorted(list_methods()))),
    ({"scorer": "knrom"}, str(sorted(SCORERS))),
    ({"selector": "topk"}, str(sorted(SELECTORS))),
    ({"merger": "dorp"}, str(sorted(MERGERS))),
    ({"positions": "packed"}, "['original', 'compact']"),
    ({"min_keep": 0}, "at least 1"),
    ({"min_keep": -3}, "at least 1"),
    ({"max_keep": 0}, "at least min_keep = 1"),
    ({"min_keep": 8, "max_keep": 7}, "at least min_keep = 8"),
    ({"scorer": "qk_norm", "scorer_options": {"sign": 1}}, "['of', 'order']"),
    ({"scorer": "qk_norm", "scorer_options": {1: 1}}, "['of', 'order']"),
    ({"scorer": "qk_norm", "scorer_options": {"order": "biggest"}}, "['largest', 'smallest']"),
    ({"scorer": "qk_norm", "scorer_options": {"of": None}}, "['k', 'q', 'qk']"),
    ({"scorer": "qk_norm", "scorer_options": {"of": ["k"]}}, "['k', 'q', 'qk']"),
    ({"selector": "spread", "selector_options": {"rounds": 1.5}}, "type int"),
    ({"selector": "spread", "selector_options": {"rounds": True}}, "type int"),
    ({"merger_options": {"lloyd": "2"}}, "type int"),
    ({"method": "random", "scorer_options": {"seed": "a"}}, "type int"),
    ({"scorer_options": {"of": "q"}}, "unknown option 'of' for 'importance'"),  # vtp's own
    ({"selector_options": {"rounds": 2}}, "unknown option 'rounds' for 'ward'"),
    ({"method": "qk_topk", "selector_options": {"rounds": 2}}, "unknown option 'rounds' for 'top_k'"),
    ({"method": "uniform", "merger_options": {"rounds": 2}}, "unknown option 'rounds' for 'drop'"),
]


def one_sentence(error, says):
    text = str(error.value)
    assert says in text and "\n" not in text and len(text) < 600, text


@pytest.mark.parametrize(
    ("name", "value", "says"), [(name, value, says) for name, values, says in WRONG_TYPES for value in values]
)
def test_a_wrong_type_is_refused(name, value, says):
    with pytest.raises(TypeError) as error:
        VTPConfig(**{name: value})
    one_sentence(error, says)
    assert str(error.value).startswith(name)


@pytest.mark.parametrize(("fields", "says"), WRONG_VALUES, ids=repr)
def test_a_wrong_value_is_refused(fields, says):
    with pytest.raises(ValueError) as error:
        VTPConfig(**fields)
    one_sentence(error, says)


@pytest.mark.parametrize(
    "fields",
    [
        {"layer": [0.5, 1.5]},
        {"merger": ""},
        {"selector": "spread", "selector_options": {"rounds": 0}},
        {"selector": "spread", "selector_options": {"rounds": -1}},
        {"merger_options": {"lloyd": -1}},
        {"method": "random", "scorer_options": {"seed": 1 << 70}},
    ],
    ids=repr,
)
def test_what_should_be_refused_too(fields):
    with pytest.raises((TypeError, ValueError)):
        VTPConfig(**fields)


@pytest.mark.parametrize("fields", [{}, *({"method": name} for name in list_methods())])
def test_every_method_is_valid_as_it_stands(fields):
    config = VTPConfig(**fields)
    assert VTPConfig(**asdict(config)) == config


@pytest.mark.parametrize("ratio", [1, 1.0, 1e-9, 0.7, [1, 0.5], [0.5, 0.5]])
def test_ratios_that_are_fine(ratio):
    assert VTPConfig(keep_ratio=ratio).keep_ratio == ratio


def test_tuples_become_lists():
    config = VTPConfig(keep_ratio=(0.9, 0.5), layer=(1, 3))
    assert config.keep_ratio == [0.9, 0.5] and config.layer == [1, 3]
    assert config == VTPConfig(keep_ratio=[0.9, 0.5], layer=[1, 3])


def test_replace_validates_a_copy():
    config = VTPConfig(keep_ratio=0.5)
    other = config.replace(layer=2, method="random")
    assert (other.keep_ratio, other.layer, other.method) == (0.5, 2, "random")
    assert (config.layer, config.method) == (None, "vtp")
    with pytest.raises(ValueError) as error:
        config.replace(ratio=0.5)
    one_sentence(
        error, "unknown argument 'ratio'; choose from ['base_model_name_or_path', 'flops', 'keep_ratio'"
    )
    with pytest.raises(ValueError):
        config.replace(keep_ratio=0)
    with pytest.raises(TypeError):
        config.replace(keep_ratio="half")


def test_configs_share_no_options():
    VTPConfig().scorer_options["of"] = "q"
    assert VTPConfig().scorer_options == {}


def test_a_part_keeps_the_options_of_its_method_unless_replaced():
    config = VTPConfig(method="qk_topk")
    assert config.part("scorer") == ("qk_norm", {"of": "qk"})
    smallest = config.replace(scorer_options={"order": "smallest"})
    assert smallest.part("scorer")[1] == {"of": "qk", "order": "smallest"}
    assert config.replace(scorer_options={"of": "q"}).part("scorer")[1] == {"of": "q"}
    assert config.replace(scorer="token_norm").part("scorer") == ("token_norm", {})
    assert config.replace(selector="top_k").part("selector") == ("top_k", {})


PARTS_OF_VTP = {  # inside a tower that pools its tokens, where a language model reads them, after features
    "scorer": (("importance", {}), ("qk_norm", {"of": "qk"}), ("token_norm", {})),
    "selector": (("ward", {}), ("spread", {}), ("spread", {})),
    "merger": (("weighted_mean", {}), ("absorb", {"lloyd": 2}), ("absorb", {"lloyd": 2})),
}


@pytest.mark.parametrize("part", PARTS_OF_VTP)
def test_a_method_may_have_parts_for_a_language_model(part):
    config = VTPConfig()
    found = config.part(part), config.for_language().part(part), config.after_features().part(part)
    assert found == PARTS_OF_VTP[part]
    assert config == VTPConfig()  # itself it stays as it was
    before = config.before_language()
    assert before.part(part)[0] == config.part(part)[0]
    assert before.part("selector")[1] == {"power": 0.25}
    for other in ("qk_topk", "tome", "divprune"):  # that have none
        config = VTPConfig(method=other)
        assert config.for_language() == config


def test_for_a_language_model_a_part_that_the_caller_named_stays():
    config = VTPConfig(scorer="cls_attention", merger_options={"lloyd": 1}).for_language()
    assert config.part("scorer") == ("cls_attention", {})
    assert config.part("merger") == ("weighted_mean", {"lloyd": 1})
    assert config.part("selector") == ("spread", {})
    config = VTPConfig(scorer="qk_norm", scorer_options={"of": "q"}).after_features()
    assert config.part("scorer") == ("qk_norm", {"of": "q"})


def test_one_layer_takes_the_whole_reduction():
    assert VTPConfig(keep_ratio=0.3, layer=2).stages(4) == [(2, 0.3)]
    assert VTPConfig(keep_ratio=0.3).stages(1) == [(0, 0.3)]
    assert VTPConfig(keep_ratio=[0.3], layer=1).stages(4) == [(1, 0.3)]
    assert VTPConfig(keep_ratio=0.3, layer="output").stages(4) == [(3, 0.3)]


def test_without_a_layer_tokens_leave_after_five_layers_or_where_the_method_says():
    def layers(depth, has_output=False, **fields):
        return [layer for layer, _ in VTPConfig(**fields).stages(depth, has_output=has_output)]

    assert layers(12) == layers(12, method="qk_topk") == [2, 3, 5, 6, 8]
    assert layers(24) == [5, 7, 11, 13, 17] and layers(4) == [0, 1, 2] and layers(1) == [0]
    assert layers(12, method="tome") == list(range(12))
    assert layers(12, method="divprune", has_output=True) == [11]
    assert layers(12, method="divprune") == [2, 3, 5, 6, 8]  # nothing follows the tower


@pytest.mark.parametrize("ratio", [1.0, 0.7, 0.125, 0.01])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_one_ratio_is_shared_late_unless_the_method_says(ratio, count):
    """A share of the logarithm that bends the more, the more tokens stay; geometrically it would not."""
    for method, power in (("vtp", 1 + 1.5 * ratio), ("qk_topk", 1 + 1.5 * ratio), ("dynamic", 1.0)):
        stages = VTPConfig(keep_ratio=ratio, layer=list(range(count)), method=method).stages(count)
        assert [layer for layer, _ in stages] == list(range(count))
        assert stages[-1][1] == ratio  # exactly, not but for rounding
        parts = [(i / count) ** power for i in range(1, count + 1)]
        assert [share for _, share in stages] == pytest.approx([ratio**part for part in parts])


@pytest.mark.parametrize("ratio", [1.0, 0.7, 0.01])
def test_tome_drops_as_many_tokens_after_each_layer(ratio):
    shares = [1.0, *(share for _, share in VTPConfig(keep_ratio=ratio, method="tome").stages(6))]
    steps = [a - b for a, b in zip(shares, shares[1:], strict=False)]
    assert steps == pytest.approx([(1 - ratio) / 6] * 6)


def test_a_ratio_for_every_layer_is_of_the_original_count():
    assert VTPConfig(keep_ratio=[0.9, 0.5], layer=[1, 3]).stages(4) == [(1, 0.9), (3, 0.5)]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"layer": 4}, "layer 4 is beyond the encoder; choose from 0 to 3"),
        ({"layer": -1}, "choose from 0 to 3"),
        ({"layer": [0, 9]}, "layer 9 is beyond"),
        ({"layer": [0, 1], "keep_ratio": [0.5]}, "1 shares for 2 layers"),
        ({"keep_ratio": [0.5, 0.3], "layer": 1}, "2 shares for 1 layers"),
        ({"keep_ratio": [0.5, 0.3]}, "2 shares for 3 layers"),
    ],
)
def test_stages_that_the_encoder_cannot_have(fields, says):
    with pytest.raises(ValueError) as error:
        VTPConfig(**fields).stages(4)
    one_sentence(error, says)


@pytest.mark.parametrize("n", [1, 2, 49, 196, 577])
@pytest.mark.parametrize("ratio", [1.0, 0.7, 0.5, 0.25, 0.1, 1e-6])
def test_the_count_is_the_rounded_share_and_at_least_one(n, ratio):
    assert num_keep(n, ratio) == max(1, round(ratio * n))


@pytest.mark.parametrize(
    ("ratio", "bounds", "count"),
    [
        (0.1, {"min_keep": 20}, 20),
        (0.1, {"min_keep": 500}, 100),  # no more than there are
        (0.9, {"max_keep": 30}, 30),
        (0.5, {"min_keep": 20, "max_keep": 60}, 50),
        (0.1, {"min_keep": 40, "max_keep": 40}, 40),
        (1.0, {"max_keep": 500}, 100),
    ],
)
def test_bounds_of_the_count(ratio, bounds, count):
    config = VTPConfig(keep_ratio=ratio, **bounds)
    assert num_keep(100, config.keep_ratio, config.min_keep, config.max_keep) == count


@pytest.mark.parametrize("function", [apply_vtp, vtp], ids=lambda f: f.__name__)
def test_every_field_stands_in_the_signature_and_the_docstring(function):
    parameters = inspect.signature(function).parameters
    assert list(parameters) == ["model", "config", *(f.name for f in fields(VTPConfig))]
    for field in fields(VTPConfig):
        given = parameters[field.name]
        assert given.kind is given.KEYWORD_ONLY and given.default == getattr(VTPConfig(), field.name)
        assert f"{field.name}: " in function.__doc__ and f"{field.name}: " in VTPConfig.__doc__
