// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/ptx/cp_async.cuh"
#include "bi/device/ptx/ldmatrix.cuh"
#include "bi/device/ptx/mma.cuh"
#include "bi/device/vector.cuh"
#include "bi/dtype.hpp"

// Tiles of 16-bit values in shared memory, and their way into mma.sync fragments. A tile has rows of 64 values = 128 bytes
// = 8 chunks of 16 bytes; chunk c of row r lies at place c ^ (r % 8), so that the 8 rows of an ldmatrix block, and the 8
// chunks of a row, each hit all banks.

BI_NAMESPACE_BEGIN
namespace device {

inline constexpr int tile_width = 64;   // values of a row
inline constexpr int chunk_values = 8;  // values of 16 bytes
inline constexpr int row_chunks = tile_width / chunk_values;

template <class T>
BI_D T* tile_chunk(T* tile, int row, int chunk) {
  return tile + row * tile_width + (chunk ^ (row & 7)) * chunk_values;
}

// Starts the copy of Rows x 64 values at (first_row, first_col) of a row-major matrix of rows x cols. What lies outside
// the matrix becomes +0, which changes no bit of a product. With `aligned` (16-byte rows) the copy is asynchronous: commit
// and wait; otherwise it is made here, value by value.
template <int Rows, int Threads, class T>
BI_D void load_tile(T* tile, const T* matrix, std::int64_t ld, std::int64_t first_row, std::int64_t rows,
                    std::int64_t first_col, std::int64_t cols, bool aligned, int thread) {
  static_assert((Rows * row_chunks) % Threads == 0, "whole rounds of threads");
#pragma unroll
  for (int i = 0; i < Rows * row_chunks / Threads; ++i) {
    const int index = thread + i * Threads, row = index / row_chunks, chunk = index % row_chunks;
    const std::int64_t r = first_row + row, c = first_col + chunk * chunk_values;
    const std::int64_t rest = r < rows ? cols - c : 0;
    const int n = rest <= 0 ? 0 : rest < chunk_values ? static_cast<int>(rest) : chunk_values;
    T* target = tile_chunk(tile, row, chunk);
    const T* source = n > 0 ? matrix + r * ld + c : matrix;
    if (aligned) {
      cp_async_16(target, source, n * static_cast<int>(sizeof(T)));
    } else {
      T v[vector_size];
      load_vector(source, n, false, v);
      const auto two = [&](int j) { return v[j].bits | static_cast<std::uint32_t>(v[j + 1].bits) << 16; };
      *reinterpret_cast<packed_words*>(target) = {{two(0), two(2), two(4), two(6)}};
    }
  }
}

// A fragment: rows [row, row + 16), k [16 step, 16 step + 16) of a tile whose rows run along k.
template <class T>
BI_D void load_a_fragment(std::uint32_t (&a)[4], T* tile, int row, int step, int lane) {
  ldmatrix_x4(a, tile_chunk(tile, row + (lane & 15), 2 * step + (lane >> 4)));
}

// B fragments of columns [col, col + 16): b[0] for the first 8 columns, b[1] for the others. The tile's rows are columns
// of B and run along k ...
template <class T>
BI_D void load_b_fragments(std::uint32_t (&b)[2][2], T* tile, int col, int step, int lane) {
  std::uint32_t r[4];
  ldmatrix_x4(r, tile_chunk(tile, col + (lane & 7) + ((lane >> 4) << 3), 2 * step + ((lane >> 3) & 1)));
  b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
}
// ... or the tile's rows are k and run along the columns of B.
template <class T>
BI_D void load_b_fragments_transposed(std::uint32_t (&b)[2][2], T* tile, int col, int step, int lane) {
  std::uint32_t r[4];
  ldmatrix_x4_trans(r, tile_chunk(tile, 16 * step + (lane & 15), col / chunk_values + (lane >> 4)));
  b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
}

// The same of 8 columns and two steps: b[0] for `step`, b[1] for the next.
template <class T>
BI_D void load_b_steps_transposed(std::uint32_t (&b)[2][2], T* tile, int col, int step, int lane) {
  std::uint32_t r[4];
  ldmatrix_x4_trans(r, tile_chunk(tile, 16 * step + lane, col / chunk_values));
  b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
}

}  // namespace device
BI_NAMESPACE_END
