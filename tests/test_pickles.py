"""A pruned model pickles to the same bytes before and after it ran: `datasets` keys its caches with them."""

import pickle
from contextlib import contextmanager

import pytest
import torch
from datasets.fingerprint import Hasher
from models import clip, clip_inputs, same
from vlm import FAMILIES

from hf_vtp import apply_vtp, remove_vtp, vtp_stats

pytestmark = pytest.mark.models


def clip_case():
    model, inputs = clip("CLIPModel"), clip_inputs("CLIPModel")
    return model, [lambda m: m(**inputs), lambda m: m.get_image_features(inputs["pixel_values"])]


def vlm_case(name):
    model, inputs = FAMILIES[name].model(), FAMILIES[name].inputs((1, 2))
    greedy = lambda m: m.generate(**inputs, max_new_tokens=2, do_sample=False)  # noqa: E731
    return model, [lambda m: m(**inputs), greedy]


@contextmanager
def without_captures(model):
    """Hooks that capture hidden states are Transformers' own; they hold what nothing can pickle."""
    taken = [(m._forward_hooks, dict(m._forward_hooks)) for m in model.modules()]
    for hooks, own in taken:
        for key, hook in own.items():
            if "output_capturing_hook" in getattr(hook, "__qualname__", ""):
                del hooks[key]
    yield
    for hooks, own in taken:
        hooks.clear()
        hooks.update(own)


def fingerprint(model):
    """The key that `datasets.map` gives to a function which closes over the model."""

    def embed(batch):
        return {"embeds": model(**batch)}

    with without_captures(model):
        return Hasher.hash(embed)


@pytest.mark.parametrize("case", ["clip", *FAMILIES])
def test_the_fingerprint_of_a_pruned_model_does_not_change_with_a_forward(case):
    model, calls = clip_case() if case == "clip" else vlm_case(case)
    with torch.no_grad():
        for call in calls:
            call(model)  # what Transformers itself leaves behind at a first call
        unpruned = fingerprint(model)
        apply_vtp(model, keep_ratio=0.5)
        before = fingerprint(model)
        assert before != unpruned
        for call in calls:
            call(model)
            assert fingerprint(model) == before
        apply_vtp(model, keep_ratio=0.25)
        assert fingerprint(model) != before
        assert fingerprint(remove_vtp(model)) == unpruned


@pytest.mark.parametrize("case", ["clip", *FAMILIES])
def test_a_pickled_model_is_pruned_as_the_original_is(case):
    model, calls = clip_case() if case == "clip" else vlm_case(case)
    apply_vtp(model, keep_ratio=0.5)
    with torch.no_grad():
        for ran in (
            (False, True) if case != "llava" else (False,)
        ):  # one that ran cannot be pickled, see above
            again = pickle.loads(pickle.dumps(model))
            for call in calls:
                assert same(call(again), call(model)), ran
            calls[0](again), calls[0](model)
            assert vtp_stats(again).num_kept == vtp_stats(model).num_kept
