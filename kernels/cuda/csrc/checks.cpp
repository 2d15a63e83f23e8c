// checks.cpp: everything that can be wrong is found before anything launches.

#include "checks.h"

#include <algorithm>
#include <limits>

#include "pod/common/tensor_checks.h"

namespace pod {
namespace {

using namespace pod::checks;

constexpr int kAlignment = 16;  // bytes of one asynchronous copy

void check_tensor(const Call& call, const TensorView& t, int rank, const char* name,
                  const char* axes) {
  const DLDevice want = call.q.device(), got = t.device();
  if (got.device_type != want.device_type || got.device_id != want.device_id) {
    TVM_FFI_THROW(ShapeError) << name << " is on device " << got.device_type << ":" << got.device_id
                              << " but q is on " << want.device_type << ":" << want.device_id
                              << "; move all tensors of a call to one device";
  }
  check_ndim(t, rank, name, axes);
}

// Rows are copied 16 bytes at a time, so every row must start at a multiple of that.
void check_rows(const TensorView& t, const char* name) {
  const int last = t.ndim() - 1;
  if (t.numel() == 0) return;
  check_last_axis(t, name);
  const int64_t bytes = t.dtype().bits / 8;
  bool aligned = reinterpret_cast<uintptr_t>(t.data_ptr()) % kAlignment == 0;
  for (int axis = 0; axis < last; ++axis) {
    aligned &= t.size(axis) == 1 || t.stride(axis) * bytes % kAlignment == 0;
  }
  if (!aligned) {
    TVM_FFI_THROW(ShapeError) << name << " needs rows that start at multiples of " << kAlignment
                              << " bytes, got strides that break it for shape " << shape_of(t)
                              << "; slice it at multiples of " << kAlignment / bytes
                              << " elements or copy it";
  }
}

template <typename T>
const T* check_vector(const Call& call, const TensorView& t, int64_t size, int code,
                      const char* name, const char* type) {
  check_tensor(call, t, 1, name, "one-dimensional");
  check_dtype(t, code, sizeof(T) * 8, name, type);
  if (size >= 0) check_size(t, 0, size, name, "[n]", "n");
  if (t.numel() > 1 && t.stride(0) != 1) {
    TVM_FFI_THROW(ShapeError) << name << " must be contiguous, got stride " << t.stride(0);
  }
  return static_cast<const T*>(t.data_ptr());
}

void check_queries(const Call& call) {
  const TensorView& q = call.q;
  check_tensor(call, q, 3, "q", "[T, Hq, D]");
  if (!is_type(q, kDLBfloat, 16) && !is_type(q, kDLFloat, 16)) {
    TVM_FFI_THROW(DtypeError) << "q is " << name_of(q.dtype())
                              << "; the CUDA kernel takes bfloat16 and float16. Cast q and the "
                                 "caches to one of them";
  }
  check_rows(q, "q");
}

// The kernel keeps places of rows as 32-bit numbers of 16-byte units.
void check_span(const TensorView& t, const char* name) {
  const int64_t units = t.size(0) * t.stride(0) * (t.dtype().bits / 8) / kAlignment;
  if (units > int64_t{UINT32_MAX}) {
    TVM_FFI_THROW(ShapeError) << name << " spans " << (units >> 26)
                              << " GiB, the limit is 64 GiB; give each layer its own tensor";
  }
}

CacheStrides cache_strides(const TensorView& t) {
  const auto units = [&](int axis) {
    return static_cast<uint32_t>(t.stride(axis) * (t.dtype().bits / 8) / kAlignment);
  };
  return {units(0), units(1), units(2)};
}

// The kernel keeps where a request's list starts as a 32-bit number.
void check_list(const TensorView& t) {
  if (t.numel() > int64_t{INT32_MAX}) {
    TVM_FFI_THROW(ShapeError) << "page_indices holds " << t.numel() << " entries, the limit is "
                              << INT32_MAX << "; use larger pages or list fewer requests";
  }
}

void check_cache(const Call& call, LaunchArguments& a) {
  const TensorView &q = call.q, &k = call.k_cache, &v = call.v_cache;
  check_tensor(call, k, 4, "k_cache", "[P, S, Hkv, D]");
  check_tensor(call, v, 4, "v_cache", "[P, S, Hkv, D]");
  check_cache_shape(q, k, v, call.page_size);
  check_rows(k, "k_cache");
  check_rows(v, "v_cache");
  if (!is_head_dim(static_cast<int>(q.size(2)))) {
    TVM_FFI_THROW(ShapeError) << "head dim must be 64, 96, 128 or 256, got " << q.size(2)
                              << "; pad q, k and v with zeros and pass scale explicitly";
  }
  check_span(k, "k_cache");
  check_span(v, "v_cache");
  a.k = k.data_ptr();
  a.v = v.data_ptr();
  a.k_strides = cache_strides(k), a.v_strides = cache_strides(v);
  check_list(call.page_indices);
  a.page_indices =
      check_vector<int32_t>(call, call.page_indices, -1, kDLInt, "page_indices", "int32");
  a.page_starts = check_vector<int64_t>(call, call.page_starts, -1, kDLInt, "page_starts", "int64");
  a.requests = static_cast<int>(call.page_starts.numel());
  a.page_size = static_cast<int>(call.page_size);
  a.page_divider = divider(a.page_size);
  a.group = static_cast<int>(q.size(1) / k.size(2));
  a.group_divider = divider(a.group);
}

void check_outputs(const Call& call, LaunchArguments& a) {
  const TensorView &q = call.q, &out = call.out, &lse = call.lse;
  check_tensor(call, out, 3, "out", "[T, Hq, D]");
  check_tensor(call, lse, 2, "lse", "[T, Hq]");
  check_output_shape(q, out, lse);
  check_rows(out, "out");
  check_written_once(out);
  check_not_written(out, q, "q");
  check_not_written(out, call.k_cache, "k_cache");
  check_not_written(out, call.v_cache, "v_cache");
  if (call.sinks.has_value()) check_not_written(out, call.sinks.value(), "sinks");
  a.out = out.data_ptr();
  a.out_token = out.stride(0), a.out_head = out.stride(1);
  a.lse = static_cast<float*>(lse.data_ptr());
  a.lse_token = lse.stride(0), a.lse_head = lse.stride(1);
}

void set_scores(const Call& call, LaunchArguments& a) {
  constexpr double kLog2e = 1.4426950408889634;
  const double scale = factor_of(call.scalars), cap = call.scalars.logit_cap;
  check_cache_scale(call.scalars.k_scale, "k_scale", call.k_cache);
  check_cache_scale(call.scalars.v_scale, "v_scale", call.v_cache);
  check_scores(call.scalars);
  // A negative scale would turn the maximum that the softmax subtracts into a minimum.
  if (scale < 0 && cap == 0) {
    TVM_FFI_THROW(ShapeError) << "scale must be >= 0, got " << scale << "; negate q instead";
  }
  a.capped = cap > 0;
  a.cap_argument = cap > 0 ? static_cast<float>(scale / cap) : 0.f;
  // Never 0, in float either: masked scores are -inf, and must stay so when they are scaled.
  constexpr float kLeast = std::numeric_limits<float>::denorm_min();
  const double logit_scale = cap > 0 ? cap : scale;
  a.logit_scale = std::max(static_cast<float>(logit_scale), kLeast);
  a.score_scale = std::max(static_cast<float>(logit_scale * kLog2e), kLeast);
  a.value_scale = static_cast<float>(call.scalars.v_scale);
  a.window_left = static_cast<int>(call.scalars.window_left);
}

void set_workspace(const Call& call, LaunchArguments& a) {
  const auto& c = call.capacity;
  if (c.size() != 4) TVM_FFI_THROW(ShapeError) << "capacity must be 4 integers, got " << c.size();
  const int64_t rows = c[3], dim = call.q.size(2);
  const int64_t need = workspace_bytes(static_cast<int>(call.sm_slots), rows, dim);
  check_tensor(call, call.workspace, 1, "workspace", "[bytes]");
  check_dtype(call.workspace, kDLUInt, 8, "workspace", "uint8");
  if (call.workspace.numel() < need) {
    TVM_FFI_THROW(ShapeError) << "workspace must be " << need << " bytes for " << rows
                              << " rows of split KV, got " << call.workspace.numel();
  }
  char* base = static_cast<char*>(call.workspace.data_ptr());
  a.counters = reinterpret_cast<int32_t*>(base);
  a.partial_sums =
      reinterpret_cast<RowSums*>(base + counter_bytes(static_cast<int>(call.sm_slots)));
  a.partial_o = reinterpret_cast<float*>(a.partial_sums + padded_rows(rows));
  a.prefill_ctas = static_cast<int>(c[0]);
  a.decode_ctas = static_cast<int>(c[1]);
  a.merge_ctas = static_cast<int>(c[2]);
  a.sm_slots = static_cast<int>(call.sm_slots);
}

}  // namespace

LaunchArguments check_call(const Call& call) {
  LaunchArguments a{};
  check_queries(call);
  check_cache(call, a);
  check_outputs(call, a);
  set_scores(call, a);
  set_workspace(call, a);
  a.q = call.q.data_ptr();
  a.q_token = call.q.stride(0), a.q_head = call.q.stride(1);
  a.plan = check_vector<int32_t>(call, call.plan, -1, kDLInt, "plan", "int32");
  if (call.sinks.has_value()) {
    a.sinks =
        check_vector<float>(call, call.sinks.value(), call.q.size(1), kDLFloat, "sinks", "float32");
  }
  a.device = call.q.device().device_id;
  return a;
}

PlanConfig plan_config(const packed::PodConfig& c) {
  const auto tile = [](const packed::TileConfig& t) {
    return TileConfig{t.q_rows, t.kv_rows, t.stages, t.warps};
  };
  return {{tile(c.prefill), tile(c.decode), c.ctas_per_sm, c.virtual_decode},
          c.prefill_ctas,
          c.decode_ctas,
          c.max_prefill_waves,
          c.decode_split_tokens,
          static_cast<Strategy>(c.strategy)};
}

void check_lengths(const PlanProblem& p) {
  checks::check_lengths(p.q_indptr, p.kv_lens, p.requests);
}

const int32_t* check_host_vector(const TensorView& t, int64_t size, const char* name) {
  if (t.device().device_type != kDLCPU || t.ndim() != 1) {
    TVM_FFI_THROW(ShapeError) << name << " must be a one-dimensional host tensor, got shape "
                              << shape_of(t) << " on device " << t.device().device_type;
  }
  check_dtype(t, kDLInt, 32, name, "int32");
  if (size >= 0) check_size(t, 0, size, name, "[n]", "n");
  if (t.numel() > 1 && t.stride(0) != 1) {
    TVM_FFI_THROW(ShapeError) << name << " must be contiguous, got stride " << t.stride(0);
  }
  return static_cast<const int32_t*>(t.data_ptr());
}

}  // namespace pod
