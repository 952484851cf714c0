// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "bi/bi.hpp"
#include "bi/self_test.hpp"
#include "bi/testing/invariance.hpp"
#include "bi/testing/row.hpp"

// What the documentation's snippets take for granted: scripts/check_snippets compiles each in a function that sees these.

using bi::bf16;

// Of the user's engine.
void fail(const std::string& text);
void require(const bi::status& st);
void* device_memory(std::size_t bytes);

extern bi::cuda_stream stream;
extern bi::workspace workspace;

// Matrices and vectors on the device.
extern const bf16 *x, *w, *b, *gamma_weight, *q, *k_new, *v_new;
extern bf16 *y, *h, *r, *out, *k_cache, *v_cache;
extern float *logits, *partials, *lse;
extern std::int64_t m, n, k, max_m, rows, cols, requests, vocab, num_pages, page_size, heads_q, heads_kv;
extern std::int64_t max_requests, max_view;
extern int ranks, rank;
extern const std::int64_t* slot;
extern const std::int32_t *table, *len, *position, *q_start;
extern std::int32_t *token, max_pages;
extern const bi::sample_params* params;
extern const bi::rope_table rope;
extern float eps, scale;

// Of the README.
extern const bf16* gamma;
extern bi::rms_norm_args<bf16> n_on_host;

// A kernel of the user's, for the checker.
bi::status launch_my_kernel(const float* x, float* y, std::int64_t rows, bi::cuda_stream stream);
extern std::vector<float> x_values;
