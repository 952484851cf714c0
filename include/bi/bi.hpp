// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

// Everything that needs no CUDA toolkit: argument structs, limits, launchers' declarations, and the CPU reference.
#include "bi/activation.hpp"
#include "bi/attention.hpp"
#include "bi/contract/trig.hpp"
#include "bi/digest.hpp"
#include "bi/gemm.hpp"
#include "bi/kv_cache.hpp"
#include "bi/layer_norm.hpp"
#include "bi/reduce.hpp"
#include "bi/reference/activation.hpp"
#include "bi/reference/attention.hpp"
#include "bi/reference/digest.hpp"
#include "bi/reference/gemm.hpp"
#include "bi/reference/kv_cache.hpp"
#include "bi/reference/layer_norm.hpp"
#include "bi/reference/reduce.hpp"
#include "bi/reference/rms_norm.hpp"
#include "bi/reference/rope.hpp"
#include "bi/reference/sample.hpp"
#include "bi/reference/softmax.hpp"
#include "bi/rms_norm.hpp"
#include "bi/rope.hpp"
#include "bi/sample.hpp"
#include "bi/softmax.hpp"
#include "bi/version.hpp"
