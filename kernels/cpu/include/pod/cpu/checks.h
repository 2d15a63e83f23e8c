// checks.h: tensors and numbers of one call, checked and turned into a Problem.
#pragma once

#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/optional.h>

#include "pod/common/packed.h"
#include "pod/cpu/launch.h"

namespace pod::cpu {

struct Call {
  tvm::ffi::TensorView q, k_cache, v_cache;
  tvm::ffi::TensorView q_indptr, kv_lens, page_indices, page_starts;
  int64_t page_size;
  packed::Scalars scalars;
  tvm::ffi::Optional<tvm::ffi::TensorView> sinks;
  tvm::ffi::TensorView out, lse;
};

// Throws ShapeError, DtypeError, PageIndexError or UnsupportedFeatureError with what, got and
// limit. Reads exactly the page indices that the kernel will read.
Problem check_call(const Call& call);

// Ranges were checked by the caller's PodConfig, only what would corrupt memory is checked again.
PodConfig check_config(const packed::PodConfig& config);

}  // namespace pod::cpu
