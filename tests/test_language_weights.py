"""language_weights: a kept token counts in the language model for as many equal tokens as it absorbed."""

import pytest
import torch
from families import classes, made
from test_vlm_calls import refused
from test_vlm_generate import second_turn
from test_vlm_windows import LlavaOverGemma2
from transformers import DynamicCache, StaticCache
from vlm import EOS, FAMILIES, IMAGE, Llava, cached, expected_rows, new_tokens

from hf_vtp import apply_vtp, remove_vtp, vtp, vtp_stats
from hf_vtp.verifying.api import prepared, run, verify

CLOSE = dict(atol=1e-5, rtol=1e-5)
HOW = dict(keep_ratio=0.3, language_weights=True)
pytestmark = pytest.mark.models


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(params=["llava", "qwen2_5_vl"])
def family(request):
    return FAMILIES[request.param]


def pruned(family, **how):
    return apply_vtp(family.model(), **{**HOW, **how})


def owners(stats, image):
    """For every token of an image the raster index of the kept one that stands for it, [N]."""
    owner = torch.arange(stats.num_tokens[image])
    there = owner.clone()
    for stage in stats.stages:
        keep = stage.keep_indices[image]
        place = torch.full_like(owner, -1)
        place[there] = stage.assignment[image]
        owner, there = keep[place[owner]], keep
    return owner


class Copies:
    """The full prompt in which every member of a group is a copy of its kept token, read by an unpruned twin.

    A copy has the feature and the position of its kept token, and sees what that one sees: every column whose
    kept column lies at or before its own.
    """

    def __init__(self, family, model, inputs, generating=False):
        model(**inputs)
        stats, full = vtp_stats(model), family.reference(model, inputs, generating=generating)
        self.alive, ids = full["attention_mask"], inputs["input_ids"]
        owner = torch.arange(ids.shape[1]).expand_as(ids).clone()
        where, start = torch.nonzero(ids == IMAGE), 0
        for image, n in enumerate(stats.num_tokens):
            row, columns = where[start : start + n].unbind(1)
            owner[row, columns] = columns[owners(stats, image)]
            start += n
        assert (owner.gather(1, owner) == owner).all() and self.alive.gather(1, owner).equal(
            inputs["attention_mask"]
        )
        self.owner, self.valid = owner, inputs["attention_mask"].bool()
        self.embeds = full["inputs_embeds"].gather(1, owner[..., None].expand_as(full["inputs_embeds"]))
        positions = full["position_ids"]
        self.positions = positions.gather(-1, owner.expand_as(positions))
        self.next_position = family.next_position({**full, "position_ids": positions})

    def logits(self, twin, ids=None):
        """Of all columns, [B · r, n + t, V], where `ids` [B · r, t] come after the prompt."""
        embeds, owner, valid, positions = self.embeds, self.owner, self.valid, self.positions
        if ids is not None and ids.shape[1]:
            r, t = len(ids) // len(embeds), torch.arange(ids.shape[1])
            repeat = lambda x, dim: x.repeat_interleave(r, dim=dim)  # noqa: E731
            embeds = torch.cat([repeat(embeds, 0), twin.get_input_embeddings()(ids)], dim=1)
            owner = torch.cat([repeat(owner, 0), (owner.shape[1] + t).expand_as(ids)], dim=1)
            valid = torch.cat([repeat(valid, 0), torch.ones_like(ids, dtype=torch.bool)], dim=1)
            positions = torch.cat([repeat(positions, -2), repeat(self.next_position, -2) + t], dim=-1)
        seen = (owner[:, None, :] <= owner[:, :, None]) & valid[:, None, :]
        mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[:, None]
        return twin(inputs_embeds=embeds, attention_mask=mask, position_ids=positions).logits


def shares(model):
    """Whether some kept token stands for several."""
    return any(float(sizes.max()) > 1 for sizes in vtp_stats(model).stages[-1].sizes)


WAYS = [
    dict(),
    dict(layer=1, implementation="eager"),
    dict(layer="output"),
    dict(method="tome", implementation="eager"),
]


@pytest.mark.parametrize("how", WAYS, ids=str)
def test_logits_are_those_of_as_many_copies(family, how):
    how = dict(how)
    implementation = how.pop("implementation", "sdpa")
    model = apply_vtp(family.model(implementation=implementation), **{**HOW, **how})
    inputs = family.inputs((1, 0, 3))
    logits = model(**inputs).logits
    copies = Copies(family, model, inputs)
    assert shares(model)
    expected = expected_rows(copies.logits(family.model(implementation="eager")), copies.alive)
    torch.testing.assert_close(logits, expected, **CLOSE)
    with vtp(model, **how, keep_ratio=0.3, language_weights=False):
        assert not torch.allclose(model(**inputs).logits, logits, atol=1e-3)


def test_logits_are_those_of_a_mask_with_the_logarithms_of_sizes(family):
    model, twin, inputs = pruned(family), family.model(implementation="eager"), family.inputs((2,))
    logits = model(**inputs).logits
    full = family.reference(model, inputs)
    stays = full["attention_mask"][0] != 0
    bias = torch.zeros(inputs["input_ids"].shape[1])
    bias[stays & (inputs["input_ids"][0] == IMAGE)] = torch.cat(vtp_stats(model).stages[-1].sizes).log()
    n = int(stays.sum())
    mask = torch.full((n, n), torch.finfo(torch.float32).min).triu(1) + bias[stays]
    given = dict(inputs_embeds=full["inputs_embeds"][:, stays], position_ids=full["position_ids"][..., stays])
    expected = twin(**given, attention_mask=mask[None, None]).logits
    torch.testing.assert_close(logits[:, stays], expected, **CLOSE)


@pytest.mark.parametrize(
    "mode",
    [
        dict(),
        dict(do_sample=True, top_k=20, num_return_sequences=2),
        dict(cache_implementation="static"),
        dict(use_cache=False),
        dict(prefill_chunk_size=7),
        dict(prompt_lookup_num_tokens=2, eos_token_id=EOS),  # which older releases need
    ],
    ids=lambda mode: "-".join(mode) or "greedy",
)
def test_words_are_those_of_as_many_copies(family, mode):
    rows = (2,) if "prompt_lookup_num_tokens" in mode else (1, 0, 3)
    model, inputs = pruned(family), family.inputs(rows)
    torch.manual_seed(0)
    told = dict(max_new_tokens=6, return_dict_in_generate=True, output_logits=True)
    output = model.generate(**inputs, **told, **mode)
    words = new_tokens(output.sequences, inputs)
    copies, n = Copies(family, model, inputs, generating=True), inputs["input_ids"].shape[1]
    logits = copies.logits(family.model(), words)[:, n - 1 : -1]
    torch.testing.assert_close(torch.stack(output.logits, dim=1), logits, **CLOSE)
    if "do_sample" not in mode:
        allowed = logits.index_fill(-1, torch.tensor(model.generation_config.suppress_tokens), float("-inf"))
        assert torch.equal(allowed.argmax(dim=-1), words)


@pytest.mark.parametrize("rows", [(1, 0, 3), (2, 2)])
def test_beams_score_what_copies_score(family, rows):
    model, inputs = pruned(family), family.inputs(rows)
    told = dict(num_beams=3, num_return_sequences=2, max_new_tokens=6, length_penalty=0.0)
    told |= dict(return_dict_in_generate=True, output_scores=True)
    output = model.generate(**inputs, **told)
    words = new_tokens(output.sequences, inputs)
    copies, n = Copies(family, model, inputs, generating=True), inputs["input_ids"].shape[1]
    scores = copies.logits(family.model(), words)[:, n - 1 : -1].log_softmax(dim=-1)
    scores = scores.gather(-1, words[..., None]).sum(dim=(1, 2))
    torch.testing.assert_close(output.sequences_scores, scores, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("images", [0, 1])
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_a_second_turn_goes_on_with_the_weights_of_the_first(family, images, kind):
    model, first = pruned(family), family.inputs((1, 0, 2))
    config = model.config.get_text_config()
    cache = DynamicCache() if kind == "dynamic" else StaticCache(config=config, max_cache_len=300)
    told = dict(max_new_tokens=4, return_dict_in_generate=True)
    one = model.generate(**first, **told, **cached(cache))
    text, media = second_turn(family, first, one.sequences, images)
    logits = dict(max_new_tokens=5, return_dict_in_generate=True, output_logits=True)
    two = model.generate(**text, **media, **cached(cache), **logits)
    merged = family.merge(first, media, (1, 0, 2), images)
    at_once = model.generate(**text, **merged, **logits)
    assert torch.equal(two.sequences, at_once.sequences)
    torch.testing.assert_close(torch.stack(two.logits), torch.stack(at_once.logits), **CLOSE)


def test_a_loop_by_hand_goes_on_with_the_weights(family):
    model, inputs = pruned(family), family.inputs((1, 0))
    words = torch.randint(1, 80, (2, 5), generator=torch.Generator().manual_seed(2))
    output = model(**inputs, use_cache=True)
    copies = Copies(family, model, inputs)
    expected = copies.logits(family.model(), words)[:, -5:]
    for step in range(5):
        output = model(input_ids=words[:, step : step + 1], **cached(output))
        torch.testing.assert_close(output.logits[:, 0], expected[:, step], **CLOSE)


@pytest.mark.parametrize("family", [Llava, FAMILIES["qwen2_5_vl"], LlavaOverGemma2], ids=lambda f: f.name)
def test_a_window_is_counted_in_full_columns_and_weighed(family):
    window, inputs = 24, family.inputs((1, 0, 2))
    model, twin = apply_vtp(family.windowed(window), **HOW), family.windowed(window)
    logits, words = model(**inputs).logits, model.generate(**inputs, max_new_tokens=6)
    full = family.reference(model, inputs)
    log_sizes = torch.zeros_like(full["attention_mask"], dtype=torch.float32)
    there = (full["attention_mask"] != 0) & (inputs["input_ids"] == IMAGE)
    log_sizes[there] = torch.cat(vtp_stats(model).stages[-1].sizes).log()
    twin.model.language_model.register_forward_pre_hook(adding(log_sizes), with_kwargs=True)
    expected = expected_rows(twin(**full).logits, full["attention_mask"])
    torch.testing.assert_close(logits, expected, **CLOSE)
    words, full = new_tokens(words, inputs), family.reference(model, inputs, generating=True)
    expected = without_a_cache(family, twin, full, words)
    expected[..., model.generation_config.suppress_tokens] = float("-inf")
    assert words.shape[1] == 6 and torch.equal(expected.argmax(dim=-1), words)


def without_a_cache(family, twin, full, words):
    """Logits before each of `words` [B, t] when all columns are read at once, [B, t, V].

    A cache of a window would hold fewer keys than `adding` adds to.
    """
    n, t = full["attention_mask"].shape[1], torch.arange(words.shape[1])
    embeds = torch.cat([full["inputs_embeds"], twin.get_input_embeddings()(words)], dim=1)
    mask = torch.nn.functional.pad(full["attention_mask"], (0, len(t)), value=1)
    positions = torch.cat([full["position_ids"], family.next_position(full) + t], dim=-1)
    logits = twin(inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False).logits
    return logits[:, n - 1 : -1]


def adding(log_sizes):
    """A hook that has the full prompt's layers, with a window or without, add to the logits of each key."""
    from transformers.masking_utils import create_masks_for_generate

    def hook(module, args, kwargs):
        embeds = kwargs["inputs_embeds"]
        masks = kwargs["attention_mask"]
        if not isinstance(masks, dict):
            masks = create_masks_for_generate(module.config, embeds, masks, None, None)
        bias = torch.nn.functional.pad(log_sizes, (0, embeds.shape[1] - log_sizes.shape[1]))[:, None, None]

        def add(mask):
            if mask is None:
                mask = torch.ones(embeds.shape[1], embeds.shape[1], dtype=torch.bool).tril()
            if mask.dtype == torch.bool:
                mask = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
            return mask + bias

        masks = {k: add(x) for k, x in masks.items()} if isinstance(masks, dict) else add(masks)
        return args, {**kwargs, "attention_mask": masks}

    return hook


def masks_made(model):
    """What the language model is handed as its mask, call after call."""
    found = []
    hook = lambda module, args, kwargs: found.append(kwargs.get("attention_mask"))  # noqa: E731
    model.model.language_model.register_forward_pre_hook(hook, with_kwargs=True)
    return found


def test_where_nothing_is_merged_no_mask_is_made_and_outputs_are_equal(family):
    model, twin, inputs = pruned(family, keep_ratio=1.0), family.model(), family.inputs((1, 0, 2))
    seen = masks_made(model)
    assert torch.equal(model(**inputs).logits, twin(**inputs).logits)
    assert torch.equal(model.generate(**inputs, max_new_tokens=4), twin.generate(**inputs, max_new_tokens=4))
    with vtp(model, keep_ratio=0.3, min_keep=500, language_weights=True):
        expected = expected_rows(twin(**inputs).logits, inputs["attention_mask"])  # padding leaves
        assert torch.equal(model(**inputs).logits, expected)
    text = {k: x for k, x in family.inputs((0, 0)).items() if k != "pixel_values"}
    with vtp(model, **HOW):
        assert torch.equal(model(**text).logits, twin(**text).logits)
    assert all(mask is None or mask.dim() == 2 for mask in seen)


def test_it_is_off_by_default_and_undone(family):
    model, inputs = pruned(family), family.inputs((1,))
    weighed = model(**inputs).logits
    apply_vtp(model, keep_ratio=0.3)
    plain = model(**inputs).logits
    assert not torch.allclose(weighed, plain, atol=1e-3)
    assert not model.model.language_model._forward_pre_hooks
    assert torch.equal(remove_vtp(model)(**inputs).logits, family.model()(**inputs).logits)


def test_half_precision_and_training_take_the_weights(family):
    model, inputs = pruned(family).to(torch.bfloat16), family.inputs((1, 2))
    inputs = {k: x.bfloat16() if x.is_floating_point() else x for k, x in inputs.items()}
    assert model(**inputs).logits.isfinite().all()
    model, inputs = pruned(family).train(), family.inputs((1, 2))
    with torch.enable_grad():
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_verify_knows_the_weights():
    assert verify(Llava.model(), Llava.inputs((1, 2)), max_new_tokens=4, **HOW).holds


@pytest.mark.parametrize("model_type", ["paligemma", "gemma3", "qwen3_vl", "llava_onevision"])
def test_other_families_give_what_the_weighed_full_prompt_gives(model_type):
    model, inputs = made(model_type, classes(model_type)[0])
    with prepared(model, inputs, max_new_tokens=3, **HOW) as case:
        found = [run(case, name) for name in ("prompt", "generate")]
        assert found[0].holds and found[1].holds is not False, found  # one has no head to generate with
        case.config.language_weights = False  # of the full prompt only
        assert not run(case, "prompt").holds


@pytest.mark.parametrize("implementation", ["flash_attention_2", "flex_attention"])
def test_other_attention_is_refused_before_any_compute(family, implementation):
    model, inputs = pruned(family), family.inputs((1,))
    model.config.get_text_config()._attn_implementation = implementation
    for call in (model, model.generate):
        refused(lambda: call(**inputs), model, "eager or sdpa")  # noqa: B023


@pytest.mark.parametrize(
    "how", [dict(merger="drop"), dict(method="visionzip"), dict(method="divprune")], ids=str
)
def test_groups_without_weights_are_refused(how):
    with pytest.raises(ValueError, match="choose one of .*absorb") as caught:
        pruned(Llava, **how)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("family", "sentence"),
    [
        ("florence2", "an encoder"),
        ("llava_next", "laid out anew"),
        ("qwen3_5", "mask of pairs"),
        ("clip", "with a language model"),
    ],
)
def test_models_without_image_keys_are_refused_when_it_is_applied(family, sentence):
    model, _ = made(family, classes(family)[0])
    with pytest.raises(ValueError, match=sentence) as caught:
        apply_vtp(model, **HOW)
    assert "\n" not in str(caught.value)
