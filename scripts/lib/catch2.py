# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What scripts know of Catch2's command line."""


def pattern(name):
    """What a test program runs the test case of exactly this name by."""
    return "".join("\\" + c if c in ',[]"\\*~' else c for c in name)


def nothing_matched(output):
    """Catch2 2 ends with success then; its option against that is an error to Catch2 3."""
    return "No test cases matched" in output
