"""A pruned LLaVA inside PEFT, accelerate, the Trainer, DDP, torchao, a pipeline; copied, saved, loaded."""

import copy
import inspect
import json

import pytest
import torch
from accelerate import Accelerator, dispatch_model
from accelerate.state import AcceleratorState
from lora import CONFIG, fill, merged, with_lora
from models import same, state
from oracles import masked_clip
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_
from transformers import (
    AutoModelForImageTextToText,
    CLIPImageProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    pipeline,
)
from vlm import IMAGE, PAD, VOCAB, Llava, expected_rows

from hf_vtp import apply_vtp, remove_vtp, vtp_stats

CLOSE = dict(atol=1e-5, rtol=1e-5)
pytestmark = pytest.mark.models
DROP = dict(method="qk_topk", layer=1, keep_ratio=0.4)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


# LoRA: scores follow the projections really used


def norms(base, pixel_values, layer=1):
    """Scores of qk_topk by hand, from what the projections of a tower's layer amount to, [images, 36]."""
    tower = base.model.vision_tower
    block, heads = tower.encoder.layers[layer], 4
    x = block.layer_norm1(masked_clip(tower, pixel_values, {})[layer - 1])
    q, k = (
        torch.nn.functional.linear(x, *merged(p)) for p in (block.self_attn.q_proj, block.self_attn.k_proj)
    )
    return sum(s.unflatten(-1, (heads, -1)).norm(dim=-1).mean(dim=-1) for s in (q, k))[:, 1:]


def lora_then_vtp(model):
    return apply_vtp(with_lora(model), **DROP)


def vtp_then_lora(model):
    return with_lora(apply_vtp(model, **DROP))


def vtp_run_then_lora(model):
    apply_vtp(model, **DROP)(**Llava.inputs((1,)))
    return with_lora(model)


def lora_vtp_merged(model):
    return lora_then_vtp(model).merge_and_unload()


def vtp_lora_merged(model):
    return vtp_then_lora(model).merge_and_unload()


def vtp_lora_run_merged(model):
    model = vtp_then_lora(model)
    model(**Llava.inputs((1,)))
    return model.merge_and_unload()


def lora_merged_in_place(model):
    model = lora_then_vtp(model)
    model(**Llava.inputs((1,)))
    model.merge_adapter()
    return model


def lora_for_causal_lm(model):
    """The wrapper class that most training scripts end up with; it has a `generate` of its own."""
    return apply_vtp(fill(get_peft_model(model, LoraConfig(**CONFIG, task_type="CAUSAL_LM"))), **DROP)


def vtp_then_native_lora(model):
    """Transformers' own way, without a wrapper."""
    try:
        Llava.model().add_adapter(LoraConfig(**CONFIG))
    except (ValueError, ImportError) as error:
        pytest.skip(f"this Transformers does not add adapters with this PEFT: {error}")
    apply_vtp(model, **DROP).add_adapter(LoraConfig(**CONFIG))
    return fill(model)


ORDERS = [
    lora_then_vtp,
    vtp_then_lora,
    vtp_run_then_lora,
    lora_vtp_merged,
    vtp_lora_merged,
    vtp_lora_run_merged,
    lora_merged_in_place,
    lora_for_causal_lm,
    vtp_then_native_lora,
]


@pytest.mark.parametrize("order", ORDERS)
def test_scores_follow_the_projections_really_used(order):
    inputs = Llava.inputs((1, 0, 2))
    reference = with_lora(Llava.model())
    expected = norms(reference.get_base_model(), inputs["pixel_values"])
    assert (expected - norms(Llava.model(), inputs["pixel_values"])).abs().max() > 0.1  # LoRA matters
    model = order(Llava.model())
    output = model(**inputs)
    stats = vtp_stats(model)
    torch.testing.assert_close(torch.stack(stats.stages[0].scores), expected, **CLOSE)
    for kept, scores in zip(stats.keep_indices, expected, strict=True):
        assert torch.equal(kept, scores.topk(14).indices.sort().values)
    expected = apply_vtp(reference.merge_and_unload(), **DROP)
    torch.testing.assert_close(output.logits, expected(**inputs).logits, **CLOSE)
    told = dict(max_new_tokens=4)
    assert torch.equal(model.generate(**inputs, **told), expected.generate(**inputs, **told))


def test_an_adapter_switched_off_and_on():
    model, inputs = lora_then_vtp(Llava.model()), Llava.inputs((1, 2))
    with_adapter = model(**inputs).logits
    with model.disable_adapter():
        without = model(**inputs).logits
        scores = torch.stack(vtp_stats(model).stages[0].scores)
    torch.testing.assert_close(scores, norms(Llava.model(), inputs["pixel_values"]), **CLOSE)
    assert torch.equal(without, apply_vtp(Llava.model(), **DROP)(**inputs).logits)
    assert torch.equal(model(**inputs).logits, with_adapter)
    assert torch.equal(model.unload()(**inputs).logits, without)


@pytest.mark.parametrize("order", ORDERS)
def test_removed_through_peft_is_never_applied(order, monkeypatch):
    inputs = Llava.inputs((1, 2))
    model = order(Llava.model())
    model(**inputs)
    model.generate(**inputs, max_new_tokens=2)
    assert remove_vtp(model) is model
    with monkeypatch.context() as patch:  # the same PEFT calls, unpatched
        patch.setitem(globals(), "apply_vtp", lambda model, **_: model)
        twin = order(Llava.model())
    twin(**inputs)
    twin.generate(**inputs, max_new_tokens=2)
    assert state(model) == state(twin)
    assert same(model(**inputs), twin(**inputs))
    with pytest.raises(RuntimeError, match="not pruned"):
        vtp_stats(model)


# accelerate


def dispatched(model, disk, folder):
    parts = ("model.vision_tower", "model.multi_modal_projector", "model.language_model", "lm_head")
    device_map = {name: "disk" if disk == "all" or disk in name else "cpu" for name in parts}
    return dispatch_model(model, device_map, main_device="cpu", offload_dir=folder, force_hooks=True)


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("disk", ["vision_tower", "language_model", "all"])
def test_dispatched_over_cpu_and_disk(order, disk, tmp_path):
    inputs = Llava.inputs((1, 0, 2))
    expected, twin = apply_vtp(Llava.model(), **DROP), dispatched(Llava.model(), disk, tmp_path / "twin")
    if order == "before":
        model = dispatched(apply_vtp(Llava.model(), **DROP), disk, tmp_path / "pruned")
    else:
        model = apply_vtp(dispatched(Llava.model(), disk, tmp_path / "pruned"), **DROP)
    assert any(p.device.type == "meta" for p in model.parameters())
    assert same(model(**inputs), expected(**inputs))
    for told in (dict(), dict(num_beams=2)):
        tokens = [m.generate(**inputs, max_new_tokens=5, **told) for m in (model, expected)]
        assert torch.equal(*tokens)
    remove_vtp(model)
    assert same(model(**inputs), twin(**inputs))
    assert state(model) == state(twin)


@pytest.fixture
def accelerator_state():
    yield
    AcceleratorState._reset_state(
        reset_partial_state=True
    )  # a singleton: the next test chooses its own precision


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_prepared_by_an_accelerator(order, precision, accelerator_state):
    model, twin, inputs = Llava.model(), Llava.model(), Llava.inputs((1, 0, 2))
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    if order == "before":
        apply_vtp(model, **DROP)
    model, twin = accelerator.prepare(model), accelerator.prepare(twin)
    if order == "after":
        apply_vtp(model, **DROP)
    output = model(**inputs)
    plain = apply_vtp(Llava.model(), **DROP)
    if precision == "no":
        assert same(output, plain(**inputs))
        assert torch.equal(*(m.generate(**inputs, max_new_tokens=4) for m in (model, plain)))
    else:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(output.logits, plain(**inputs).logits.float())
    assert output.logits.isfinite().all() and output.logits.dtype == torch.float32
    stats = vtp_stats(model)
    assert stats.num_kept == [14] * 3 and stats.stages[0].scores[0].dtype == torch.float32
    remove_vtp(model)
    assert same(model(**inputs), twin(**inputs))
    assert state(model) == state(twin)


# copies and files


def test_a_deep_copy_takes_lora_of_its_own():
    model, inputs = apply_vtp(Llava.model(), **DROP), Llava.inputs((1, 2))
    held = model(**inputs).logits
    twin = with_lora(copy.deepcopy(model))
    expected = apply_vtp(with_lora(Llava.model()), **DROP)
    assert torch.equal(twin(**inputs).logits, expected(**inputs).logits)
    scores = torch.stack(vtp_stats(twin).stages[0].scores)
    assert torch.equal(scores, torch.stack(vtp_stats(expected).stages[0].scores))
    tokens = [m.generate(**inputs, max_new_tokens=4) for m in (twin, expected)]
    assert torch.equal(*tokens) and torch.equal(model(**inputs).logits, held)
    copied = copy.deepcopy(expected)  # and the other way round
    assert torch.equal(copied(**inputs).logits, expected(**inputs).logits)
    remove_vtp(copied)
    with_lora(plain := Llava.model())
    assert torch.equal(copied(**inputs).logits, plain(**inputs).logits)
    assert vtp_stats(expected).num_kept == [14] * 3


def test_saved_while_pruned_is_a_plain_checkpoint(tmp_path):
    model, plain, inputs = apply_vtp(Llava.model(), **DROP), Llava.model(), Llava.inputs((1, 0, 2))
    model(**inputs)
    assert list(model.state_dict()) == list(plain.state_dict())
    model.save_pretrained(tmp_path / "pruned")
    plain.save_pretrained(tmp_path / "plain")
    files = [{f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("pruned", "plain")]
    configs = [json.loads(saved.pop("config.json")) for saved in files]
    assert files[0] == files[1]
    assert configs[0].pop("vtp_config") == model.config.vtp_config  # one line more, which nothing else reads
    assert configs[0] == configs[1]
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "pruned").eval()
    assert same(loaded(**inputs), plain(**inputs))
    assert same(apply_vtp(loaded, **DROP)(**inputs), model(**inputs))


def test_an_adapter_saved_while_pruned_loads_into_a_plain_model(tmp_path):
    model, inputs = vtp_then_lora(Llava.model()), Llava.inputs((1, 2))
    model(**inputs)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(Llava.model(), tmp_path).eval()
    assert same(loaded(**inputs), remove_vtp(model)(**inputs))


def test_pickled_whole(tmp_path):
    """As far as Transformers allows it: a model that ran holds a local function, pruned or not."""
    model, twin, plain = (Llava.model() for _ in range(3))
    inputs = Llava.inputs((1, 2))
    torch.save(apply_vtp(model, **DROP), tmp_path / "pruned.pt")
    loaded = torch.load(tmp_path / "pruned.pt", weights_only=False)
    apply_vtp(twin, **DROP)
    assert same(loaded(**inputs), twin(**inputs))
    assert torch.equal(*(m.generate(**inputs, max_new_tokens=4) for m in (loaded, twin)))
    assert vtp_stats(loaded).num_kept == [14] * 3
    assert inspect.signature(loaded.generate) == inspect.signature(plain.generate)
    remove_vtp(loaded)
    assert same(loaded(**inputs), plain(**inputs))


# the image-text-to-text pipeline


def processor():
    """A LlavaProcessor built in code: a word is one token, an image its 36 placeholders."""
    words = {"<pad>": PAD} | {f"w{i}": i for i in range(1, VOCAB)}
    words = {("<image>" if i == IMAGE else word): i for word, i in words.items()}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w1"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}),
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token="<pad>",
            unk_token="w1",
            additional_special_tokens=["<image>"],
            padding_side="left",
        ),
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template="{% for message in messages %}{% for part in message['content'] %}"
        "{{ '<image> ' if part['type'] == 'image' else part['text'] + ' ' }}{% endfor %}{% endfor %}w9",
    )


def pictures(count):
    generator = torch.Generator().manual_seed(2)
    arrays = torch.randint(0, 256, (count, 30, 40, 3), generator=generator, dtype=torch.uint8)
    return [Image.fromarray(array.numpy()) for array in arrays]


PROMPTS = ["w3 <image> w5 w8", "w4 w7 <image> w6 w2 w11 w12"]


def test_pipeline_gives_what_generate_gives():
    model, tools, images = apply_vtp(Llava.model(), **DROP), processor(), pictures(2)
    inputs = tools(images=images, text=PROMPTS, padding=True, return_tensors="pt")
    assert (inputs["input_ids"] == IMAGE).sum() == 2 * 36
    n = inputs["input_ids"].shape[1]
    tokens = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    expected = tools.batch_decode(tokens[:, n:], skip_special_tokens=True)
    assert expected != tools.batch_decode(Llava.model().generate(**inputs, max_new_tokens=6)[:, n:])
    pipe = pipeline("image-text-to-text", model=model, processor=tools)
    told = dict(generate_kwargs=dict(max_new_tokens=6, do_sample=False))
    output = pipe(text=PROMPTS, images=[[image] for image in images], return_full_text=False, **told)
    assert [row["generated_text"].strip() for row in output] == expected
    assert vtp_stats(model).num_kept == [14, 14]
    full = pipe(text=PROMPTS, images=[[image] for image in images], **told)
    for row, prompt, new in zip(full, PROMPTS, expected, strict=True):
        assert row["generated_text"].startswith(prompt) and row["generated_text"].endswith(new)


def test_pipeline_with_chats_in_a_batch():
    model, tools, images = apply_vtp(Llava.model(), **DROP), processor(), pictures(3)
    chats = [
        [
            {
                "role": "user",
                "content": [{"type": "image", "image": i} for i in group] + [{"type": "text", "text": text}],
            }
        ]
        for group, text in ((images[:1], "w5 w8"), (images[1:], "w6"))
    ]
    expected = []
    for group, text in ((images[:1], "<image> w5 w8 w9"), (images[1:], "<image> <image> w6 w9")):
        inputs = tools(images=group, text=[text], return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=6, do_sample=False)
        new = tokens[:, inputs["input_ids"].shape[1] :]
        expected += tools.batch_decode(new, skip_special_tokens=True)
    pipe = pipeline("image-text-to-text", model=model, processor=tools)
    told = dict(max_new_tokens=6, do_sample=False)
    for batch_size in (1, 2):
        output = pipe(chats, batch_size=batch_size, return_full_text=False, generate_kwargs=told)
        texts = [
            row[0]["generated_text"] if isinstance(row, list) else row["generated_text"] for row in output
        ]
        assert [text.strip() for text in texts] == expected


# int8


WEIGHT_ONLY = Int8WeightOnlyConfig
DYNAMIC = Int8DynamicActivationInt8WeightConfig


def quantised(config, model=None):
    """The tower's and the language model's linears in int8; projector and head as they are."""
    model = model or Llava.model()
    for part in (model.model.vision_tower, model.model.language_model):
        quantize_(part, config())
    return model


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("config", [WEIGHT_ONLY, DYNAMIC], ids=["weight only", "dynamic"])
def test_torchao_int8_linears(config, order):
    inputs = Llava.inputs((1, 0, 2))
    model, twin = Llava.model(), quantised(config)
    if order == "before":
        quantised(config, apply_vtp(model, **DROP))
    else:
        apply_vtp(quantised(config, model), **DROP)
    output = model(**inputs)
    reference = Llava.reference(model, inputs)
    expected = expected_rows(twin(**reference).logits, reference["attention_mask"])
    exact = apply_vtp(Llava.model(), **DROP)(**inputs).logits
    errors, effect = (output.logits - expected).abs(), (exact - expected).abs()
    assert effect.mean() > 0.005  # int8 really ran
    told = dict(max_new_tokens=5, return_dict_in_generate=True, output_logits=True)
    pruned = model.generate(**inputs, **told)
    full = twin.generate(**Llava.reference(model, inputs, generating=True), **told)
    if config is WEIGHT_ONLY:
        torch.testing.assert_close(output.logits, expected, **CLOSE)
        assert torch.equal(pruned.sequences[:, inputs["input_ids"].shape[1] :], full.sequences)
    else:  # where a rounding of activations tips over, one layer's noise becomes a whole step of int8
        assert errors.mean() < 0.005 and errors.max() < 0.2
        assert (pruned.logits[0] - full.logits[0]).abs().max() < 0.2
    assert vtp_stats(model).stages[0].scores[0].dtype == torch.float32
    remove_vtp(model)
    assert same(model(**inputs), twin(**inputs))


def in_8bit(bnb, model):
    """The same linears as `quantised` takes, replaced by those of bitsandbytes."""
    for part in (model.model.vision_tower, model.model.language_model):
        for name, linear in list(part.named_modules()):
            if type(linear) is torch.nn.Linear:
                sizes = linear.in_features, linear.out_features, linear.bias is not None
                int8 = bnb.nn.Linear8bitLt(*sizes, has_fp16_weights=False)
                int8.load_state_dict(linear.state_dict())
                part.set_submodule(name, int8.to("cpu"))  # `to` is what quantises
    return model


def test_bitsandbytes_int8_linears():
    bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    inputs = Llava.inputs((1, 0, 2))
    model, twin = apply_vtp(in_8bit(bnb, Llava.model()), **DROP), in_8bit(bnb, Llava.model())
    output = model(**inputs)
    reference = Llava.reference(model, inputs)
    expected = expected_rows(twin(**reference).logits, reference["attention_mask"])
    exact = apply_vtp(Llava.model(), **DROP)(**inputs).logits
    assert (exact - expected).abs().mean() > 0.005  # int8 really ran
    torch.testing.assert_close(output.logits, expected, **CLOSE)
    new = twin.generate(**Llava.reference(model, inputs, generating=True), max_new_tokens=5)
    tokens = model.generate(**inputs, max_new_tokens=5)
    assert torch.equal(tokens[:, inputs["input_ids"].shape[1] :], new)
    remove_vtp(model)
    assert same(model(**inputs), twin(**inputs))
