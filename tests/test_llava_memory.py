"""Peak memory: pruning never costs any, and widening makes no second copy of what is large."""

import gc
import weakref

import pytest
import torch
from models import vision_config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from hf_vtp import vtp
from hf_vtp.tools.bench.memory import peak_bytes

pytestmark = pytest.mark.models
IMAGE, VOCAB, PATCHES = 1999, 2000, 144
CALLS = {
    "generate": lambda model, inputs: model.generate(**inputs, max_new_tokens=2),
    "beams": lambda model, inputs: model.generate(**inputs, max_new_tokens=2, num_beams=2),
    "static cache": lambda model, inputs: model.generate(
        **inputs, max_new_tokens=2, cache_implementation="static"
    ),
    "logits_to_keep": lambda model, inputs: model(**inputs, logits_to_keep=1),
    "no cache": lambda model, inputs: model(**inputs, logits_to_keep=1, use_cache=False),
    "forward": lambda model, inputs: model(**inputs),
    "loss": lambda model, inputs: model(**inputs, labels=inputs["input_ids"]),
}


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(autouse=True, scope="module")
def quick_collections():
    """Collected before each measurement, not in the middle of one; what lives on need not be searched."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request):
    """A small tower in front of a language model that dwarfs it, as in every LLaVA there is."""
    torch.manual_seed(0)
    text = LlamaConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        vocab_size=VOCAB,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    config = LlavaConfig(vision_config=vision_config(2, patch_size=2), text_config=text, image_token_id=IMAGE)
    return LlavaForConditionalGeneration._from_config(config, attn_implementation=request.param).eval()


def prompt(rows):
    """Rows of that many images, padded on the left."""
    ids = [([5, 6, 7] + [IMAGE] * PATCHES) * images + [8, 9, 10, 11] for images in rows]
    n = max(map(len, ids))
    return {
        "input_ids": torch.tensor([[0] * (n - len(row)) + row for row in ids]),
        "attention_mask": torch.tensor([[0] * (n - len(row)) + [1] * len(row) for row in ids]),
        "pixel_values": torch.randn(sum(rows), 3, 24, 24),
    }


def peak(call, model, inputs):
    call(model, inputs)  # what is set up once is not the call's
    gc.collect()
    return peak_bytes(lambda: call(model, inputs), torch.device("cpu"))


@pytest.mark.parametrize("call", CALLS)
def test_pruning_hardly_raises_the_peak(model, call):
    """By less than 4 %, the NaN rows of dropped tokens; where little is dropped, and on 5.12 only."""
    call, inputs = CALLS[call], prompt((2, 1))
    full = peak(call, model, inputs)
    for ratio in (0.9, 0.5, 0.1):
        with vtp(model, keep_ratio=ratio):
            assert peak(call, model, inputs) <= (1.04 if ratio == 0.9 else 1) * full, ratio


def test_pruning_lowers_the_peak_by_what_it_drops(model):
    """Ninety per cent of the images' columns gone: of the prompt's memory less than half is left."""
    inputs = prompt((2, 2))
    for call in ("generate", "logits_to_keep"):
        full = peak(CALLS[call], model, inputs)
        with vtp(model, keep_ratio=0.1):
            assert peak(CALLS[call], model, inputs) < 0.4 * full


class Large(TorchDispatchMode):
    """Counts the storages of at least `size` bytes that live at once, at the most."""

    def __init__(self, size):
        super().__init__()
        self.size, self.alive, self.most, self.seen = size, 0, 0, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().nbytes() >= self.size:
                self.count(tensor.untyped_storage())
        return output

    def count(self, storage):
        address = storage.data_ptr()
        if address in self.seen:
            return
        self.seen.add(address)
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(storage, self.release, address)

    def release(self, address):
        self.seen.discard(address)
        self.alive -= 1


@pytest.mark.parametrize("labels", [False, True])
def test_widened_logits_are_not_copied(model, labels):
    """As many tensors of the full logits' size live at once as without pruning: one, if there is no loss."""
    inputs = prompt((2, 1))
    if labels:
        inputs["labels"] = inputs["input_ids"]
    size = inputs["input_ids"].numel() * VOCAB * 4
    most = []
    for ratio in (None, 0.5, 0.1):
        with Large(size * 9 // 10) as count:
            if ratio is None:
                output = model(**inputs)
            else:
                with vtp(model, keep_ratio=ratio):
                    output = model(**inputs)
        assert output.logits.numel() * 4 == size
        most.append(count.most)
        del output
    assert max(most) == most[0] and (labels or most == [1, 1, 1])
