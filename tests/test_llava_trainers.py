"""A pruned LLaVA in the hands of what trains it: DDP over two processes, the Trainer, an Accelerator."""

import math

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from lora import with_lora
from transformers import Trainer, TrainingArguments
from two_processes import DROP, STEPS, batch, gradients, train
from vlm import Llava

from hf_vtp import apply_vtp, vtp_stats

CLOSE = dict(atol=1e-5, rtol=1e-5)
pytestmark = pytest.mark.models
PARTS = ("vision_tower", "projector", "language_model")


@pytest.fixture(autouse=True)
def accelerator_state():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)  # singletons: the next test makes its own


# DDP


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this torch has no gloo")
def test_ddp_averages_the_gradients_of_ranks_with_different_images(tmp_path):
    torch.multiprocessing.spawn(train, (str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    with torch.no_grad():
        plain = Llava.model()(**batch((1, 0))).logits
    for i, step in enumerate(STEPS):
        alone = []
        for rank, rows in enumerate(step):
            model = apply_vtp(Llava.model(), **DROP).train()
            model(**batch(rows, seed=rank)).loss.backward()
            alone.append(gradients(model))
        names = alone[0].keys() | alone[1].keys()
        assert all(any(part in name for name in names) for part in PARTS)
        for order in ("before", "after"):
            first, second = (results[order][0][i] for results in ranks)
            for name in names:
                mean = sum(grads.get(name, torch.zeros(())) for grads in alone) / 2
                assert first[name].isfinite().all() and torch.equal(first[name], second[name]), name
                torch.testing.assert_close(first[name], mean, **CLOSE, msg=name)
    for order in ("before", "after"):
        (_, first, one), (_, second, two) = (results[order] for results in ranks)
        assert (first, second) == ([14], [14] * 4)  # of each rank's last forward with images
        assert torch.equal(one, plain) and torch.equal(two, plain)


# the Trainer


def examples():
    """Two prompts of one length with an image each."""
    inputs = batch((1, 1))
    return [{name: x[i] for name, x in inputs.items()} for i in range(2)]


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("order", ["alone", "lora", "lora after"])
def test_one_step_of_the_trainer(order, checkpointed, tmp_path):
    model = Llava.model()
    if order == "lora":
        model = with_lora(model)
    apply_vtp(model, **DROP)
    if order == "lora after":
        model = with_lora(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    expected = model(**batch((1, 1))).loss.item()
    arguments = TrainingArguments(
        output_dir=tmp_path,
        use_cpu=True,
        max_steps=1,
        per_device_train_batch_size=2,
        learning_rate=0.01,
        report_to=[],
        save_strategy="no",
        gradient_checkpointing=checkpointed,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        label_names=["labels"],
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=examples(), eval_dataset=examples())
    loss = trainer.train().training_loss
    assert math.isfinite(loss) and abs(loss - expected) < 1e-4
    assert vtp_stats(model).num_kept == [14, 14]
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert all(any(part in name for name in changed) for part in PARTS)
    assert all(p.isfinite().all() for p in model.parameters())
    if order != "alone":
        assert all("lora_" in name for name in changed)
    assert trainer.evaluate()["eval_loss"] < loss
    trainer.save_model(tmp_path / "saved")
    assert not any("vtp" in name for name in model.state_dict())


# a loop around an Accelerator


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_loop_around_an_accelerator(order, precision):
    model, plain = Llava.model().train(), apply_vtp(Llava.model(), **DROP).train()
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    if order == "before":
        apply_vtp(model, **DROP)
    prepared, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.01))
    if order == "after":
        apply_vtp(prepared, **DROP)
    loss = prepared(**batch((1, 0, 2))).loss
    accelerator.backward(loss)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        expected = plain(**batch((1, 0, 2))).loss
    expected.backward()
    torch.testing.assert_close(loss, expected.float(), atol=1e-3 if precision == "bf16" else 1e-6, rtol=1e-4)
    if precision == "no":
        assert all(
            torch.equal(g, h)
            for g, h in zip(gradients(model).values(), gradients(plain).values(), strict=True)
        )
    assert all(g.isfinite().all() for g in gradients(model).values())
    optimizer.step()
    assert prepared(**batch((1, 0, 2))).loss < loss
    assert vtp_stats(prepared).stages[0].scores[0].dtype == torch.float32
