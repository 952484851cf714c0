# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Results against float64, sizes and strides of every kind, and bytes of the GPU against the CPU reference."""

import itertools
import math

import pytest
import torch

import bi_torch
from support import DTYPES, HALF, TOLERANCE, assert_close, assert_same_bytes, product_bound, random

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
half_types = pytest.mark.parametrize("dtype", HALF, ids=lambda d: str(d)[6:])

SHAPES = [(1, 1, 1), (2, 3, 2), (5, 7, 3), (3, 8, 16), (17, 24, 65), (1, 40, 200), (9, 16, 129)]


def layouts(x):
    """The same matrix in other places: transposed, in wider rows, in every second column, off by one element."""
    rows, cols = x.shape[-2:]
    lead = x.shape[:-2]
    yield "transposed", x.mT.contiguous().mT
    wide = x.new_zeros((*lead, rows, cols + 3))
    wide[..., :cols] = x
    yield "wide rows", wide[..., :cols]
    sparse = x.new_zeros((*lead, rows, 2 * cols))
    sparse[..., ::2] = x
    yield "every second column", sparse[..., ::2]
    flat = x.new_zeros(x.numel() + 1)
    flat[1:] = x.flatten()
    yield "off by one", flat[1:].view(x.shape)


@dtypes
@pytest.mark.parametrize("m,n,k", SHAPES)
def test_mm(m, n, k, dtype, device):
    a, b = random(m, k, dtype=dtype, seed=1), random(k, n, dtype=dtype, seed=2)
    a64, b64 = a.double(), b.double()
    out = bi_torch.mm(a.to(device), b.to(device))
    assert out.dtype == dtype and out.is_contiguous()
    assert_close(out, a64 @ b64, product_bound(a64, b64, dtype))
    assert_same_bytes(out, bi_torch.mm(a, b))
    assert_same_bytes(bi_torch.linear(a.to(device), b.to(device).T), out)
    for (_, x), (_, y) in itertools.product(layouts(a.to(device)), layouts(b.to(device))):
        assert_same_bytes(bi_torch.mm(x, y), out)


@dtypes
def test_mm_of_broadcast_and_empty(dtype, device):
    a = random(1, 5, dtype=dtype, device=device)
    b = random(5, 4, dtype=dtype, device=device)
    assert_same_bytes(bi_torch.mm(a.expand(3, 5), b), bi_torch.mm(a, b).expand(3, 4))
    column = random(5, 1, dtype=dtype, device=device)
    assert_same_bytes(bi_torch.mm(a, column.expand(5, 4)), bi_torch.mm(a, column).expand(1, 4))
    assert bi_torch.mm(a[:0], b).shape == (0, 4)
    assert bi_torch.mm(a, b[:, :0]).shape == (1, 0)
    assert_same_bytes(bi_torch.mm(a[:, :0], b[:0]), torch.zeros(1, 4, dtype=dtype))
    assert bi_torch.bmm(a.new_zeros(0, 2, 3), a.new_zeros(0, 3, 4)).shape == (0, 2, 4)


@pytest.mark.parametrize("slices", [1, 2, 4, 8])
def test_slices(slices, device):
    a, b = random(3, 700), random(700, 5, seed=1)
    out = bi_torch.mm(a.to(device), b.to(device), slices=slices)
    assert_close(out, a.double() @ b.double(), product_bound(a.double(), b.double(), torch.bfloat16))
    assert_same_bytes(out, bi_torch.mm(a, b, slices=slices))


@dtypes
@pytest.mark.parametrize("added", [(), (1,), (6,), (1, 6), (5, 1), (5, 6)])
@pytest.mark.parametrize("alpha,beta", [(1, 1), (0.5, 1), (1, 0.3), (2.5, -1.5)])
def test_addmm(added, alpha, beta, dtype, device):
    a, b = random(5, 9, dtype=dtype, seed=1), random(9, 6, dtype=dtype, seed=2)
    c = random(*added, dtype=dtype, seed=3)
    out = bi_torch.addmm(c.to(device), a.to(device), b.to(device), alpha=alpha, beta=beta)
    exact = beta * c.double() + alpha * (a.double() @ b.double())
    bound = abs(alpha) * product_bound(a.double(), b.double(), dtype) + TOLERANCE[dtype] * abs(beta) * c.double().abs()
    assert_close(out, exact, bound)
    assert_same_bytes(out, bi_torch.addmm(c, a, b, alpha=alpha, beta=beta))
    # However the added tensor is written, and whichever kernel adds it.
    full = c.expand(5, 6).contiguous().to(device)
    assert_same_bytes(bi_torch.addmm(full, a.to(device), b.to(device), alpha=alpha, beta=beta), out)


@dtypes
def test_beta_of_zero_leaves_out_nan(dtype, device):
    a, b = random(2, 3, dtype=dtype, device=device), random(3, 4, dtype=dtype, device=device)
    c = torch.full((4,), math.nan, dtype=dtype, device=device)
    assert_same_bytes(bi_torch.addmm(c, a, b, beta=0), bi_torch.mm(a, b, slices=0))


@dtypes
@pytest.mark.parametrize("batch,m,n,k", [(1, 2, 3, 4), (3, 5, 6, 7), (4, 1, 9, 2)])
def test_bmm(batch, m, n, k, dtype, device):
    a, b = random(batch, m, k, dtype=dtype, seed=1), random(batch, k, n, dtype=dtype, seed=2)
    out = bi_torch.bmm(a.to(device), b.to(device))
    assert_close(out, a.double() @ b.double(), product_bound(a.double(), b.double(), dtype))
    for i in range(batch):
        assert_same_bytes(out[i], bi_torch.mm(a[i], b[i], slices=1))
    for (_, x), (_, y) in itertools.product(layouts(a.to(device)), layouts(b.to(device))):
        assert_same_bytes(bi_torch.bmm(x, y), out)
    heads = a.to(device).transpose(0, 1).contiguous().transpose(0, 1)  # entries whose rows take turns
    assert_same_bytes(bi_torch.bmm(heads, b.to(device)), out)
    assert_same_bytes(
        bi_torch.bmm(heads, b[:1].to(device).expand(batch, k, n)), bi_torch.bmm(a, b[:1].expand(batch, k, n))
    )
    c = random(n, dtype=dtype, seed=3)
    added = bi_torch.baddbmm(c.to(device), a.to(device), b.to(device), alpha=0.5, beta=2)
    for i in range(batch):
        assert_same_bytes(added[i], bi_torch.addmm(c, a[i], b[i], alpha=0.5, beta=2, slices=1))
    each = random(batch, m, n, dtype=dtype, seed=4)
    assert_same_bytes(
        bi_torch.baddbmm(each.to(device), a.to(device), b.to(device))[0], bi_torch.addmm(each[0], a[0], b[0], slices=1)
    )


@dtypes
def test_linear(dtype, device):
    x, w, bias = random(2, 3, 4, 9, dtype=dtype), random(6, 9, dtype=dtype, seed=1), random(6, dtype=dtype, seed=2)
    out = bi_torch.linear(x.to(device), w.to(device), bias.to(device))
    assert out.shape == (2, 3, 4, 6)
    exact = x.double() @ w.double().T + bias.double()
    bound = product_bound(x.double(), w.double().T, dtype) + TOLERANCE[dtype] * bias.double().abs()
    assert_close(out, exact, bound)
    moved = x.to(device).permute(2, 0, 1, 3)
    assert_same_bytes(bi_torch.linear(moved, w.to(device), bias.to(device)), out.permute(2, 0, 1, 3))
    assert_same_bytes(bi_torch.linear(x[0, 0, 0].to(device), w.to(device), bias.to(device)), out[0, 0, 0])
    assert bi_torch.linear(x[:0].to(device), w.to(device)).shape == (0, 3, 4, 6)
    for _, y in layouts(w.to(device)):
        assert_same_bytes(bi_torch.linear(x.to(device), y, bias.to(device)), out)


@dtypes
@pytest.mark.parametrize("round_first", [False, True])
@pytest.mark.parametrize("cols", [1, 2, 3, 64, 300])
def test_rms_norm(cols, round_first, dtype, device):
    x, w, eps = random(2, 5, cols, dtype=dtype), random(cols, dtype=dtype, seed=1), 1e-5
    out = bi_torch.rms_norm(x.to(device), w.to(device), eps, round_first=round_first)
    x64 = x.double()
    exact = x64 / (x64.square().mean(-1, keepdim=True) + eps).sqrt() * w.double()
    assert_close(out, exact, (3 if round_first else 2) * TOLERANCE[dtype] * exact.abs() + 1e-12)
    assert_same_bytes(out, bi_torch.rms_norm(x, w, eps, round_first=round_first))
    assert_same_bytes(
        bi_torch.rms_norm(x.to(device), None, eps), bi_torch.rms_norm(x, torch.ones(cols, dtype=dtype), eps)
    )
    r = random(2, 5, cols, dtype=dtype, seed=2)
    normed, s = bi_torch.add_rms_norm(x.to(device), r.to(device), w.to(device), eps, round_first=round_first)
    assert_same_bytes(s, (x.float() + r.float()).to(dtype))
    assert_same_bytes(normed, bi_torch.rms_norm(s, w.to(device), eps, round_first=round_first))
    swapped = x.to(device).transpose(0, 1)
    assert_same_bytes(bi_torch.rms_norm(swapped, w.to(device), eps, round_first=round_first), out.transpose(0, 1))


@dtypes
@pytest.mark.parametrize("log", [False, True])
def test_softmax(log, dtype, device):
    x = random(3, 4, 70, dtype=dtype, scale=3)
    bi = bi_torch.log_softmax if log else bi_torch.softmax
    exact_of = torch.log_softmax if log else torch.softmax
    for dim in (0, 1, 2, -1):
        out = bi(x.to(device), dim)
        exact = exact_of(x.double(), dim)
        assert_close(out, exact, TOLERANCE[dtype] * exact.abs() + 1e-6)
        assert_same_bytes(out, bi(x, dim))
        wide = bi(x.to(device), dim, torch.float32)
        assert wide.dtype == torch.float32
        assert_close(wide, exact, 2**-20 * exact.abs() + 1e-6)
    assert_same_bytes(bi(x.to(device)[..., ::2]), bi(x[..., ::2].contiguous()))
    one = bi(torch.tensor(2.0, dtype=dtype, device=device))
    assert one.shape == () and one.item() == (0 if log else 1)


@dtypes
@pytest.mark.parametrize("name", ["sum", "mean"])
def test_reductions(name, dtype, device):
    bi, exact_of = getattr(bi_torch, name), getattr(torch, name)
    x = random(3, 5, 4, 6, dtype=dtype)
    magnitude = x.double().abs()
    for n in range(0, 5):
        for dims in itertools.combinations(range(4), n):
            dim = list(dims) or None
            for keepdim in (False, True):
                out = bi(x.to(device), dim, keepdim)
                exact = exact_of(x.double(), dim, keepdim=keepdim)
                assert out.shape == exact.shape
                bound = TOLERANCE[dtype] * exact_of(magnitude, dim, keepdim=keepdim)
                assert_close(out, exact, bound)
                assert_same_bytes(out, bi(x, dim, keepdim))
                moved = x.to(device).permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2)
                assert_same_bytes(bi(moved, dim, keepdim), out)
    wide = bi(x.to(device), 1, dtype=torch.float32)
    assert wide.dtype == torch.float32
    assert_close(wide, exact_of(x.double(), 1), 2**-20 * exact_of(magnitude, 1))
    empty = bi(x[:0].to(device), 0)
    assert (empty.isnan() if name == "mean" else empty == 0).all()
    assert bi(torch.tensor(3.0, dtype=dtype, device=device)).item() == 3


def test_long_reductions(device):
    x = random(2, 20000, dtype=torch.float32)
    for y, dim in ((x, 1), (x.T.contiguous(), 0), (x[None].expand(2, 2, 20000), 2)):
        out = bi_torch.sum(y.to(device), dim)
        assert_close(out, y.double().sum(dim), 2**-20 * y.double().abs().sum(dim))
        assert_same_bytes(out, bi_torch.sum(x, 1).expand(out.shape))


def attention_in_float64(q, k, v, mask=None, scale=None):
    q, k, v = q.double(), k.double(), v.double()
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = q @ k.mT * (scale or 1 / math.sqrt(q.shape[-1]))
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(-1) @ v


@half_types
@pytest.mark.parametrize("dim", [16, 64, 80, 128, 256])
@pytest.mark.parametrize("rows,tokens,kind", [(1, 70, 0), (5, 5, 1), (3, 70, 0), (3, 9, 1), (3, 9, 2), (70, 70, 1)])
def test_attention(dim, rows, tokens, kind, dtype, device):
    q = random(2, 4, rows, dim, dtype=dtype, seed=1)
    k, v = random(2, 2, tokens, dim, dtype=dtype, seed=2), random(2, 2, tokens, dim, dtype=dtype, seed=3)
    mask = torch.ones(rows, tokens, dtype=torch.bool).tril({0: tokens, 1: 0, 2: tokens - rows}[kind])
    lower = torch.nn.attention.bias.causal_lower_right(rows, tokens) if kind == 2 else None

    def attend(q, k, v):
        return bi_torch.scaled_dot_product_attention(
            q.to(device), k.to(device), v.to(device), attn_mask=lower, is_causal=kind == 1, enable_gqa=True
        )

    out = attend(q, k, v)
    assert out.shape == q.shape
    exact = attention_in_float64(q, k, v, mask)
    assert_close(out, exact, 3 * TOLERANCE[dtype] * (exact.abs() + 1))
    tokens_first = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    assert_same_bytes(attend(*tokens_first), out)
    assert_same_bytes(attend(q, tokens_first[1], v), out)
    assert_same_bytes(attend(q, k, tokens_first[2]), out)
    assert_same_bytes(attend(q[:, :1], k[:, :1], v[:, :1]), out[:, :1])
    assert_same_bytes(attend(q.mT.contiguous().mT, k.mT.contiguous().mT, v), out)
    assert_same_bytes(attend(q[1:], k[1:], v[1:]), out[1:])
    assert_same_bytes(attend(q[:1], k[:1], v[:1]), out[:1])
    wide = torch.cat([k, v], -1)  # keys and values side by side
    assert_same_bytes(attend(q, wide[..., :dim], wide[..., dim:]), out)
    shared = attend(q, k[:1].expand_as(k), v[:1].expand_as(v))
    assert_same_bytes(shared[1:], attend(q[1:], k[:1], v[:1]))
    every_second = [torch.stack([x, -x], -1).flatten(-2)[..., ::2] for x in (q, k, v)]
    for i in range(3):
        assert_same_bytes(attend(*(every_second[j] if j == i else (q, k, v)[j] for j in range(3))), out)
    if device == "cuda":
        cpu = bi_torch.scaled_dot_product_attention(q, k, v, attn_mask=lower, is_causal=kind == 1, enable_gqa=True)
        assert_same_bytes(out, cpu)


def test_attention_of_fewer_and_more_dimensions(device):
    q, k, v = (random(2, 3, 4, 5, 64, device=device, seed=i) for i in range(3))
    out = bi_torch.scaled_dot_product_attention(q, k, v)
    assert out.shape == q.shape
    assert_same_bytes(bi_torch.scaled_dot_product_attention(q[1, 2], k[1, 2], v[1, 2]), out[1, 2])
    assert_same_bytes(bi_torch.scaled_dot_product_attention(q[1, 2, 3], k[1, 2, 3], v[1, 2, 3]), out[1, 2, 3])
    # Values narrower than keys.
    assert_same_bytes(bi_torch.scaled_dot_product_attention(q, k, v[..., :24]), out[..., :24])


@half_types
@pytest.mark.parametrize("heads_first", [False, True])
def test_paged_attention(heads_first, dtype, device):
    heads, dim, page_size = 2, 64, 16
    lengths = [37, 5, 20]
    k, v = (random(sum(lengths), heads, dim, dtype=dtype, seed=i).to(device) for i in (1, 2))
    q = random(3, 4, dim, dtype=dtype, seed=3).to(device)
    shape = (12, heads, page_size, dim) if heads_first else (12, page_size, heads, dim)
    caches = [torch.full(shape, math.nan, dtype=dtype, device=device) for _ in range(2)]
    if heads_first:
        caches = [c.transpose(1, 2) for c in caches]
    pages = torch.tensor([[7, 2, 9], [4, -1, -1], [11, 0, -1]], dtype=torch.int32)
    slots = [int(pages[r, j // page_size]) * page_size + j % page_size for r, n in enumerate(lengths) for j in range(n)]
    bi_torch.kv_append(*caches, k, v, torch.tensor(slots, device=device))
    out = bi_torch.paged_attention(
        q,
        *caches,
        pages.to(device),
        torch.tensor(lengths, dtype=torch.int32, device=device),
        max_length=48,
        scale=0.125,
    )
    begin = 0
    for r, n in enumerate(lengths):
        kk, vv = (x[begin : begin + n].transpose(0, 1)[None] for x in (k, v))
        begin += n
        alone = bi_torch.scaled_dot_product_attention(q[r, :, None][None], kk, vv, scale=0.125, enable_gqa=True)
        assert_same_bytes(out[r], alone[0, :, 0])


@dtypes
def test_sample(dtype, device):
    logits = random(4, 100, dtype=dtype, scale=4).to(device)

    def sample(rows, temperature=0.8, **more):
        n = len(rows)
        return bi_torch.sample(
            logits[rows],
            temperature=torch.full((n,), temperature, device=device),
            seed=torch.tensor(rows, dtype=torch.int64, device=device) + 5,
            ordinal=torch.full((n,), 3, dtype=torch.int32, device=device),
            **more,
        )

    token, logprob, flags = sample([0, 1, 2, 3])
    assert token.dtype == torch.int32 and flags.tolist() == [0] * 4
    exact = logits.double().cpu().log_softmax(-1).gather(1, token.cpu().long()[:, None])[:, 0]
    assert_close(logprob, exact, 2**-18 * exact.abs() + 1e-6)
    for r in range(4):
        assert sample([r])[0].tolist() == [token[r].item()]
    assert sample([3, 1])[0].tolist() == [token[3].item(), token[1].item()]
    greedy = sample([0, 1, 2, 3], temperature=0.0)[0]
    assert greedy.tolist() == logits.float().argmax(-1).tolist()
    k = torch.ones(4, dtype=torch.int32, device=device)
    assert sample([0, 1, 2, 3], top_k=k)[0].tolist() == greedy.tolist()


# ---- what is refused, in a sentence

a = random(4, 4)
REFUSED = {
    "mm: self has shape [4] and must have 2 dimensions": lambda d: bi_torch.mm(a[0].to(d), a.to(d)),
    "mm: the first matrix has 4 columns and the second 3 rows": lambda d: bi_torch.mm(a.to(d), a[:3].to(d)),
    "mm: the first matrix is ": lambda d: bi_torch.mm(a.double().to(d), a.double().to(d)),
    "mm: the second matrix is ": lambda d: bi_torch.mm(a.to(d), a.half().to(d)),
    "mm: slices = 9": lambda d: bi_torch.mm(a.to(d), a.to(d), slices=9),
    "mm: slices = 2": lambda d: bi_torch.mm(a.float().to(d), a.float().to(d), slices=2),
    "does not broadcast to": lambda d: bi_torch.addmm(a[:3].to(d), a.to(d), a.to(d)),
    "alpha = nan": lambda d: bi_torch.addmm(a.to(d), a.to(d), a.to(d), alpha=math.nan),
    "bmm: batches of 2 and 3": lambda d: bi_torch.bmm(a.expand(2, 4, 4).to(d), a.expand(3, 4, 4).to(d)),
    "linear: bias has shape [3] and must have [4]": lambda d: bi_torch.linear(a.to(d), a.to(d), a[0, :3].to(d)),
    "rms_norm: weight has shape [3] and must have [4]": lambda d: bi_torch.rms_norm(a.to(d), a[0, :3].to(d)),
    "softmax: dim = 2 must be at least -2 and below 2": lambda d: bi_torch.softmax(a.to(d), 2),
    "sum: dim 1 appears more than once": lambda d: bi_torch.sum(a.to(d), [1, -1]),
    "sum: dtype = ": lambda d: bi_torch.sum(a.to(d), dtype=torch.float16),
    "attention: query is ": lambda d: bi_torch.scaled_dot_product_attention(*[a.float().to(d)] * 3),
    "head_dim = 300 must be at most 256": lambda d: bi_torch.scaled_dot_product_attention(*[random(4, 300).to(d)] * 3),
    "attn_mask is not supported": lambda d: bi_torch.scaled_dot_product_attention(*[a.to(d)] * 4),
    "dropout_p = 0.5 must be 0": lambda d: bi_torch.scaled_dot_product_attention(*[a.to(d)] * 3, dropout_p=0.5),
    "need enable_gqa=True": lambda d: bi_torch.scaled_dot_product_attention(
        a.expand(4, 4, 4).to(d), a.expand(2, 4, 4).to(d), a.expand(2, 4, 4).to(d)
    ),
    "a causal mask of 4 query tokens and 2 keys": lambda d: bi_torch.scaled_dot_product_attention(
        a.to(d), a[:2].to(d), a[:2].to(d), is_causal=True
    ),
}


@pytest.mark.parametrize("sentence", REFUSED)
@pytest.mark.parametrize("where", ["meta", "device"])
def test_refused(sentence, where, device):
    if where == "meta" and device == "cuda":
        pytest.skip("meta tensors are on no device: the other half runs them")
    with pytest.raises(RuntimeError) as e:
        REFUSED[sentence](device if where == "device" else "meta")
    assert sentence in str(e.value)


def test_gpu_and_cpu_may_not_mix(gpu):
    with pytest.raises(RuntimeError, match="mat"):
        bi_torch.mm(a.to(gpu), a)
