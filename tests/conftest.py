"""No network, one thread, and the same random numbers for every test; which tests every release runs."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported

import load_script  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from transformers.utils import logging  # noqa: E402

TOUCH_MODELS = (
    "test_clip",
    "test_hub",
    "test_llava",
    "test_methods",
    "test_qwen",
    "test_testbed",
    "test_tune",
    "test_vlm",
)
# what a release of Transformers can break; the maths of methods and the hf_vtp.tools.bench tools it cannot
CORE = (
    "test_blocks",
    "test_canary",
    "test_clip",
    "test_eval",
    "test_families.py",
    "test_hub.py",
    "test_hub_push",
    "test_hub_remembered",
    "test_llava",
    "test_methods_models",
    "test_own_rows",
    "test_pickles",
    "test_qwen",
    "test_testbed.py",
    "test_verify",
    "test_vlm",
    "test_wrappers",
)
SLOW = (  # seconds each, and the same on every release
    "test_a_model_is_pruned_measured_and_pushed_with_its_card",
    "test_a_stopped_training_ends_where_an_unbroken_one_does",
    "test_a_push_that_was_killed_while_measuring_runs_again",
    "test_changes_reach_a_compiled_model",
    "test_compiled_towers_of_adaptive_methods_are_right",
    "test_ddp_averages_the_gradients_of_ranks_with_different_images",
    "test_hooks_break_qwens_graph_in_one_place",
    "test_two_processes_give_the_same_numbers",
)
# of each kind of method one: the default, one that drops, that merges, that counts, that reads the prompt
KINDS = ("vtp", "qk_topk", "tome", "dynamic", "cdpruner")
OTHER_KINDS = (
    "adaptive",
    "two stages",
)  # of test_families.py, whose core are one that drops and one that absorbs

torch.set_num_threads(1)  # tiny models gain nothing from a second thread, and lose much where it has to wait


def pytest_report_header():
    return f"torch {torch.__version__}, transformers {transformers.__version__}"


def pytest_collection_modifyitems(items):
    from hf_vtp.methods.table import METHODS

    for item in items:
        if item.path.name.startswith(TOUCH_MODELS):
            item.add_marker(pytest.mark.models)
        given = getattr(item, "callspec", None)
        methods = (
            {x for x in given.params.values() if isinstance(x, str) and x in METHODS} if given else set()
        )
        core = item.path.name.startswith(CORE) and item.originalname not in SLOW
        core = core and not (given and given.params.get("method") in OTHER_KINDS)
        if core and methods <= set(KINDS):
            item.add_marker(pytest.mark.core)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def bench(capsys):
    """Runs a script in this process: exit code, stdout and stderr."""

    def run(script, *argv):
        capsys.readouterr()
        code = load_script.run(script, *argv)
        done = capsys.readouterr()
        return code, done.out, done.err

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)
    logging.set_verbosity_warning()
    logging.enable_progress_bar()
