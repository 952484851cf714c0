# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What the tests share: random tensors, comparison of bytes, and invariance of rows."""

import torch

import bi_torch

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
HALF = (torch.bfloat16, torch.float16)
# Relative to the sum of the products' magnitudes, or to the result: a few roundings of the type.
TOLERANCE = {torch.bfloat16: 2**-7, torch.float16: 2**-10, torch.float32: 2**-20}


def random(*shape, dtype=torch.bfloat16, device="cpu", seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * scale).to(dtype).to(device)


def bytes_of(x):
    """torch.equal takes -0 for +0, and NaN for different from itself."""
    return x.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def assert_same_bytes(a, b):
    assert a.shape == b.shape and a.dtype == b.dtype, f"{a.shape} {a.dtype} and {b.shape} {b.dtype}"
    x, y = bytes_of(a), bytes_of(b)
    different = (x != y).nonzero()
    assert len(different) == 0, f"{len(different)} bytes differ, the first at {different[0].tolist()}"


def same_bytes(a, b):
    return a.shape == b.shape and bool((bytes_of(a) == bytes_of(b)).all())


def assert_close(x, exact, bound):
    """|x - exact| <= bound, of tensors in float64."""
    error = (x.detach().double().cpu() - exact).abs()
    worst = (error - bound).max().item() if error.numel() else 0
    assert not error.isnan().any() and worst <= 0, f"off by {error.max().item()}, {worst} more than allowed"


def rows_that_move(operation, x, sizes=(1, 2, 3, 5, 8)):
    """The batch sizes in which row 0 of operation(rows) has other bytes than alone. The other rows differ."""
    alone = operation(x[:1])
    return [n for n in sizes if not same_bytes(operation(x[:n])[:1], alone)]


def follows_the_batch(x):
    """A positive control: sums that are split in two where the batch is large, as fast kernels do."""
    half = x.shape[-1] // 2
    if x.shape[0] < 3:
        return x.sum(-1)
    return x[..., :half].sum(-1) + x[..., half:].sum(-1)


def product_bound(a, b, dtype):
    """Of a product in fp32 that is rounded once; a and b in float64."""
    return TOLERANCE[dtype] * (a.abs() @ b.abs()) + 1e-30


__all__ = [name for name in dir() if not name.startswith("_")] + ["bi_torch"]
