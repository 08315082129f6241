"""Every family is drawn; contact_sheet sets methods and ratios beside each other."""

import numpy as np
import pytest
from drawn import PROCESSORS, cell_centres
from models import clip, clip_vision
from PIL import Image
from qwen import Qwen
from transformers import Qwen2VLImageProcessor
from vlm import Llava

from hf_vtp import apply_vtp, vtp, vtp_stats
from hf_vtp.tools.models import Loaded
from hf_vtp.visualize import contact_sheet, draw_kept, preview
from hf_vtp.visualize.geometry import covered

pytestmark = pytest.mark.models
MODELS = {
    "clip": (lambda: clip("CLIPModel"), "crop"),
    "vision": (clip_vision, "crop"),
    "llava": (Llava.model, "llava padded"),
    "qwen": (Qwen.model, None),
}


def family(name):
    make, processor = MODELS[name]
    if processor is None:
        return Loaded(
            make(),
            Qwen2VLImageProcessor(patch_size=4, merge_size=2, size=dict(shortest_edge=64, longest_edge=9999)),
        )
    return Loaded(make(), PROCESSORS[processor]())


@pytest.mark.parametrize("method", ["vtp", "tome", "visionzip", "dynamic", "gtp"])
@pytest.mark.parametrize("name", MODELS)
def test_every_family_is_drawn_and_kept_patches_are_clear(name, method):
    loaded, picture = family(name), Image.effect_noise((90, 60), 90).convert("RGB")
    apply_vtp(loaded.model, method=method, keep_ratio=0.4)
    preview(loaded.model, loaded.processor, picture)
    stats = vtp_stats(loaded.model)
    drawn = np.asarray(draw_kept(picture, stats, loaded.processor, stage=-1), dtype=int)
    assert drawn.shape == (60, 90, 3)
    frames, rows, columns = stats.grids[0]
    xs, ys = (
        c.ravel()
        for c in cell_centres(covered((90, 60), (1, rows, columns), loaded.processor), rows, columns)
    )
    before, kept = np.asarray(picture, dtype=int), set(stats.keep_indices[0].tolist())
    for n, (x, y) in enumerate(zip(xs, ys, strict=True)):
        if 0 <= x < 90 and 0 <= y < 60:
            same = (drawn[int(y), int(x)] == before[int(y), int(x)]).all()
            assert same if n in kept else not same or abs(before[int(y), int(x), 0] - 60) < 12


def test_several_images_of_one_forward():
    model = apply_vtp(Qwen.model(), method="uniform", keep_ratio=0.5, layer=1)
    model(**Qwen.inputs((1, 2)))
    stats = vtp_stats(model)
    for i, (_, rows, columns) in enumerate(stats.grids):
        picture = Image.new("RGB", (columns * 20, rows * 20))
        assert draw_kept(picture, stats, image_index=i).size == picture.size


def test_a_contact_sheet_has_a_row_a_method_and_leaves_the_model_as_it_was():
    loaded = family("clip")
    pictures = [Image.effect_noise(size, 90) for size in ((90, 60), (40, 60))]
    apply_vtp(loaded.model, keep_ratio=0.9)
    with vtp(loaded.model, keep_ratio=0.9):
        one = contact_sheet(loaded.model, loaded.processor, pictures[:1], ["vtp"], [0.5], panel=64)
        two = contact_sheet(loaded.model, loaded.processor, pictures[:1], ["vtp", "random"], [0.5], panel=64)
        wide = contact_sheet(
            loaded.model, loaded.processor, pictures, ["vtp", "random"], [0.7, 0.5], panel=64
        )
    assert two.height > one.height and two.width >= one.width
    assert wide.height > two.height and wide.width > two.width
    preview(loaded.model, loaded.processor, pictures[0].convert("RGB"))
    assert vtp_stats(loaded.model).num_kept == [round(0.9 * 36)]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(images=[]), "1 to 1000 pictures, not 0"),
        (dict(panel=3), "at least 32"),
        (dict(panel=100.5), "a whole number, not 100.5"),
        (dict(panel=9000), "panel must be at most 8000 pixels on a sheet of 1 pictures, not 9000"),
        (dict(text="what ?"), "needs the model's tokenizer"),
        (dict(methods=["nonsense"]), "unknown method"),
        (dict(keep_ratios=[2.0]), "keep_ratio must lie"),
    ],
)
def test_a_contact_sheet_refuses(kwargs, message):
    loaded = family("clip")
    kwargs = dict(images=[Image.new("RGB", (60, 60))], methods=["vtp"], keep_ratios=[0.5]) | kwargs
    with pytest.raises(ValueError, match=message):
        contact_sheet(loaded.model, loaded.processor, **kwargs)
    assert not hasattr(loaded.model, "_vtp")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(images=Image.new("RGB", (9, 9))), "images must be a list, not Image"),
        (dict(images=["photo.png"]), "images must be PIL images, not str"),
        (dict(methods="vtp"), "methods must be a list, not str"),
        (dict(keep_ratios=0.5), "keep_ratios must be a list, not float"),
    ],
    ids=["a picture", "a name", "a method", "a ratio"],
)
def test_one_instead_of_a_list_is_refused(kwargs, message):
    loaded = family("clip")
    kwargs = dict(images=[Image.new("RGB", (60, 60))], methods=["vtp"], keep_ratios=[0.5]) | kwargs
    with pytest.raises(TypeError, match=message):
        contact_sheet(loaded.model, loaded.processor, **kwargs)


def test_a_sheet_without_a_question_refuses_methods_that_read_it():
    loaded = family("llava")
    with pytest.raises(ValueError, match="cdpruner compares image tokens with a question; give one as text"):
        contact_sheet(loaded.model, loaded.processor, [Image.new("RGB", (60, 60))], ["cdpruner"], [0.5])


def test_a_sheet_turns_what_exif_turns_before_the_model_sees_it():
    """The picture itself and the drawn ones stand the same way, and are those of the upright picture."""
    loaded, upright = family("clip"), Image.effect_noise((60, 90), 90).convert("RGB")
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    stored.getexif()[0x0112] = 6
    sheets = [
        contact_sheet(loaded.model, loaded.processor, [picture], ["vtp"], [0.5], panel=64)
        for picture in (upright, stored)
    ]
    assert np.array_equal(*map(np.asarray, sheets))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "I;16", "1"])
def test_a_sheet_of_pictures_of_every_mode(mode):
    loaded, picture = family("clip"), Image.new(mode, (90, 60))
    assert contact_sheet(loaded.model, loaded.processor, [picture], ["vtp"], [0.5], panel=64).mode == "RGB"
