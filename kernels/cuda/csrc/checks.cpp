// checks.cpp: everything that can be wrong is found before anything launches.

#include "checks.h"

#include <tvm/ffi/error.h>

#include <cmath>
#include <string>

namespace pod {
namespace {

using tvm::ffi::TensorView;

constexpr int kAlignment = 16;  // bytes of one asynchronous copy

std::string shape_of(const TensorView& t) {
  std::string text = "[";
  for (int i = 0; i < t.ndim(); ++i) text += (i ? ", " : "") + std::to_string(t.size(i));
  return text + "]";
}

std::string name_of(DLDataType type) {
  const char* base = type.code == kDLFloat    ? "float"
                     : type.code == kDLBfloat ? "bfloat"
                     : type.code == kDLInt    ? "int"
                                              : "other";
  return base + std::to_string(type.bits);
}

bool is_type(const TensorView& t, int code, int bits) {
  return t.dtype().code == code && t.dtype().bits == bits && t.dtype().lanes == 1;
}

void check_tensor(const Call& call, const TensorView& t, int rank, const char* name,
                  const char* axes) {
  const DLDevice want = call.q.device(), got = t.device();
  if (got.device_type != want.device_type || got.device_id != want.device_id) {
    TVM_FFI_THROW(ShapeError) << name << " is on device " << got.device_type << ":" << got.device_id
                              << " but q is on " << want.device_type << ":" << want.device_id
                              << "; move all tensors of a call to one device";
  }
  if (t.ndim() != rank) {
    TVM_FFI_THROW(ShapeError) << name << " must be " << axes << ", got shape " << shape_of(t);
  }
}

void check_dtype(const TensorView& t, int code, int bits, const char* name, const char* want) {
  if (is_type(t, code, bits)) return;
  TVM_FFI_THROW(DtypeError) << name << " must be " << want << ", got " << name_of(t.dtype())
                            << "; cast it once where it is made";
}

void check_size(const TensorView& t, int axis, int64_t want, const char* name, const char* axes,
                const char* from) {
  if (t.size(axis) == want) return;
  TVM_FFI_THROW(ShapeError) << name << " must be " << axes << " with " << from << " = " << want
                            << ", got shape " << shape_of(t);
}

void check_same_dtype(const Call& call, const TensorView& t, const char* name) {
  if (t.dtype() == call.q.dtype()) return;
  TVM_FFI_THROW(DtypeError) << name << " is " << name_of(t.dtype()) << " but q is "
                            << name_of(call.q.dtype()) << "; cast one to the other's dtype";
}

// Rows are copied 16 bytes at a time, so every row must start at a multiple of that.
void check_rows(const TensorView& t, const char* name) {
  const int last = t.ndim() - 1;
  if (t.numel() == 0) return;
  if (t.size(last) != 1 && t.stride(last) != 1) {
    TVM_FFI_THROW(ShapeError) << name << " needs a contiguous last axis, got stride "
                              << t.stride(last) << " for shape " << shape_of(t)
                              << "; call .contiguous() once where it is made";
  }
  const int64_t bytes = t.dtype().bits / 8;
  bool aligned = reinterpret_cast<uintptr_t>(t.data_ptr()) % kAlignment == 0;
  for (int axis = 0; axis < last; ++axis) {
    aligned &= t.size(axis) == 1 || t.stride(axis) * bytes % kAlignment == 0;
  }
  if (!aligned) {
    TVM_FFI_THROW(ShapeError) << name << " needs rows that start at multiples of " << kAlignment
                              << " bytes, got strides that break it for shape " << shape_of(t)
                              << "; slice it at multiples of 8 elements or copy it";
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
  const int64_t units = t.size(0) * t.stride(0) * kElementBytes / kAlignment;
  if (units > int64_t{UINT32_MAX}) {
    TVM_FFI_THROW(ShapeError) << name << " spans " << (units >> 26)
                              << " GiB, the limit is 64 GiB; give each layer its own tensor";
  }
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
  check_same_dtype(call, k, "k_cache");
  check_same_dtype(call, v, "v_cache");
  check_size(k, 3, q.size(2), "k_cache", "[P, S, Hkv, D]", "D of q");
  for (int axis = 0; axis < 4; ++axis) {
    check_size(v, axis, k.size(axis), "v_cache", "[P, S, Hkv, D]", "that axis of k_cache");
  }
  check_rows(k, "k_cache");
  check_rows(v, "v_cache");
  if (k.size(2) < 1 || q.size(1) % k.size(2) != 0) {
    TVM_FFI_THROW(ShapeError) << "q heads must be a multiple of KV heads, got Hq " << q.size(1)
                              << " and Hkv " << k.size(2);
  }
  if (!is_head_dim(static_cast<int>(q.size(2)))) {
    TVM_FFI_THROW(ShapeError) << "head dim must be 64, 96, 128 or 256, got " << q.size(2)
                              << "; pad q, k and v with zeros and pass scale explicitly";
  }
  if (call.page_size < 1 || k.size(1) != call.page_size) {
    TVM_FFI_THROW(ShapeError) << "batch.page_size is " << call.page_size
                              << " but k_cache is [P, S, Hkv, D] with S = " << k.size(1)
                              << "; view the cache with that page size";
  }
  check_span(k, "k_cache");
  check_span(v, "v_cache");
  a.k = k.data_ptr();
  a.v = v.data_ptr();
  a.k_page = k.stride(0), a.k_slot = k.stride(1), a.k_head = k.stride(2);
  a.v_page = v.stride(0), a.v_slot = v.stride(1), a.v_head = v.stride(2);
  check_list(call.page_indices);
  a.page_indices =
      check_vector<int32_t>(call, call.page_indices, -1, kDLInt, "page_indices", "int32");
  a.page_starts = check_vector<int64_t>(call, call.page_starts, -1, kDLInt, "page_starts", "int64");
  a.page_size = static_cast<int>(call.page_size);
  a.group = static_cast<int>(q.size(1) / k.size(2));
}

void check_outputs(const Call& call, LaunchArguments& a) {
  const TensorView &q = call.q, &out = call.out, &lse = call.lse;
  check_tensor(call, out, 3, "out", "[T, Hq, D]");
  check_tensor(call, lse, 2, "lse", "[T, Hq]");
  check_same_dtype(call, out, "out");
  check_dtype(lse, kDLFloat, 32, "lse", "float32");
  for (int axis = 0; axis < 3; ++axis) {
    check_size(out, axis, q.size(axis), "out", "[T, Hq, D]", "that axis of q");
    if (axis < 2) check_size(lse, axis, q.size(axis), "lse", "[T, Hq]", "that axis of q");
  }
  check_rows(out, "out");
  a.out = out.data_ptr();
  a.out_token = out.stride(0), a.out_head = out.stride(1);
  a.lse = static_cast<float*>(lse.data_ptr());
  a.lse_token = lse.stride(0), a.lse_head = lse.stride(1);
}

void set_scores(const Call& call, LaunchArguments& a) {
  constexpr double kLog2e = 1.4426950408889634;
  const double scale = call.scale, cap = call.logit_cap;
  if (!std::isfinite(scale) || !std::isfinite(cap) || cap < 0) {
    TVM_FFI_THROW(ShapeError) << "scale must be finite and logit_cap finite and >= 0, got " << scale
                              << " and " << cap;
  }
  if (call.window_left < -1 || call.window_left > INT32_MAX / 2) {
    TVM_FFI_THROW(ShapeError) << "window_left must be -1 (no window) or 0.." << INT32_MAX / 2
                              << ", got " << call.window_left;
  }
  // A negative scale would turn the maximum that the softmax subtracts into a minimum.
  if (scale < 0 && cap == 0) {
    TVM_FFI_THROW(ShapeError) << "scale must be >= 0, got " << scale << "; negate q instead";
  }
  a.capped = cap > 0;
  a.cap_argument = cap > 0 ? static_cast<float>(scale / cap) : 0.f;
  // Never 0: masked scores are -inf, and must stay so when they are scaled.
  const double score_scale = (cap > 0 ? cap : scale) * kLog2e;
  a.score_scale = static_cast<float>(score_scale == 0 ? 1e-30 : score_scale);
  a.window_left = static_cast<int>(call.window_left);
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
  a.partial_lse = reinterpret_cast<float*>(base + counter_bytes(static_cast<int>(call.sm_slots)));
  a.partial_o = a.partial_lse + padded_rows(rows);
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

PlanConfig check_config(tvm::ffi::ShapeView v) {
  if (v.size() != 15) {
    TVM_FFI_THROW(ConfigInfeasibleError) << "config must be 15 integers, got " << v.size();
  }
  const auto at = [&](int i) { return static_cast<int>(v[i]); };
  const TileConfig prefill{at(0), at(1), at(2), at(3)}, decode{at(4), at(5), at(6), at(7)};
  return {{prefill, decode, at(8), at(13)}, at(9), at(10), at(11), at(12)};
}

void check_lengths(const PlanProblem& p) {
  if (p.q_indptr[0] != 0) {
    TVM_FFI_THROW(ShapeError) << "q_indptr must start at 0, got " << p.q_indptr[0];
  }
  for (int b = 0; b < p.requests; ++b) {
    const int q_len = p.q_indptr[b + 1] - p.q_indptr[b];
    if (q_len < 0 || p.kv_lens[b] < q_len) {
      TVM_FFI_THROW(ShapeError) << "request " << b << " has q_len " << q_len << " and kv_len "
                                << p.kv_lens[b] << "; 0 <= q_len <= kv_len must hold";
    }
  }
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
