// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cstring>

#include "bi/bi.cuh"
#include "bi/self_test.cuh"
#include "support.cuh"

// norm -> product -> attention -> product -> sample for 64 requests, recorded in a CUDA graph on a stream of the caller's;
// then one of the requests alone, whose logits and token must be the same to the last bit.

using attention = bi::attention<bi::bf16, 128>;
using to_q = bi::gemm<bi::bf16>;
using to_logits = bi::gemm<bi::bf16, bi::epilogue::none, float>;

bi::attention_limits limits() {
  bi::attention_limits l;
  l.max_requests = l.max_rows = requests, l.max_view = length, l.heads_q = heads, l.heads_kv = heads_kv;
  return l;
}

// Requests [first, first + rows). Only enqueues: no allocation, no wait, no copy.
void step(const engine& e, std::int64_t first, std::int64_t rows, cudaStream_t stream) {
  bi::rms_norm_args<bi::bf16> n;
  n.x = e.x + first * hidden, n.weight = e.norm_weight, n.out = e.normed, n.rows = rows, n.cols = hidden;
  require(bi::rms_norm(n, stream));

  to_q::args q;
  q.a = e.normed, q.b = e.q_weight, q.d = e.q, q.m = rows;
  require(to_q::prepare({heads * dim, hidden, requests})(q, {}, stream));

  bi::attention_args<bi::bf16> a;
  a.q = e.q, a.cache = e.cache, a.view = e.table, a.len = e.len + first, a.requests = a.rows = rows;
  a.view.table.pages += first * e.table.row_stride;
  a.scale = 0.0883883f, a.limits = limits(), a.out = e.attended;
  require(attention::launch(a, e.workspace, stream));

  to_logits::args l;
  l.a = e.attended, l.b = e.vocab_weight, l.d = e.logits, l.m = rows;
  require(to_logits::prepare({vocab, heads * dim, requests})(l, {}, stream));

  bi::sample_args<float> s;
  s.logits = e.logits, s.rows = rows, s.vocab = vocab, s.params = e.params + first, s.token = e.token;
  require(bi::sample(s, stream));
}

int main() {
  if (!gpu_is_here()) return 77;
  cudaStream_t stream = nullptr;
  require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  const bi::self_test_result tested = bi::self_test(stream);
  require(static_cast<bool>(tested), bi::describe(tested));
  const engine e(attention::workspace_bytes(limits()));

  step(e, 0, requests, stream);  // kernels are loaded when they run first, which no capture should wait for
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  step(e, 0, requests, stream);
  require(cudaStreamEndCapture(stream, &graph));
  require(cudaGraphInstantiate(&replay, graph, 0));
  require(cudaGraphLaunch(replay, stream));
  const auto logits = download(e.logits, requests * vocab, stream);
  const auto token = download(e.token, requests, stream);

  constexpr std::int64_t needle = 41;
  step(e, needle, 1, stream);
  const auto alone = download(e.logits, vocab, stream);
  const bool same = std::memcmp(alone.data(), &logits[needle * vocab], vocab * sizeof(float)) == 0;
  const std::int32_t token_alone = download(e.token, 1, stream)[0];
  std::printf("request 41: token %d among 64 requests, token %d alone, logits %s\n", token[needle], token_alone,
              same ? "equal to the last bit" : "DIFFERENT");
  return same && token[needle] == token_alone ? 0 : 1;
}
