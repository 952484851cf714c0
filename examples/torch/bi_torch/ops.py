# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The operations of torch.ops.bi: fake kernels, derivatives and plain functions over them.

The kernels are in _C.so. A fake kernel gives the shape, dtype and strides of the result, so that torch.compile can
trace a call, and refuses what the kernel would refuse by shape and dtype, in the same words.
"""

import math
import pathlib

import torch

_LIBRARY = pathlib.Path(__file__).with_name("_C.so")
if not _LIBRARY.exists():
    raise ImportError(f"bi_torch: {_LIBRARY} is missing; build it as docs/pytorch.md says")
try:
    torch.ops.load_library(str(_LIBRARY))
except OSError as e:
    raise ImportError(f"bi_torch: PyTorch {torch.__version__} can't load {_LIBRARY}: {e}") from e

SUPPORTED = (torch.bfloat16, torch.float16, torch.float32)
HALF = (torch.bfloat16, torch.float16)
HEAD_DIMS = (64, 128, 256)
FULL, UPPER_LEFT, LOWER_RIGHT = 0, 1, 2


def _require(condition, message):
    if not condition:
        raise RuntimeError(message)


def _names(dtypes):
    return ", ".join(str(d).removeprefix("torch.") for d in dtypes)


def _require_dtype(op, name, x, dtypes):
    dtypes = dtypes if isinstance(dtypes, tuple) else (dtypes,)
    _require(x.dtype in dtypes, f"{op}: {name} is {_names([x.dtype])}; supported: {_names(dtypes)}")


# ---- fake kernels


def _fake_product(op, a, b, added, alpha_beta, slices, out_shape):
    _require_dtype(op, "the first matrix", a, SUPPORTED)
    _require_dtype(op, "the second matrix", b, a.dtype)
    if added is not None:
        _require_dtype(op, "the added tensor", added, a.dtype)
    for name, v in zip(("alpha", "beta"), alpha_beta):
        _require(math.isfinite(v), f"{op}: {name} = {v} must be finite in fp32")
    allowed = (0, 1) if a.dtype == torch.float32 else (0, 1, 2, 4, 8)
    _require(slices in allowed, f"{op}: slices = {slices} must be one of {allowed}")
    return a.new_empty(out_shape)


def _require_rank(op, name, x, rank):
    _require(x.dim() == rank, f"{op}: {name} has shape {list(x.shape)} and must have {rank} dimensions")


def _require_inner(op, a, b):
    _require(
        a.shape[-1] == b.shape[-2],
        f"{op}: the first matrix has {a.shape[-1]} columns and the second {b.shape[-2]} rows; they must be equal",
    )


def _require_broadcast(op, x, shape):
    _require(
        x.dim() <= len(shape), f"{op}: the added tensor has {x.dim()} dimensions, at most {len(shape)} are allowed"
    )
    for have, want in zip(reversed(x.shape), reversed(shape)):
        _require(
            have == want or have == 1,
            f"{op}: the added tensor's shape {list(x.shape)} does not broadcast to {list(shape)}",
        )


@torch.library.register_fake("bi::mm")
def _(self, mat2, slices=0):
    _require_rank("mm", "self", self, 2)
    _require_rank("mm", "mat2", mat2, 2)
    _require_inner("mm", self, mat2)
    return _fake_product("mm", self, mat2, None, (1, 1), slices, (self.shape[0], mat2.shape[1]))


@torch.library.register_fake("bi::addmm")
def _(self, mat1, mat2, beta=1.0, alpha=1.0, slices=0):
    _require_rank("addmm", "mat1", mat1, 2)
    _require_rank("addmm", "mat2", mat2, 2)
    _require_inner("addmm", mat1, mat2)
    shape = (mat1.shape[0], mat2.shape[1])
    _require_broadcast("addmm", self, shape)
    return _fake_product("addmm", mat1, mat2, self, (alpha, beta), slices, shape)


@torch.library.register_fake("bi::bmm")
def _(self, mat2, slices=1):
    _require_rank("bmm", "self", self, 3)
    _require_rank("bmm", "mat2", mat2, 3)
    _require_inner("bmm", self, mat2)
    _require_batch("bmm", self, mat2)
    return _fake_product("bmm", self, mat2, None, (1, 1), slices, (self.shape[0], self.shape[1], mat2.shape[2]))


def _require_batch(op, a, b):
    _require(a.shape[0] == b.shape[0], f"{op}: batches of {a.shape[0]} and {b.shape[0]} must be equal")


@torch.library.register_fake("bi::baddbmm")
def _(self, batch1, batch2, beta=1.0, alpha=1.0, slices=1):
    _require_rank("baddbmm", "batch1", batch1, 3)
    _require_rank("baddbmm", "batch2", batch2, 3)
    _require_inner("baddbmm", batch1, batch2)
    _require_batch("baddbmm", batch1, batch2)
    shape = (batch1.shape[0], batch1.shape[1], batch2.shape[2])
    _require_broadcast("baddbmm", self, shape)
    return _fake_product("baddbmm", batch1, batch2, self, (alpha, beta), slices, shape)


@torch.library.register_fake("bi::linear")
def _(input, weight, bias=None, slices=0):
    _require(input.dim() >= 1, "linear: input must have at least 1 dimension")
    _require_rank("linear", "weight", weight, 2)
    k, n = input.shape[-1], weight.shape[0]
    _require(k == weight.shape[1], f"linear: input has {k} features and weight {weight.shape[1]}; they must be equal")
    if bias is not None:
        _require(
            bias.dim() == 1 and bias.shape[0] == n, f"linear: bias has shape {list(bias.shape)} and must have [{n}]"
        )
    return _fake_product("linear", input, weight, bias, (1, 1), slices, (*input.shape[:-1], n))


def _require_norm(op, input, weight):
    _require_dtype(op, "input", input, SUPPORTED)
    _require(input.dim() >= 1, f"{op}: input must have at least 1 dimension")
    if weight is not None:
        _require_dtype(op, "weight", weight, input.dtype)
        _require(
            weight.dim() == 1 and weight.shape[0] == input.shape[-1],
            f"{op}: weight has shape {list(weight.shape)} and must have [{input.shape[-1]}]",
        )


@torch.library.register_fake("bi::rms_norm")
def _(input, weight, eps=1e-6, round_first=False):
    _require_norm("rms_norm", input, weight)
    return input.new_empty(input.shape)


@torch.library.register_fake("bi::add_rms_norm")
def _(input, residual, weight, eps=1e-6, round_first=False):
    _require_norm("add_rms_norm", input, weight)
    _require_dtype("add_rms_norm", "residual", residual, input.dtype)
    _require(
        input.shape == residual.shape,
        f"add_rms_norm: residual has shape {list(residual.shape)} and must have {list(input.shape)}",
    )
    return input.new_empty(input.shape), input.new_empty(input.shape)


def _wrap_dim(op, dim, rank):
    n = max(rank, 1)
    _require(-n <= dim < n, f"{op}: dim = {dim} must be at least {-n} and below {n}")
    return dim % n


def _out_dtype(op, input, dtype):
    _require_dtype(op, "input", input, SUPPORTED)
    dtype = input.dtype if dtype is None else dtype
    _require(
        dtype in (input.dtype, torch.float32),
        f"{op}: dtype = {_names([dtype])} of a tensor of {_names([input.dtype])}; supported: the tensor's own and"
        " float32",
    )
    return dtype


def _fake_softmax(op, input, dim, dtype):
    dtype = _out_dtype(op, input, dtype)
    dim = _wrap_dim(op, dim, input.dim())
    if input.dim() == 0 or dim == input.dim() - 1:
        return input.new_empty(input.shape, dtype=dtype)
    shape = list(input.shape)
    shape[dim], shape[-1] = shape[-1], shape[dim]
    return input.new_empty(shape, dtype=dtype).transpose(dim, -1)


@torch.library.register_fake("bi::softmax")
def _(input, dim=-1, dtype=None):
    return _fake_softmax("softmax", input, dim, dtype)


@torch.library.register_fake("bi::log_softmax")
def _(input, dim=-1, dtype=None):
    return _fake_softmax("log_softmax", input, dim, dtype)


def _fake_reduce(op, input, dim, keepdim, dtype):
    dtype = _out_dtype(op, input, dtype)
    rank = input.dim()
    dims = [_wrap_dim(op, d, rank) for d in dim] if dim else list(range(rank))
    for d in dims:
        _require(rank == 0 or dims.count(d) == 1, f"{op}: dim {d} appears more than once")
    shape = [1 if i in dims else n for i, n in enumerate(input.shape) if keepdim or i not in dims]
    return input.new_empty(shape, dtype=dtype)


@torch.library.register_fake("bi::sum")
def _(input, dim=None, keepdim=False, dtype=None):
    return _fake_reduce("sum", input, dim, keepdim, dtype)


@torch.library.register_fake("bi::mean")
def _(input, dim=None, keepdim=False, dtype=None):
    return _fake_reduce("mean", input, dim, keepdim, dtype)


@torch.library.register_fake("bi::scaled_dot_product_attention")
def _(query, key, value, mask=0, scale=None):
    op = "scaled_dot_product_attention"
    _require_dtype(op, "query", query, HALF)
    _require_dtype(op, "key", key, query.dtype)
    _require_dtype(op, "value", value, query.dtype)
    _require(
        query.dim() == key.dim() == value.dim() == 4,
        f"{op}: query, key and value must be [batch, heads, tokens, head_dim]",
    )
    batch, heads, rows, dim = query.shape
    _require(
        key.shape[0] == batch and key.shape[3] == dim and value.shape == key.shape,
        f"{op}: query {list(query.shape)}, key {list(key.shape)} and value {list(value.shape)} must agree but for query"
        " heads and query tokens",
    )
    _require(
        key.shape[1] > 0 and heads % key.shape[1] == 0,
        f"{op}: {heads} query heads must be a multiple of {key.shape[1]} key heads",
    )
    _require(dim in HEAD_DIMS, f"{op}: head_dim = {dim} is not supported; supported: 64, 128, 256")
    _require(
        mask in (FULL, UPPER_LEFT, LOWER_RIGHT),
        f"{op}: mask = {mask} must be 0 (none), 1 (causal, upper left) or 2 (causal, lower right)",
    )
    _require(
        mask == FULL or rows <= key.shape[2],
        f"{op}: a causal mask of {rows} query tokens and {key.shape[2]} keys is not supported; supported: at least as"
        " many keys",
    )
    _require(key.shape[2] > 0 or rows == 0, f"{op}: key has no tokens")
    out = query.new_empty((batch, rows, heads, dim)).transpose(1, 2)
    return out, query.new_empty((batch, rows, heads), dtype=torch.float32).transpose(1, 2)


@torch.library.register_fake("bi::paged_attention")
def _(query, key_cache, value_cache, pages, lengths, q_start, max_q_len, max_length, scale, causal=True, window=0):
    op = "paged_attention"
    _require_dtype(op, "query", query, HALF)
    _require_dtype(op, "key_cache", key_cache, query.dtype)
    _require_dtype(op, "value_cache", value_cache, query.dtype)
    _require_dtype(op, "pages", pages, torch.int32)
    _require_dtype(op, "lengths", lengths, torch.int32)
    _require(query.dim() == 3, f"{op}: query has shape {list(query.shape)} and must be [rows, heads, head_dim]")
    _require(
        query.shape[2] in HEAD_DIMS, f"{op}: head_dim = {query.shape[2]} is not supported; supported: 64, 128, 256"
    )
    return query.new_empty(query.shape)


@torch.library.register_fake("bi::kv_append")
def _(key_cache, value_cache, key, value, slot):
    _require_dtype("kv_append", "key_cache", key_cache, HALF)
    for name, x in (("value_cache", value_cache), ("key", key), ("value", value)):
        _require_dtype("kv_append", name, x, key_cache.dtype)
    _require_dtype("kv_append", "slot", slot, torch.int64)


@torch.library.register_fake("bi::sample")
def _(logits, temperature, seed, ordinal, top_k=None, top_p=None, min_p=None, sample_index=None):
    _require_dtype("sample", "logits", logits, SUPPORTED)
    _require(logits.dim() == 2, f"sample: logits has shape {list(logits.shape)} and must be [rows, vocab]")
    rows = logits.shape[0]
    return (
        logits.new_empty((rows,), dtype=torch.int32),
        logits.new_empty((rows,), dtype=torch.float32),
        logits.new_empty((rows,), dtype=torch.int32),
    )


# ---- derivatives: of matrix products, by matrix products of the same kind


def _own_slices(slices):
    # Of other weights the caller has said nothing: one slice stays one, else what the library takes for their shape.
    return 1 if slices == 1 else 0


def _product(a, b, alpha, slices):
    plain, scaled = (torch.ops.bi.mm, torch.ops.bi.addmm) if a.dim() == 2 else (torch.ops.bi.bmm, torch.ops.bi.baddbmm)
    return plain(a, b, slices) if alpha == 1 else scaled(a.new_zeros(()), a, b, 0.0, alpha, slices)


def _product_grads(ctx, grad, a, b, alpha, needs):
    slices = _own_slices(ctx.slices)
    grad_a = _product(grad, b.mT, alpha, slices) if needs[0] else None
    grad_b = _product(a.mT, grad, alpha, slices) if needs[1] else None
    return grad_a, grad_b


def _sum_to(grad, shape, beta):
    """grad * beta, summed over what the added tensor was broadcast over."""
    lead = grad.dim() - len(shape)
    dims = [i for i in range(grad.dim()) if i < lead or (shape[i - lead] == 1 and grad.shape[i] != 1)]
    if dims:
        grad = torch.ops.bi.sum(grad, dims, True)
    grad = grad.reshape(shape)
    return grad if beta == 1 else grad * beta


def _setup_product(ctx, inputs, output):
    a, b, ctx.slices = inputs
    ctx.save_for_backward(a, b)


def _product_backward(ctx, grad):
    a, b = ctx.saved_tensors
    return *_product_grads(ctx, grad, a, b, 1, ctx.needs_input_grad), None


def _setup_added_product(ctx, inputs, output):
    c, a, b, ctx.beta, ctx.alpha, ctx.slices = inputs
    ctx.c_shape = c.shape
    ctx.save_for_backward(a, b)


def _added_product_backward(ctx, grad):
    a, b = ctx.saved_tensors
    grad_c = _sum_to(grad, ctx.c_shape, ctx.beta) if ctx.needs_input_grad[0] else None
    return grad_c, *_product_grads(ctx, grad, a, b, ctx.alpha, ctx.needs_input_grad[1:]), None, None, None


def _setup_linear(ctx, inputs, output):
    x, w, bias, ctx.slices = inputs
    ctx.save_for_backward(x, w)


def _linear_backward(ctx, grad):
    x, w = ctx.saved_tensors
    slices = _own_slices(ctx.slices)
    rows = grad.reshape(-1, w.shape[0])
    grad_x = torch.ops.bi.mm(rows, w, slices).reshape(x.shape) if ctx.needs_input_grad[0] else None
    grad_w = torch.ops.bi.mm(rows.mT, x.reshape(-1, w.shape[1]), slices) if ctx.needs_input_grad[1] else None
    # PyTorch leaves out arguments at the end that have their default.
    needs_bias = len(ctx.needs_input_grad) > 2 and ctx.needs_input_grad[2]
    grad_bias = torch.ops.bi.sum(rows, [0]) if needs_bias else None
    return grad_x, grad_w, grad_bias, None


for _name in ("mm", "bmm"):
    torch.library.register_autograd(f"bi::{_name}", _product_backward, setup_context=_setup_product)
for _name in ("addmm", "baddbmm"):
    torch.library.register_autograd(f"bi::{_name}", _added_product_backward, setup_context=_setup_added_product)
torch.library.register_autograd("bi::linear", _linear_backward, setup_context=_setup_linear)

# Everything else refuses to be recorded.
_NO_BACKWARD = (
    "rms_norm",
    "add_rms_norm",
    "softmax",
    "log_softmax",
    "sum",
    "mean",
    "scaled_dot_product_attention",
    "paged_attention",
    "sample",
)


def _no_backward_sentence(op):
    return f"{op} has no derivative: call it under torch.no_grad(), or with tensors that don't require grad"


def _refuse_autograd(name):
    def setup(ctx, inputs, output):
        raise RuntimeError(_no_backward_sentence(f"bi::{name}"))

    def backward(ctx, *grads):
        raise RuntimeError(_no_backward_sentence(f"bi::{name}"))

    torch.library.register_autograd(f"bi::{name}", backward, setup_context=setup)


for _name in _NO_BACKWARD:
    _refuse_autograd(_name)


_fragment = torch.library.Library("bi", "IMPL")


def _kv_append_autograd(key_cache, value_cache, key, value, slot):
    tensors = (key_cache, value_cache, key, value)
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        raise RuntimeError(_no_backward_sentence("bi::kv_append"))
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.bi.kv_append.default(key_cache, value_cache, key, value, slot)


_fragment.impl("kv_append", _kv_append_autograd, "Autograd")


# ---- plain functions


def mm(self, mat2, *, slices=0):
    return torch.ops.bi.mm(self, mat2, slices)


def addmm(self, mat1, mat2, *, beta=1.0, alpha=1.0, slices=0):
    """alpha (mat1 mat2) + beta self, rounded once. beta = 0 leaves self out, NaN included."""
    return torch.ops.bi.addmm(self, mat1, mat2, float(beta), float(alpha), slices)


def bmm(self, mat2, *, slices=1):
    """One slice unless asked for others: both factors may be activations, whose sizes say nothing of a weight."""
    return torch.ops.bi.bmm(self, mat2, slices)


def baddbmm(self, batch1, batch2, *, beta=1.0, alpha=1.0, slices=1):
    return torch.ops.bi.baddbmm(self, batch1, batch2, float(beta), float(alpha), slices)


def linear(input, weight, bias=None, *, slices=0):
    """input weight^T + bias, rounded once. slices = 0: what bi::gemm takes for a weight of this shape."""
    return torch.ops.bi.linear(input, weight, bias, slices)


def rms_norm(input, weight=None, eps=1e-6, *, round_first=False):
    """Over the last dimension. round_first: rounded before the weight, as Hugging Face's Llama and Qwen models do."""
    return torch.ops.bi.rms_norm(input, weight, float(eps), round_first)


def add_rms_norm(input, residual, weight=None, eps=1e-6, *, round_first=False):
    """(rms_norm(s), s) with s = input + residual, rounded."""
    return torch.ops.bi.add_rms_norm(input, residual, weight, float(eps), round_first)


def softmax(input, dim=-1, dtype=None):
    return torch.ops.bi.softmax(input, dim, dtype)


def log_softmax(input, dim=-1, dtype=None):
    return torch.ops.bi.log_softmax(input, dim, dtype)


def _dim_list(dim):
    return [dim] if isinstance(dim, int) else dim


def sum(input, dim=None, keepdim=False, dtype=None):
    return torch.ops.bi.sum(input, _dim_list(dim), keepdim, dtype)


def mean(input, dim=None, keepdim=False, dtype=None):
    return torch.ops.bi.mean(input, _dim_list(dim), keepdim, dtype)


def _padded(x, dim):
    return x if x.shape[-1] == dim else torch.nn.functional.pad(x, (0, dim - x.shape[-1]))


def _attend(query, key, value, mask, scale):
    """(out, logsumexp) of any head_dim up to 256 and any number of batch dimensions."""
    op = "scaled_dot_product_attention"
    _require(
        query.dim() == key.dim() == value.dim() and query.dim() >= 2,
        f"{op}: query, key and value must have equally many dimensions, at least 2",
    )
    lead, dim, value_dim = query.shape[:-3], query.shape[-1], value.shape[-1]
    if query.dim() < 4:
        missing = 4 - query.dim()
        query, key, value = (x[(None,) * missing] for x in (query, key, value))
        out, lse = _attend(query, key, value, mask, scale)
        return out[(0,) * missing], lse[(0,) * missing]
    if len(lead) > 1:
        _require(key.shape[:-3] == lead and value.shape[:-3] == lead, f"{op}: batch dimensions must be equal")
        out, lse = _attend(*(x.flatten(0, -4) for x in (query, key, value)), mask, scale)
        return out.unflatten(0, lead), lse.unflatten(0, lead)
    width = next((d for d in HEAD_DIMS if d >= max(dim, value_dim)), None)
    _require(width is not None, f"{op}: head_dim = {max(dim, value_dim)} must be at most 256")
    # Zeros beside the last element change no bit of a score, and give columns of zeros that are cut off.
    scale = 1 / math.sqrt(dim) if scale is None else float(scale)
    out, lse = torch.ops.bi.scaled_dot_product_attention(*(_padded(x, width) for x in (query, key, value)), mask, scale)
    return out[..., :value_dim], lse


def scaled_dot_product_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """As torch.nn.functional's, for bf16 and fp16, without a mask tensor and without dropout.

    is_causal is the upper left triangle, as there. For the lower right one, where the last query sees every key, pass
    torch.nn.attention.bias.causal_lower_right(queries, keys) as attn_mask.
    """
    op = "scaled_dot_product_attention"
    _require(dropout_p == 0, f"{op}: dropout_p = {dropout_p} must be 0")
    mask = UPPER_LEFT if is_causal else FULL
    if attn_mask is not None:
        variant = getattr(attn_mask, "variant", None)
        names = {"UPPER_LEFT": UPPER_LEFT, "LOWER_RIGHT": LOWER_RIGHT}
        _require(
            variant is not None and variant.name in names,
            f"{op}: attn_mask is not supported; supported: none, is_causal=True, and the masks of"
            " torch.nn.attention.bias.causal_upper_left and causal_lower_right",
        )
        _require(not is_causal, f"{op}: is_causal and attn_mask exclude each other")
        mask = names[variant.name]
    if query.dim() >= 3:
        _require(
            enable_gqa or query.shape[-3] == key.shape[-3],
            f"{op}: {query.shape[-3]} query heads and {key.shape[-3]} key heads need enable_gqa=True",
        )
    return _attend(query, key, value, mask, scale)[0]


def paged_attention(
    query,
    key_cache,
    value_cache,
    pages,
    lengths,
    *,
    max_length,
    scale,
    q_start=None,
    max_q_len=1,
    causal=True,
    window=0,
):
    """Rows of requests over their views of a paged cache; see bi/attention.hpp. pages is [requests, pages of a
    request], lengths [requests] and q_start [requests + 1] are int32 on the GPU, where a replayed graph may find
    other contents. max_length and max_q_len bound them; what does not keep within the bounds is not written, and no
    error."""
    return torch.ops.bi.paged_attention(
        query, key_cache, value_cache, pages, lengths, q_start, max_q_len, max_length, float(scale), causal, window
    )


def kv_append(key_cache, value_cache, key, value, slot):
    """Writes each token's key and value into its slot (int64; page * page_size + place); slots below 0 are padding."""
    torch.ops.bi.kv_append(key_cache, value_cache, key, value, slot)


def sample(logits, *, temperature, seed, ordinal, top_k=None, top_p=None, min_p=None, sample_index=None):
    """(token, logprob, flags) of each row; see bi/sample.hpp. temperature, top_p, min_p: float32 [rows]; top_k,
    ordinal, sample_index: int32 [rows]; seed: int64 [rows]. No number drawn depends on the batch."""
    return torch.ops.bi.sample(logits, temperature, seed, ordinal, top_k, top_p, min_p, sample_index)
