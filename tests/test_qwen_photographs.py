"""From photographs of several sizes and a chat prompt to generated ids, with the real processor."""

from pathlib import Path

import pytest
import torch
from qwen import Qwen
from transformers import AutoImageProcessor, AutoTokenizer

from hf_vtp import apply_vtp, vtp_stats

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
PROCESSOR = DATA / "processors" / "qwen2_5_vl"
pytestmark = [
    pytest.mark.models,
    pytest.mark.skipif(
        not PROCESSOR.is_dir(), reason="the measuring data lies beside the project only for its makers"
    ),
]
PAD = "<|image_pad|>"


def photographs(count):
    """The first photographs of different sizes."""
    import io
    import zipfile

    from PIL import Image

    sizes, images = set(), []
    with zipfile.ZipFile(DATA / "coco_mini" / "images.zip") as files:
        for name in sorted(files.namelist()):
            if name.endswith(("jpg", "png")):
                image = Image.open(io.BytesIO(files.read(name))).convert("RGB")
                if image.size not in sizes:
                    sizes.add(image.size)
                    images.append(image)
            if len(images) == count:
                return images
    raise AssertionError("too few photographs")


@torch.no_grad()
def test_photographs_and_a_chat_prompt():
    tokenizer = AutoTokenizer.from_pretrained(PROCESSOR, padding_side="left")
    try:
        processor = AutoImageProcessor.from_pretrained(PROCESSOR, max_pixels=168 * 168, min_pixels=28 * 28)
    except ImportError as error:
        pytest.skip(f"this Transformers has no image processor without torchvision: {error}")
    images = photographs(4)
    pixels = processor(images=images, return_tensors="pt")
    units = (pixels["image_grid_thw"].prod(-1) // 4).tolist()
    assert len({tuple(g) for g in pixels["image_grid_thw"].tolist()}) > 1
    texts = []
    for i, question in enumerate(
        ["What is this?", "Describe the picture in one sentence.", "Where?", "How many?"]
    ):
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        assert text.count(PAD) == 1
        texts.append(text.replace(PAD, PAD * units[i]))
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    image_token = tokenizer.convert_tokens_to_ids(PAD)

    class Photographs(Qwen):
        vision = {**Qwen.vision, "patch_size": 14, "window_size": 56}
        vocabulary = len(tokenizer)
        tokens = dict(
            image_token_id=image_token,
            video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
            vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
            vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
        )

    inputs = {**inputs, **pixels, "mm_token_type_ids": (inputs["input_ids"] == image_token).int()}
    model = apply_vtp(Photographs.model(), keep_ratio=0.25)
    output = model.generate(**inputs, max_new_tokens=6)
    stats = vtp_stats(model)
    assert stats.num_tokens == units and stats.num_kept == [max(1, round(0.25 * n)) for n in units]
    n = inputs["input_ids"].shape[1]
    assert output.shape == (4, n + 6) and torch.equal(output[:, :n], inputs["input_ids"])
    model(**inputs)
    full = Photographs.reference(model, inputs, generating=True)
    assert torch.equal(output[:, n:], Photographs.model().generate(**full, max_new_tokens=6))
    assert len(tokenizer.batch_decode(output[:, n:])) == 4
