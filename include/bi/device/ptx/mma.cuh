// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/dtype.hpp"

// mma.sync.m16n8k16 with fp32 accumulators: d = c + A B. On Hopper one step of the GEMM and attention chains
// (bi/reference/mma_step.hpp is its exact model). Two k8 steps in its place give other bits.
// Thread t of the warp, g = t / 4, q = t % 4, holds
//   A, row-major 16 x 16:  a[0] (g, 2q..), a[1] (g + 8, 2q..), a[2] (g, 2q + 8..), a[3] (g + 8, 2q + 8..), two values each
//   B, 16 x 8:             b[0] (k = 2q.., column g), b[1] (k = 2q + 8.., column g)
//   C, 16 x 8:             c[0], c[1] (g, 2q..), c[2], c[3] (g + 8, 2q..)

BI_NAMESPACE_BEGIN
namespace device {

template <class T>
BI_D void mma_m16n8k16(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]);

template <>
BI_D inline void mma_m16n8k16<bf16>(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <>
BI_D inline void mma_m16n8k16<fp16>(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace device
BI_NAMESPACE_END
