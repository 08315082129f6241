#!/usr/bin/env python
"""Make the README's pictures and the demo's samples anew, from freely licensed photographs (see NOTICE).

    python scripts/make_pictures.py

The same versions of torch, Transformers and Pillow make the same pictures. Trained testbed models are used
where they lie in tests/testbed; pictures/captions.json says whether, and `make readme` tells the README.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from PIL import Image
from transformers.utils import logging

from hf_vtp import vtp, vtp_stats
from hf_vtp.files import replacing
from hf_vtp.tools.bench import cli
from hf_vtp.tools.bench.report import write_json
from hf_vtp.visualize import contact_sheet, draw_kept, see
from hf_vtp.visualize.picture import read_picture
from hf_vtp.visualize.shipped import open_model

ROOT = Path(__file__).resolve().parent.parent
PICTURES, SAMPLES = ROOT / "pictures", ROOT / "hf_vtp" / "tools" / "demo" / "samples"
TESTBED = ROOT / "tests" / "testbed"
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")  # of scikit-image: public domain and CC0
SAMPLE_SIDE = 384  # pixels
SCENES = 3  # of the testbed, where it is there
MOST_BYTES = 300_000  # of a picture in the README


def samples() -> None:
    """What the demo offers: scenes that the testbed's models can answer about, and photographs."""
    SAMPLES.mkdir(parents=True, exist_ok=True)
    for old in SAMPLES.iterdir():
        old.unlink()
    if importlib.util.find_spec("hf_vtp.tools.testbed"):
        from hf_vtp.tools.testbed.scenes import make_scene

        for i in range(SCENES):
            with replacing(SAMPLES / f"a scene {i + 1}.png") as path:
                make_scene(1, i, "test").image.save(path, optimize=True)
    for name in PHOTOGRAPHS:
        with replacing(SAMPLES / f"{name}.jpg") as path:
            photograph(name).save(path, quality=88)


def photograph(name: str) -> Image.Image:
    folder = Path(importlib.util.find_spec("skimage").origin).parent / "data"
    picture = read_picture(folder / f"{name}.png")
    picture.thumbnail((SAMPLE_SIDE, SAMPLE_SIDE), Image.Resampling.LANCZOS)
    return picture


def stages() -> tuple[Image.Image, bool, str]:
    (eyes, trained), picture = open_model("qwen2_5_vl", testbed=TESTBED), photograph("coffee")
    with vtp(eyes.model, keep_ratio=[0.6, 0.25], layer=[1, 3]):
        see(eyes, picture)
        drawn = draw_kept(picture, vtp_stats(eyes.model), eyes.image_processor)
    return drawn, trained, "`draw_kept`: `vtp` in a Qwen2.5-VL in two stages."


def sheet() -> tuple[Image.Image, bool, str]:
    eyes, trained = open_model("clip", testbed=TESTBED)
    pictures = [photograph(name) for name in ("astronaut", "chelsea")]
    drawn = contact_sheet(
        eyes.model, eyes.image_processor, pictures, ["vtp", "uniform"], [0.7, 0.4], panel=160
    )
    return (
        drawn,
        trained,
        "`contact_sheet`: two methods at two ratios in a CLIP, which sees a square of each picture.",
    )


def heat() -> tuple[Image.Image, bool, str]:
    (eyes, trained), picture = open_model("clip", testbed=TESTBED), photograph("chelsea")
    with vtp(eyes.model, method="qk_topk", keep_ratio=0.5):
        see(eyes, picture)
        drawn = draw_kept(picture, vtp_stats(eyes.model), eyes.image_processor, heat_map=True)
    return drawn, trained, "`heat_map=True`: the scores of `qk_topk`, what it keeps inside white lines."


FIGURES = {"stages": stages, "sheet": sheet, "heat": heat}


def save(drawn: Image.Image, name: str) -> str:
    """Into pictures/ in 256 colours; returns what to say. Raises UsageError if that is too large."""
    file = PICTURES / f"{name}.png"
    with replacing(file) as path:
        drawn.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise cli.UsageError(f"{file.name} has {size} bytes, more than {MOST_BYTES}; draw it smaller")
    return f"wrote {file.relative_to(ROOT)}: {drawn.width} x {drawn.height} pixels, {size} bytes"


def main(argv: list[str]) -> None:
    p = cli.Parser(description=__doc__.splitlines()[0])
    p.add_argument(
        "--screenshot", metavar="FILE.png", help="only put that into pictures/demo.png, small enough"
    )
    args = p.parse_args(argv)
    if args.screenshot:
        shot = read_picture(args.screenshot)
        print(
            save(shot.resize((960, round(shot.height * 960 / shot.width)), Image.Resampling.LANCZOS), "demo")
        )
        return
    cli.require("scikit-image")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    samples()
    PICTURES.mkdir(exist_ok=True)
    captions = {}
    for name, make in FIGURES.items():
        drawn, trained, caption = make()
        print(save(drawn, name))
        captions[f"{name}.png"] = {"caption": caption, "trained": trained}
    write_json(PICTURES / "captions.json", captions)


if __name__ == "__main__":
    sys.exit(cli.run(main))
