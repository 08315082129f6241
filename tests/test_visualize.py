"""The user's own picture comes back with what pruning kept: dimmed, outlined, turned, frame by frame."""

import numpy as np
import pytest
import torch
from drawn import PROCESSORS, coordinates, made_up
from PIL import Image

from hf_vtp import VTPStats
from hf_vtp.visualize import draw_kept
from hf_vtp.visualize.colours import group_colours, heat_colours
from hf_vtp.visualize.views import DROPPED, views

pytestmark = pytest.mark.models


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
    assert after.owner.flatten().tolist() == [1, 1, DROPPED, 0, DROPPED, 1]
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
    from hf_vtp.tools.bench.decode import upright_rgb

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
    ("kwargs", "message"),
    [
        (dict(image_index=1), "image_index must be from 0 to 0"),
        (dict(stage=1), "stage must be from 0 to 0"),
        (dict(scale=0), "scale must be a whole number"),
    ],
)
def test_what_there_is_not_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        draw_kept(Image.new("RGB", (120, 80)), made_up([0], [0] * 6), **kwargs)


def test_huge_sheets_are_reduced():
    picture = Image.new("RGB", (5000, 5000))
    stages = [made_up([0], [0], (1, 1, 1), torch.zeros(1)).stages[0]] * 12
    stats = VTPStats([1], [1], [torch.tensor([0])], [(1, 1, 1)], stages)
    assert draw_kept(picture, stats).width * draw_kept(picture, stats).height < 1.3 * 64_000_000


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(image="photo.png"), "image must be a PIL image or the list of a video's frames, not str"),
        (dict(image=np.zeros((80, 120, 3))), "not ndarray"),
        (dict(image=None), "not NoneType"),
        (dict(stats=None), "what vtp_stats"),
        (dict(stage=0.5), "stage must be from 0 to 0, or -1, not 0.5"),
        (dict(stage="last"), "stage must be from 0"),
        (dict(image_index="0"), "image_index must be from 0 to 0"),
        (dict(processor="clip"), "str is no image processor"),
    ],
    ids=str,
)
def test_what_is_of_another_type_is_one_sentence(kwargs, message):
    kwargs = dict(image=Image.new("RGB", (120, 80)), stats=made_up([0], [0] * 6)) | kwargs
    with pytest.raises((TypeError, ValueError), match=message):
        draw_kept(**kwargs)


def test_a_list_of_pictures_is_not_taken_for_one():
    """A batch given as a list would show the first of it, whatever image_index says."""
    batch = [Image.new("RGB", (120, 80))] * 3
    with pytest.raises(ValueError, match="image_index says which of a batch"):
        draw_kept(batch, made_up([0], [0] * 6))
    with pytest.raises(ValueError, match="not a list of 2"):
        draw_kept(batch[:2], made_up([0], [0] * 6), PROCESSORS["crop"]())
    assert draw_kept(batch[:2], made_up([0], [0] * 6)).size == (120, 80)  # a clip of two frames
