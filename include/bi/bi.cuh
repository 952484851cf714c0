// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

// Everything, for nvcc: bi/bi.hpp and the kernels with their launchers' definitions.
#include "bi/activation.cuh"
#include "bi/attention.cuh"
#include "bi/bi.hpp"
#include "bi/digest.cuh"
#include "bi/gemm.cuh"
#include "bi/kv_cache.cuh"
#include "bi/layer_norm.cuh"
#include "bi/logits_edit.cuh"
#include "bi/reduce.cuh"
#include "bi/rms_norm.cuh"
#include "bi/rope.cuh"
#include "bi/sample.cuh"
#include "bi/softmax.cuh"
#include "bi/token_counts.cuh"
