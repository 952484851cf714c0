# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What batch_invariant_mode does with each aten operator, as data: it overrides it, lets it pass, takes it apart, or
raises.

An operator that stands nowhere here raises: the mode lets nothing pass that nobody has looked at.
"""

import functools

import torch

# Aten names without overload, and what takes their place. mode.py has the code, and asserts that the two agree.
OVERRIDES = {
    "mm": "bi::mm, one slice",
    "addmm": "bi::addmm, one slice",
    "addmm_": "bi::addmm, one slice",
    "bmm": "bi::bmm, one slice",
    "baddbmm": "bi::baddbmm, one slice",
    "baddbmm_": "bi::baddbmm, one slice",
    "mv": "bi::mm, one slice",
    "dot": "bi::mm, one slice",
    "linear": "bi::linear, one slice",
    "_softmax": "bi::softmax",
    "_log_softmax": "bi::log_softmax",
    "sum": "bi::sum",
    "mean": "bi::mean",
    "rms_norm": "bi::rms_norm",
    "_fused_rms_norm": "bi::rms_norm; its second result is computed apart",
    "scaled_dot_product_attention": "bi::scaled_dot_product_attention",
    "_scaled_dot_product_attention_math": "bi::scaled_dot_product_attention",
    "_scaled_dot_product_flash_attention": "bi::scaled_dot_product_attention",
    "_scaled_dot_product_efficient_attention": "bi::scaled_dot_product_attention",
    "_scaled_dot_product_cudnn_attention": "bi::scaled_dot_product_attention",
}

# Overloads of them that are not overridden.
UNSUPPORTED_OVERLOADS = {
    "aten::mm.dtype": "products into another dtype",
    "aten::mm.dtype_out": "products into another dtype",
    "aten::bmm.dtype": "products into another dtype",
    "aten::bmm.dtype_out": "products into another dtype",
    "aten::addmm.dtype": "products into another dtype",
    "aten::addmm.dtype_out": "products into another dtype",
    "aten::baddbmm.dtype": "products into another dtype",
    "aten::baddbmm.dtype_out": "products into another dtype",
    "aten::sum.dim_DimnameList": "named dimensions",
    "aten::sum.DimnameList_out": "named dimensions",
    "aten::mean.names_dim": "named dimensions",
    "aten::mean.names_out": "named dimensions",
}

# Derivatives of these are the same products again.
DIFFERENTIABLE = {"mm", "addmm", "bmm", "baddbmm", "linear"}

_PRODUCT = "its order of additions may follow the batch; write it with mm, addmm, bmm or baddbmm"
_REDUCTION = "its order of additions may follow the batch; write it with sum or mean"
_NORM = "its order of additions may follow the batch; write it with mean, or use rms_norm"
_ATOMICS = "it adds with atomics, in whatever order the GPU comes to"
_SCAN = "how it splits a scan may follow the batch"
_LOSS = "it adds over the batch inside; use the mean or sum of its parts"
_CONVOLUTION = "cuDNN chooses its algorithm by the batch"
_ATTENTION = "its algorithm is not the one of bi::scaled_dot_product_attention"
_TIES = "which of equal values comes first may follow the batch; use sort(stable=True), or bi_torch.sample"
_FFT = "cuFFT chooses its plan by the batch"
_SOLVER = "the solver's algorithm may follow the batch"

RAISES = {
    name: reason
    for names, reason in (
        (
            "addmv addmv_ addbmm addbmm_ vdot _addmm_activation _scaled_mm _scaled_mm_v2 _grouped_mm "
            "_scaled_grouped_mm _scaled_grouped_mm_v2 _int_mm _weight_int8pack_mm _weight_int4pack_mm "
            "_mixed_dtypes_linear linear_backward matmul_backward _trilinear _cdist_forward _euclidean_dist "
            "_pdist_forward _sparse_semi_structured_linear _sparse_semi_structured_mm _sparse_semi_structured_addmm "
            "_cslt_sparse_mm linalg_matrix_exp",
            _PRODUCT,
        ),
        (
            "prod nansum std std_mean var var_mean norm native_norm linalg_vector_norm logsumexp trace dist renorm "
            "renorm_ linalg__powsum _foreach_norm _foreach_powsum",
            _REDUCTION,
        ),
        (
            "native_layer_norm native_group_norm native_batch_norm _native_batch_norm_legit _batch_norm_with_update "
            "_batch_norm_no_update cudnn_batch_norm _weight_norm_interface _fused_rms_norm_backward "
            "native_layer_norm_backward native_group_norm_backward native_batch_norm_backward "
            "_native_batch_norm_legit_functional _native_batch_norm_legit_no_training",
            _NORM,
        ),
        (
            "index_add index_add_ scatter_add scatter_add_ scatter_reduce scatter_reduce_ index_reduce index_reduce_ "
            "put put_ embedding_dense_backward _embedding_bag _embedding_bag_forward_only histc segment_reduce "
            "_unsafe_masked_index_put_accumulate bincount coalesce _coalesce",
            _ATOMICS,
        ),
        ("cumsum cumsum_ cumprod cumprod_ logcumsumexp _logcumsumexp", _SCAN),
        (
            "nll_loss_forward nll_loss2d_forward mse_loss smooth_l1_loss huber_loss soft_margin_loss "
            "binary_cross_entropy binary_cross_entropy_with_logits multi_margin_loss multilabel_margin_loss_forward "
            "_ctc_loss _cudnn_ctc_loss nll_loss_backward",
            _LOSS,
        ),
        (
            "convolution _convolution cudnn_convolution convolution_backward _conv_depthwise2d conv_tbc "
            "slow_conv3d_forward convolution_overrideable slow_conv_transpose2d slow_conv_transpose3d "
            "slow_conv_dilated2d slow_conv_dilated3d",
            _CONVOLUTION,
        ),
        (
            "_flash_attention_forward _efficient_attention_forward _cudnn_attention_forward "
            "_triton_scaled_dot_attention _triton_multi_head_attention _native_multi_head_attention "
            "_transformer_encoder_layer_fwd _safe_softmax _masked_softmax "
            "_scaled_dot_product_fused_attention_overrideable _scaled_dot_product_flash_attention_for_cpu "
            "_flash_attention_backward _efficient_attention_backward",
            _ATTENTION,
        ),
        ("_softmax_backward_data _log_softmax_backward_data", "softmax has no derivative in this mode"),
        ("topk sort kthvalue median nanmedian mode", _TIES),
        ("_fft_r2c _fft_c2r _fft_c2c", _FFT),
        (
            "linalg_lu linalg_qr linalg_cholesky_ex linalg_inv_ex linalg_eig _linalg_eigh _linalg_svd "
            "_linalg_solve_ex linalg_lstsq triangular_solve linalg_solve_triangular cholesky_solve",
            _SOLVER,
        ),
    )
    for name in names.split()
}
RANDOM = "numbers of one generator depend on the batch; draw them before, or use bi_torch.sample"
UNKNOWN = "nobody has looked at whether it is batch invariant"

# Each element of the result is an element of an argument, a constant, or made from one place of each argument:
# operators with PyTorch's own tag for that, views, and these.
_PASSES = set(
    """clone copy copy_ _to_copy _copy_from _unsafe_view _reshape_copy cat stack _stack index _unsafe_index index_select
    gather take count_nonzero masked_select masked_fill masked_fill_ masked_scatter masked_scatter_ index_copy
    index_copy_ index_fill index_fill_ index_put index_put_ _unsafe_index_put _index_put_impl _index_put_impl_
    scatter scatter_ slice_scatter select_scatter diagonal_scatter as_strided_scatter as_strided_ constant_pad_nd
    repeat repeat_interleave roll flip rot90 tril tril_ triu triu_ diag_embed block_diag embedding pixel_shuffle
    pixel_unshuffle channel_shuffle im2col empty empty_like empty_strided empty_permuted new_empty new_empty_strided
    new_zeros new_ones new_full zeros zeros_like ones ones_like full full_like arange range linspace logspace eye
    scalar_tensor tril_indices triu_indices fill fill_ zero zero_ _local_scalar_dense nonzero nonzero_static lift
    lift_fresh_copy detach_ squeeze_ unsqueeze_ transpose_ t_ resize resize_ resize_as_ set_ is_same_size is_set_to
    max min amax amin aminmax _aminmax argmax argmin any all cummax cummin _cummax_helper _cummin_helper equal
    allclose isin bucketize searchsorted _is_any_true _is_all_true _assert_async _functional_assert_async
    _assert_scalar _functional_assert_scalar _assert_tensor_metadata unsafe_split unsafe_split_with_sizes split_copy
    split_with_sizes_copy unbind_copy slice_copy select_copy narrow_copy expand_copy permute_copy view_copy
    transpose_copy t_copy squeeze_copy unsqueeze_copy diagonal_copy alias_copy detach_copy as_strided_copy
    unfold_copy view_as_real_copy view_as_complex_copy slice_backward select_backward diagonal_backward
    record_stream _pin_memory is_pinned unique_consecutive unique_dim _unique _unique2 glu complex polar where
    _has_same_storage_numel sym_constrain_range sym_constrain_range_for_size _efficientzerotensor relu add_ isnan
    isinf _foreach_copy _foreach_copy_ _foreach_zero _foreach_zero_ _foreach_max native_dropout_backward
    reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d
    threshold_backward gelu_backward log_sigmoid_forward log_sigmoid_backward glu_backward softplus_backward
    hardtanh_backward hardsigmoid_backward hardswish_backward leaky_relu_backward elu_backward addr addr_
    linalg_cross _amp_foreach_non_finite_check_and_unscale_ _fused_adam_ _fused_adamw_ _fused_sgd_ hardswish
    hardswish_ leaky_relu leaky_relu_ floor_divide floor_divide_ _prelu_kernel hardshrink_backward
    softshrink_backward _conj_physical max_pool2d_with_indices""".split()
)

# Of these the arguments decide.
CONDITIONAL = {
    "index_put": "accumulate=True adds with atomics",
    "index_put_": "accumulate=True adds with atomics",
    "_unsafe_index_put": "accumulate=True adds with atomics",
    "_index_put_impl": "accumulate=True adds with atomics",
    "_index_put_impl_": "accumulate=True adds with atomics",
    "scatter": "with reduce it adds with atomics",
    "scatter_": "with reduce it adds with atomics",
    "sort": "without stable=True " + _TIES,
}


@functools.cache
def _overloads():
    """All of aten, by name without overload."""
    out = {}
    for full in sorted(torch._C._dispatch_get_all_op_names()):
        if full.startswith("aten::"):
            name, _, overload = full.removeprefix("aten::").partition(".")
            out.setdefault(name, []).append(getattr(getattr(torch.ops.aten, name), overload or "default"))
    return out


def _is_pointwise(name):
    def tagged(n):
        return any(torch.Tag.pointwise in op.tags for op in _overloads().get(n, ()))

    base = name.removeprefix("_foreach_") if name.startswith("_foreach_") else name
    return tagged(base) or (base.endswith("_") and tagged(base.removesuffix("_")))


@functools.cache
def rule(op):
    """("overrides" | "passes" | "decomposes" | "raises", detail) of an operator such as torch.ops.aten.mm.default."""
    full = op.name()
    namespace, _, rest = full.partition("::")
    name = rest.partition(".")[0]
    if namespace in ("bi", "prim", "profiler"):
        return "passes", ""
    if namespace != "aten":
        return "raises", UNKNOWN
    if full in UNSUPPORTED_OVERLOADS:
        return "raises", UNSUPPORTED_OVERLOADS[full] + " are not supported"
    if name in OVERRIDES:
        return "overrides", OVERRIDES[name]
    if name in CONDITIONAL:
        return "passes", CONDITIONAL[name]
    if name in RAISES:
        return "raises", RAISES[name]
    is_random = torch.Tag.nondeterministic_seeded in op.tags
    if not is_random and (name in _PASSES or op.is_view or _is_pointwise(name)):
        return "passes", ""
    if torch._C._dispatch_has_kernel_for_dispatch_key(full, "CompositeImplicitAutograd"):
        return "decomposes", ""
    return "raises", RANDOM if is_random else UNKNOWN


def _listed(kind):
    return {op.name(): rule(op)[1] for ops in _overloads().values() for op in ops if rule(op)[0] == kind}


def overrides():
    """{operator: what takes its place}, of all of aten."""
    return _listed("overrides")


def raises():
    """{operator: why}. Operators of other libraries raise too, and what would pass raises where its arguments demand
    it."""
    return _listed("raises")


def passes():
    """{operator: "" or the arguments with which it raises}: each element of a result is computed alone, or exactly."""
    return _listed("passes")


def decomposes():
    """Operators that PyTorch itself writes with others, which are judged one by one."""
    return sorted(_listed("decomposes"))
