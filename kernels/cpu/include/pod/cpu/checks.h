// checks.h: tensors and numbers of one call, checked and turned into a Problem.
#pragma once

#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/optional.h>

#include "pod/cpu/launch.h"

namespace pod::cpu {

struct Call {
  tvm::ffi::TensorView q, k_cache, v_cache;
  tvm::ffi::TensorView q_indptr, kv_lens, page_indices, page_starts;
  int64_t page_size;
  double scale;
  int64_t window_left;
  double logit_cap;
  tvm::ffi::Optional<tvm::ffi::TensorView> sinks;
  tvm::ffi::TensorView out, lse;
};

// Throws ShapeError, DtypeError or PageIndexError with what, got and limit. Reads exactly the page
// indices that the kernel will read.
Problem check_call(const Call& call);

// Thirteen integers in the order of struct PodConfig; their ranges were checked by the caller's
// PodConfig, only what would corrupt memory is checked again.
PodConfig check_config(tvm::ffi::ShapeView values);

}  // namespace pod::cpu
