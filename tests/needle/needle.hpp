// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "bi/status.hpp"

// The needle matrix: each row of a pool is computed alone, then in batches of many sizes, at many places, among
// neighbours of every kind, in several layouts. A row in a batch must have the bytes of the row alone, and those must be
// the reference's. A case is an operation as a table: what a row has of its own lies in columns, what all rows share in
// arrays beside them.
namespace test::needle {

// What a row is surrounded by. `mixed`: other needles.
enum class neighbours : int { mixed, normal, zero, infinity, nan, subnormal, largest, identical };
inline constexpr int neighbour_kinds = 8;
inline const char* name_of(neighbours kind) {
  static constexpr const char* names[neighbour_kinds] = {"mixed", "normal",    "zero",    "infinity",
                                                         "nan",   "subnormal", "largest", "identical"};
  return names[static_cast<int>(kind)];
}

// Rows of a pool: needles of every kind of values, then rows that are neighbours only, some of each kind.
inline constexpr std::int64_t needles = 48;
inline constexpr std::int64_t rows_of_kind = 4;
inline constexpr std::int64_t pool_rows = needles + rows_of_kind * (neighbour_kinds - 2);
// The kind of a row that is no needle.
inline neighbours kind_of(std::int64_t pool_row) {
  return static_cast<neighbours>(1 + (pool_row - needles) / rows_of_kind);
}

struct column {
  std::string name;
  std::int64_t bytes = 0;  // of a row
  std::int64_t element_bytes = 0;
  bool packed = false;              // rows have no space between them
  bool transposed = false;          // [elements, rows]: an element of all rows, then the next
  std::vector<unsigned char> pool;  // [pool_rows, bytes]; empty: an output that starts poisoned
};

// A batch in memory. Strides are in bytes: from row to row, or from element to element of a transposed column.
struct call {
  std::int64_t rows = 0;
  std::vector<unsigned char*> in, shared, out;
  std::vector<std::int64_t> in_stride, out_stride;
  std::vector<std::int64_t> piece_stride;  // of shared arrays: from piece to piece
  std::vector<std::int64_t> numbers;       // of its arrangement

  template <class T>
  T* input(std::size_t i) const {
    return reinterpret_cast<T*>(in[i]);
  }
  template <class T>
  T* output(std::size_t i) const {
    return reinterpret_cast<T*>(out[i]);
  }
  template <class T>
  const T* array(std::size_t i) const {
    return reinterpret_cast<const T*>(shared[i]);
  }
  template <class T>
  std::int64_t input_stride(std::size_t i) const {
    return in_stride[i] / static_cast<std::int64_t>(sizeof(T));
  }
  template <class T>
  std::int64_t array_stride(std::size_t i) const {
    return piece_stride[i] / static_cast<std::int64_t>(sizeof(T));
  }
  template <class T>
  std::int64_t output_stride(std::size_t i) const {
    return out_stride[i] / static_cast<std::int64_t>(sizeof(T));
  }
};

// What a batch of rows needs beside the rows: arrays, which follow the shared ones, and numbers.
struct arrangement {
  std::vector<std::vector<unsigned char>> arrays;
  std::vector<std::int64_t> numbers;
};

// An output with a pool is read as well: it starts as its pool's row.
struct table {
  std::vector<column> in, out;
  std::vector<std::vector<unsigned char>> shared;
  std::vector<std::int64_t>
      pieces;  // bytes of a page, say, of each of the first shared arrays: these may lie far apart
  std::int64_t pool = pool_rows;
  std::int64_t most_rows = 4200;    // of a batch
  std::int64_t few_rows = 3;        // of a small batch under a forced schedule
  std::int64_t reference_step = 1;  // every so many rows of the pool are computed by the reference too
  // Which rows of the pool make a batch, where places are not free; null: any.
  std::function<std::vector<std::int32_t>(std::int64_t rows, std::uint64_t seed)> choose;
  std::function<arrangement(const std::vector<std::int32_t>& batch)> arrange;  // null: nothing
  std::function<bi::status(const call&)> reference;
  // Null in programs for the CPU.
  std::function<bi::status(const call&, bi::workspace, bi::cuda_stream)> gpu;
  std::function<std::size_t(const call&)> workspace_bytes;
  // What the launcher picks for so many aligned rows, but for the number of thread blocks; null: always the same.
  std::function<std::string(std::int64_t rows)> schedule;
  // Schedules that a call of aligned rows may be forced under, and the launch under one of them; null: there are none.
  std::function<std::vector<std::string>(const call&)> schedules;
  std::function<bi::status(const call&, std::size_t which, bi::cuda_stream)> forced;  // null in programs for the CPU
};

struct needle_case {
  std::string operation, contract, dtype, shape;
  std::function<table(std::uint64_t seed)> make;

  std::string name() const { return operation + "/" + contract + "/" + dtype + "/" + shape; }
};

using case_list = std::vector<needle_case>;
void add_row_cases(case_list&);
void add_column_cases(case_list&);
void add_token_cases(case_list&);
void add_sample_cases(case_list&);
void add_edit_cases(case_list&);
void add_gemm_cases(case_list&);
void add_attention_cases(case_list&);
inline case_list all_cases() {
  case_list all;
  add_row_cases(all);
  add_column_cases(all);
  add_token_cases(all);
  add_sample_cases(all);
  add_edit_cases(all);
  add_gemm_cases(all);
  add_attention_cases(all);
  return all;
}

}  // namespace test::needle
