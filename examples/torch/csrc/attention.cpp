// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/attention.hpp"

#include <cmath>

#include "bi/kv_cache.hpp"
#include "bi/reference/attention.hpp"
#include "bi/reference/kv_cache.hpp"
#include "common.hpp"
#include "operations.hpp"

namespace bi_torch {

namespace {

constexpr std::int64_t most_rows = (std::int64_t{1} << 31) - 1;  // row numbers are int32 on the device

enum mask_kind : std::int64_t { full = 0, upper_left = 1, lower_right = 2 };

void require_half(const char* operation, const char* name, const Tensor& x) {
  require(x.scalar_type() == ScalarType::BFloat16 || x.scalar_type() == ScalarType::Half, operation, ": ", name, " is ",
          name_of(x.scalar_type()), "; supported: BFloat16, Half");
}

template <class T, int HeadDim>
void launch(const bi::attention_args<T>& a, const Tensor& like, const place& on) {
  using attention = bi::attention<T, HeadDim>;
  if (on.is_cpu()) return require_ok(bi::reference::attention(a));
  // Requests of more packed rows than this take no workspace.
  const std::int64_t packed = a.limits.max_q_len * (a.limits.heads_q / a.limits.heads_kv);
  const scratch ws(like, packed <= 64 ? attention::workspace_bytes(a.limits) : 0);
  require_ok(attention::launch(a, ws.space(), on.stream()));
}

template <class T>
void launch(const char* operation, const bi::attention_args<T>& a, const Tensor& like, const place& on) {
  switch (a.limits.head_dim) {
    case 64:
      return launch<T, 64>(a, like, on);
    case 128:
      return launch<T, 128>(a, like, on);
    case 256:
      return launch<T, 256>(a, like, on);
    default:
      fail(operation, ": head_dim = ", a.limits.head_dim, " is not supported; supported: 64, 128, 256");
  }
}

// A stride of the library's, where 0 stands for a default: of a dimension of one element, any will do.
std::int64_t stride_of(const Tensor& x, std::int64_t dim) { return x.size(dim) > 1 ? x.stride(dim) : 0; }

// Whether the strides of all dimensions but the last are those of places that don't overlap, as far as the library
// asks.
bool strides_fit(const Tensor& x, std::int64_t head_dim) {
  const std::int64_t last = x.dim() - 1;
  if (x.size(last) > 1 && x.stride(last) != 1) return false;
  for (std::int64_t i = 0; i < last; ++i) {
    if (x.size(i) > 1 && x.stride(i) < head_dim) return false;
  }
  return true;
}

// [batch, heads, tokens, head_dim] as rows of [batch * tokens, heads, head_dim].
struct query_rows {
  Tensor x;
  std::int64_t token_stride, head_stride;

  explicit query_rows(const Tensor& q) : x(q) {
    const std::int64_t batch = q.size(0), heads = q.size(1), tokens = q.size(2), dim = q.size(3);
    const std::int64_t rows = batch * tokens;
    const bool one_step = batch == 1 || tokens == 1 || q.stride(0) == tokens * q.stride(2);
    token_stride = tokens > 1 ? q.stride(2) : stride_of(q, 0);
    head_stride = stride_of(q, 1);
    const std::int64_t token = token_stride != 0 ? token_stride : dim, head = head_stride != 0 ? head_stride : dim;
    const bool apart = rows <= 1 || heads <= 1 || token >= (heads - 1) * head + dim || head >= (rows - 1) * token + dim;
    if (one_step && apart && strides_fit(q, dim)) return;
    x = torch::stable::contiguous(torch::stable::transpose(q, 1, 2));
    token_stride = heads * dim, head_stride = dim;
  }
};

// [batch, heads, tokens, head_dim] as a cache of one page a batch entry.
template <class T>
bi::paged_cache<const T> cache_of(const Tensor& k, const Tensor& v) {
  bi::paged_cache<const T> c;
  c.k = pointer<T>(k), c.v = pointer<T>(v);
  c.num_pages = k.size(0), c.heads = k.size(1), c.page_size = k.size(2), c.head_dim = k.size(3);
  const auto some = [](std::int64_t stride, std::int64_t packed) { return stride != 0 ? stride : packed; };
  // V's strides default to K's, so all are given.
  c.k_head_stride = some(stride_of(k, 1), c.head_dim), c.v_head_stride = some(stride_of(v, 1), c.head_dim);
  c.k_token_stride = some(stride_of(k, 2), c.heads * c.k_head_stride);
  c.v_token_stride = some(stride_of(v, 2), c.heads * c.v_head_stride);
  c.k_page_stride = some(stride_of(k, 0), c.page_size * c.k_token_stride);
  c.v_page_stride = some(stride_of(v, 0), c.page_size * c.v_token_stride);
  return c;
}

}  // namespace

std::tuple<Tensor, Tensor> scaled_dot_product_attention(const Tensor& query, const Tensor& key, const Tensor& value,
                                                        std::int64_t mask, std::optional<double> scale) {
  const char* const op = "scaled_dot_product_attention";
  const place on(op, "query", query);
  on.require_here("key", key);
  on.require_here("value", value);
  require_half(op, "query", query);
  require_dtype(op, "key", key, query.scalar_type());
  require_dtype(op, "value", value, query.scalar_type());
  require(query.dim() == 4 && key.dim() == 4 && value.dim() == 4, op,
          ": query, key and value must be [batch, heads, tokens, head_dim]");
  const std::int64_t batch = query.size(0), heads = query.size(1), rows = query.size(2), dim = query.size(3);
  const std::int64_t heads_kv = key.size(1), tokens = key.size(2);
  require(key.size(0) == batch && key.size(3) == dim && value.size(0) == batch && value.size(1) == heads_kv &&
              value.size(2) == tokens && value.size(3) == dim,
          op, ": query ", shape_of(query), ", key ", shape_of(key), " and value ", shape_of(value),
          " must agree but for query heads and query tokens");
  require(heads_kv > 0 && heads % heads_kv == 0, op, ": ", heads, " query heads must be a multiple of ", heads_kv,
          " key heads");
  require(full <= mask && mask <= lower_right, op, ": mask = ", mask,
          " must be 0 (none), 1 (causal, upper left) or 2 (causal, lower right)");
  require(mask == full || rows <= tokens, op, ": a causal mask of ", rows, " query tokens and ", tokens,
          " keys is not supported; supported: at least as many keys");
  require(tokens > 0 || rows == 0, op, ": key has no tokens");
  require(batch * rows <= most_rows && tokens <= most_rows, op, ": ", batch, " * ", rows, " query tokens and ", tokens,
          " keys must be at most ", most_rows);

  const Tensor out = empty(query, {batch, rows, heads, dim}, query.scalar_type());
  const Tensor lse = empty(query, {batch, rows, heads}, ScalarType::Float);
  const std::tuple<Tensor, Tensor> result{torch::stable::transpose(out, 1, 2), torch::stable::transpose(lse, 1, 2)};
  if (out.numel() == 0) return result;
  const query_rows q(query);
  const Tensor k = strides_fit(key, dim) ? key : torch::stable::contiguous(key);
  const Tensor v = strides_fit(value, dim) ? value : torch::stable::contiguous(value);

  const Tensor arrays = empty(query, {3 * batch + 1}, ScalarType::Int);
  batch_views_args views;
  views.page = mutable_pointer<std::int32_t>(arrays);
  views.len = views.page + batch;
  views.q_start = views.len + batch;
  views.requests = batch;
  views.view_len = static_cast<std::int32_t>(mask == upper_left ? rows : tokens);
  views.q_len = static_cast<std::int32_t>(rows);
  on.run_each(views);

  with_half_type(query.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    bi::attention_args<T> a;
    a.q = pointer<T>(q.x), a.q_token_stride = q.token_stride, a.q_head_stride = q.head_stride;
    a.cache = cache_of<T>(k, v);
    bi::page_table table;
    table.pages = views.page, table.row_stride = 1;
    a.view = table;
    a.len = views.len, a.q_start = views.q_start;
    a.requests = batch, a.rows = batch * rows;
    a.mask = mask == full ? bi::attention_mask::full : bi::attention_mask::causal;
    a.scale = static_cast<float>(scale ? *scale : 1 / std::sqrt(static_cast<double>(dim)));
    a.limits.max_requests = batch, a.limits.max_rows = a.rows, a.limits.max_q_len = rows;
    a.limits.max_view = views.view_len;
    a.limits.heads_q = heads, a.limits.heads_kv = heads_kv, a.limits.head_dim = dim;
    a.out = mutable_pointer<T>(out);
    a.lse = mutable_pointer<float>(lse);
    launch(op, a, query, on);
  });
  return result;
}

Tensor paged_attention(const Tensor& query, const Tensor& key_cache, const Tensor& value_cache, const Tensor& pages,
                       const Tensor& lengths, const optional_tensor& q_start, std::int64_t max_q_len,
                       std::int64_t max_length, double scale, bool causal, std::int64_t window) {
  const char* const op = "paged_attention";
  const place on(op, "query", query);
  on.require_here("key_cache", key_cache);
  on.require_here("value_cache", value_cache);
  on.require_here("pages", pages);
  on.require_here("lengths", lengths);
  require_half(op, "query", query);
  require_dtype(op, "key_cache", key_cache, query.scalar_type());
  require_dtype(op, "value_cache", value_cache, query.scalar_type());
  require_dtype(op, "pages", pages, ScalarType::Int);
  require_dtype(op, "lengths", lengths, ScalarType::Int);
  require(query.dim() == 3, op, ": query has shape ", shape_of(query), " and must be [rows, heads, head_dim]");
  require(key_cache.dim() == 4 && shape_of(key_cache) == shape_of(value_cache), op,
          ": key_cache and value_cache must be [pages, page_size, heads, head_dim], both the same");
  const std::int64_t rows = query.size(0), heads = query.size(1), dim = query.size(2), requests = lengths.size(0);
  require(lengths.dim() == 1 && lengths.is_contiguous(), op, ": lengths must be [requests], contiguous");
  require(pages.dim() == 2 && pages.size(0) == requests && (pages.size(1) <= 1 || pages.stride(1) == 1), op,
          ": pages must be [requests, pages of a request], each request's contiguous");
  require(key_cache.size(3) == dim, op, ": key_cache has head_dim = ", key_cache.size(3), " and query ", dim,
          "; they must be equal");
  require(strides_fit(key_cache, dim) && strides_fit(value_cache, dim), op,
          ": the last dimension of key_cache and value_cache must have stride 1, no other less than head_dim");
  require(max_length <= pages.size(1) * key_cache.size(1), op, ": max_length = ", max_length, " is more than ",
          pages.size(1), " pages of ", key_cache.size(1), " tokens hold");
  if (q_start) {
    on.require_here("q_start", *q_start);
    require_dtype(op, "q_start", *q_start, ScalarType::Int);
    require(q_start->dim() == 1 && q_start->size(0) == requests + 1 && q_start->is_contiguous(), op,
            ": q_start must be [requests + 1], contiguous");
  } else {
    require(rows == requests, op, ": without q_start the ", requests, " requests have a row each, not ", rows);
  }
  const Tensor out = empty(query, {rows, heads, dim}, query.scalar_type());
  if (out.numel() == 0) return out;
  const Tensor q =
      strides_fit(query, dim) && (rows <= 1 || query.stride(0) > 0) ? query : torch::stable::contiguous(query);
  with_half_type(query.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    bi::attention_args<T> a;
    a.q = pointer<T>(q), a.q_head_stride = stride_of(q, 1), a.q_token_stride = stride_of(q, 0);
    a.cache = cache_of<T>(torch::stable::transpose(key_cache, 1, 2), torch::stable::transpose(value_cache, 1, 2));
    bi::page_table table;
    table.pages = pointer<std::int32_t>(pages), table.row_stride = requests > 1 ? pages.stride(0) : pages.size(1);
    a.view = table;
    a.len = pointer<std::int32_t>(lengths);
    if (q_start) a.q_start = pointer<std::int32_t>(*q_start);
    a.requests = requests, a.rows = rows;
    a.mask = causal ? bi::attention_mask::causal : bi::attention_mask::full;
    a.window = window;
    a.scale = static_cast<float>(scale);
    a.limits.max_requests = requests, a.limits.max_rows = rows, a.limits.max_q_len = max_q_len;
    a.limits.max_view = max_length;
    a.limits.heads_q = heads, a.limits.heads_kv = key_cache.size(2), a.limits.head_dim = dim;
    a.out = mutable_pointer<T>(out);
    launch(op, a, query, on);
  });
  return out;
}

void kv_append(Tensor key_cache, Tensor value_cache, const Tensor& key, const Tensor& value, const Tensor& slot) {
  const char* const op = "kv_append";
  const place on(op, "key_cache", key_cache);
  on.require_here("value_cache", value_cache);
  on.require_here("key", key);
  on.require_here("value", value);
  on.require_here("slot", slot);
  require_half(op, "key_cache", key_cache);
  for (const auto& [name, x] :
       {std::pair<const char*, const Tensor&>{"value_cache", value_cache}, {"key", key}, {"value", value}}) {
    require_dtype(op, name, x, key_cache.scalar_type());
  }
  require_dtype(op, "slot", slot, ScalarType::Long);
  require(key_cache.dim() == 4 && shape_of(key_cache) == shape_of(value_cache), op,
          ": key_cache and value_cache must be [pages, page_size, heads, head_dim], both the same");
  const std::int64_t heads = key_cache.size(2), dim = key_cache.size(3);
  require(strides_fit(key_cache, dim) && strides_fit(value_cache, dim), op,
          ": the last dimension of key_cache and value_cache must have stride 1, no other less than head_dim");
  require(key.dim() == 3 && key.size(1) == heads && key.size(2) == dim && shape_of(key) == shape_of(value), op,
          ": key ", shape_of(key), " and value ", shape_of(value), " must be [tokens, ", heads, ", ", dim, "]");
  require(slot.dim() == 1 && slot.size(0) == key.size(0) && slot.is_contiguous(), op,
          ": slot must be [tokens], contiguous");
  if (key.numel() == 0) return;
  const Tensor k = torch::stable::contiguous(key), v = torch::stable::contiguous(value);
  with_half_type(key.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bi::paged_cache<const T> places =
        cache_of<T>(torch::stable::transpose(key_cache, 1, 2), torch::stable::transpose(value_cache, 1, 2));
    bi::kv_append_args<T> a;
    a.cache.k = mutable_pointer<T>(key_cache), a.cache.v = mutable_pointer<T>(value_cache);
    a.cache.num_pages = places.num_pages, a.cache.page_size = places.page_size;
    a.cache.heads = heads, a.cache.head_dim = dim;
    a.cache.k_page_stride = places.k_page_stride, a.cache.v_page_stride = places.v_page_stride;
    a.cache.k_token_stride = places.k_token_stride, a.cache.v_token_stride = places.v_token_stride;
    a.cache.k_head_stride = places.k_head_stride, a.cache.v_head_stride = places.v_head_stride;
    a.k = pointer<T>(k), a.v = pointer<T>(v);
    a.slot = pointer<std::int64_t>(slot);
    a.tokens = key.size(0);
    require_ok(on.is_cpu() ? bi::reference::kv_append(a) : bi::kv_append<T>(a, on.stream()));
  });
}

}  // namespace bi_torch
