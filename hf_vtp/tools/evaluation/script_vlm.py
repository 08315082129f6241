"""eval-vlm from its arguments to its result."""

from __future__ import annotations

import argparse
import sys

import torch
from tqdm import tqdm

from ..bench import cli
from ..bench.cli import UsageError
from ..cases import refuse_impossible
from ..models import load_config, load_model, refuse_unprunable
from ..processors import load_processor
from ..prompts import Prompts
from .answers import AGREEMENT, METRICS, chosen, qualities
from .cases import Case
from .items import EVERYTHING, content, decoded
from .predictions import COUNTS, Predictions
from .questions import Question, read_questions
from .rows import mean_count
from .script import Run, columns, parser
from .texts import TextEncoder
from .vlm import Answerer
from .work import measure_work

OF_ITEMS = {"pope": "pope_accuracy"}  # metrics whose number is called otherwise
BESIDE = {"pope": ("pope_f1", "pope_yes")}


def options(doc: str):
    p = parser(doc)
    p.add_argument("--data", required=True, help="a .jsonl file with its images beside it, or a dataset")
    p.add_argument(
        "--num-questions", type=cli.count, default=EVERYTHING, help="the first so many; default: all"
    )
    p.add_argument(
        "--question", help="asked about every image, where the data has captions in place of questions"
    )
    p.add_argument(
        "--metric",
        nargs="+",
        choices=METRICS,
        help="default: all that the answers allow, but cider; agreement with the unpruned model is in each "
        "table",
    )
    p.add_argument("--text-encoder", help="a CLIP or another text encoder, for caption_cosine")
    p.add_argument("--prompt", help="with {image} and {question}; default: the checkpoint's chat template")
    p.add_argument("--instruction", help="a line after every question, such as: Answer in one word.")
    p.add_argument("--max-new-tokens", type=cli.count, default=16)
    p.add_argument(
        "--predictions",
        metavar="FILE",
        default="predictions.jsonl",
        help="every answer, as soon as it is there; a run that finds its own goes on (predictions.jsonl)",
    )
    p.add_argument("--batch-size", type=cli.count, default=8)
    return p


@torch.inference_mode()
def evaluate(run: Run) -> None:
    args, processes = run.args, run.processes
    path = processes.agree(lambda: cli.writable(args.predictions))
    questions = processes.agree(lambda: asked_of(args))
    names = chosen(args.metric, questions, args.text_encoder is not None)
    answerer = load_answerer(run)
    run.without_smaller(answerer.takes)
    model = answerer.model
    encode = TextEncoder(args.text_encoder, run.device) if args.text_encoder and processes.main else None
    predictions = Predictions(path, identity(run), processes.index)
    processes.on_main(predictions.merge)
    done = predictions.read()
    resumed = processes.on_main(lambda: already(run, questions, done))
    broken = processes.agree(lambda: ask_own(run, answerer, questions, predictions, done))
    predictions.end()
    broken = processes.gather([question.index for question in broken], key=int)
    skipped = [question.id for question in questions if question.index in broken]
    questions = [question for question in questions if question.index not in broken]
    if not questions:
        raise UsageError(f"every image of {args.data} is broken")
    order = [(case.name, question.id) for case in run.cases for question in questions]
    done = processes.on_main(lambda: predictions.merge(order))
    predictions.close()
    work = processes.on_main(lambda: measure(run, answerer, questions))
    if not processes.main:
        return
    for name in skipped:
        print(f"skipped question {name}: the image is broken", file=sys.stderr)
    unpruned = [done[run.cases[0].name, question.id]["total_tokens"] for question in questions]
    work = {key: {**row, "total_tokens": mean_count(unpruned)} for key, row in work.items()}
    names = names if run.trained else []
    found = qualities(run.cases, done, questions, names, encode)
    compared = [OF_ITEMS.get(name, name) for name in names if name != "caption_cosine" or encode]
    compared += [AGREEMENT] if names else []
    about = {
        "evaluation": "vlm",
        "model_type": model.config.model_type,
        "data": args.data,
        "num_items": len(questions),
        "num_skipped": len(skipped),
        "num_resumed": resumed,
        "predictions": args.predictions,
        "metrics": names,
        "question": args.question,
        "prompt": args.prompt,
        "instruction": args.instruction,
        "max_new_tokens": args.max_new_tokens,
        "text_encoder": args.text_encoder,
        "batch_size": args.batch_size,
    }
    further = [other for name in names for other in BESIDE.get(name, ())]
    further += [] if encode else ["caption_cosine"]
    run.finish(about, found, work, compared, columns(compared, "question", further), "questions_per_s")


def asked_of(args: argparse.Namespace) -> list[Question]:
    """The questions that the arguments name."""
    return read_questions(args.data, args.split, args.num_questions, args.question)


def load_answerer(run: Run) -> Answerer:
    """The model that the arguments name with its prompts; raises UsageError where it cannot be pruned so."""
    args = run.args
    config = load_config(args.model)
    refuse_unprunable(args.model, config, answers=True)
    dtype = cli.DTYPES[run.dtype]
    model = load_model(args.model, config=config, weights=args.weights, dtype=dtype, device=run.device)
    refuse_impossible(model, [case.config for case in run.cases])
    template = args.prompt and args.prompt.replace("\\n", "\n")
    prompts = Prompts(model, load_processor(args.model, config), template, args.instruction)
    return Answerer(model, prompts, args.max_new_tokens)


def already(run: Run, questions: list[Question], done: dict) -> int:
    """The number of answers of this run on disk; raises UsageError if they are to other questions."""
    count = 0
    for question in questions:
        same = [done[key] for case in run.cases if (key := (case.name, question.id)) in done]
        if not same:
            continue
        asked = {"question": question.text, "answers": list(question.answers)}
        asked["image"] = content(decoded(question))
        if any(row.get(name) != value for row in same for name, value in asked.items()):
            raise UsageError(
                f"{run.args.predictions} has another question, image or other answers with the id "
                f"{question.id}; give another name with --predictions"
            )
        if any(name not in row for row in same for name in COUNTS):
            raise UsageError(
                f"{run.args.predictions} does not say how many tokens were kept of {question.id}; give "
                "another name with --predictions"
            )
        count += len(same)
    return count


def identity(run: Run) -> dict:
    """The arguments that two runs must share for one to resume with the other's answers."""
    args = run.args
    names = (
        "model",
        "weights",
        "data",
        "split",
        "question",
        "prompt",
        "instruction",
        "max_new_tokens",
        "positions",
        "seed",
    )
    return {**{name: getattr(args, name) for name in names}, "dtype": run.dtype}


def ask_own(
    run: Run, answerer: Answerer, questions: list[Question], predictions: Predictions, done: dict
) -> list[Question]:
    """Ask every case this process's questions that it has not answered; returns those with a broken image."""
    broken, hidden = [], None if run.processes.main else True
    with tqdm(total=len(questions) * len(run.cases), disable=hidden, leave=False) as bar:
        for number, batch in run.processes.mine(questions, run.args.batch_size):
            images = {}
            for case in run.cases:
                todo = [q for q in batch if (case.name, q.id) not in done and q not in broken]
                for question in todo:
                    if question not in images:
                        images[question] = decoded(question)
                broken += [q for q in todo if images[q] is None]
                todo = [q for q in todo if images[q] is not None]
                if todo:
                    predictions.add(ask(answerer, case, todo, [images[q] for q in todo]))
            bar.update((number * run.args.batch_size + len(batch)) * len(run.cases) - bar.n)
    return broken


def ask(answerer: Answerer, case: Case, questions: list[Question], images: list) -> list[dict]:
    """The lines of the predictions file for one case and batch."""
    inputs, counts = answerer.inputs(images, [question.text for question in questions], case)
    texts, kept = answerer(case, inputs, counts)
    return [
        {
            "case": case.name,
            "id": question.id,
            "question": question.text,
            "answers": list(question.answers),
            "image": content(image),
            "prediction": text,
            "kept_tokens": num_kept,
            "total_tokens": count,
        }
        for question, image, text, num_kept, count in zip(questions, images, texts, kept, counts, strict=True)
    ]


def measure(run: Run, answerer: Answerer, questions: list[Question]) -> dict[tuple, dict]:
    """FLOPs until the first token, and time of answers of the full length, on the first batch."""
    batch = questions[: run.args.batch_size]
    images, texts = [decoded(q) for q in batch], [q.text for q in batch]
    inputs = {case.row: answerer.inputs(images, texts, case)[0] for case in run.cases}
    return measure_work(
        answerer.model,
        run.cases,
        lambda case: answerer.generate(case, inputs[case.row], 1),
        lambda case: answerer.generate(case, inputs[case.row], run.args.max_new_tokens),
        size=len(batch),
        unit="question",
        rounds=run.args.rounds,
        seed=run.args.seed,
    )
