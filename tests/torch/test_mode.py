# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""batch_invariant_mode: what it lists, does, refuses and restores."""

import re
import threading

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import bi_torch
from bi_torch import BatchInvarianceError, batch_invariant_mode
from support import assert_same_bytes, random


def mode(**kwargs):
    """Covers the CPU too, by the library's reference."""
    return batch_invariant_mode(reference=True, **kwargs)


def meta(*shape, dtype=torch.bfloat16, **kwargs):
    return torch.empty(shape, dtype=dtype, device="meta", **kwargs)


# ---- lists


def test_the_lists_divide_aten():
    lists = [bi_torch.overrides(), bi_torch.raises(), bi_torch.passes(), dict.fromkeys(bi_torch.decomposes())]
    names = [set(x) for x in lists]
    everything = {n for n in torch._C._dispatch_get_all_op_names() if n.startswith("aten::")}
    assert set().union(*names) == everything and sum(map(len, names)) == len(everything)
    assert all(lists[0].values()) and all(lists[1].values())


def test_the_lists_name_what_exists():
    from bi_torch import rules

    known = {n.removeprefix("aten::").partition(".")[0] for n in torch._C._dispatch_get_all_op_names()}
    for names in (rules.OVERRIDES, rules.RAISES, rules.CONDITIONAL):
        assert not set(names) - known
    assert not {n.removeprefix("aten::").partition(".")[0] for n in rules.UNSUPPORTED_OVERLOADS} - known
    assert not rules._PASSES - known
    assert not set(rules.RAISES) & rules._PASSES and not set(rules.OVERRIDES) & rules._PASSES


@pytest.mark.parametrize(
    "op,kind",
    [
        ("mm.default", "overrides"),
        ("mm.out", "overrides"),
        ("mm.dtype", "raises"),
        ("_scaled_dot_product_flash_attention.default", "overrides"),
        ("mean.dim", "overrides"),
        ("sum.dim_IntList", "overrides"),
        ("matmul.default", "decomposes"),
        ("add_.Tensor", "passes"),
        ("silu.default", "passes"),
        ("hardswish.default", "passes"),
        ("leaky_relu.default", "passes"),
        ("coalesce.default", "raises"),
        ("view.default", "passes"),
        ("cumsum.default", "raises"),
        ("convolution.default", "raises"),
        ("native_layer_norm.default", "raises"),
        ("bernoulli.default", "raises"),
        ("_safe_softmax.default", "raises"),
        ("topk.default", "raises"),
    ],
)
def test_rules(op, kind):
    name, overload = op.split(".")
    assert bi_torch.rule(getattr(getattr(torch.ops.aten, name), overload))[0] == kind


def test_no_reduction_of_pytorch_passes():
    """Reductions by name, whatever list somebody put them in."""
    parts = ("sum", "mean", "norm", "std", "var", "cumprod", "logsumexp", "dot", "conv", "softmax", "attention", "loss")
    exact = ("_foreach_", "bitwise", "log_sigmoid")
    for name in bi_torch.passes():
        base = name.removeprefix("aten::").partition(".")[0]
        if not base.startswith(exact) and (any(p in base for p in parts) or re.search("(^|_)[a-z]?(add)?b?mm", base)):
            assert base in (
                "huber_loss_backward",
                "soft_margin_loss_backward",
                "smooth_l1_loss_backward",
                "mse_loss_backward",
                "binary_cross_entropy_backward",
            ), name


# ---- results

OPERATORS = {
    "mm": (lambda x, w: x @ w, lambda x, w: bi_torch.mm(x, w, slices=1)),
    "mm.out": (lambda x, w: torch.mm(x, w, out=x.new_empty(5, 6)), lambda x, w: bi_torch.mm(x, w, slices=1)),
    "addmm": (
        lambda x, w: torch.addmm(w[0], x, w, beta=0.5, alpha=2),
        lambda x, w: bi_torch.addmm(w[0], x, w, beta=0.5, alpha=2, slices=1),
    ),
    "addmm_": (
        lambda x, w: x.new_ones(5, 6).addmm_(x, w),
        lambda x, w: bi_torch.addmm(x.new_ones(5, 6), x, w, slices=1),
    ),
    "matmul in a batch": (lambda x, w: x.expand(3, 5, 8) @ w, lambda x, w: bi_torch.mm(x, w, slices=1).expand(3, 5, 6)),
    "bmm": (lambda x, w: torch.bmm(x[None], w[None]), lambda x, w: bi_torch.mm(x, w, slices=1)[None]),
    "baddbmm": (
        lambda x, w: torch.baddbmm(w[0], x[None], w[None], alpha=3),
        lambda x, w: bi_torch.addmm(w[0], x, w, alpha=3, slices=1)[None],
    ),
    "einsum": (lambda x, w: torch.einsum("ij,jk->ik", x, w), lambda x, w: bi_torch.mm(x, w, slices=1)),
    "mv": (lambda x, w: x @ w[:, 0], lambda x, w: bi_torch.mm(x, w, slices=1)[:, 0]),
    "dot": (lambda x, w: x[0] @ w[:, 0], lambda x, w: bi_torch.mm(x, w, slices=1)[0, 0]),
    "linear": (lambda x, w: F.linear(x, w.T, w[0]), lambda x, w: bi_torch.linear(x, w.T, w[0], slices=1)),
    "linear of aten": (
        lambda x, w: torch.ops.aten.linear.default(x, w.T, w[0]),
        lambda x, w: bi_torch.linear(x, w.T, w[0], slices=1),
    ),
    "softmax": (lambda x, w: x.softmax(0), lambda x, w: bi_torch.softmax(x, 0)),
    "softmax to fp32": (
        lambda x, w: F.softmax(x, -1, dtype=torch.float32),
        lambda x, w: bi_torch.softmax(x.float()) if x.device.type == "cpu" else bi_torch.softmax(x, -1, torch.float32),
    ),
    "log_softmax": (lambda x, w: F.log_softmax(x, -1), lambda x, w: bi_torch.log_softmax(x)),
    "sum": (lambda x, w: x.sum(), lambda x, w: bi_torch.sum(x)),
    "sum over columns": (lambda x, w: x.sum(0, keepdim=True), lambda x, w: bi_torch.sum(x, 0, True)),
    "mean": (lambda x, w: x.mean((0, 1)), lambda x, w: bi_torch.mean(x)),
    "mean of squares": (
        lambda x, w: x.float().pow(2).mean(-1, keepdim=True),
        lambda x, w: bi_torch.mean(x.float().pow(2), -1, True),
    ),
    "rms_norm": (lambda x, w: F.rms_norm(x, (8,), w[:, 0], 1e-5), lambda x, w: bi_torch.rms_norm(x, w[:, 0], 1e-5)),
    "rms_norm of two dimensions": (
        lambda x, w: F.rms_norm(x, (5, 8), eps=1e-5),
        lambda x, w: bi_torch.rms_norm(x.flatten(), None, 1e-5).view(5, 8),
    ),
    "_fused_rms_norm": (
        lambda x, w: torch.ops.aten._fused_rms_norm(x, [8], w[:, 0], 1e-5)[0],
        lambda x, w: bi_torch.rms_norm(x, w[:, 0], 1e-5),
    ),
    "layers": (
        lambda x, w: torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.SiLU()).to(x)(x).shape,
        lambda x, w: torch.Size((5, 4)),
    ),
}


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name, dtype, inference, device):
    if name == "layers" and inference:
        pytest.skip("layers are drawn at random")
    x, w = random(5, 8, dtype=dtype, device=device), random(8, 6, dtype=dtype, device=device, seed=1)
    in_mode, expected = OPERATORS[name]
    allow = ["aten::uniform_"] if name == "layers" else []
    with torch.inference_mode(inference), torch.no_grad(), mode(allow=allow):
        out = in_mode(x, w)
    if isinstance(out, torch.Size):
        assert out == expected(x, w)
    else:
        assert_same_bytes(out, expected(x, w))


@pytest.mark.parametrize("inference", [False, True])
def test_attention(inference, device):
    q, k = random(2, 4, 5, 64, device=device), random(2, 2, 5, 64, device=device, seed=1)
    mine = torch.nn.attention.bias.causal_lower_right(3, 5)
    with torch.inference_mode(inference), mode():
        out = F.scaled_dot_product_attention(q, k, k, is_causal=True, enable_gqa=True)
        lower = F.scaled_dot_product_attention(q[:, :2, :3], k, k, attn_mask=mine)
        of_aten = torch.ops.aten._scaled_dot_product_flash_attention(q[:, :2], k, k, 0.0, True)
    assert_same_bytes(out, bi_torch.scaled_dot_product_attention(q, k, k, is_causal=True, enable_gqa=True))
    assert_same_bytes(lower, bi_torch.scaled_dot_product_attention(q[:, :2, :3], k, k, attn_mask=mine))
    assert_same_bytes(of_aten[0], bi_torch.scaled_dot_product_attention(q[:, :2], k, k, is_causal=True))
    assert of_aten[1].shape == (2, 2, 5) and of_aten[1].dtype == torch.float32


def test_a_linear_layer_does_not_follow_strides(device):
    """PyTorch adds the bias of a batch of more than one, transposed, apart, and rounds twice."""
    x, w, bias = random(7, 4, 8, device=device), random(6, 8, device=device), random(6, device=device, seed=3)
    with mode():
        alone = F.linear(x[:, :1].transpose(0, 1), w, bias)
        batch = F.linear(x.transpose(0, 1), w, bias)
    assert_same_bytes(batch[:1], alone)


def test_fake_tensors(device):
    with FakeTensorMode() as fake, batch_invariant_mode():
        out = F.linear(torch.empty(3, 8, device="cuda"), torch.empty(4, 8, device="cuda")).softmax(-1).sum(0)
    assert isinstance(out, FakeTensor) and out.shape == (4,) and out.device.type == "cuda" and out.fake_mode is fake
    with batch_invariant_mode(), FakeTensorMode():
        assert (torch.empty(3, 8, device="cuda") @ torch.empty(8, 2, device="cuda")).shape == (3, 2)


# ---- refusals

FLOATS = lambda: meta(4, 4)  # noqa: E731
REFUSED = {
    "aten::cumsum: ": lambda: FLOATS().cumsum(0),
    "aten::topk: ": lambda: FLOATS().topk(2),
    "aten::sort: ": lambda: FLOATS().sort(),
    "aten::index_put_: accumulate": lambda: FLOATS().index_put_((torch.tensor([0]),), meta(4), accumulate=True),
    "aten::scatter.reduce: ": lambda: FLOATS().scatter(
        0, torch.zeros(1, 4, dtype=torch.long, device="meta"), FLOATS(), reduce="add"
    ),
    "aten::index_add: ": lambda: FLOATS().index_add(0, torch.zeros(4, dtype=torch.long, device="meta"), FLOATS()),
    "aten::randn: ": lambda: torch.randn(3, device="meta"),
    "aten::randint: ": lambda: torch.randint(3, (3,), device="meta"),
    "numbers of one generator depend on the batch": lambda: F.dropout(FLOATS()),
    "aten::native_layer_norm: ": lambda: F.layer_norm(FLOATS(), (4,)),
    "aten::convolution: ": lambda: F.conv1d(meta(1, 2, 8), meta(3, 2, 3)),
    "aten::var": lambda: FLOATS().var(),
    "aten::nll_loss_forward: ": lambda: F.cross_entropy(FLOATS(), torch.zeros(4, dtype=torch.long, device="meta")),
    "float64; supported": lambda: meta(2, 2, dtype=torch.float64) @ meta(2, 2, dtype=torch.float64),
    "complex64; supported": lambda: meta(2, dtype=torch.complex64).sum(),
    "aten::mm.dtype: products into another dtype": lambda: torch.mm(FLOATS(), FLOATS(), out_dtype=torch.float32),
    "on cpu; the mode covers CUDA": lambda: torch.ones(2, 2) @ torch.ones(2, 2),
    "linear: a tensor is on cpu": lambda: F.linear(torch.ones(2, 2), torch.ones(2, 2)),
    "attn_mask is not supported": lambda: F.scaled_dot_product_attention(*[FLOATS()] * 3, attn_mask=FLOATS()),
    "dropout_p = 0.1 must be 0": lambda: F.scaled_dot_product_attention(*[FLOATS()] * 3, dropout_p=0.1),
    "query is float32": lambda: F.scaled_dot_product_attention(*[FLOATS().float()] * 3),
    "multi_head_attention_forward: ": lambda: torch.nn.MultiheadAttention(4, 1, device="meta", dtype=torch.bfloat16)(
        *[FLOATS()] * 3
    ),
    "sum: dtype = ": lambda: FLOATS().float().sum(dtype=torch.bfloat16),
    "out must have": lambda: torch.mm(FLOATS(), FLOATS(), out=meta(3, 4)),
}


@pytest.mark.parametrize("sentence", REFUSED)
@pytest.mark.parametrize("inference", [False, True])
def test_refused(sentence, inference):
    allow = ["aten::uniform_", "aten::normal_"]
    with torch.inference_mode(inference), torch.no_grad(), batch_invariant_mode(allow=allow):
        with pytest.raises(RuntimeError) as e:
            REFUSED[sentence]()
    assert sentence in str(e.value)


def test_operators_of_others_raise_unless_allowed():
    @torch.library.custom_op("bi_test::negated", mutates_args=())
    def negated(x: torch.Tensor) -> torch.Tensor:
        return -x

    x = torch.ones(3)
    with mode():
        with pytest.raises(BatchInvarianceError, match="bi_test::negated: nobody has looked"):
            negated(x)
        with mode(allow=["bi_test::negated"]):
            assert negated(x).tolist() == [-1, -1, -1]
            with mode():
                negated(x)
        with pytest.raises(BatchInvarianceError):
            negated(x)


def test_dropout_that_drops_nothing_passes(device):
    x = torch.ones(3, device=device)
    for inference in (False, True):
        with torch.inference_mode(inference), mode():
            assert F.dropout(x, 0.5, training=False).tolist() == [1, 1, 1]


def test_integers_pass(device):
    x = torch.arange(6, device=device)
    with mode():
        assert x.sum().item() == 15 and x.cumsum(0)[-1].item() == 15 and (x > 2).sum().item() == 3
        assert x.sort().values.tolist() == list(range(6))


def test_autocast_is_refused():
    with torch.autocast("cpu", torch.bfloat16), mode():
        with pytest.raises(BatchInvarianceError, match="linear: torch.autocast is on"):
            F.linear(torch.ones(2, 2), torch.ones(2, 2))


def test_allow():
    with batch_invariant_mode(allow="aten::cumsum"):
        meta(3).cumsum(0)
        with pytest.raises(BatchInvarianceError):
            meta(3).cumprod(0)
    with pytest.raises(ValueError, match="must be a name such as"):
        batch_invariant_mode(allow=["cumsum"])


# ---- where it holds


def is_refused():
    try:
        meta(3).cumsum(0)
    except BatchInvarianceError:
        return True
    return False


def test_nested_and_left():
    from torch._dynamo import eval_frame

    callback = eval_frame._callback_from_stance
    outer = batch_invariant_mode()
    assert not bi_torch.is_active() and not is_refused()
    with outer:
        with batch_invariant_mode(allow=["aten::cumsum"]):
            assert not is_refused()
            with outer:  # the same object again
                assert not is_refused() and bi_torch.is_active()
            assert not is_refused()
        assert is_refused()
        with pytest.raises(KeyError), batch_invariant_mode():
            raise KeyError
        assert is_refused() and bi_torch.is_active()
    assert not bi_torch.is_active() and not is_refused()
    assert eval_frame._callback_from_stance is callback
    assert torch._C._len_torch_dispatch_stack() == 0 and torch._C._len_torch_function_stack() == 0


def test_other_threads_are_not_in_it():
    seen = []
    with batch_invariant_mode():
        thread = threading.Thread(target=lambda: seen.append(is_refused()))
        thread.start()
        thread.join()
        assert is_refused()
    assert seen == [False]


# ---- torch.compile


def double(x):
    return x @ x + 1


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("fullgraph", [False, True])
@pytest.mark.parametrize("compiled_before", [False, True])
def test_compiled_functions_raise(backend, fullgraph, compiled_before, device):
    torch._dynamo.reset()
    compiled = torch.compile(double, backend=backend, fullgraph=fullgraph)
    x = torch.ones(3, 3, device=device)
    expected = double(x)
    if compiled_before:
        compiled(x)
    with mode(), pytest.raises(BatchInvarianceError, match="torch.compile would bypass it"):
        compiled(x)
    assert torch.equal(compiled(x), expected)


def test_compiled_modules_raise(device):
    torch._dynamo.reset()
    layer = torch.nn.Linear(3, 3, device=device)
    layer.compile(backend="eager")
    x = torch.ones(3, 3, device=device)
    with torch.no_grad():
        layer(x)
        with mode(), pytest.raises(BatchInvarianceError, match="torch.compile would bypass it"):
            layer(x)
        layer(x)


def test_compiling_elsewhere_goes_on():
    torch._dynamo.reset()
    compiled = torch.compile(double, backend="eager")
    out = []
    with batch_invariant_mode():
        thread = threading.Thread(target=lambda: out.append(compiled(torch.ones(3, 3))))
        thread.start()
        thread.join()
    assert len(out) == 1 and out[0].shape == (3, 3)


@pytest.mark.parametrize("fullgraph", [False, True])
def test_it_is_not_entered_inside_compiled_code(fullgraph):
    torch._dynamo.reset()

    @torch.compile(backend="eager", fullgraph=fullgraph)
    def f(x):
        y = x + 1
        with batch_invariant_mode():
            return y @ y

    with pytest.raises(Exception) as e:
        f(torch.ones(3, 3))
    assert fullgraph or "was entered inside a function that torch.compile compiles" in str(e.value)
    assert not bi_torch.is_active() and torch._C._len_torch_dispatch_stack() == 0


# ---- autograd


def test_derivatives_are_products_of_the_same_kind(device):
    x, w = random(5, 8, device=device).requires_grad_(), random(8, 6, device=device, seed=1).requires_grad_()
    c = random(6, device=device, seed=2).requires_grad_()
    g = random(5, 6, device=device, seed=3)
    with mode():
        (torch.addmm(c, x, w) + x @ w).backward(g)
    twice = lambda y: y + y  # noqa: E731
    assert_same_bytes(x.grad, twice(bi_torch.mm(g, w.detach().T, slices=1)))
    assert_same_bytes(w.grad, twice(bi_torch.mm(x.detach().T, g, slices=1)))
    assert_same_bytes(c.grad, bi_torch.sum(g, [0]))


def test_a_layer_is_differentiated(device):
    x = random(2, 3, 8, device=device).requires_grad_()
    w, c = random(6, 8, device=device, seed=1).requires_grad_(), random(6, device=device, seed=2).requires_grad_()
    g = random(2, 3, 6, device=device, seed=3)
    with mode():
        F.silu(F.linear(x, w, c)).backward(g)
    assert x.grad.shape == x.shape and w.grad.shape == w.shape and c.grad.shape == c.shape
    exact = [t.detach().float().requires_grad_() for t in (x, w, c)]
    F.silu(F.linear(*exact)).backward(g.float())
    for a, b in zip((x, w, c), exact):
        torch.testing.assert_close(a.grad.float(), b.grad, rtol=0.05, atol=0.05)


def test_derivatives_on_the_gpu_come_from_another_thread(gpu):
    """The mode goes with the backward pass to the thread that runs it."""
    x = random(5, 8, device=gpu).requires_grad_()
    seen = []

    class Spy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            seen.append((bi_torch.is_active(), threading.get_ident()))
            return g

    gradient = random(5, 5, device=gpu)
    with batch_invariant_mode():
        Spy.apply(x @ x.T).backward(gradient)
    assert seen[0][0] and seen[0][1] != threading.get_ident()


@pytest.mark.parametrize("run", ["inside", "outside"])
def test_backward_belongs_inside(run):
    x = meta(3, 3, requires_grad=True)
    with batch_invariant_mode():
        y = (x @ x) * 2
        if run == "inside":
            y.backward(meta(3, 3))
            return
    with pytest.raises(BatchInvarianceError, match="call backward inside"):
        y.backward(meta(3, 3))


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x.softmax(0),
        lambda x: x.sum(),
        lambda x: x.mean(0),
        lambda x: x @ x[0],
        lambda x: F.rms_norm(x, (4,)),
        lambda x: F.scaled_dot_product_attention(x, x, x),
    ],
)
def test_everything_else_refuses_autograd(f):
    x = meta(4, 4, requires_grad=True)
    with batch_invariant_mode():
        with pytest.raises(RuntimeError, match="has no derivative"):
            f(x)
        with torch.no_grad():
            f(x)
