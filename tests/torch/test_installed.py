# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Where something is missing the other files are left out, and this one says what."""

import pytest

from conftest import missing


def test_pytorch_and_the_package_are_here():
    if missing():
        pytest.skip(missing())
