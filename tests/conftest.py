"""No network, two threads in all, and the same random numbers for every test."""

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

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


def pytest_report_header():
    return f"torch {torch.__version__}, transformers {transformers.__version__}"


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.name.startswith(TOUCH_MODELS):
            item.add_marker(pytest.mark.models)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def one_thread():
    """Small numbers gain nothing from a second thread, and wait for it where others use the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
