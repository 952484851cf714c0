// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/attention.cuh"

// The attention that the tests launch.

BI_INSTANTIATE_ATTENTION(bi::attention<bi::bf16, 64>);
BI_INSTANTIATE_ATTENTION(bi::attention<bi::bf16, 128>);
BI_INSTANTIATE_ATTENTION(bi::attention<bi::bf16, 256>);
BI_INSTANTIATE_ATTENTION(bi::attention<bi::fp16, 64>);
BI_INSTANTIATE_ATTENTION(bi::attention<bi::fp16, 128>);
BI_INSTANTIATE_ATTENTION(bi::attention<bi::bf16, 128, bi::contract::attention_soft_cap_v1<bi::bf16>>);

// Those that take a schedule.
#define FORCED_ATTENTION_OF(T, HeadDim, Contract)                                              \
  template bi::status bi::launch_detail::launch_attention<bi::contract::Contract<T>, HeadDim>( \
      const bi::attention_args<T>&, const bi::schedule::attention_schedule&, bi::workspace, bi::cuda_stream)

FORCED_ATTENTION_OF(bi::bf16, 64, attention_v1);
FORCED_ATTENTION_OF(bi::bf16, 128, attention_v1);
FORCED_ATTENTION_OF(bi::bf16, 256, attention_v1);
FORCED_ATTENTION_OF(bi::fp16, 64, attention_v1);
FORCED_ATTENTION_OF(bi::fp16, 128, attention_v1);
FORCED_ATTENTION_OF(bi::bf16, 128, attention_soft_cap_v1);

// Where requests share leading tokens.
#define FORCED_SHARED_ATTENTION_OF(T, HeadDim, Contract)                                              \
  template bi::status bi::launch_detail::launch_attention_shared<bi::contract::Contract<T>, HeadDim>( \
      const bi::attention_args<T>&, const bi::schedule::attention_shared_schedule&, bi::workspace, bi::cuda_stream)

FORCED_SHARED_ATTENTION_OF(bi::bf16, 64, attention_v1);
FORCED_SHARED_ATTENTION_OF(bi::bf16, 128, attention_v1);
FORCED_SHARED_ATTENTION_OF(bi::fp16, 128, attention_v1);
FORCED_SHARED_ATTENTION_OF(bi::bf16, 128, attention_soft_cap_v1);
