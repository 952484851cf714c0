// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "alibi_attention.hpp"
#include "bi/status.hpp"
#include "norm_gate.hpp"

// The GPU's kernels, in kernels.cu: what main.cpp sees of them needs no CUDA header. An engine's code looks the same.

bi::status launch_norm_gate(const norm_gate_args& args, std::int64_t rows, bi::cuda_stream stream);
bi::status launch_norm_gate_that_follows_the_batch(const norm_gate_args& args, std::int64_t rows,
                                                   bi::cuda_stream stream);
bi::status launch_alibi_attention(const alibi_attention_args& args, std::int64_t rows, bi::cuda_stream stream);
