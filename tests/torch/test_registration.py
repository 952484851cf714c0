# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What PyTorch knows of the operations: schemas, fake kernels against real results, and torch.compile."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import bi_torch
from support import assert_same_bytes, random


def calls(device):
    """(operation, arguments): some of each operation, of shapes and strides that differ."""
    bi = torch.ops.bi
    x = random(4, 6, device=device)
    w = random(6, 5, device=device, seed=1)
    f = random(3, 4, 6, dtype=torch.float32, device=device)
    q = random(2, 4, 3, 64, dtype=torch.float16, device=device)
    k = random(2, 2, 7, 64, dtype=torch.float16, device=device)
    cache = random(4, 8, 2, 64, device=device)
    ints = dict(dtype=torch.int32, device=device)
    pages, lengths = torch.tensor([[2, 0], [1, -1]], **ints), torch.tensor([11, 4], **ints)
    rows = torch.tensor([0, 1, 3], **ints)
    params = (
        torch.tensor([0.5] * 4, device=device),
        torch.arange(4, device=device),
        torch.tensor([1, 2, 3, 4], **ints),
    )
    return [
        (bi.mm, (x, w)),
        (bi.mm, (w.T, x.T, 2)),
        (bi.mm, (f[0], f[1].T, 1)),
        (bi.addmm, (w[0], x, w)),
        (bi.addmm, (random(4, 1, device=device), x, w, 0.5, 2.0, 1)),
        (bi.bmm, (f, f.mT)),
        (bi.baddbmm, (f[:, :, :4], f, f.mT, 1.0, 1.0)),
        (bi.linear, (x.expand(2, 4, 6), w.T, w[0])),
        (bi.linear, (x.T.contiguous().T[0], w.T, None, 4)),
        (bi.rms_norm, (f, f[0, 0], 1e-6)),
        (bi.rms_norm, (x.T, None, 1e-6, True)),
        (bi.add_rms_norm, (x, x.flip(0), w[:, 0], 1e-5)),
        (bi.softmax, (f, 1)),
        (bi.softmax, (x, -1, torch.float32)),
        (bi.log_softmax, (x.T, 0)),
        (bi.sum, (f,)),
        (bi.sum, (f, [1], True)),
        (bi.mean, (x, [0], False, torch.float32)),
        (bi.mean, (f.mT, [0, 2])),
        (bi.scaled_dot_product_attention, (q, k, k.flip(0), 0, None)),
        (bi.scaled_dot_product_attention, (q.transpose(1, 2).contiguous().transpose(1, 2), k, k, 1, 0.3)),
        (bi.paged_attention, (random(2, 4, 64, device=device), cache, cache, pages, lengths, None, 1, 16, 0.1)),
        (
            bi.paged_attention,
            (random(3, 4, 64, device=device), cache, cache, pages, lengths, rows, 2, 16, 0.1, True, 5),
        ),
        (bi.sample, (random(4, 9, device=device), *params)),
        (bi.sample, (random(4, 9, dtype=torch.float32, device=device), *params, params[2], None, params[0])),
        (
            bi.kv_append,
            (
                cache.clone(),
                cache.clone(),
                *[random(2, 2, 64, device=device)] * 2,
                torch.tensor([5, -1], device=device),
            ),
        ),
    ]


def test_all_operations_are_called_here():
    here = {op._qualified_op_name for op, _ in calls("cpu")}
    registered = {n.partition(".")[0] for n in torch._C._dispatch_get_all_op_names() if n.startswith("bi::")}
    assert here == registered
    for name in registered:
        for key in ("CPU", "CUDA", "Meta"):
            assert torch._C._dispatch_has_kernel_for_dispatch_key(name, key), (name, key)


def as_tuple(x):
    return x if isinstance(x, tuple) else (x,)


CALLS = range(len(calls("cpu")))


@pytest.mark.parametrize("i", CALLS, ids=lambda i: f"{i}")
def test_fake_results_are_like_real_ones(i, device):
    op, args = calls(device)[i]
    real = as_tuple(op(*args))
    mode = FakeTensorMode()
    to_fake = lambda x: mode.from_tensor(x) if isinstance(x, torch.Tensor) else x  # noqa: E731
    with mode:
        fake = as_tuple(op(*map(to_fake, args)))
    meta = as_tuple(op(*(x.to("meta") if isinstance(x, torch.Tensor) else x for x in args)))
    for r, *others in zip(real, fake, meta):
        for other in others:
            if r is None:
                assert other is None
                continue
            assert (r.shape, r.dtype, r.stride()) == (other.shape, other.dtype, other.stride()), op


@pytest.mark.parametrize("i", CALLS, ids=lambda i: f"{i}")
def test_opcheck(i, device):
    op, args = calls(device)[i]
    torch.library.opcheck(op.default, args)


def block(x, w, norm, q, k):
    h = bi_torch.rms_norm(x, norm)
    h = torch.nn.functional.silu(bi_torch.linear(h, w)) + 1
    h = bi_torch.log_softmax(h, 0) + bi_torch.sum(h, 0, True)
    return h, bi_torch.scaled_dot_product_attention(q, k, k[..., :40], enable_gqa=True) * 2


def block_arguments(rows, device="cpu"):
    x, w, norm = random(rows, 6, device=device), random(8, 6, device=device), random(6, device=device)
    q, k = random(2, 4, rows, 48, device=device), random(2, 2, rows + 2, 48, device=device)
    return x, w, norm, q, k


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_traces_the_operations(dynamic, device):
    compiled = torch.compile(block, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for rows in (3, 4, 9):
        for a, b in zip(compiled(*block_arguments(rows, device)), block(*block_arguments(rows, device))):
            assert_same_bytes(a, b)


def test_fake_gpu_tensors_trace_without_a_gpu():
    with FakeTensorMode():
        h, out = block(*(torch.empty(x.shape, dtype=x.dtype, device="cuda") for x in block_arguments(5)))
    assert h.device.type == out.device.type == "cuda"
    assert h.shape == (5, 8) and out.shape == (2, 4, 5, 40)


def test_compiled_derivatives_are_those_of_the_operation(device):
    def loss(x, w, bias):
        return torch.nn.functional.gelu(bi_torch.linear(x, w, bias))

    def grads(f):
        x, w, bias = (random(*s, device=device).requires_grad_() for s in ((5, 6), (4, 6), (4,)))
        f(x, w, bias).backward(random(5, 4, device=device, seed=9))
        return x.grad, w.grad, bias.grad

    for a, b in zip(grads(torch.compile(loss, fullgraph=True, backend="aot_eager")), grads(loss)):
        assert_same_bytes(a, b)
