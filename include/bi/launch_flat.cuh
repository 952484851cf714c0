// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/runtime.hpp"
#include "bi/schedule/flat.hpp"

BI_NAMESPACE_BEGIN
namespace launch_detail {

// Launches a kernel over items (bi/device/flat.cuh).
template <class Params>
status launch_flat(const char* operation, void (*kernel)(Params), const Params& p, const schedule::flat_schedule& s,
                   cuda_stream stream) {
  launch_shape shape;
  shape.grid.x = static_cast<unsigned>(s.blocks);
  shape.block.x = static_cast<unsigned>(s.threads);
  return launch(operation, kernel, shape, p, stream);
}

}  // namespace launch_detail
BI_NAMESPACE_END
