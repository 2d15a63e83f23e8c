// tensor_checks.h: what both kernels ask of the tensors and numbers of a call. Host only.
#pragma once

#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>

#include "pod/common/packed.h"

namespace pod::checks {

using tvm::ffi::TensorView;

inline std::string shape_of(const TensorView& t) {
  std::string text = "[";
  for (int i = 0; i < t.ndim(); ++i) text += (i ? ", " : "") + std::to_string(t.size(i));
  return text + "]";
}

inline std::string name_of(DLDataType type) {
  const char* base = type.code == kDLFloat    ? "float"
                     : type.code == kDLBfloat ? "bfloat"
                     : type.code == kDLInt    ? "int"
                                              : "other";
  if (type.code == kDLFloat8_e4m3fn) return "float8_e4m3fn";
  return base + std::to_string(type.bits);
}

inline bool is_type(const TensorView& t, int code, int bits) {
  return t.dtype().code == code && t.dtype().bits == bits && t.dtype().lanes == 1;
}

inline void check_dtype(const TensorView& t, int code, int bits, const char* name,
                        const char* want) {
  if (is_type(t, code, bits)) return;
  TVM_FFI_THROW(DtypeError) << name << " must be " << want << ", got " << name_of(t.dtype())
                            << "; cast it once where it is made";
}

inline void check_same_dtype(const TensorView& q, const TensorView& t, const char* name) {
  if (t.dtype() == q.dtype()) return;
  TVM_FFI_THROW(DtypeError) << name << " is " << name_of(t.dtype()) << " but q is "
                            << name_of(q.dtype()) << "; cast one to the other's dtype";
}

// Whether a cache holds numbers of 8 bits, which k_scale and v_scale turn into keys and values.
inline bool is_quantised(const TensorView& cache) { return is_type(cache, kDLFloat8_e4m3fn, 8); }

inline void check_cache_dtype(const TensorView& q, const TensorView& cache, const char* name) {
  if (is_quantised(cache) || cache.dtype() == q.dtype()) return;
  TVM_FFI_THROW(DtypeError) << name << " is " << name_of(cache.dtype()) << " but q is "
                            << name_of(q.dtype())
                            << "; cast one to the other's dtype, or both caches to float8_e4m3fn";
}

inline void check_ndim(const TensorView& t, int rank, const char* name, const char* axes) {
  if (t.ndim() == rank) return;
  TVM_FFI_THROW(ShapeError) << name << " must be " << axes << ", got shape " << shape_of(t);
}

inline void check_size(const TensorView& t, int axis, int64_t want, const char* name,
                       const char* axes, const char* from) {
  if (t.size(axis) == want) return;
  TVM_FFI_THROW(ShapeError) << name << " must be " << axes << " with " << from << " = " << want
                            << ", got shape " << shape_of(t);
}

inline void check_last_axis(const TensorView& t, const char* name) {
  const int last = t.ndim() - 1;
  if (t.numel() == 0 || t.size(last) == 1 || t.stride(last) == 1) return;
  TVM_FFI_THROW(ShapeError) << name << " needs a contiguous last axis, got stride "
                            << t.stride(last) << " for shape " << shape_of(t)
                            << "; call .contiguous() once where it is made";
}

// Shapes and dtypes of a paged cache [P, S, Hkv, D] beside q [T, Hq, D]; all have their ranks.
inline void check_cache_shape(const TensorView& q, const TensorView& k, const TensorView& v,
                              int64_t page_size) {
  constexpr const char* kAxes = "[P, S, Hkv, D]";
  check_cache_dtype(q, k, "k_cache");
  check_cache_dtype(q, v, "v_cache");
  if (v.dtype() != k.dtype()) {
    TVM_FFI_THROW(DtypeError) << "v_cache is " << name_of(v.dtype()) << " but k_cache is "
                              << name_of(k.dtype()) << "; cast one to the other's dtype";
  }
  check_size(k, 3, q.size(2), "k_cache", kAxes, "D of q");
  for (int axis = 0; axis < 4; ++axis) {
    check_size(v, axis, k.size(axis), "v_cache", kAxes, "that axis of k_cache");
  }
  if (k.size(2) < 1 || q.size(1) % k.size(2) != 0) {
    TVM_FFI_THROW(ShapeError) << "q heads must be a multiple of KV heads, got Hq " << q.size(1)
                              << " and Hkv " << k.size(2);
  }
  if (page_size < 1 || k.size(1) != page_size) {
    TVM_FFI_THROW(ShapeError) << "batch.page_size is " << page_size << " but k_cache is " << kAxes
                              << " with S = " << k.size(1)
                              << "; view the cache with that page size";
  }
}

// out [T, Hq, D] and lse [T, Hq] beside q; both have their ranks.
inline void check_output_shape(const TensorView& q, const TensorView& out, const TensorView& lse) {
  check_same_dtype(q, out, "out");
  check_dtype(lse, kDLFloat, 32, "lse", "float32");
  for (int axis = 0; axis < 3; ++axis) {
    check_size(out, axis, q.size(axis), "out", "[T, Hq, D]", "that axis of q");
    if (axis < 2) check_size(lse, axis, q.size(axis), "lse", "[T, Hq]", "that axis of q");
  }
}

// Whether a row of out and a row `delta` elements further on share one; both kinds of rows lie at
// token * strides[0] + head * strides[1]. The row that is the same at delta 0 does not count.
inline bool rows_meet(const TensorView& out, int64_t delta) {
  const int64_t tokens = out.size(0), heads = out.size(1), dim = out.size(2);
  const int64_t token = out.stride(0), head = out.stride(1);
  for (int64_t h = 1 - heads; h < heads; ++h) {
    const int64_t from = delta + h * head;
    // Tokens that bring it nearest to 0, from either side.
    const int64_t near = token > 0 && tokens > 1 ? -from / token : 0;
    for (int64_t t = near - 1; t <= near + 1; ++t) {
      if (t <= -tokens || t >= tokens || (delta == 0 && h == 0 && t == 0)) continue;
      if (std::abs(from + t * token) < dim) return true;
    }
  }
  return false;
}

// Bytes [first, second) between a tensor's first and last element.
inline std::pair<uintptr_t, uintptr_t> span_of(const TensorView& t) {
  int64_t last = 0;
  for (int axis = 0; axis < t.ndim(); ++axis) last += (t.size(axis) - 1) * t.stride(axis);
  const auto begin = reinterpret_cast<uintptr_t>(t.data_ptr());
  return {begin, t.numel() == 0 ? begin : begin + (last + 1) * (t.dtype().bits / 8)};
}

// Nothing that is read may be written, and nothing twice: items run at the same time.
inline void check_not_written(const TensorView& out, const TensorView& input, const char* name) {
  const auto mine = span_of(out), theirs = span_of(input);
  if (mine.first >= theirs.second || theirs.first >= mine.second) return;
  // Slices of one tensor may lie between each other, as q and out of a fused buffer do.
  const auto bytes = static_cast<int64_t>(out.dtype().bits / 8);
  const auto apart = static_cast<int64_t>(theirs.first - mine.first);
  if (input.ndim() == 3 && input.dtype() == out.dtype() && apart % bytes == 0 && apart != 0 &&
      input.stride(0) == out.stride(0) && input.stride(1) == out.stride(1) &&
      !rows_meet(out, apart / bytes)) {
    return;
  }
  TVM_FFI_THROW(ShapeError) << "out shares memory with " << name
                            << ", which is read while out is written; give out its own";
}

inline void check_written_once(const TensorView& out) {
  const int64_t tokens = out.size(0), heads = out.size(1), dim = out.size(2);
  const int64_t token = out.stride(0), head = out.stride(1);
  const bool nested = head >= dim && token >= (heads - 1) * head + dim;
  if (out.numel() == 0 || nested || (tokens == 1 && head >= dim) || !rows_meet(out, 0)) return;
  TVM_FFI_THROW(ShapeError) << "rows of out overlap in memory: strides " << token << " and " << head
                            << " for shape " << shape_of(out)
                            << "; rows need places of their own, so do not expand() it";
}

// Whether a factor keeps its precision as the float32 that the kernels compute with, and so do its
// products with log2(e) and with ordinary numbers.
inline bool is_factor(double x, float least = 0x1p-100f) {
  const float size = static_cast<float>(std::fabs(x));
  return size >= least && size <= 0x1p100f;
}

// What a cache's numbers are multiplied by. One in the dtype of q is attended as it lies.
inline void check_cache_scale(double got, const char* name, const TensorView& cache) {
  if (got == 1) return;
  if (!is_quantised(cache)) {
    TVM_FFI_THROW(UnsupportedFeatureError)
        << name << " is " << got << ", but only a cache of float8_e4m3fn is scaled and this one is "
        << name_of(cache.dtype()) << "; leave " << name
        << " at 1, and multiply the cache where it is written";
  }
  if (!is_factor(got) || got < 0) {
    TVM_FFI_THROW(ShapeError) << name << " is " << got
                              << ", which must be > 0 and within 2^-100..2^100; 1 takes the cache "
                                 "as it is";
  }
}

// What q.k is multiplied by where K is as it lies in the cache.
inline double factor_of(const packed::Scalars& scalars) { return scalars.scale * scalars.k_scale; }

inline void check_scores(const packed::Scalars& scalars) {
  const double scale = factor_of(scalars), logit_cap = scalars.logit_cap;
  const char* name = scalars.k_scale == 1 ? "scale" : "scale x k_scale";
  const int64_t window_left = scalars.window_left;
  constexpr const char* kRange = "its size must be within 2^-100..2^100 (7.9e-31..1.3e30)";
  if (scale != 0 && !is_factor(scale)) {
    TVM_FFI_THROW(ShapeError) << name << " is " << scale
                              << " but the kernel computes in float32, so " << kRange
                              << ", or 0 for equal weights; move the rest of it into q";
  }
  if (logit_cap != 0 && (!is_factor(logit_cap) || logit_cap < 0)) {
    TVM_FFI_THROW(ShapeError) << "logit_cap is " << logit_cap << ", which must be finite and >= 0; "
                              << kRange << ", or 0 for no cap. A larger one is as good as none";
  }
  if (scale != 0 && logit_cap != 0 && !is_factor(scale / logit_cap, 0x1p-120f)) {
    TVM_FFI_THROW(ShapeError) << name << " / logit_cap is " << scale / logit_cap << ", got " << name
                              << " " << scale << " and logit_cap " << logit_cap
                              << "; its size must be within 2^-120..2^100. Leave logit_cap out if "
                                 "logits stay far below it";
  }
  if (window_left < -1 || window_left > INT32_MAX / 2) {
    TVM_FFI_THROW(ShapeError) << "window_left must be -1 (no window) or 0.." << INT32_MAX / 2
                              << ", got " << window_left;
  }
}

// q_indptr has requests + 1 entries.
inline void check_lengths(const int32_t* q_indptr, const int32_t* kv_lens, int requests) {
  if (q_indptr[0] != 0) {
    TVM_FFI_THROW(ShapeError) << "q_indptr must start at 0, got " << q_indptr[0];
  }
  for (int b = 0; b < requests; ++b) {
    const int64_t q_len = int64_t{q_indptr[b + 1]} - q_indptr[b];  // in int it could wrap
    if (q_len < 0 || kv_lens[b] < q_len) {
      TVM_FFI_THROW(ShapeError) << "request " << b << " has q_len " << q_len << " and kv_len "
                                << kv_lens[b] << "; 0 <= q_len <= kv_len must hold";
    }
  }
}

}  // namespace pod::checks
