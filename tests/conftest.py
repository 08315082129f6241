"""No network, one thread, and the same random numbers for every test; which tests every release runs."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported

import pytest  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

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
# what a release of Transformers can break; the maths of methods and the hf_vtp.measure tools it cannot
CORE = (
    "test_blocks",
    "test_canary",
    "test_clip",
    "test_eval",
    "test_hub.py",
    "test_hub_push",
    "test_hub_remembered",
    "test_llava",
    "test_methods_models",
    "test_pickles",
    "test_qwen",
    "test_testbed.py",
    "test_verify",
    "test_vlm",
    "test_wrappers",
)
# of each kind of method one: the default, one that drops, that merges, that counts, that reads the prompt
KINDS = ("vtp", "qk_topk", "tome", "dynamic", "cdpruner")

torch.set_num_threads(1)  # tiny models gain nothing from a second thread, and lose much where it has to wait


def pytest_report_header():
    return f"torch {torch.__version__}, transformers {transformers.__version__}"


def pytest_collection_modifyitems(items):
    from hf_vtp.methods import METHODS

    for item in items:
        if item.path.name.startswith(TOUCH_MODELS):
            item.add_marker(pytest.mark.models)
        given = getattr(item, "callspec", None)
        methods = (
            {x for x in given.params.values() if isinstance(x, str) and x in METHODS} if given else set()
        )
        if item.path.name.startswith(CORE) and methods <= set(KINDS):
            item.add_marker(pytest.mark.core)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
