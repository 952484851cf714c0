# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Batch-invariant operators for PyTorch, from bi. See docs/pytorch.md."""

from .ops import (
    add_rms_norm,
    addmm,
    baddbmm,
    bmm,
    kv_append,
    linear,
    log_softmax,
    mean,
    mm,
    paged_attention,
    rms_norm,
    sample,
    scaled_dot_product_attention,
    softmax,
    sum,
)
from .mode import BatchInvarianceError, batch_invariant_mode, is_active
from .rules import decomposes, overrides, passes, raises, rule
