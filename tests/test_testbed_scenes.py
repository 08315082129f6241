"""The testbed's scenes: seeded, endless, truthful; and what a model in training is fed."""

import itertools
import re
from random import Random

import datasets
import numpy as np
import pytest
import torch
from transformers import CLIPImageProcessor, Qwen2VLImageProcessor

from hf_vtp.tools.bench import cli
from hf_vtp.tools.testbed import batches, dataset, evaluate, losses
from hf_vtp.tools.testbed.backgrounds import BACKGROUNDS
from hf_vtp.tools.testbed.models import NEW
from hf_vtp.tools.testbed.questions import CLASSES, NUM_ANSWERS, Question, caption, facts, questions
from hf_vtp.tools.testbed.scenes import COLORS, SHAPES, WORDS, make_scene
from hf_vtp.tools.testbed.tokenizer import VOCABULARY, encode, make_tokenizer
from hf_vtp.tools.testbed.training import KINDS

NUMBERS = "zero one two three four five six seven eight nine".split()


def test_a_scene_is_a_function_of_seed_and_index():
    assert facts(make_scene(0, 0)) == [
        "a red square",
        "the word cat",
    ]  # the shipped weights learned from these
    for options in ({}, {"split": "test"}, {"size": None}, {"num_things": 1}):
        one, two = (make_scene(3, 17, **options) for _ in range(2))
        assert one == two
    pictures = {make_scene(seed, i).image.tobytes() for seed in (0, 1) for i in range(20)}
    assert len(pictures) == 40


def test_scenes_do_not_end():
    assert make_scene(0, 10**15).things
    stream = iter(batches.Batches(batches.clip_batch, seed=0, size=2, start=10**12))
    assert len(next(stream)["pixel_values"]) == len(next(stream)["pixel_values"]) == 2


def test_test_scenes_show_photographs_that_training_never_does():
    assert not set(BACKGROUNDS["train"]) & set(BACKGROUNDS["test"])
    for split, names in BACKGROUNDS.items():
        assert {make_scene(0, i, split).background for i in range(120)} == set(names)


def test_scenes_are_varied():
    scenes = [make_scene(5, i, size=None) for i in range(300)]
    assert {len(scene.things) for scene in scenes} == {1, 2, 3, 4}
    assert {thing.color for scene in scenes for thing in scene.things} == set(COLORS)
    assert {thing.shape for scene in scenes for thing in scene.things} == set(SHAPES)
    assert len({scene.image.size for scene in scenes}) == 16
    assert {s.writing.text for s in scenes if s.writing and s.writing.kind == "word"} == set(WORDS)
    assert {q.type for scene in scenes for q in questions(scene)} == set(NUM_ANSWERS)


def test_boxes_lie_in_the_picture_and_apart_and_hold_the_color():
    for i in range(100):
        scene = make_scene(9, i, "test", size=None)
        boxes = [t.box for t in scene.things] + ([scene.writing.box] if scene.writing else [])
        for left, top, right, bottom in boxes:
            assert 0 <= left < right <= scene.image.width and 0 <= top < bottom <= scene.image.height
        for a, b in itertools.combinations(boxes, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        for thing in scene.things:
            inside = np.asarray(scene.image.crop(thing.box), dtype=int)
            near = np.abs(inside - COLORS[thing.color]).max(axis=-1) <= 20
            assert near.mean() > 0.1, thing


def _answer(question, things, writing):
    """The answers a reader of the scene's contents gives; shares no code with the package."""
    is_ = lambda words, t: set(words) <= {t["color"], t["shape"]}  # noqa: E731
    if question == "how many objects are there ?":
        return {NUMBERS[len(things)]}
    if match := re.fullmatch(r"what (word|number) is written \?", question):
        assert (writing.split()[0] in NUMBERS) == (match[1] == "number")
        return {writing}
    if match := re.fullmatch(r"what color is the (\w+) \?", question):
        return {t["color"] for t in things if is_([match[1]], t)}
    if match := re.fullmatch(r"what shape is the (\w+) object \?", question):
        return {t["shape"] for t in things if is_([match[1]], t)}
    a, b = re.fullmatch(r"where is the (\w+ \w+) from the (\w+ \w+) \?", question).groups()
    first, second = ([t["box"] for t in things if is_(name.split(), t)] for name in (a, b))
    assert len(first) == len(second) == 1
    dx, dy = (first[0][k] + first[0][k + 2] - second[0][k] - second[0][k + 2] for k in (0, 1))
    return {("left" if dx < 0 else "right") if abs(dx) > abs(dy) else "above" if dy < 0 else "below"}


@pytest.mark.parametrize("split", BACKGROUNDS)
def test_a_saved_dataset_reads_back_and_every_answer_is_true(tmp_path, split):
    dataset.save_dataset(tmp_path / "scenes", 60, seed=4, split=split)
    again = datasets.load_from_disk(tmp_path / "scenes")
    assert len(again) == 60 and sorted(p.name for p in tmp_path.iterdir()) == ["scenes"]
    types = set()
    for i, row in enumerate(again):
        scene = make_scene(4, i, split)
        assert np.array_equal(np.asarray(row["image"]), np.asarray(scene.image))
        assert row["caption"] == caption(scene) and row["background"] in BACKGROUNDS[split]
        assert len(row["questions"]) == len(questions(scene)) > 0
        for q in row["questions"]:
            types.add(q["type"])
            assert _answer(q["question"], row["things"], row["writing"]) == {q["answer"]}, (q, row)
    assert types == set(NUM_ANSWERS)


def test_what_the_evaluations_read(tmp_path):
    asked = dataset.save_dataset(tmp_path / "asked", 12, seed=4, split="test", varied=True, task="questions")
    again = [(item.question, item.image.size) for item in evaluate.asked(12, 4, varied=True)]
    saved = [(Question(row["type"], row["question"], row["answer"]), row["image"].size) for row in asked]
    assert saved == again and len({size for _, size in saved}) > 1 and asked["id"] == list(range(12))
    classes = dataset.save_dataset(tmp_path / "classes", 12, seed=4, split="test", task="classes")
    assert classes.features["label"].names == list(CLASSES)
    again = [label for _, label in evaluate.classified(12, 4)]
    assert classes["label"] == again and len(set(again)) > 1


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(cli.UsageError, match="not an empty folder"):
        dataset.save_dataset(tmp_path, 2)
    with pytest.raises(cli.UsageError, match="choose from train, test"):
        dataset.save_dataset(tmp_path / "new", 2, split="dev")
    with pytest.raises(cli.UsageError, match="choose from scenes, questions, classes"):
        dataset.save_dataset(tmp_path / "new", 2, task="captions")
    with pytest.raises(cli.UsageError, match="one size"):
        dataset.save_dataset(tmp_path / "new", 2, task="classes", varied=True)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_the_tokenizer_knows_every_word():
    tokenizer, ending = make_tokenizer(), make_tokenizer(add_eos=True)
    for i in range(200):
        scene = make_scene(2, i)
        for text in [caption(scene)] + [f"{q.question} {q.answer}" for q in questions(scene)]:
            ids = tokenizer(text)["input_ids"]
            assert ids == encode(text) and VOCABULARY["<unk>"] not in ids
            assert ending(text)["input_ids"] == [*ids, VOCABULARY["<eos>"]]
            assert tokenizer.decode(ids) == text
    assert len(encode(caption(scene))) < batches.CAPTION


def test_training_sees_what_the_processors_make():
    scenes = [make_scene(6, i, size=None) for i in range(3)]
    even = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    qwen = Qwen2VLImageProcessor(
        patch_size=8, merge_size=2, size=dict(shortest_edge=64, longest_edge=10**6), **even
    )
    wanted = qwen([s.image for s in scenes], return_tensors="pt")
    batch = batches.qwen_batch([(s, Random(0)) for s in scenes])
    torch.testing.assert_close(losses.normalised(batch["pixel_values"]), wanted["pixel_values"])
    assert torch.equal(batch["image_grid_thw"], wanted["image_grid_thw"])
    scenes = [make_scene(6, i) for i in range(3)]
    clip = CLIPImageProcessor(size={"shortest_edge": 96}, crop_size={"height": 96, "width": 96}, **even)
    wanted = clip([s.image for s in scenes], return_tensors="pt")["pixel_values"]
    batch = batches.llava_batch([(s, Random(0)) for s in scenes])
    torch.testing.assert_close(losses.normalised(batch["pixel_values"]), wanted)


def test_workers_do_not_change_what_is_drawn():
    alone, shared = (itertools.islice(batches.Batches(batches.clip_batch, 0, 2).loader(n), 3) for n in (0, 2))
    for one, two in zip(alone, shared, strict=True):
        assert all(torch.equal(one[k], two[k]) for k in one)


def test_captions_fit_exactly_where_they_are_true():
    made = [(make_scene(8, i), Random(i)) for i in range(40)]
    batch = batches.clip_batch(made)
    words = {i: w for w, i in VOCABULARY.items()}
    texts = [" ".join(words[i] for i in row if i not in (0, 1)) for row in batch["input_ids"].tolist()]
    for i, (scene, _) in enumerate(made):
        for j, text in enumerate(texts):
            assert batch["fits"][i, j] == all(fact in facts(scene) for fact in text.split(" and "))
    assert (batch["fits"].diagonal() == 1).all() and batch["fits"].sum() > 40


def test_places_say_what_is_there():
    for i in range(50):
        scene = make_scene(10, i, size=None)
        shown = batches.targets(scene, 8).reshape(scene.image.height // 8, scene.image.width // 8, 3)
        for thing in scene.things:
            row, column = (int(x // 8) for x in reversed(thing.center))
            assert shown[row, column, 0] == 1 + list(COLORS).index(thing.color)
            assert shown[row, column, 1] == 1 + SHAPES.index(thing.shape)
        assert (shown[..., 2].max() > 0) == (scene.writing is not None)
        assert ((shown[..., 0] > 0).sum() * 64) < 30**2 * len(scene.things)


@torch.no_grad()
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_questions_in_one_row_cost_what_they_cost_alone(name):
    """The packed loss of training is that of Transformers' own forward with labels, question by question."""
    torch.manual_seed(0)
    model, collate = NEW[name]().eval(), KINDS[name][0]
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if key.endswith(("q_proj.weight", "k_proj.weight", "qkv.weight")):
                weight.mul_(8)  # fresh attention is uniform and would hide a wrong mask or position
    scenes = [(make_scene(11, i, **({"size": None} if KINDS[name][2] else {})), i) for i in (0, 3)]
    sums, count = 0.0, 0
    for scene, i in scenes:
        batch = collate([(scene, Random(i))])
        media = {k: batch[k] for k in ("image_grid_thw",) if k in batch}
        media["pixel_values"] = losses.normalised(batch["pixel_values"])
        for number in range(1, int(batch["part"].max()) + 1):
            here = (batch["part"] == 0) | (batch["part"] == number)
            ids, labels = batch["input_ids"][here][None], batch["labels"][here][None].roll(1)
            if name == "qwen2_5_vl":
                media["mm_token_type_ids"] = (ids == VOCABULARY["<image>"]).int()
            loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, **media).loss
            n = int((labels != -100).sum())
            sums, count = sums + loss.item() * n, count + n
    packed = losses.answer_loss(model, losses.Places(), collate([(s, Random(i)) for s, i in scenes]))
    assert packed[1]["answers"].item() == pytest.approx(sums / count, abs=1e-5)
