# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Every operation in a CUDA graph: captured, and replayed over other contents."""

import pytest
import torch

from support import assert_same_bytes
from test_registration import CALLS, as_tuple, calls


@pytest.mark.parametrize("i", CALLS, ids=lambda i: f"{i}")
def test_replay(i, gpu):
    op, args = calls(gpu)[i]
    inputs = [x for x in args if isinstance(x, torch.Tensor) and x.is_floating_point()]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        op(*args)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = op(*args)
    for x in inputs:
        if x.is_contiguous():
            x.mul_(0.5)
    graph.replay()
    torch.cuda.synchronize()
    for a, b in zip(as_tuple(captured), as_tuple(op(*args))):
        if a is not None:
            assert_same_bytes(a, b)


def test_the_current_stream_is_used(gpu):
    op, args = calls(gpu)[0]
    expected = op(*args)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        args[0].zero_()
        out = op(*args)  # behind the zeros
    stream.synchronize()
    assert not out.any() and expected.any()
