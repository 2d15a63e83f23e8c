// host.cpp: the functions that Python calls; loaded by tvm_ffi.load_module.
//
// This library knows no CUDA. A variant's library is opened by the caller, who passes the address
// of its pod_launch: so one host library serves every variant, GPU and torch version.

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/function.h>

#include "checks.h"
#include "plan.h"

namespace pod {
namespace {

using packed::unpack;
using tvm::ffi::Bytes;
using tvm::ffi::Optional;
using tvm::ffi::Shape;
using tvm::ffi::TensorView;

// Plans a batch into `buffer`, a host int32 vector, and returns
// [words, prefill_ctas, decode_ctas, merge_ctas, partial_rows]. A buffer of fewer words is left as
// it is. Decode items become shorter than the config has them until there are `fill_ctas` CTAs of
// them or the GPU is full, or shares of so many CTAs; 0 leaves them as they are.
Shape plan(TensorView q_indptr, TensorView kv_lens, int64_t num_q_heads, int64_t num_kv_heads,
           int64_t head_dim, int64_t kv_bytes, int64_t window_left, Bytes config, int64_t num_sms,
           int64_t fill_ctas, TensorView buffer) {
  if (num_kv_heads < 1 || num_q_heads % num_kv_heads != 0) {
    TVM_FFI_THROW(ShapeError) << "q heads must be a multiple of KV heads, got Hq " << num_q_heads
                              << " and Hkv " << num_kv_heads;
  }
  PlanProblem p{};
  p.kv_lens = check_host_vector(kv_lens, -1, "kv_lens");
  p.requests = static_cast<int>(kv_lens.size(0));
  p.q_indptr = check_host_vector(q_indptr, p.requests + 1, "q_indptr");
  p.num_kv_heads = static_cast<int>(num_kv_heads);
  p.group = static_cast<int>(num_q_heads / num_kv_heads);
  p.head_dim = static_cast<int>(head_dim);
  p.kv_bytes = static_cast<int>(kv_bytes);
  p.window_left = static_cast<int>(window_left);
  p.num_sms = static_cast<int>(num_sms);
  p.fill_ctas = static_cast<int>(fill_ctas);
  check_lengths(p);
  check_host_vector(buffer, -1, "buffer");
  const Plan made = make_plan(p, plan_config(unpack<packed::PodConfig>(config)));
  if (made.header.words <= buffer.numel()) {
    write_plan(made, static_cast<int32_t*>(buffer.data_ptr()));
  }
  return Shape({made.header.words, made.prefill_ctas, made.decode_ctas, made.header.merge_blocks,
                made.header.partial_rows});
}

// Bytes of the uint8 tensor that one call needs on its device.
int64_t workspace_size(int64_t sm_slots, int64_t partial_rows, int64_t head_dim) {
  return workspace_bytes(static_cast<int>(sm_slots), partial_rows, head_dim);
}

// Checks and launches. `launch` is the address of a variant's pod_launch, `error` of its
// pod_error; `records` [ctas, kRecordWords] int64 receives one CtaRecord per CTA.
void attend(int64_t launch, int64_t error, TensorView q, TensorView k_cache, TensorView v_cache,
            TensorView plan, TensorView page_indices, TensorView page_starts, int64_t page_size,
            Bytes scalars, Optional<TensorView> sinks, TensorView out, TensorView lse,
            TensorView workspace, Shape capacity, int64_t strategy, int64_t sm_slots,
            int64_t stream, int64_t side_stream, Optional<TensorView> records) {
  LaunchArguments a = check_call({q, k_cache, v_cache, plan, page_indices, page_starts, page_size,
                                  unpack<packed::Scalars>(scalars), sinks, out, lse, workspace,
                                  capacity, sm_slots});
  a.strategy = static_cast<int>(strategy);
  a.stream = reinterpret_cast<void*>(stream);
  a.side_stream = reinterpret_cast<void*>(side_stream);
  if (records.has_value()) {
    const TensorView& r = records.value();
    if (r.numel() < kRecordWords * (int64_t{a.prefill_ctas} + a.decode_ctas) ||
        r.dtype().bits != 64) {
      TVM_FFI_THROW(ShapeError) << "records must be int64 [" << a.prefill_ctas + a.decode_ctas
                                << ", " << kRecordWords << "], got " << r.numel() << " elements of "
                                << static_cast<int>(r.dtype().bits) << " bits";
    }
    a.records = static_cast<CtaRecord*>(r.data_ptr());
  }
  if (q.size(0) == 0 || a.prefill_ctas + a.decode_ctas == 0) return;
  if (reinterpret_cast<int (*)(const LaunchArguments*)>(launch)(&a) != 0) {
    TVM_FFI_THROW(RuntimeError) << reinterpret_cast<const char* (*)()>(error)();
  }
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(plan, plan);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(workspace_size, workspace_size);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(attend, attend);

}  // namespace
}  // namespace pod
