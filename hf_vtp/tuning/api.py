"""hf_vtp.tune: the fastest pruning of a model that keeps a quality, found on unlabelled images."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from random import Random
from typing import TYPE_CHECKING, NamedTuple

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

if TYPE_CHECKING:
    from .measurements import Measurements

BY = ("throughput", "flops")
FEWEST = 12  # images
SEARCH = 3  # one image in so many is for the search, the others for checking


class Tuned(NamedTuple):
    """The result of `tune`: `apply_vtp(model, tuned.config)`, `tuned.report.print()`."""

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

    Quality is similarity to the unpruned model: the mean cosine of image embeddings (of a
    classifier: of logits), or the share of prompts to which a model gives the same greedy answer, token by
    token.

    A third of the images is for the search: for each method and place (a layer, several that share the
    reduction by a schedule, after the tower) it bisects the ratio, and abandons a place early if by FLOPs it
    cannot beat the best so far. The other images guard against a config that fits the first ones only: each
    finalist, from the safest on, must show on them that the lower bound of its mean quality is at or above
    the target, and the last before the first that does not is returned. So with `confidence` the target holds
    for images of the same kind. The bound is Student's t for a cosine, Clopper and Pearson's for an
    agreement. If nothing meets the target, or nothing that does is faster than no pruning,
    `config.keep_ratio` is 1.0 and the report says so.

    Afterwards the model is pruned as before, or not, after errors and interrupts too. With `by="flops"` the
    same `seed` gives the same config; by throughput, two that are about as fast may change places.

    Args:
        images: PIL images, with the `processor` that the model's script has; or dicts as a processor returns
            them, for a model that answers one dict for a prompt or for a batch padded on the left; or for a
            model without text a tensor of pixel values [n, 3, height, width]. At least 12; a few hundred give
            narrow bounds.
        target: in (0, 1).
        questions: asked about PIL images, one text or one for each. A question is put into the processor's
            chat template, or is the whole prompt if it holds the image's placeholder.
        max_new_tokens: of an answer.
        methods, layers, schedules: the candidates. A layer is one of VTPConfig's: an int, a list of them,
            "output", or None for a method's own place; by default some of each. Schedules are "geometric"
            and "linear", and matter to lists of layers.
        by: the cost to minimise, time ("throughput": medians of `rounds` interleaved rounds after two for
            warming up, of one batch on this machine) or "flops", the same on every machine.
        budget: how many configs the search may try; the finalists' safer neighbours are extra.
        batch_size: of PIL images and pixel values.
        fields: further fields of VTPConfig that all candidates have, such as `positions` or `min_keep`.

    Raises ValueError or TypeError for a model, images or options that cannot be used, and where an agreement
    cannot be shown with so few images; ImportError without the packages of the `bench` extra.
    """
    for name in ("scipy", "rich"):
        if importlib.util.find_spec(name) is None:
            raise ImportError(f'tune needs {name}; run pip install "hf-vtp[bench]"')
    from .measurements import Measurements, in_eval_mode  # here: it imports the tools for FLOPs and timing

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
        measurements = Measurements(root, task, parts, bar, seed)
        search = Search(measurements, target, confidence, budget, SLACK if by == "throughput" else 0.0)
        search.run(candidates)
        finalists = list(search.finalists())
        speed, cost, unpruned_cost = None, lambda trial: trial.flops, search.unpruned
        if by == "throughput" and finalists:
            speed = _time(finalists, measurements, rounds)
            cost, unpruned_cost = lambda trial: 1 / trial.per_second, 1 / speed
        chosen = walk(front(finalists, cost, unpruned_cost), measurements, target, confidence)
    config = chosen.config if chosen else base.replace(max_keep=None)  # max_keep prunes at ratio 1.0, too
    report = TuneReport(
        quality=task.quality,
        target=target,
        confidence=confidence,
        by=by,
        seed=seed,
        num_images=measurements.num,
        num_candidates=len(candidates),
        budget_left=max(0, search.budget),
        unpruned_flops=search.unpruned,
        unpruned_per_second=speed,
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
    counts = {"max_new_tokens": max_new_tokens, "budget": budget, "batch_size": batch_size, "rounds": rounds}
    for name, value in counts.items():
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
    """The items, shuffled by the seed, for the search and for checking, in batches."""
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


def _time(trials: list[Trial], measurements: Measurements, rounds: int) -> float:
    """Measure every trial's `per_second`; returns that of the unpruned model."""
    measurements.bar.set_description("speed")
    speed, *others = measurements.per_second([None, *(trial.config for trial in trials)], rounds)
    for trial, per_second in zip(trials, others, strict=True):
        trial.per_second = per_second
    return speed
