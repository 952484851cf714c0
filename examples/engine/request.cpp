// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "request.hpp"

#include "bi/contract/arithmetic.hpp"
#include "bi/contract/id.hpp"

namespace engine {
namespace {

void absorb_script(request_digest& d, const script& s) {
  d = bi::contract::absorb(d, s.size());
  for (const phase& p : s) {
    d = bi::contract::absorb(d, p.forced.size());
    for (const std::int32_t t : p.forced) d = bi::contract::absorb(d, static_cast<std::uint32_t>(t));
    d = bi::contract::absorb(d, static_cast<std::uint64_t>(p.sampled));
    d = bi::contract::absorb(d, static_cast<std::uint64_t>(p.kind));
    d = bi::contract::absorb(d, p.branches.size());
    for (const script& b : p.branches) absorb_script(d, b);
  }
}

}  // namespace

std::uint64_t header_of(std::uint64_t identity, const request& r) {
  request_digest d = bi::contract::absorb({}, identity);
  d = bi::contract::absorb(d, bi::bits_of(r.sampling.temperature));
  d = bi::contract::absorb(d, static_cast<std::uint32_t>(r.sampling.top_k));
  d = bi::contract::absorb(d, bi::bits_of(r.sampling.top_p));
  d = bi::contract::absorb(d, bi::bits_of(r.sampling.min_p));
  d = bi::contract::absorb(d, r.sampling.seed);
  absorb_script(d, r.what);
  return d.low ^ bi::mix64(d.high);
}

request_digest digest_of(const request_record& r) {
  request_digest d;
  for (const branch_record& b : r.branches) {
    d = bi::contract::absorb(bi::contract::absorb(d, b.digest.low), b.digest.high);
    for (const step_record& s : b.steps) d = bi::contract::absorb(d, bi::bits_of(s.logprob));
    for (const segment_record& s : b.segments) {
      d = bi::contract::absorb(d, static_cast<std::uint64_t>(s.computed));
      for (const std::uint64_t word : s.kv) d = bi::contract::absorb(d, word);
    }
  }
  return d;
}

}  // namespace engine
