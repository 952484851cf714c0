# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What the machine has."""
import os


def processors():
    """That this process may use."""
    return len(os.sched_getaffinity(0))
