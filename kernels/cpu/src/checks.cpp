// checks.cpp: everything that can be wrong is found before anything is computed or written.

#include "pod/cpu/checks.h"

#include <tvm/ffi/error.h>

#include <cmath>
#include <string>

#include "pod/cpu/plan.h"

namespace pod::cpu {
namespace {

using tvm::ffi::TensorView;

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

Dtype dtype_of(const TensorView& q) {
  if (is_type(q, kDLFloat, 32)) return Dtype::kFp32;
  if (is_type(q, kDLBfloat, 16)) return Dtype::kBf16;
  if (is_type(q, kDLFloat, 16)) return Dtype::kFp16;
  TVM_FFI_THROW(DtypeError) << "q is " << name_of(q.dtype())
                            << "; the CPU kernel takes float32, bfloat16 and float16. Cast q and "
                               "the caches to one of them";
  __builtin_unreachable();
}

void check_same_dtype(const TensorView& q, const TensorView& t, const char* name) {
  if (t.dtype() == q.dtype()) return;
  TVM_FFI_THROW(DtypeError) << name << " is " << name_of(t.dtype()) << " but q is "
                            << name_of(q.dtype()) << "; cast one to the other's dtype";
}

void check_rank(const TensorView& t, int rank, const char* name, const char* axes) {
  if (t.device().device_type != kDLCPU) {
    TVM_FFI_THROW(KernelUnavailableError)
        << name << " is not in CPU memory; this is the CPU kernel. Move all tensors to the CPU";
  }
  if (t.ndim() != rank) {
    TVM_FFI_THROW(ShapeError) << name << " must be " << axes << ", got shape " << shape_of(t);
  }
}

void check_size(const TensorView& t, int axis, int64_t want, const char* name, const char* axes,
                const char* from) {
  if (t.size(axis) == want) return;
  TVM_FFI_THROW(ShapeError) << name << " must be " << axes << " with " << from << " = " << want
                            << ", got shape " << shape_of(t);
}

void check_rows(const TensorView& t, const char* name) {
  const int last = t.ndim() - 1;
  if (t.numel() == 0 || t.size(last) == 1 || t.stride(last) == 1) return;
  TVM_FFI_THROW(ShapeError) << name << " needs a contiguous last axis, got stride "
                            << t.stride(last) << " for shape " << shape_of(t)
                            << "; call .contiguous() once where it is made";
}

// A contiguous host vector of integers.
template <typename T>
const T* check_vector(const TensorView& t, int64_t size, const char* name) {
  check_rank(t, 1, name, "one-dimensional");
  if (!is_type(t, kDLInt, sizeof(T) * 8)) {
    TVM_FFI_THROW(DtypeError) << name << " must be int" << sizeof(T) * 8 << ", got "
                              << name_of(t.dtype());
  }
  if (size >= 0) check_size(t, 0, size, name, "[n]", "n");
  check_rows(t, name);
  return static_cast<const T*>(t.data_ptr());
}

void check_heads(const Problem& p, int64_t page_size, const TensorView& k) {
  if (p.num_kv_heads < 1 || p.num_q_heads % p.num_kv_heads != 0) {
    TVM_FFI_THROW(ShapeError) << "q heads must be a multiple of KV heads, got Hq "
                              << p.num_q_heads << " and Hkv " << p.num_kv_heads;
  }
  if (p.head_dim < kMinHeadDim || p.head_dim > kMaxHeadDim || p.head_dim % kHeadDimStep) {
    TVM_FFI_THROW(ShapeError) << "head dim must be a multiple of " << kHeadDimStep << " in "
                              << kMinHeadDim << ".." << kMaxHeadDim << ", got " << p.head_dim
                              << "; pad q, k and v with zeros and pass scale explicitly";
  }
  if (page_size < 1 || k.size(1) != page_size) {
    TVM_FFI_THROW(ShapeError) << "batch.page_size is " << page_size << " but k_cache is [P, S, Hkv, D] "
                              << "with S = " << k.size(1) << "; view the cache with that page size";
  }
}

void check_lengths(const Problem& p, int64_t tokens) {
  const int32_t* indptr = p.q_indptr;
  if (indptr[0] != 0) TVM_FFI_THROW(ShapeError) << "q_indptr must start at 0, got " << indptr[0];
  for (int b = 0; b < p.num_requests; ++b) {
    const int q_len = indptr[b + 1] - indptr[b];
    if (q_len < 0 || p.kv_lens[b] < q_len) {
      TVM_FFI_THROW(ShapeError) << "request " << b << " has q_len " << q_len << " and kv_len "
                                << p.kv_lens[b] << "; 0 <= q_len <= kv_len must hold";
    }
  }
  if (indptr[p.num_requests] != tokens) {
    TVM_FFI_THROW(ShapeError) << "q has T = " << tokens << " rows but the batch has "
                              << indptr[p.num_requests]
                              << " query tokens; slice q, or give padding rows a request";
  }
}

// Index of the first page outside of [0, pages), or -1. The sign trick keeps the loop branch-free,
// so the compiler turns it into vectors: it runs over every page of every call.
int64_t first_bad(const int32_t* index, int64_t count, int32_t pages) {
  int32_t any = 0;
  for (int64_t i = 0; i < count; ++i) any |= index[i] | (pages - 1 - index[i]);
  if (any >= 0) return -1;
  for (int64_t i = 0; i < count; ++i) {
    if (index[i] < 0 || index[i] >= pages) return i;
  }
  return -1;
}

void check_pages(const Problem& p, int64_t indices, int64_t pages) {
  for (int b = 0; b < p.num_requests; ++b) {
    if (p.q_indptr[b + 1] == p.q_indptr[b]) continue;
    const int64_t start = p.cache.page_starts[b];
    const int64_t from = start + first_visible(p, b) / p.cache.page_size;
    const int64_t to = start + (p.kv_lens[b] + int64_t{p.cache.page_size} - 1) / p.cache.page_size;
    if (start < 0 || to > indices) {
      TVM_FFI_THROW(PageIndexError)
          << "request " << b << " reads page_indices[" << from << ":" << to
          << "] but page_indices holds " << indices << "; check page_starts and kv_lens";
    }
    const int64_t bad = first_bad(p.cache.page_indices + from, to - from, static_cast<int32_t>(pages));
    if (bad >= 0) {
      TVM_FFI_THROW(PageIndexError)
          << "page_indices[" << from + bad << "] of request " << b << " is "
          << p.cache.page_indices[from + bad] << ", outside of the cache's " << pages << " pages";
    }
  }
}

PagedCache check_cache(const Call& call, int64_t bytes) {
  const TensorView &k = call.k_cache, &v = call.v_cache;
  check_rank(k, 4, "k_cache", "[P, S, Hkv, D]");
  check_rank(v, 4, "v_cache", "[P, S, Hkv, D]");
  check_same_dtype(call.q, k, "k_cache");
  check_same_dtype(call.q, v, "v_cache");
  check_size(k, 3, call.q.size(2), "k_cache", "[P, S, Hkv, D]", "D of q");
  for (int axis = 0; axis < 4; ++axis) {
    check_size(v, axis, k.size(axis), "v_cache", "[P, S, Hkv, D]", "that axis of k_cache");
  }
  check_rows(k, "k_cache");
  check_rows(v, "v_cache");
  if (k.size(0) > INT32_MAX) {
    TVM_FFI_THROW(ShapeError) << "k_cache has " << k.size(0) << " pages, the limit is " << INT32_MAX;
  }
  return {static_cast<const char*>(k.data_ptr()),
          static_cast<const char*>(v.data_ptr()),
          k.stride(0) * bytes,
          k.stride(1) * bytes,
          k.stride(2) * bytes,
          v.stride(0) * bytes,
          v.stride(1) * bytes,
          v.stride(2) * bytes,
          check_vector<int32_t>(call.page_indices, -1, "page_indices"),
          check_vector<int64_t>(call.page_starts, call.kv_lens.size(0), "page_starts"),
          static_cast<int>(call.page_size)};
}

void check_outputs(const Call& call) {
  const TensorView &q = call.q, &out = call.out, &lse = call.lse;
  check_rank(out, 3, "out", "[T, Hq, D]");
  check_rank(lse, 2, "lse", "[T, Hq]");
  check_same_dtype(q, out, "out");
  for (int axis = 0; axis < 3; ++axis) {
    check_size(out, axis, q.size(axis), "out", "[T, Hq, D]", "that axis of q");
    if (axis < 2) check_size(lse, axis, q.size(axis), "lse", "[T, Hq]", "that axis of q");
  }
  check_rows(out, "out");
  if (!is_type(lse, kDLFloat, 32)) {
    TVM_FFI_THROW(DtypeError) << "lse must be float32, got " << name_of(lse.dtype());
  }
}

const float* check_sinks(const Call& call) {
  if (!call.sinks.has_value()) return nullptr;
  const TensorView& sinks = call.sinks.value();
  check_rank(sinks, 1, "sinks", "[Hq]");
  check_size(sinks, 0, call.q.size(1), "sinks", "[Hq]", "Hq");
  check_rows(sinks, "sinks");
  if (!is_type(sinks, kDLFloat, 32)) {
    TVM_FFI_THROW(DtypeError) << "sinks must be float32, got " << name_of(sinks.dtype());
  }
  return static_cast<const float*>(sinks.data_ptr());
}

void set_scores(const Call& call, Problem& p) {
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
  p.q_scale = static_cast<float>(cap > 0 ? scale / cap : scale * kLog2e);
  p.score_scale = static_cast<float>(cap * kLog2e);
  p.window_left = static_cast<int>(call.window_left);
}

}  // namespace

Problem check_call(const Call& call) {
  const TensorView& q = call.q;
  check_rank(q, 3, "q", "[T, Hq, D]");
  check_rows(q, "q");
  Problem p{};
  p.dtype = dtype_of(q);
  const int64_t bytes = q.dtype().bits / 8;
  p.num_requests = static_cast<int>(call.kv_lens.size(0));
  p.kv_lens = check_vector<int32_t>(call.kv_lens, -1, "kv_lens");
  p.q_indptr = check_vector<int32_t>(call.q_indptr, p.num_requests + 1, "q_indptr");
  p.cache = check_cache(call, bytes);
  p.num_q_heads = static_cast<int>(q.size(1));
  p.num_kv_heads = static_cast<int>(call.k_cache.size(2));
  p.head_dim = static_cast<int>(q.size(2));
  check_heads(p, call.page_size, call.k_cache);
  p.group = p.num_q_heads / p.num_kv_heads;
  p.row_bytes = static_cast<int>(p.head_dim * bytes);
  check_lengths(p, q.size(0));
  check_outputs(call);
  p.sinks = check_sinks(call);
  set_scores(call, p);
  check_pages(p, call.page_indices.size(0), call.k_cache.size(0));
  p.q = static_cast<const char*>(q.data_ptr());
  p.q_token = q.stride(0) * bytes;
  p.q_head = q.stride(1) * bytes;
  p.out = static_cast<char*>(call.out.data_ptr());
  p.out_token = call.out.stride(0) * bytes;
  p.out_head = call.out.stride(1) * bytes;
  p.lse = static_cast<float*>(call.lse.data_ptr());
  p.lse_token = call.lse.stride(0);
  p.lse_head = call.lse.stride(1);
  return p;
}

PodConfig check_config(tvm::ffi::ShapeView v) {
  if (v.size() != 13) {
    TVM_FFI_THROW(ConfigInfeasibleError) << "config must be 13 integers, got " << v.size();
  }
  const auto at = [&](int i) { return static_cast<int>(v[i]); };
  const PodConfig config{{at(0), at(1), at(2)}, {at(3), at(4), at(5)}, at(6),  at(7), at(8), at(9),
                         at(10),                at(11),                static_cast<Strategy>(at(12))};
  const auto tile_ok = [](const TileConfig& t) {
    return t.q_rows >= 16 && t.q_rows % 16 == 0 && t.kv_rows >= 16 && t.kv_rows % 16 == 0 &&
           t.stages >= 1;
  };
  if (!tile_ok(config.prefill) || !tile_ok(config.decode) || config.virtual_decode < 1 ||
      config.decode.q_rows > kMaxDecodeRows) {
    TVM_FFI_THROW(ConfigInfeasibleError)
        << "tile rows must be multiples of 16, stages and virtual_decode >= 1, decode.q_rows <= "
        << kMaxDecodeRows;
  }
  return config;
}

}  // namespace pod::cpu
