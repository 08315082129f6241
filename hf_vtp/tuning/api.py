"""hf_vtp.tune: the fastest pruning of a model that keeps a quality, found on unlabelled images."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from random import Random
from typing import NamedTuple

from PIL.Image import Image
from torch import Tensor, nn
from tqdm import tqdm

from ..apply import unpruned, unwrap
from ..config import VTPConfig
from ..environment import environment
from ..families.table import reads_text
from ..model_config import made_for
from .bounds import fewest
from .candidates import METHODS_TRIED, SCHEDULES, make_candidates
from .check import front, walk
from .inputs import Item, batches, make_items, num_rows
from .report import TuneReport
from .search import SLACK, Search, Trial
from .tasks import Answers, Embeddings
from .trials import Lab, in_eval_mode

BY = ("throughput", "flops")
FEWEST = 12  # images
SEARCH = 3  # one image in so many is for the search, the others for checking


class Tuned(NamedTuple):
    """What `tune` found: `apply_vtp(model, tuned.config)`, `tuned.report.print()`."""

    config: VTPConfig
    report: TuneReport


def tune(
    model: nn.Module,
    images: Sequence[Image] | Sequence[Mapping[str, Tensor]] | Tensor,
    target: float,
    *,
    processor: Callable | None = None,
    questions: str | Sequence[str] | None = None,
    max_new_tokens: int = 16,
    methods: Sequence[str] = METHODS_TRIED,
    layers: Sequence[int | Sequence[int] | str | None] | None = None,
    schedules: Sequence[str] = tuple(SCHEDULES),
    by: str = "throughput",
    confidence: float = 0.95,
    budget: int = 60,
    batch_size: int = 8,
    rounds: int = 7,
    seed: int = 0,
    progress: bool = True,
    **fields,
) -> Tuned:
    """The VTPConfig that makes `model` fastest at a quality of at least `target`, from images without labels.

    Quality is likeness to the unpruned model. Of a CLIP it is the mean cosine of image embeddings; of a model
    that answers, the share of prompts whose greedy answer is the same, token by token.

    A third of the images is for the search: by method and place (a layer, several that share the reduction by
    a schedule, behind the tower) it bisects the ratio, and leaves a place early if by FLOPs it cannot beat
    the best so far. The rest guards against what fits those images only: of the finalists, from the safest
    on, each must show on it that the lower bound of its mean quality is at or above the target, and the last
    before the first that does not is returned. So with `confidence` the target holds for images of the same
    kind. The bound is Student's t for a cosine, Clopper and Pearson's for an agreement. If nothing meets the
    target, or nothing that does is faster than no pruning, `config.keep_ratio` is 1.0 and the report says so.

    The model is left as it was found, pruned or not, after errors and interrupts too. With `by="flops"` the
    same `seed` gives the same config; else two that are about as fast may change places.

    Args:
        images: PIL images, with the `processor` that the model's script has; or dicts as a processor returns
            them, for a model that answers one dict for a prompt or a batch padded on the left; or of a CLIP a
            tensor of pixel values [n, 3, height, width]. At least 12; a few hundred give narrow bounds.
        target: in (0, 1).
        questions: what to ask of PIL images, one text or one for each. It is put into the processor's chat
            template, or is the whole prompt if it holds the image's placeholder.
        max_new_tokens: of an answer.
        methods, layers, schedules: what is tried. A layer is one of VTPConfig's: an int, a list of them,
            "output", or None for a method's own place; by default some of each. Schedules are "geometric"
            and "linear", and matter to lists of layers.
        by: what is least in the end, time ("throughput": medians of `rounds` interleaved rounds after two
            more to warm up, of one batch on this machine) or "flops", the same on every machine.
        budget: how many configs the search may try; the finalists' safer neighbours come on top.
        batch_size: of PIL images and pixel values.
        fields: further fields of VTPConfig that all candidates have, such as `positions` or `min_keep`.

    Raises ValueError or TypeError for a model, images or options that cannot be used, and where an agreement
    cannot be shown with so few images; ImportError without the packages of the `bench` extra.
    """
    for name in ("scipy", "rich"):
        if importlib.util.find_spec(name) is None:
            raise ImportError(f'tune needs {name}; run pip install "hf-vtp[bench]"')
    _check_numbers(target, confidence, by, max_new_tokens, budget, batch_size, rounds)
    root = unwrap(model)
    with_prompt = reads_text(root)
    if with_prompt and not hasattr(root, "generate"):
        raise TypeError(f"{type(root).__name__} writes no answers; give the model with its language head")
    base = VTPConfig().replace(**fields).replace(keep_ratio=1.0)
    candidates = make_candidates(root, methods, layers, schedules, base)
    items = make_items(images, questions, with_prompt)
    parts = _parts(items, seed, processor, batch_size, with_prompt)
    task = Answers(root, max_new_tokens) if with_prompt else Embeddings(root)
    if with_prompt:
        _check_number_of_prompts(sum(map(num_rows, parts["check"])), target, confidence)
    with (
        unpruned(root),
        in_eval_mode(root),
        tqdm(unit="batch", disable=not progress, leave=False) as bar,
    ):
        lab = Lab(root, task, parts, bar, seed)
        search = Search(lab, target, confidence, budget, SLACK if by == "throughput" else 0.0)
        search.run(candidates)
        finalists = list(search.finalists())
        speed, cost, whole = None, lambda trial: trial.flops, search.whole
        if by == "throughput" and finalists:
            speed = _time(finalists, lab, rounds)
            cost, whole = lambda trial: 1 / trial.per_second, 1 / speed
        chosen = walk(front(finalists, cost, whole), lab, target, confidence)
    config = chosen.config if chosen else base.replace(max_keep=None)  # which prunes at 1.0, too
    report = TuneReport(
        quality=task.quality,
        target=target,
        confidence=confidence,
        by=by,
        seed=seed,
        num_images=lab.num,
        num_candidates=len(candidates),
        budget_left=max(0, search.left),
        whole_flops=search.whole,
        whole_per_second=speed,
        environment=environment(root.device),
        trials=list(search.trials.values()),
    )
    return Tuned(made_for(root, config), report)


def _check_numbers(target, confidence, by, max_new_tokens, budget, batch_size, rounds) -> None:
    if not isinstance(target, int | float) or not 0 < target < 1:
        raise ValueError(f"target must be a number between 0 and 1, both excluded, not {target!r}")
    if not isinstance(confidence, int | float) or not 0.5 <= confidence < 1:
        raise ValueError(f"confidence must be a number from 0.5 on and below 1, not {confidence!r}")
    if by not in BY:
        raise ValueError(f"unknown by {by!r}; choose from {list(BY)}")
    told = {"max_new_tokens": max_new_tokens, "budget": budget, "batch_size": batch_size, "rounds": rounds}
    for name, value in told.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")


def _check_number_of_prompts(num: int, target: float, confidence: float) -> None:
    wanted = fewest(target, confidence)
    if num < wanted:
        raise ValueError(
            f"an agreement of {target:g} at confidence {confidence:g} takes {wanted} prompts to check, and "
            f"there are {num}; give at least {ceil(wanted * SEARCH / (SEARCH - 1))} in all, or a lower "
            "target or confidence"
        )


def _parts(
    items: list[Item], seed: int, processor: Callable | None, batch_size: int, with_prompt: bool
) -> dict[str, list[dict]]:
    """The items shuffled by the seed, those for the search and those for checking, in batches."""
    Random(seed).shuffle(items)
    cut = len(items) // SEARCH
    cuts = {"search": items[:cut], "check": items[cut:]} if cut else {}
    parts = {name: batches(part, processor, batch_size, with_prompt) for name, part in cuts.items()}
    num = sum(map(num_rows, (batch for part in parts.values() for batch in part)))
    if num < FEWEST:
        raise ValueError(
            f"tune needs at least {FEWEST} images, or prompts in at least {SEARCH} dicts; give more"
        )
    return parts


def _time(trials: list[Trial], lab: Lab, rounds: int) -> float:
    """Measure every trial's `per_second`; returns that of the unpruned model."""
    lab.bar.set_description("speed")
    whole, *rest = lab.per_second([None, *(trial.config for trial in trials)], rounds)
    for trial, per_second in zip(trials, rest, strict=True):
        trial.per_second = per_second
    return whole
