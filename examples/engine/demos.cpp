// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "demos.hpp"

namespace engine {

std::vector<std::int32_t> random_tokens(random_source& random, std::int64_t count, std::int64_t vocab) {
  std::vector<std::int32_t> t(static_cast<std::size_t>(count));
  for (std::int32_t& x : t) x = static_cast<std::int32_t>(random.between(0, vocab - 1));
  return t;
}

json begin_report(const char* what, const host& h, const backend& b, const weights& w) {
  json j = json::object();
  j.set("demonstration", what).set("passed", false).set("gpu", b.device()).set("commit", h.commit);
  j.set("model_digest", hex(w.digest)).set("parameters", h.config.parameters()).set("seed", h.seed);
  json contracts = json::object();
  for (const auto& [name, id] : contracts_of(h.config)) contracts.set(name, hex(id));
  return j.set("contracts", contracts);
}

}  // namespace engine
