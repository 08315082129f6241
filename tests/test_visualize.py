"""The user's own picture comes back with what pruning left: placed, dimmed, outlined, turned."""

import numpy as np
import pytest
import torch
from models import clip, clip_vision
from PIL import Image
from qwen import Qwen
from transformers import CLIPImageProcessor, LlavaImageProcessor, Qwen2VLImageProcessor
from vlm import Llava

from hf_vtp import StageStats, VTPStats, apply_vtp, vtp, vtp_stats
from hf_vtp.visualize import contact_sheet, draw_kept
from hf_vtp.visualize.colours import group_colours, heat_colours
from hf_vtp.visualize.geometry import covered
from hf_vtp.visualize.look import Eyes, see
from hf_vtp.visualize.views import GONE, views

pytestmark = pytest.mark.models
PLAIN = dict(do_normalize=False, do_rescale=False)
SIDE = 24
SQUARE = dict(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, **PLAIN)
PROCESSORS = {
    "crop": lambda: CLIPImageProcessor(**SQUARE),
    "small crop": lambda: CLIPImageProcessor(**{**SQUARE, "size": {"shortest_edge": 32}}),
    "crop beyond the picture": lambda: CLIPImageProcessor(**{**SQUARE, "size": {"shortest_edge": 16}}),
    "stretch": lambda: CLIPImageProcessor(
        size={"height": SIDE, "width": SIDE}, do_center_crop=False, **PLAIN
    ),
    "llava": lambda: LlavaImageProcessor(**SQUARE),
    "llava padded": lambda: LlavaImageProcessor(**SQUARE, do_pad=True, image_mean=[1.0] * 3),
}
SIZES = [(200, 200), (300, 200), (200, 300), (417, 203), (90, 250)]


def coordinates(width, height):
    """A picture whose red says how far right a pixel is and whose green how far down, both of 250."""
    x = np.linspace(0, 250, width).round().astype(np.uint8)
    y = np.linspace(0, 250, height).round().astype(np.uint8)
    return Image.fromarray(np.stack([*np.meshgrid(x, y), np.full((height, width), 255, np.uint8)], axis=-1))


def cell_centres(box, rows, columns):
    left, top, right, bottom = box
    xs = left + (np.arange(columns) + 0.5) * (right - left) / columns
    ys = top + (np.arange(rows) + 0.5) * (bottom - top) / rows
    return np.meshgrid(xs, ys)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", PROCESSORS)
def test_patches_are_where_the_processor_took_them_from(name, size):
    """What the real processor made of coordinates tells where each patch lies."""
    processor, grid = PROCESSORS[name](), 6
    seen = np.asarray(
        processor(images=coordinates(*size), return_tensors="np")["pixel_values"][0], dtype=float
    )
    seen = seen.reshape(3, grid, SIDE // grid, grid, SIDE // grid).mean(axis=(2, 4))
    xs, ys = cell_centres(covered(size, (1, grid, grid), processor), grid, grid)
    cell = (xs[0, 1] - xs[0, 0]) / size[0] * 250, (ys[1, 0] - ys[0, 0]) / size[1] * 250
    # patches wholly on the picture: padding says nothing of where it is
    on = (seen[2] > 250) & (xs >= 0) & (xs <= size[0]) & (ys >= 0) & (ys <= size[1])
    if "padded" in name:  # its padding is as blue as the picture
        half = (xs[0, 1] - xs[0, 0]) / 2, (ys[1, 0] - ys[0, 0]) / 2
        on &= (xs >= half[0]) & (xs <= size[0] - half[0]) & (ys >= half[1]) & (ys <= size[1] - half[1])
    assert on.any()
    assert np.abs(seen[0] - xs / size[0] * 250)[on].max() < max(2.5, 0.35 * cell[0])
    assert np.abs(seen[1] - ys / size[1] * 250)[on].max() < max(2.5, 0.35 * cell[1])


@pytest.mark.parametrize("size", [(100, 60), (60, 133), (20, 30)], ids=str)
def test_qwens_units_cover_the_whole_picture(size):
    processor = Qwen2VLImageProcessor(patch_size=4, merge_size=2, **PLAIN)
    made = processor(images=coordinates(*size), return_tensors="pt")
    _, rows, columns = (made["image_grid_thw"][0] // torch.tensor([1, 2, 2])).tolist()
    patches = made["pixel_values"].reshape(rows, columns, 4, 3, 2, 16).float().mean(dim=(2, 4, 5)).numpy()
    for told in (processor, None):
        xs, ys = cell_centres(covered(size, (1, rows, columns), told), rows, columns)
        assert np.abs(patches[..., 0] - xs / size[0] * 250).max() < 8
        assert np.abs(patches[..., 1] - ys / size[1] * 250).max() < 8


def test_without_the_processor_a_crop_is_refused_not_stretched():
    with pytest.raises(ValueError, match="give the image processor"):
        covered((300, 200), (1, 6, 6))
    assert covered((200, 200), (1, 6, 6)) == (0, 0, 200, 200)


def test_steps_that_are_not_known_are_refused():
    odd = CLIPImageProcessor(size={"max_height": 24, "max_width": 24}, do_center_crop=False)
    with pytest.raises(ValueError, match="which is not known; choose a size"):
        covered((300, 200), (1, 6, 6), odd)
    with pytest.raises(ValueError, match="pads in a way that is not known"):
        covered((300, 200), (1, 6, 6), CLIPImageProcessor(do_pad=True, **SQUARE))


def made_up(keep, assignment, grid=(1, 2, 3), scores=None, layer=0):
    count = int(np.prod(grid))
    scores = torch.arange(float(count)) if scores is None else scores
    stage = StageStats(
        layer, [torch.tensor(keep)], [torch.tensor(assignment)], [torch.ones(len(keep))], [scores]
    )
    return VTPStats([count], [len(keep)], [torch.tensor(keep)], [grid], [stage])


def cells(picture, rows=2, columns=3, side=40):
    """The inner part of every cell, row by row, without outlines."""
    data = np.asarray(picture, dtype=int)
    inner = slice(side // 2 - 4, side // 2 + 4)
    return [data[r * side :, c * side :][inner, inner] for r in range(rows) for c in range(columns)]


def test_dropped_patches_are_dimmed_and_kept_ones_clear():
    picture = Image.effect_noise((120, 80), 90).convert("RGB")
    drawn = draw_kept(picture, made_up([1, 5], [-1, 0, -1, -1, -1, 1]))
    assert drawn.size == picture.size
    for n, (before, after) in enumerate(zip(cells(picture), cells(drawn), strict=True)):
        if n in (1, 5):
            assert (before == after).all()
        else:
            assert after.std() < 0.5 * before.std() and np.abs(before - after).mean() > 20


def test_absorbed_groups_have_the_colour_of_their_token():
    """Token 0 took 1 and 4, token 5 took 2, token 3 is alone."""
    picture = Image.new("RGB", (120, 80), (90, 90, 90))
    drawn = draw_kept(picture, made_up([0, 3, 5], [0, 0, 2, 1, 0, 2]))
    data, colours = np.asarray(drawn), group_colours(3)
    edge = {0: (0, 20), 1: (79, 20), 2: (80, 20), 4: (60, 79), 5: (119, 60)}  # x, y on the outer edge of each
    for token, group in {0: 0, 1: 0, 4: 0, 2: 2, 5: 2}.items():
        x, y = edge[token]
        assert tuple(data[y, x]) == colours[group], token
    assert tuple(data[20, 39]) == tuple(data[20, 20]) == (90, 90, 90)  # none inside a group
    assert {tuple(p) for p in data[40:80, 0:40].reshape(-1, 3)} == {(90, 90, 90)}  # nor around one alone
    clear, absorbed = cells(drawn)[0], cells(drawn)[1]
    assert (clear == 90).all() and (absorbed < 85).all()


def test_groups_never_share_a_colour():
    colours = group_colours(700)
    assert len(set(colours)) == len(colours) == 700


def test_stages_are_composed():
    """At the second stage the group of 0 and 1 joins that of 5; 4 is dropped; 2 was gone before."""
    first = made_up([0, 3, 4, 5], [0, 0, -1, 1, 2, 3])
    second = made_up([3, 5], [1, 0, -1, 1], scores=torch.tensor([4.0, 3.0, 2.0, 1.0]), layer=2)
    stats = VTPStats([6], [2], second.keep_indices, [(1, 2, 3)], [*first.stages, *second.stages])
    after = views(stats)[1]
    assert after.owner.flatten().tolist() == [1, 1, GONE, 0, GONE, 1]
    assert after.kept.flatten().tolist() == [False, False, False, True, False, True]
    scores = after.scores.flatten()
    assert np.isnan(scores[[1, 2]]).all() and scores[[0, 3, 4, 5]].tolist() == [4, 3, 2, 1]
    picture = Image.new("RGB", (120, 80), (90, 90, 90))
    sheet = draw_kept(picture, stats)
    assert sheet.width > 240 and sheet.height > 80  # two panels and their labels
    assert draw_kept(picture, stats, stage=1).size == (120, 80)


def test_a_heat_map_shows_high_scores_bright():
    picture = Image.new("RGB", (120, 80), (90, 90, 90))
    drawn = draw_kept(picture, made_up([3, 4, 5], [-1, -1, -1, 0, 1, 2]), heat_map=True, labels=False)
    light = [cell.mean() for cell in cells(drawn)]
    assert light == sorted(light) and light[5] > light[0] + 40
    assert tuple(np.asarray(drawn)[79, 119]) == (255, 255, 255)  # the outline of what was kept
    assert draw_kept(picture, made_up([0], [0] * 6), heat_map=True).height > 80  # with its label


def test_scores_that_are_all_the_same_have_a_colour():
    assert heat_colours(np.zeros((1, 2, 2))).shape == (1, 2, 2, 3)


def test_what_was_cropped_away_is_hatched():
    picture = Image.new("RGB", (120, 40), (200, 30, 30))
    drawn = np.asarray(
        draw_kept(picture, made_up([0, 1, 2, 3], [0, 1, 2, 3], (1, 2, 2)), PROCESSORS["crop"]())
    )
    assert (drawn[:, 40:80] == (200, 30, 30)).all()
    for side in (drawn[:, :39], drawn[:, 81:]):
        assert not (side == (200, 30, 30)).all(axis=-1).any() and side.std(axis=(0, 1)).max() > 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_that_exif_turns_comes_back_upright(orientation):
    """The processor saw the stored raster; the user sees the upright one."""
    stored = coordinates(120, 80)
    stored.getexif()[0x0112] = orientation
    drawn = draw_kept(stored, made_up([1, 5], [-1, 0, -1, -1, -1, 1]))
    plain = draw_kept(coordinates(120, 80), made_up([1, 5], [-1, 0, -1, -1, -1, 1]))
    assert drawn.size == ((120, 80) if orientation < 5 else (80, 120))
    assert drawn.getexif().get(0x0112, 1) == 1
    stored_again = Image.open(_saved(plain, orientation))
    from hf_vtp.measure.decode import upright_rgb

    assert np.array_equal(np.asarray(drawn), np.asarray(upright_rgb(stored_again)))


def _saved(image, orientation):
    import io

    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    image.save(file, "PNG", exif=exif)
    return file


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "1"])
def test_pictures_of_every_mode(mode):
    picture = Image.new(mode, (120, 80))
    assert draw_kept(picture, made_up([0], [0, -1, -1, -1, -1, -1])).mode == "RGB"


def test_a_video_is_a_strip_of_its_frames():
    frames = [Image.new("RGB", (60, 40), (40 * t, 0, 0)) for t in range(5)]  # 2 a group, the last alone
    keep = list(range(18))
    drawn = np.asarray(draw_kept(frames, made_up(keep, keep, (3, 2, 3))))
    reds = [drawn[20, 30 + 68 * t, 0] for t in range(3)]
    assert drawn.shape == (40, 3 * 60 + 2 * 8, 3) and reds == [0, 80, 160]
    with pytest.raises(ValueError, match="give the list of all frames"):
        draw_kept(frames[0], made_up(keep, keep, (3, 2, 3)))


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (dict(image_index=1), "image_index must be from 0 to 0"),
        (dict(stage=1), "stage must be from 0 to 0"),
        (dict(scale=0), "scale must be a whole number"),
    ],
)
def test_what_there_is_not_is_refused(told, message):
    with pytest.raises(ValueError, match=message):
        draw_kept(Image.new("RGB", (120, 80)), made_up([0], [0] * 6), **told)


def test_huge_sheets_are_reduced():
    picture = Image.new("RGB", (5000, 5000))
    stages = [made_up([0], [0], (1, 1, 1), torch.zeros(1)).stages[0]] * 12
    stats = VTPStats([1], [1], [torch.tensor([0])], [(1, 1, 1)], stages)
    assert draw_kept(picture, stats).width * draw_kept(picture, stats).height < 1.3 * 64_000_000


MODELS = {
    "clip": (lambda: clip("CLIPModel"), "crop"),
    "vision": (clip_vision, "crop"),
    "llava": (Llava.model, "llava padded"),
    "qwen": (Qwen.model, None),
}


def family(name):
    make, processor = MODELS[name]
    if processor is None:
        return Eyes(
            make(),
            Qwen2VLImageProcessor(patch_size=4, merge_size=2, size=dict(shortest_edge=64, longest_edge=9999)),
        )
    return Eyes(make(), PROCESSORS[processor]())


@pytest.mark.parametrize("method", ["vtp", "tome", "visionzip", "dynamic", "gtp"])
@pytest.mark.parametrize("name", MODELS)
def test_every_family_is_drawn_and_kept_patches_are_clear(name, method):
    eyes, picture = family(name), Image.effect_noise((90, 60), 90).convert("RGB")
    apply_vtp(eyes.model, method=method, keep_ratio=0.4)
    see(eyes, picture)
    stats = vtp_stats(eyes.model)
    drawn = np.asarray(draw_kept(picture, stats, eyes.image_processor, stage=-1), dtype=int)
    assert drawn.shape == (60, 90, 3)
    frames, rows, columns = stats.grids[0]
    xs, ys = (
        c.ravel()
        for c in cell_centres(covered((90, 60), (1, rows, columns), eyes.image_processor), rows, columns)
    )
    before, kept = np.asarray(picture, dtype=int), set(stats.keep_indices[0].tolist())
    for n, (x, y) in enumerate(zip(xs, ys, strict=True)):
        if 0 <= x < 90 and 0 <= y < 60:
            same = (drawn[int(y), int(x)] == before[int(y), int(x)]).all()
            assert same if n in kept else not same or abs(before[int(y), int(x), 0] - 60) < 12


def test_several_images_of_one_forward():
    model = apply_vtp(Qwen.model(), method="uniform", keep_ratio=0.5)
    model(**Qwen.inputs((1, 2)))
    stats = vtp_stats(model)
    for i, (_, rows, columns) in enumerate(stats.grids):
        picture = Image.new("RGB", (columns * 20, rows * 20))
        assert draw_kept(picture, stats, image_index=i).size == picture.size


def test_a_contact_sheet_has_a_row_a_method_and_leaves_the_model_as_it_was():
    eyes = family("clip")
    pictures = [Image.effect_noise(size, 90) for size in ((90, 60), (40, 60))]
    apply_vtp(eyes.model, keep_ratio=0.9)
    with vtp(eyes.model, keep_ratio=0.9):
        one = contact_sheet(eyes.model, eyes.image_processor, pictures[:1], ["vtp"], [0.5], panel=64)
        two = contact_sheet(
            eyes.model, eyes.image_processor, pictures[:1], ["vtp", "random"], [0.5], panel=64
        )
        wide = contact_sheet(
            eyes.model, eyes.image_processor, pictures, ["vtp", "random"], [0.7, 0.5], panel=64
        )
    assert two.height > one.height and two.width >= one.width
    assert wide.height > two.height and wide.width > two.width
    see(eyes, pictures[0].convert("RGB"))
    assert vtp_stats(eyes.model).num_kept == [round(0.9 * 36)]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (dict(images=[]), "1 to 1000 pictures, not 0"),
        (dict(panel=3), "at least 32"),
        (dict(text="what ?"), "needs the model's tokenizer"),
        (dict(methods=["nonsense"]), "unknown method"),
        (dict(keep_ratios=[2.0]), "keep_ratio must lie"),
    ],
)
def test_a_contact_sheet_refuses(told, message):
    eyes = family("clip")
    told = dict(images=[Image.new("RGB", (60, 60))], methods=["vtp"], keep_ratios=[0.5]) | told
    with pytest.raises(ValueError, match=message):
        contact_sheet(eyes.model, eyes.image_processor, **told)
    assert not hasattr(eyes.model, "_vtp")
