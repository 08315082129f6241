"""The demo's page: its controls, and where results appear. A click is answered by session.py."""

from __future__ import annotations

import os
import tempfile
import threading
import traceback
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported

import gradio as gr
from transformers.utils import logging

from ...visualize.contact import thumbnail
from ..bench.cli import UsageError, first_sentence
from ..pictures import MOST_BYTES, read_picture
from ..shipped import ANSWERING, SEEING, STAND_INS
from .access import offered, spare_from_proxy
from .session import METHODS, MOST_METHODS, PANEL, Session
from .words import CSS, INTRO, RANDOM, TESTBED, UNITS, differences, sentence, table

SAMPLES = {path.stem: path for path in sorted((Path(__file__).parent / "samples").iterdir())}
OWN = "your own"
FIRST = ["vtp", "random"]  # methods that are chosen when the page opens
QUESTIONS = {
    SEEING: "a yellow triangle, a red circle, a blue cross",
    None: "what color is the triangle ?",  # there is one in most of the scenes
}
STORED = 6 * 3600  # seconds that an upload and a result stay on the disk
# no font of another host: the page works without a network
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def build(session: Session, model: str = ANSWERING) -> gr.Blocks:
    """The page; where the session offers no list of models, a visitor may name a folder or one on the Hub."""
    any_model = session.offered is None
    names = session.offered or STAND_INS
    choices = list(dict.fromkeys([*([] if model in STAND_INS else [model]), *names]))
    first = next(iter(SAMPLES))
    with gr.Blocks(title="hf_vtp", analytics_enabled=False, delete_cache=(STORED // 6, STORED)) as page:
        gr.Markdown(INTRO)
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                name = gr.Dropdown(
                    choices,
                    value=model,
                    label="Model",
                    allow_custom_value=any_model,
                    info="or a folder, or a name on the Hub" if any_model else None,
                    elem_id="model",
                )
                sample = gr.Radio([*SAMPLES, OWN], value=first, label="Picture", elem_id="sample")
                upload = gr.File(
                    label=OWN, file_count="single", type="filepath", elem_id="upload", height=140
                )
                shown = gr.Image(
                    thumbnail(read_picture(SAMPLES[first]), PANEL),
                    interactive=False,
                    show_label=False,
                    buttons=["fullscreen"],  # none that shares it elsewhere
                    format="png",
                    elem_id="picture",
                )
                question = gr.Textbox(
                    QUESTIONS.get(model, QUESTIONS[None]),
                    label="Question; for a model that writes no text captions, with commas between them",
                    max_lines=3,
                    elem_id="question",
                )
                ratio = gr.Slider(0.05, 1.0, value=0.5, step=0.05, label="keep_ratio", elem_id="ratio")
                methods = gr.Dropdown(
                    list(METHODS),
                    value=FIRST,
                    multiselect=True,
                    max_choices=MOST_METHODS,
                    label=f"Methods, at most {MOST_METHODS}",
                    elem_id="methods",
                )
                differs = gr.HTML(differences(FIRST), elem_id="differs")
                heat_map = gr.Checkbox(False, label="Show scores as a heat map", elem_id="heat")
                run = gr.Button("Run", variant="primary", elem_id="run")
            with gr.Column(scale=3, min_width=420):
                problem = gr.HTML(elem_id="problem")
                numbers = gr.HTML(elem_id="numbers")
                gallery = gr.Gallery(
                    label="What is kept",
                    show_label=False,  # it would lie on the first picture
                    columns=2,
                    object_fit="contain",
                    format="png",
                    elem_id="kept",
                    height="auto",
                )
                download = gr.DownloadButton("Download the picture", visible=False, elem_id="download")
                note = gr.Markdown(elem_id="note")

        def visit(*values):
            with tempfile.TemporaryDirectory(prefix="hf_vtp-") as folder:
                yield click(session, folder, *values)  # gradio copies the file before it resumes here

        quiet = dict(show_progress="hidden", api_visibility="private")
        name.change(lambda n: QUESTIONS.get(n, QUESTIONS[None]), name, question, **quiet)
        methods.change(differences, methods, differs, **quiet)
        sample.change(choose, [sample, upload], [shown, problem], **quiet)
        # a second upload changes no radio button, so it is shown from here too
        upload.upload(lambda path: (OWN, *choose(OWN, path)), upload, [sample, shown, problem], **quiet)
        run.click(
            visit,
            [sample, upload, question, name, methods, ratio, heat_map],
            [problem, numbers, gallery, download, note],
            api_visibility="private",
            concurrency_limit=4,
        )
    return page


def chosen(sample: str, upload: str | None) -> Path:
    """The file of the picture that is chosen; raises UsageError if there is none."""
    if sample != OWN:
        return SAMPLES[sample]
    if upload is None:
        raise UsageError("there is no picture to run on; choose one or give your own")
    return Path(upload)


def choose(sample: str, upload: str | None):
    """(the picture to show, "") of a picture that somebody picked, or (None, the problem with it)."""
    try:
        return thumbnail(read_picture(chosen(sample, upload)), PANEL), ""
    except UsageError as error:
        return None, sentence(error)


def click(
    session: Session,
    folder: str,
    sample: str,
    upload: str | None,
    question: str,
    model: str,
    methods: list[str],
    ratio: float,
    heat_map: bool,
):
    """The results of "Run": (a problem, the table, the pictures, the download out of `folder`, a note)."""
    nothing = ("", [], gr.DownloadButton(visible=False), "")
    try:
        picture = read_picture(chosen(sample, upload))
        found = session.ask(picture, question, model, methods, ratio, heat_map)
    except UsageError as error:
        return sentence(error), *nothing
    except Exception as error:  # of any library, for a picture or a model of theirs
        traceback.print_exc()
        return sentence(f"this cannot be done ({type(error).__name__}: {first_sentence(error)})"), *nothing
    captions = [f"{row.method}: {row.kept} of {row.tokens} tokens" for row in found.rows[1:]]
    file = Path(folder) / "kept.png"
    found.sheet.save(file)
    pictures = list(zip(found.pictures, captions, strict=True))
    about = [TESTBED if found.trained else RANDOM] if model in STAND_INS else []
    note = "\n\n".join([*about, UNITS])
    return "", table(found.rows), pictures, gr.DownloadButton(value=str(file), visible=True), note


def serve(
    model: str = ANSWERING, host: str = "127.0.0.1", port: int | None = None, wait: bool = True, **kwargs
):
    """Open the page; returns (the page, its address) once it answers, with `wait` after it was closed.

    `kwargs` are further ones of Session. Raises UsageError for a model that cannot be had.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    session = Session(offered=offered(model, host), **kwargs)
    session.open(model)  # a name that leads nowhere is refused now, not when the first visitor comes
    page = build(session, next(iter(session.offered or [model])))
    spare_from_proxy(host)
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        ssr_mode=False,
        quiet=True,
        max_file_size=MOST_BYTES,
        theme=THEME,
        css=CSS,
        footer_links=[],
        prevent_thread_lock=True,
    )
    print(f"open {address}", flush=True)
    if wait:
        threading.Event().wait()
    return page, address
