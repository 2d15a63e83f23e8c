// checks.h: tensors and numbers of one call, checked and turned into LaunchArguments. Host only.
#pragma once

#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/optional.h>

#include "plan.h"
#include "pod/arguments.h"
#include "pod/common/packed.h"

namespace pod {

struct Call {
  tvm::ffi::TensorView q, k_cache, v_cache;
  tvm::ffi::TensorView plan, page_indices, page_starts;
  int64_t page_size;
  packed::Scalars scalars;
  tvm::ffi::Optional<tvm::ffi::TensorView> sinks;
  tvm::ffi::TensorView out, lse, workspace;
  tvm::ffi::ShapeView capacity;  // prefill_ctas, decode_ctas, merge_ctas, partial_rows
  int64_t sm_slots;
};

// Everything but strategy, streams and records. Throws ShapeError, DtypeError,
// KernelUnavailableError or UnsupportedFeatureError with what, got and limit. Values of device
// tensors are not looked at.
LaunchArguments check_call(const Call& call);

// What the planner reads of a config.
PlanConfig plan_config(const packed::PodConfig& config);

void check_lengths(const PlanProblem& problem);

// A contiguous host int32 vector; `size` -1 takes any.
const int32_t* check_host_vector(const tvm::ffi::TensorView& t, int64_t size, const char* name);

}  // namespace pod
