# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Derivatives: of matrix products by the same products; everything else refuses."""

import pytest
import torch

import bi_torch
from support import assert_same_bytes, random


def leaf(*shape, dtype=torch.float32, device="cpu", seed=0):
    return random(*shape, dtype=dtype, device=device, seed=seed).requires_grad_()


def test_mm(device):
    a, b = leaf(3, 4, device=device), leaf(4, 5, device=device, seed=1)
    g = random(3, 5, dtype=torch.float32, device=device, seed=2)
    bi_torch.mm(a, b).backward(g)
    assert_same_bytes(a.grad, bi_torch.mm(g, b.detach().T))
    assert_same_bytes(b.grad, bi_torch.mm(a.detach().T, g))


@pytest.mark.parametrize("added", [(), (5,), (3, 1), (3, 5)])
def test_addmm(added, device):
    c, a, b = leaf(*added, device=device, seed=3), leaf(3, 4, device=device), leaf(4, 5, device=device, seed=1)
    g = random(3, 5, dtype=torch.float32, device=device, seed=2)
    grads = torch.autograd.grad(bi_torch.addmm(c, a, b, alpha=0.5, beta=2.0), (c, a, b), g)
    exact = torch.autograd.grad(torch.addmm(c, a, b, alpha=0.5, beta=2.0), (c, a, b), g)
    for x, y in zip(grads, exact):
        torch.testing.assert_close(x, y)


def test_bmm_baddbmm_and_linear_twice(device):
    a, b = leaf(2, 3, 4, device=device), leaf(2, 4, 5, device=device, seed=1)
    c = leaf(2, 3, 5, device=device, seed=3)  # as large as the result: sums have no derivative
    w = leaf(6, 5, device=device, seed=4)

    def f(bi):
        bmm, baddbmm, linear = (
            (bi_torch.bmm, bi_torch.baddbmm, bi_torch.linear)
            if bi
            else (torch.bmm, torch.baddbmm, torch.nn.functional.linear)
        )
        return linear(bmm(a, b) * baddbmm(c, a, b, alpha=0.5, beta=0.25), w)

    for x, y in zip(
        *(torch.autograd.grad(f(bi).square().sum(), (a, b, c, w), create_graph=True) for bi in (True, False))
    ):
        torch.testing.assert_close(x, y)
    second = [
        torch.autograd.grad(torch.autograd.grad(f(bi).square().sum(), a, create_graph=True)[0].sum(), w)[0]
        for bi in (True, False)
    ]
    torch.testing.assert_close(*second, rtol=1e-4, atol=1e-4)


def test_only_what_is_needed(device):
    a, b = random(3, 4, device=device), leaf(4, 5, dtype=torch.bfloat16, device=device)
    bi_torch.mm(a, b).sum().backward()
    assert b.grad is not None and a.grad is None


REFUSING = {
    "rms_norm": lambda x: bi_torch.rms_norm(x),
    "add_rms_norm": lambda x: bi_torch.add_rms_norm(x, x),
    "softmax": lambda x: bi_torch.softmax(x),
    "log_softmax": lambda x: bi_torch.log_softmax(x),
    "sum": lambda x: bi_torch.sum(x),
    "mean": lambda x: bi_torch.mean(x, 0),
    "scaled_dot_product_attention": lambda x: bi_torch.scaled_dot_product_attention(x, x, x),
    "kv_append": lambda x: bi_torch.kv_append(
        *[torch.zeros(2, 4, 1, 64, dtype=x.dtype, device=x.device)] * 2,
        *[x[:, None, :]] * 2,
        torch.arange(4, device=x.device),
    ),
    "sample": lambda x: bi_torch.sample(
        x,
        temperature=torch.ones(4, device=x.device),
        seed=torch.arange(4, device=x.device),
        ordinal=torch.ones(4, dtype=torch.int32, device=x.device),
    ),
}


@pytest.mark.parametrize("name", REFUSING)
@pytest.mark.parametrize("where", ["meta", "device"])
def test_everything_else_refuses(name, where, device):
    x = leaf(4, 64, dtype=torch.bfloat16, device="meta" if where == "meta" else device)
    with pytest.raises(RuntimeError, match=f"bi::{name} has no derivative"):
        REFUSING[name](x)
    with torch.no_grad():
        REFUSING[name](x.detach())
