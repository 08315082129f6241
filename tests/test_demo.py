"""What the demo does on a click, without a browser and without gradio."""

import copy
import threading

import pytest
import torch
from PIL import Image

from hf_vtp.tools.bench.cli import UsageError
from hf_vtp.tools.demo import session as rooms
from hf_vtp.tools.demo.session import UNPRUNED, Room
from hf_vtp.visualize import shipped
from hf_vtp.visualize.picture import read_picture
from pictures import TAKEN

pytestmark = pytest.mark.models
QUESTION = "what is there ?"
PICTURE = Image.effect_noise((90, 60), 90).convert("RGB")


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    monkeypatch.delenv(shipped.VARIABLE, raising=False)
    monkeypatch.setattr(rooms, "ROUNDS", 1)
    monkeypatch.setattr("hf_vtp.tools.demo.answer.NEW_TOKENS", 4)


@pytest.mark.parametrize("model", shipped.STAND_INS)
def test_a_click_compares_methods_with_the_model_as_it_is(model):
    room = Room()
    shown = room.ask(PICTURE, "a red cat, a blue dog", model, ["vtp", "random"], 0.25)
    assert [row.method for row in shown.rows] == [UNPRUNED, "vtp", "random"] and not shown.trained
    whole, *pruned = shown.rows
    assert whole.kept == whole.tokens
    for row in pruned:
        assert row.kept == round(0.25 * row.tokens) and row.tokens == whole.tokens
        assert 0 < row.flops < whole.flops and row.milliseconds > 0 and row.answer
    assert [picture.size for picture in shown.pictures] == [(448, 299)] * 2
    assert shown.sheet.width > 2 * 448
    assert not hasattr(room.models[model][0].model, "_vtp")


def test_a_ratio_of_one_says_what_the_model_says():
    shown = Room().ask(PICTURE, QUESTION, "llava", ["vtp"], 1.0, heat_map=True)
    assert shown.rows[0].answer == shown.rows[1].answer and shown.rows[1].kept == shown.rows[1].tokens


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(question="  "), "there is nothing to answer; write a question"),
        (dict(question="a" * 501), "write at most 500"),
        (dict(question="what is <image> ?"), "must not name the image's placeholder"),
        (dict(model="clip", question=", ,"), "there is no caption"),
        (dict(model="clip", methods=["cdpruner"]), "choose one that needs no text"),
        (dict(methods=[]), "choose 1 to 6 methods, not 0"),
        (dict(methods=["vtp"] * 7), "choose 1 to 6 methods, not 7"),
        (dict(methods=["nonsense"]), "unknown method"),
        (dict(keep_ratio=0.0), "keep_ratio must lie in"),
        (dict(model=" "), "no model is named"),
        (dict(model="nobody/nothing"), "is not in the local cache"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_the_room_goes_on(changes, sentence):
    room = Room()
    asked = dict(picture=PICTURE, question=QUESTION, model="llava", methods=["random"], keep_ratio=0.5)
    with pytest.raises(UsageError) as caught:
        room.ask(**asked | changes)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
    assert room.ask(**asked).rows[1].kept == 72


def test_two_visitors_do_not_see_each_others_pruning():
    """Many at once, each with a method and a ratio of their own: everyone gets what one alone gets."""
    room = Room()
    asked = [(method, ratio) for method in ("random", "uniform") for ratio in (0.1, 0.5, 0.9)]
    alone = {a: room.ask(PICTURE, QUESTION, "llava", [a[0]], a[1]) for a in asked}
    found, problems = {}, []

    def visit(a):
        try:
            found[a] = room.ask(PICTURE, QUESTION, "llava", [a[0]], a[1])
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=visit, args=(a,)) for a in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    for a in asked:
        ours, theirs = (
            [(row.kept, row.flops, row.answer) for row in shown[a].rows] for shown in (alone, found)
        )
        assert ours == theirs
        assert alone[a].pictures[0].tobytes() == found[a].pictures[0].tobytes()


def test_a_visitor_leaves_the_model_as_it_was():
    room = Room()
    room.ask(PICTURE, QUESTION, "llava", ["random"], 0.5)
    model = room.models["llava"][0].model
    before = copy.deepcopy(model.state_dict())
    room.ask(PICTURE, QUESTION, "llava", ["vtp"], 0.5)
    assert list(before) == list(model.state_dict())
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())


def test_few_models_stay_in_memory(monkeypatch):
    monkeypatch.setattr(rooms, "MOST_MODELS", 1)
    room = Room()
    for model in ("clip", "llava"):
        room.ask(PICTURE, QUESTION, model, ["random"], 0.5)
    assert list(room.models) == ["llava"]


def test_large_pictures_are_reduced_for_the_model():
    picture = Image.new("RGB", (4000, 3000))
    shown = Room().ask(picture, QUESTION, "qwen2_5_vl", ["random"], 0.5)
    assert shown.rows[0].tokens < 700 and picture.size == (4000, 3000)


@pytest.mark.parametrize("make", TAKEN, ids=lambda make: make.__name__)
def test_odd_uploads_are_answered(make, tmp_path):
    assert Room().ask(read_picture(make(tmp_path)), QUESTION, "llava", ["random"], 0.5).rows[1].kept == 72
