# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""batch_invariant_mode(): PyTorch's own operators with the bits of bi, or an error."""

import contextlib
import threading

import torch
from torch.nn.attention.bias import CausalBias
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack
from torch.utils._pytree import tree_leaves

from . import ops
from . import rules

_ONE_SLICE = 1


class BatchInvarianceError(RuntimeError):
    """An operator was called in batch_invariant_mode that has no batch-invariant form here."""


def _fail(op, why):
    raise BatchInvarianceError(f"batch_invariant_mode: {op}: {why}")


def _tensors(args, kwargs):
    return [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]


def _is_real(x):
    """Whether sums of it round."""
    return x.is_floating_point() or x.is_complex()


def _name(op):
    return op.name() if hasattr(op, "name") else getattr(op, "__name__", str(op))


def _require_covered(op, tensors, devices):
    for x in tensors:
        if not _is_real(x):
            continue
        if x.device.type not in devices:
            _fail(_name(op), f"a tensor is on {x.device.type}; the mode covers CUDA tensors only")
        if x.dtype not in ops.SUPPORTED:
            _fail(_name(op), f"a tensor is {str(x.dtype)[6:]}; supported: bfloat16, float16, float32")
        if x.layout != torch.strided or x.is_nested:
            _fail(_name(op), "a tensor is sparse or nested; supported: dense tensors")


def _require_no_autograd(op, tensors):
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        _fail(
            _name(op),
            "it has no derivative in this mode, only mm, addmm, bmm, baddbmm and linear have; call it under"
            " torch.no_grad()",
        )


# ---- what takes the place of an operator: the same arguments as its overload's, without out=


def _mv(self, vec):
    return torch.ops.bi.mm(self, vec.unsqueeze(1), _ONE_SLICE).squeeze(1)


def _dot(self, tensor):
    return torch.ops.bi.mm(self.unsqueeze(0), tensor.unsqueeze(1), _ONE_SLICE).reshape(())


def _addmm(self, mat1, mat2, *, beta=1, alpha=1):
    return torch.ops.bi.addmm(self, mat1, mat2, float(beta), float(alpha), _ONE_SLICE)


def _baddbmm(self, batch1, batch2, *, beta=1, alpha=1):
    return torch.ops.bi.baddbmm(self, batch1, batch2, float(beta), float(alpha), _ONE_SLICE)


def _softmax_of(bi_op, name):
    def softmax(self, dim, half_to_float):
        if half_to_float and self.dtype not in ops.HALF:
            _fail(name, f"half_to_float of a tensor of {str(self.dtype)[6:]}; supported: bfloat16, float16")
        return bi_op(self, dim, torch.float32 if half_to_float else None)

    return softmax


def _reduce(bi_op, self, dim=None, keepdim=False, *, dtype=None):
    return bi_op(self, [dim] if isinstance(dim, int) else dim, keepdim, dtype)


def _sum(self, dim=None, keepdim=False, *, dtype=None):
    return _reduce(torch.ops.bi.sum, self, dim, keepdim, dtype=dtype)


def _mean(self, dim=None, keepdim=False, *, dtype=None):
    return _reduce(torch.ops.bi.mean, self, dim, keepdim, dtype=dtype)


def _rms_norm(input, normalized_shape, weight=None, eps=None):
    shape = [normalized_shape] if isinstance(normalized_shape, int) else list(normalized_shape)
    if not shape or list(input.shape[input.dim() - len(shape) :]) != shape:
        _fail("rms_norm", f"normalized_shape = {shape} must be the end of the input's shape {list(input.shape)}")
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    if weight is not None and list(weight.shape) != shape:
        _fail("rms_norm", f"weight has shape {list(weight.shape)} and must have {shape}")
    flat = input if len(shape) == 1 else input.flatten(-len(shape))
    weight = weight if weight is None or len(shape) == 1 else weight.flatten()
    return torch.ops.bi.rms_norm(flat, weight, eps).reshape(input.shape)


def _fused_rms_norm(input, normalized_shape, weight, eps):
    out = _rms_norm(input, normalized_shape, weight, eps)
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    dims = list(range(input.dim() - len(normalized_shape), input.dim()))
    square = input.float().square()
    return out, torch.rsqrt(torch.ops.bi.mean(square, dims, True) + eps)


def _attend(query, key, value, is_causal, scale, dropout_p=0.0, mask=None):
    if dropout_p != 0 or mask is not None:
        ops.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout_p)  # says what is wrong
    return ops._attend(query, key, value, ops.UPPER_LEFT if is_causal else ops.FULL, scale)


def _seed_pair(x):
    return x.new_zeros((), dtype=torch.int64), x.new_zeros((), dtype=torch.int64)


def _flash(query, key, value, dropout_p=0.0, is_causal=False, return_debug_mask=False, *, scale=None):
    out, lse = _attend(query, key, value, is_causal, scale, dropout_p)
    return out, lse, None, None, query.shape[2], key.shape[2], *_seed_pair(query), query.new_empty((0,))


def _efficient(query, key, value, attn_bias, compute_log_sumexp, dropout_p=0.0, is_causal=False, *, scale=None):
    out, lse = _attend(query, key, value, is_causal, scale, dropout_p, attn_bias)
    return out, lse, *_seed_pair(query)


def _cudnn(
    query,
    key,
    value,
    attn_bias,
    compute_log_sumexp,
    dropout_p=0.0,
    is_causal=False,
    return_debug_mask=False,
    *,
    scale=None,
):
    out, lse = _attend(query, key, value, is_causal, scale, dropout_p, attn_bias)
    return out, lse, None, None, query.shape[2], key.shape[2], *_seed_pair(query), query.new_empty((0,))


def _math(
    query,
    key,
    value,
    attn_mask=None,
    dropout_p=0.0,
    is_causal=False,
    dropout_mask=None,
    *,
    scale=None,
    enable_gqa=False,
):
    if dropout_mask is not None:
        _fail("_scaled_dot_product_attention_math", "dropout_mask must be None")
    sdpa = ops.scaled_dot_product_attention
    out = sdpa(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    return out, query.new_empty((0,))


def _linear(input, weight, bias=None):
    return torch.ops.bi.linear(input, weight, bias, _ONE_SLICE)


_HANDLERS = {
    "mm": lambda self, mat2: torch.ops.bi.mm(self, mat2, _ONE_SLICE),
    "bmm": lambda self, mat2: torch.ops.bi.bmm(self, mat2, _ONE_SLICE),
    "addmm": _addmm,
    "baddbmm": _baddbmm,
    "addmm_": _addmm,
    "baddbmm_": _baddbmm,
    "mv": _mv,
    "dot": _dot,
    "linear": _linear,
    "_softmax": _softmax_of(torch.ops.bi.softmax, "_softmax"),
    "_log_softmax": _softmax_of(torch.ops.bi.log_softmax, "_log_softmax"),
    "sum": _sum,
    "mean": _mean,
    "rms_norm": _rms_norm,
    "_fused_rms_norm": _fused_rms_norm,
    "scaled_dot_product_attention": ops.scaled_dot_product_attention,
    "_scaled_dot_product_attention_math": _math,
    "_scaled_dot_product_flash_attention": _flash,
    "_scaled_dot_product_efficient_attention": _efficient,
    "_scaled_dot_product_cudnn_attention": _cudnn,
}
assert _HANDLERS.keys() == rules.OVERRIDES.keys()


def _override(op, args, kwargs):
    name = op.name().removeprefix("aten::").partition(".")[0]
    kwargs = dict(kwargs)
    out = kwargs.pop("out", None)
    result = _HANDLERS[name](*args, **kwargs)
    if name.endswith("_"):
        out = args[0]
    if out is None:
        return result
    if isinstance(result, tuple) or out.shape != result.shape or out.dtype != result.dtype:
        _fail(op.name(), "out must have the shape and the dtype of the result")
    return out.copy_(result)


def _argument(op, args, kwargs, name, default):
    for i, a in enumerate(op._schema.arguments):
        if a.name == name:
            return args[i] if i < len(args) and not a.kwarg_only else kwargs.get(name, default)
    return default


def _is_conditional_error(op, args, kwargs):
    name = op.name().removeprefix("aten::").partition(".")[0]
    if name.startswith("scatter"):
        return _argument(op, args, kwargs, "reduce", None) is not None
    if name == "sort":
        return not _argument(op, args, kwargs, "stable", False)
    return bool(_argument(op, args, kwargs, "accumulate", False))


class _DispatchMode(TorchDispatchMode):
    """Sees every operator that reaches a backend, those of a backward pass included, below autograd."""

    def __init__(self, allowed, devices):
        super().__init__()
        self.allowed = allowed
        self.devices = devices
        self.inner = 0  # modes of this kind entered inside this one: they have judged what comes here

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.inner:
            return op(*args, **kwargs)
        kind, detail = rules.rule(op)
        if kind == "passes" and not detail:
            return op(*args, **kwargs)
        packet = op.name().partition(".")[0]
        if packet in self.allowed or op.name() in self.allowed:
            return op(*args, **kwargs)
        tensors = _tensors(args, kwargs)
        # Sums of integers are exact. Random numbers depend on the batch whatever they are.
        if not any(map(_is_real, tensors)) and detail is not rules.RANDOM:
            if packet.startswith("aten::"):
                return op(*args, **kwargs)
        if kind == "passes":
            if _is_conditional_error(op, args, kwargs):
                _fail(op.name(), detail)
            return op(*args, **kwargs)
        if kind == "overrides":
            _require_covered(op, tensors, self.devices)
            if packet.removeprefix("aten::").removesuffix("_") not in rules.DIFFERENTIABLE:
                _require_no_autograd(op, tensors)
            return _override(op, args, kwargs)
        if kind == "decomposes":
            with self:
                return op.decompose(*args, **kwargs)
        _fail(op.name(), detail + f"; batch_invariant_mode(allow=['{packet}']) lets it pass")


# Functions that PyTorch would take apart before an operator is dispatched, in a way that follows strides, sizes and the
# need of derivatives: a linear layer with a bias becomes addmm, or bmm and add, with other bits.
_FUNCTIONS = {}


def _on_function(*functions):
    def register(f):
        for function in functions:
            _FUNCTIONS[function] = f
        return f

    return register


_on_function(torch.nn.functional.linear, torch.ops.aten.linear, torch.ops.aten.linear.default)(_linear)
_on_function(torch.nn.functional.rms_norm, torch.rms_norm, torch.ops.aten.rms_norm, torch.ops.aten.rms_norm.default)(
    _rms_norm
)
_on_function(
    torch.nn.functional.scaled_dot_product_attention,
    torch.ops.aten.scaled_dot_product_attention,
    torch.ops.aten.scaled_dot_product_attention.default,
)(ops.scaled_dot_product_attention)


@_on_function(torch.nn.functional.multi_head_attention_forward)
def _multi_head(*args, **kwargs):
    _fail(
        "multi_head_attention_forward",
        "it chooses its attention by sizes and arguments; use linear and scaled_dot_product_attention",
    )


class _FunctionMode(TorchFunctionMode):
    """Sees calls of functions before PyTorch takes them apart. Compiled code also has a guard on modes of this kind,
    and so never runs in one that it was not compiled in."""

    def __init__(self, allowed, devices):
        super().__init__()
        self.allowed = allowed
        self.devices = devices

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        handler = _FUNCTIONS.get(function)
        if handler is None:
            return function(*args, **kwargs)
        # A mask of torch.nn.attention.bias has no data.
        tensors = [x for x in _tensors(args, kwargs) if not isinstance(x, CausalBias)]
        is_allowed = "aten::" + function.__name__.partition(".")[0] in self.allowed
        if is_allowed or not any(map(_is_real, tensors)):
            return function(*args, **kwargs)
        _require_covered(function, tensors, self.devices)
        if any(torch.is_autocast_enabled(d) for d in {x.device.type for x in tensors} | {"cuda"} if d != "meta"):
            _fail(_name(function), "torch.autocast is on, which would change its types; convert the model instead")
        return handler(*args, **kwargs)


def is_active():
    """Whether this thread is in batch_invariant_mode, be it in a backward pass that a thread in the mode started."""
    return any(isinstance(m, _DispatchMode) for m in _get_current_dispatch_mode_stack())


# ---- torch.compile: compiled code does not come through the dispatcher, and would bypass the mode

_COMPILE_SENTENCE = (
    "batch_invariant_mode: torch.compile would bypass it: the compiler chooses its own kernels. Call the function"
    " without torch.compile, or write torch.ops.bi into it and compile it outside the mode"
)


def _refuse_frame(frame, *args, **kwargs):
    from torch._dynamo import trace_rules
    from torch._dynamo.types import ConvertFrameReturn

    if trace_rules.check(frame.f_code):  # PyTorch's own code on the way
        return ConvertFrameReturn()
    raise BatchInvarianceError(_COMPILE_SENTENCE)


class _CompileGuard:
    """While any thread is in the mode, compiled functions that are called there get a compiler that raises."""

    def __init__(self):
        self.lock = threading.Lock()
        self.depth = 0

    def enter(self):
        from torch._dynamo import eval_frame

        with self.lock:
            self.depth += 1
            if self.depth > 1:
                return
            self.original = eval_frame._callback_from_stance

            def callback_from_stance(callback):
                return _refuse_frame if is_active() and callback not in (None, False) else self.original(callback)

            eval_frame._callback_from_stance = callback_from_stance

    def leave(self):
        from torch._dynamo import eval_frame

        with self.lock:
            self.depth -= 1
            if self.depth == 0:
                eval_frame._callback_from_stance = self.original
                del self.original


_compile_guard = _CompileGuard()


def _require_no_compiler():
    from torch._C._dynamo.eval_frame import get_eval_frame_callback

    if torch.compiler.is_compiling() or get_eval_frame_callback() not in (None, False):
        raise BatchInvarianceError("batch_invariant_mode was entered inside a function that torch.compile compiles")
    from torch._dynamo import eval_frame

    if eval_frame._stance.skip_guard_eval_unsafe:
        raise BatchInvarianceError(
            "batch_invariant_mode: torch.compiler.set_stance(skip_guard_eval_unsafe=True) would let compiled code"
            " bypass it"
        )


# ---- autograd: a backward pass outside the mode would be PyTorch's own


def _unpack(x):
    if not is_active():
        raise BatchInvarianceError(
            "batch_invariant_mode: what was computed in the mode is differentiated outside it; call backward inside"
        )
    return x


class batch_invariant_mode:
    """A context manager: in this thread, aten operators on CUDA tensors of bf16, fp16 and fp32 have the bits of
    torch.ops.bi, or pass because each of their elements is computed alone, or raise BatchInvarianceError.

    overrides(), passes(), decomposes() and raises() of bi_torch list them. allow: operators such as "aten::cumsum"
    that pass all the same, on the caller's word. Entered again inside, its `allow` adds to what holds; leaving
    restores what held before. It raises under torch.compile, whose code would bypass it. reference: tensors on the
    CPU are covered too, by the library's CPU reference: the same bits, slowly, and PyTorch's own for what passes.
    """

    def __init__(self, *, allow=(), reference=False):
        allow = [allow] if isinstance(allow, str) else list(allow)
        for name in allow:
            if "::" not in name:
                raise ValueError(f"batch_invariant_mode: allow: {name!r} must be a name such as 'aten::cumsum'")
        self._allow = frozenset(allow)
        self._devices = frozenset(("cuda", "meta", "cpu") if reference else ("cuda", "meta"))
        self._stacks = []

    def __enter__(self):
        _require_no_compiler()
        outer = [m for m in _get_current_dispatch_mode_stack() if isinstance(m, _DispatchMode)]
        allowed = self._allow.union(*(m.allowed for m in outer))
        devices = self._devices.union(*(m.devices for m in outer))
        with contextlib.ExitStack() as stack:
            _compile_guard.enter()
            stack.callback(_compile_guard.leave)
            if outer:
                outer[-1].inner += 1
                stack.callback(_leave_outer, outer[-1])
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(lambda x: x, _unpack))
            stack.enter_context(_DispatchMode(allowed, devices))
            stack.enter_context(_FunctionMode(allowed, devices))
            self._stacks.append(stack.pop_all())
        return self

    def __exit__(self, *exception):
        self._stacks.pop().__exit__(*exception)


def _leave_outer(mode):
    mode.inner -= 1
