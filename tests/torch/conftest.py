# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Tests of examples/torch. They need PyTorch and the built package; see docs/pytorch.md.

python -m pytest tests/torch [--bi-torch build/torch]

What runs on both the GPU and the library's CPU reference has the parameter `device`; without a GPU that half is
skipped.
"""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def pytest_addoption(parser):
    parser.addoption(
        "--bi-torch", default=str(ROOT / "build" / "torch"), help="the folder with the built package bi_torch"
    )


def pytest_configure(config):
    sys.path.insert(0, str(pathlib.Path(config.getoption("--bi-torch")).resolve()))
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))


def missing():
    try:
        import torch  # noqa: F401
    except ImportError as e:
        return f"PyTorch is not here: {e}"
    try:
        import bi_torch  # noqa: F401
    except ImportError as e:
        return f"bi_torch is not built, or not in --bi-torch: {e}"
    return ""


def pytest_ignore_collect(collection_path, config):
    name = collection_path.name
    if name.startswith("test_") and name != "test_installed.py" and missing():
        return True
    return None


def pytest_report_header(config):
    reason = missing()
    if reason:
        return f"bi_torch: nothing will run. {reason}"
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU, those tests are skipped"
    return f"bi_torch: PyTorch {torch.__version__}, {gpu}"


NO_GPU = "no GPU of compute capability 9.0 here"


def _has_gpu():
    import torch

    return torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    if request.param == "cuda" and not _has_gpu():
        pytest.skip(NO_GPU)
    return request.param


@pytest.fixture
def gpu():
    if not _has_gpu():
        pytest.skip(NO_GPU)
    return "cuda"
