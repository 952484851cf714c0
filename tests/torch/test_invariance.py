# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""A row alone against the same row in a batch, by bytes. Each kind of test has a control that must move."""

import pytest
import torch

import bi_torch
from support import DTYPES, HALF, follows_the_batch, random, rows_that_move

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
half_types = pytest.mark.parametrize("dtype", HALF, ids=lambda d: str(d)[6:])


def sizes(device):
    if device == "cpu":
        return (1, 2, 3, 5, 17)
    return (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 128, 129, 255, 257, 512, 1024)


def lengths(device):
    return (1, 2, 3, 64, 200) if device == "cpu" else (1, 2, 3, 64, 1000, 4096, 11008)


def rows(n, cols, dtype, device):
    return random(n, cols, dtype=dtype, seed=cols).to(device)


def test_control(device):
    assert rows_that_move(follows_the_batch, rows(17, 200, torch.float32, device), sizes(device))


def test_control_of_products(gpu):
    """PyTorch's own product follows the batch; if it did not, the tests here would say nothing."""
    moved = []
    for n, k in ((4096, 4096), (1024, 11008), (512, 4096)):
        w = random(n, k, seed=n).to(gpu)
        moved += rows_that_move(
            lambda x, w=w: torch.nn.functional.linear(x, w), rows(1024, k, torch.bfloat16, gpu), sizes(gpu)
        )
    assert moved


@dtypes
def test_products(dtype, device):
    batch = max(sizes(device))
    widths = (1, 3, 24) if device == "cpu" else (1, 3, 24, 512, 4096)
    for k in lengths(device):
        if dtype == torch.float32 and k > 4096:
            continue  # fp32 products are slow
        x = rows(batch, k, dtype, device)
        for n in widths[:4] if dtype == torch.float32 else widths:
            w = random(n, k, dtype=dtype, seed=n).to(device)
            bias = random(n, dtype=dtype, seed=1).to(device)
            assert not rows_that_move(lambda x: bi_torch.linear(x, w), x, sizes(device)), (n, k)
            assert not rows_that_move(lambda x: bi_torch.linear(x, w, bias), x, sizes(device)), (n, k)
            assert not rows_that_move(lambda x: bi_torch.mm(x, w.T.contiguous()), x, sizes(device)), (n, k)
            assert not rows_that_move(lambda x: bi_torch.bmm(x[:, None], w.T.expand(len(x), k, n)), x, (1, 2, 5)), (
                n,
                k,
            )


@dtypes
def test_rows(dtype, device):
    batch = max(sizes(device))
    for cols in lengths(device):
        x = rows(batch, cols, dtype, device)
        w = random(cols, dtype=dtype, seed=1).to(device)
        for operation in (
            lambda x: bi_torch.rms_norm(x, w),
            lambda x: bi_torch.add_rms_norm(x, x.neg().exp(), w)[0],
            lambda x: bi_torch.softmax(x),
            lambda x: bi_torch.log_softmax(x, dtype=torch.float32),
            lambda x: bi_torch.sum(x, -1),
            lambda x: bi_torch.mean(x, -1),
            lambda x: bi_torch.sum(x.T.contiguous(), 0),
            lambda x: bi_torch.mean(x.T, 0),
        ):
            assert not rows_that_move(operation, x, sizes(device)), cols


@half_types
def test_attention(dtype, device):
    batch, tokens = (3, 40) if device == "cpu" else (17, 1500)
    q, k, v = (random(batch, h, tokens, 64, dtype=dtype, seed=s).to(device) for s, h in ((1, 4), (2, 2), (3, 2)))
    attend = bi_torch.scaled_dot_product_attention
    whole = attend(q, k, v, is_causal=True, enable_gqa=True)
    for n in (1, 2, batch):
        part = attend(q[:n], k[:n], v[:n], is_causal=True, enable_gqa=True)
        assert torch.equal(part[0].view(torch.int16), whole[0].view(torch.int16))
    # Computed with all the prompt or as the only new token: the same row.
    for t in (0, 1, tokens // 2, tokens - 1):
        one = attend(q[:, :, t : t + 1], k[:, :, : t + 1], v[:, :, : t + 1], enable_gqa=True)
        assert torch.equal(one[:, :, 0].view(torch.int16), whole[:, :, t].view(torch.int16)), t
