"""The instruments of hf_vtp.tools.bench, each against numbers known beforehand."""

import itertools
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from models import vision_config
from PIL import Image
from transformers import CLIPVisionModelWithProjection

from hf_vtp import apply_vtp, vtp_stats
from hf_vtp.tools.bench import bench, cli, flops, memory, report, timing, variants
from hf_vtp.tools.bench.decode import upright_rgb
from hf_vtp.tools.bench.images import find_images
from hf_vtp.tools.bench.plot import plot

# ---------------------------------------------------------------- FLOPs


def vit_flops(config, tokens_by_layer):
    """Patch embedding; per layer four projections, two MLP matrices and attention; the last projection."""
    patches = (config.image_size // config.patch_size) ** 2
    d, m = config.hidden_size, config.intermediate_size
    total = 2 * patches * 3 * config.patch_size**2 * d
    for n in tokens_by_layer:
        total += 4 * 2 * n * d * d + 2 * 2 * n * d * m + 2 * 2 * n * n * d
    return total + 2 * d * config.projection_dim


@pytest.fixture
def model():
    return CLIPVisionModelWithProjection(vision_config(layers=4)).eval()


@pytest.fixture
def pixels(model):
    size = model.config.image_size
    return torch.randn(3, 3, size, size)


def counted(model, pixels):
    with torch.no_grad():
        return flops.count_flops(lambda: model(pixel_values=pixels))


@pytest.mark.models
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_flops_are_those_of_the_closed_form(model, pixels, attention):
    model.set_attn_implementation(attention)
    assert counted(model, pixels) == 3 * vit_flops(model.config, [37] * 4)


@pytest.mark.models
def test_flops_of_a_pruned_model_with_its_scoring(model, pixels):
    d = model.config.hidden_size
    apply_vtp(model, method="uniform", keep_ratio=0.5, layer=1)
    pruned = vit_flops(model.config, [37, 37, 19, 19])
    assert counted(model, pixels) == 3 * pruned  # a grid costs nothing to choose
    apply_vtp(model, method="qk_topk", keep_ratio=0.5, layer=1)
    assert counted(model, pixels) == 3 * (pruned + 2 * 2 * 36 * d)  # the norms of 36 queries and keys
    apply_vtp(model, method="vtp", keep_ratio=0.5, layer=1)
    assert counted(model, pixels) > 3 * (pruned + 2 * 36 * 36 * d)  # all distances
    apply_vtp(model, method="vtp", merger="absorb", keep_ratio=0.5, layer=1)
    assert counted(model, pixels) > 3 * (pruned + 2 * 36 * 36 * d + 2 * 36 * 18 * d)  # and the nearest


@pytest.mark.models
def test_countable_gives_the_attention_back(model):
    model.config._attn_implementation = "flash_attention_2"  # as if it were installed
    model.set_attn_implementation = lambda name: setattr(model.config, "_attn_implementation", name)
    with flops.countable(model):
        assert model.config._attn_implementation == "sdpa"
    assert model.config._attn_implementation == "flash_attention_2"


# ---------------------------------------------------------------- time


def run_interleaved(seed=0, rounds=6, warmup=2):
    """Three cases on a clock that only they move; also the order in which they were called and made ready."""
    now, log = [0.0], []

    def case(name, seconds):
        def prepare():
            log.append(f"ready {name}")
            now[0] += 1000  # making ready is not timed

            def call():
                log.append(name)
                now[0] += seconds

            return call

        return prepare

    cases = {name: case(name, seconds) for name, seconds in {"a": 1.0, "b": 2.0, "c": 4.0}.items()}
    seconds = timing.interleave(cases, rounds=rounds, warmup=warmup, seed=seed, clock=lambda: now[0])
    return seconds, log


def test_every_round_runs_every_case_once_in_changing_order():
    seconds, log = run_interleaved()
    assert seconds == {"a": [1.0] * 6, "b": [2.0] * 6, "c": [4.0] * 6}
    assert all(ready == f"ready {name}" for ready, name in zip(log[::2], log[1::2], strict=True))
    calls = log[1::2]
    rounds = [tuple(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert len(rounds) == 6 + 2
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 2
    assert run_interleaved()[1] == log
    assert run_interleaved(seed=1)[1] != log


def test_the_device_is_waited_for_on_both_sides_of_a_call():
    log = []
    case = {"a": lambda: lambda: log.append("call")}
    wait = lambda: log.append("wait")  # noqa: E731
    clock = itertools.count()
    timing.interleave(
        case,
        rounds=1,
        warmup=0,
        synchronize=wait,
        clock=lambda: log.append("clock") or next(clock),
        progress=lambda: log.append("progress"),
    )
    assert log == ["wait", "clock", "call", "wait", "clock", "progress"]


def test_summary_in_milliseconds():
    summary = timing.summary([0.001 * i for i in range(1, 102)])
    assert summary["latency_p50_ms"] == pytest.approx(51)
    assert summary["latency_p95_ms"] == pytest.approx(96)
    assert summary["latency_iqr_ms"] == pytest.approx(50)
    assert summary["latency_min_ms"] == pytest.approx(1)
    assert timing.ratio_quartiles([2.0, 4.0], [1.0, 2.0]) == [2.0, 2.0]


# ---------------------------------------------------------------- memory


def test_peak_memory_is_what_lives_at_once():
    cpu = torch.device("cpu")
    mib = 2**20

    def call():
        first = torch.ones(2 * mib // 4)
        second = first + 1  # 4 MiB with the first
        del first
        return second + 1  # 4 MiB with the second

    assert 4 * mib <= memory.peak_bytes(call, cpu) < 4.1 * mib
    assert memory.peak_bytes(lambda: None, cpu) == 0
    linear = torch.nn.Linear(3, 4)
    assert memory.own_bytes(linear, torch.zeros(5, dtype=torch.float16)) == 4 * (12 + 4) + 10


# ---------------------------------------------------------------- agreement


def test_agreement_has_a_percentile_from_100_images_on():
    reference = torch.tensor([[1.0, 0.0]]).repeat(100, 1).double()
    turned = reference.clone()
    turned[0] = torch.tensor([0.0, 1.0])
    few, many = bench.agreement(turned[:99], reference[:99]), bench.agreement(turned, reference)
    assert few["cosine_p5"] is None and many["cosine_p5"] == pytest.approx(1.0)
    assert many["cosine_mean"] == pytest.approx(0.99) and many["cosine_min"] == 0.0


@pytest.mark.models
def test_work_and_agreement_of_variants(model, pixels):
    cases = variants.make_cases(["uniform"], [1.0, 0.5], layer=0)
    both = variants.Variants(model, cases)
    forward = lambda m, x: m(**x).image_embeds  # noqa: E731
    with torch.no_grad():
        work = bench.measure_work(both, forward, {"pixel_values": pixels[:1]}, lambda: None)
        batches = [{"pixel_values": part} for part in pixels.split(2)]
        agreement = bench.measure_agreement(both, forward, batches, pixels.device, lambda: None)
        apply_vtp(model, method="uniform", keep_ratio=0.5, layer=0)
        pruned = forward(model, {"pixel_values": pixels})
        assert vtp_stats(model).num_kept == [18] * 3
    assert work["uniform 0.5"]["kept_tokens"] == 18
    assert work["unpatched"]["kept_tokens"] == work["uniform 1.0"]["kept_tokens"] == 36
    assert work["uniform 1.0"]["flop_ratio"] == 1 < work["uniform 0.5"]["flop_ratio"]
    assert agreement["uniform 1.0"]["cosine_min"] == pytest.approx(1, abs=1e-12)
    expected = torch.nn.functional.cosine_similarity(pruned, _unpatched(model, pixels)).mean().item()
    assert agreement["uniform 0.5"]["cosine_mean"] == pytest.approx(expected, abs=1e-5)


def _unpatched(model, pixels):
    with torch.no_grad():
        return variants.switch(model, variants.Case())(pixel_values=pixels).image_embeds


@pytest.mark.models
def test_compiled_variants_are_copies_pruned_before_they_are_compiled(model, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda m, **options: compiled.append((m, options)) or m)
    cases = variants.make_cases(["uniform", "vtp"], [0.5], layer=0)
    both = variants.Variants(model, cases, compiled=True)
    assert [options for _, options in compiled] == [{"fullgraph": True, "dynamic": False}] * 3
    copies = [both.timed(case) for case in cases]
    assert len({id(copy) for copy in (model, *copies)}) == 4
    assert [len(c.vision_model._forward_pre_hooks) > 0 for c in copies] == [False, True, True]


# ---------------------------------------------------------------- images


@pytest.fixture
def photo():
    gradient = np.linspace(0, 255, 24 * 16).reshape(16, 24).astype(np.uint8)
    return Image.fromarray(np.stack([gradient, gradient, gradient // 2 + 64], axis=-1))


def spread(image):
    values = np.asarray(image, dtype=int)
    return values.min(), values.max()


def test_every_kind_of_image_becomes_upright_rgb(photo, tmp_path):
    wide = np.linspace(0, 65535, 16 * 24).reshape(16, 24)
    kinds = {
        "grey.png": photo.convert("L"),
        "alpha.png": photo.convert("RGBA"),
        "grey_alpha.png": photo.convert("LA"),
        "palette.png": photo.convert("P"),
        "bits.png": photo.convert("1"),
        "print.jpg": photo.convert("CMYK"),
        "wide.png": Image.fromarray(wide.astype(np.uint16)),
        "wide.tif": Image.fromarray(wide.astype(np.int32)),
        "float.tif": Image.fromarray((wide / 65535).astype(np.float32)),
    }
    for name, image in kinds.items():
        image.save(tmp_path / name)
        rgb = upright_rgb(Image.open(tmp_path / name))
        assert rgb.mode == "RGB" and rgb.size == (24, 16), name
        low, high = spread(rgb)
        assert low < 30 and high > 200, name  # not clipped to white, nor all black
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned
    photo.save(tmp_path / "turned.jpg", exif=exif)
    assert upright_rgb(Image.open(tmp_path / "turned.jpg")).size == (16, 24)


def test_broken_images_are_named_and_passed_over(photo, tmp_path, capsys):
    (tmp_path / "deep").mkdir()
    for name in ("b.png", "deep/a.jpg", "c.jpg"):
        photo.resize((200, 200)).save(tmp_path / name)
    (tmp_path / "c.jpg").write_bytes((tmp_path / "c.jpg").read_bytes()[:900])
    (tmp_path / "d.png").write_text("no image")
    (tmp_path / "notes.txt").write_text("no image either")
    found = find_images(str(tmp_path))
    assert len(list(found.decoded(10))) == 2
    assert found.skipped == ["c.jpg", "d.png"]
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2 and "c.jpg" in err[0] and "d.png" in err[1]


def test_a_limit_takes_evenly_from_the_whole_folder(photo, tmp_path):
    for i in range(9):
        photo.resize((10 + i, 8)).save(tmp_path / f"{i}.png")
    assert [image.width for image in find_images(str(tmp_path)).decoded(3)] == [10, 13, 16]


def test_default_is_photographs_and_a_zip_is_a_folder(photo, tmp_path):
    defaults = list(find_images(None).decoded(100))
    assert len(defaults) >= 10 and all(image.mode == "RGB" for image in defaults)
    photo.save(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "class/a.png")
        archive.writestr("class/b.png", b"broken")
        archive.writestr("readme.txt", "words")
    found = find_images(str(tmp_path / "all.zip"))
    assert len(list(found.decoded(5))) == 1 and found.skipped == ["all.zip/class/b.png"]


def test_datasets_by_path(photo, tmp_path, capsys):
    photo.save(tmp_path / "good.png")
    good = (tmp_path / "good.png").read_bytes()
    rows = {
        "label": [0, 1, 2],
        "picture": [{"bytes": data, "path": None} for data in (good, good[: len(good) // 2], good)],
    }
    data = Dataset.from_dict(rows, features=Features(label=Value("int64"), picture=ImageFeature()))
    data.to_parquet(str(tmp_path / "data.parquet"))
    (tmp_path / "folder").mkdir()
    data.to_parquet(str(tmp_path / "folder" / "test-0.parquet"))
    data.save_to_disk(str(tmp_path / "disk"))
    for name in ("data.parquet", "folder", "disk"):
        found = find_images(str(tmp_path / name))
        assert [image.size for image in found.decoded(10)] == [(24, 16)] * 2, name
        assert found.skipped == ["row 1"], name
    capsys.readouterr()
    Dataset.from_dict({"label": [1]}).to_parquet(str(tmp_path / "none.parquet"))
    with pytest.raises(cli.UsageError, match="columns: label"):
        find_images(str(tmp_path / "none.parquet"))


# ---------------------------------------------------------------- manners, report, picture


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "result.json"
    target.write_text("old")
    with pytest.raises(RuntimeError):
        with cli.replacing(target) as path:
            path.write_text("half")
            raise RuntimeError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]
    with pytest.raises(ValueError):  # NaN is no JSON
        report.write_json(target, {"x": float("nan")})
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]
    report.write_json(target, {"x": 1})
    assert json.loads(target.read_text()) == {"x": 1}


def test_writable_looks_without_leaving_anything(tmp_path):
    target = tmp_path / "new.png"
    assert cli.writable(str(target), ".png") == target and cli.writable(None) is None
    assert list(tmp_path.iterdir()) == []
    for path, sentence in (
        ("no/where.png", "does not exist"),
        (".", "is a folder"),
        ("new.txt", "must end in"),
    ):
        with pytest.raises(cli.UsageError, match=sentence):
            cli.writable(str(tmp_path / path), ".png")


def test_missing_extras_name_the_extra(monkeypatch):
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(cli.UsageError, match=r'pip install "hf-vtp\[bench\]"'):
        cli.require("rich", "matplotlib")


def test_only_bugs_give_tracebacks(capsys):
    def raising(error):
        def main(argv):
            raise error

        return main

    for error, code in ((cli.UsageError("no"), 2), (torch.OutOfMemoryError(), 2), (KeyboardInterrupt(), 130)):
        assert cli.run(raising(error), []) == code
        assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(ZeroDivisionError):
        cli.run(raising(ZeroDivisionError()), [])


def test_flash_attention_on_a_cpu_is_refused():
    for name in ("flash_attention_2", "flex_attention"):
        with pytest.raises(cli.UsageError, match="choose from eager, sdpa"):
            cli.set_attention(None, name, torch.bfloat16, torch.device("cpu"))


def row(method, keep, speedup, cosine, batch_size=8):
    return {
        **{"batch_size": batch_size, "method": method, "keep_ratio": keep, "speedup": speedup},
        **{"images_per_s": 100 * speedup, "cosine_mean": cosine},
    }


@pytest.mark.parametrize("trained", [True, False])
def test_picture_opens(tmp_path, trained):
    cosine = (lambda x: x) if trained else (lambda x: None)
    rows = [
        row(method, keep, speedup, cosine(c), size)
        for size in (1, 8)
        for method, keep, speedup, c in (
            ("unpatched", None, 1.0, 1.0),
            *((method, 1.0, 0.99, 1.0) for method in "abcdefg"),  # all in one place
            *((method, 0.5, 1.8, 0.9) for method in "abcdefg"),
        )
    ]
    target = tmp_path / "plot.png"
    plot(target, "title", rows)
    with Image.open(target) as image:
        image.load()
        assert image.format == "PNG" and image.width > 800
    assert list(tmp_path.iterdir()) == [target]


def test_importing_the_package_imports_nothing_of_this():
    code = (
        "import sys, transformers.modeling_utils; before = set(sys.modules); from hf_vtp import apply_vtp; "
        "print([m for m in sys.argv[1:] if m in sys.modules and m not in before])"  # 5.12 itself imports rich
    )
    unwanted = ["rich", "matplotlib", "datasets", "hf_vtp.tools.bench"]
    done = subprocess.run([sys.executable, "-c", code, *unwanted], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
