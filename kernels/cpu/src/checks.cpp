// checks.cpp: everything that can be wrong is found before anything is computed or written.

#include "pod/cpu/checks.h"

#include "pod/common/tensor_checks.h"
#include "pod/cpu/plan.h"

namespace pod::cpu {
namespace {

using namespace pod::checks;

Dtype dtype_of(const TensorView& q) {
  if (is_type(q, kDLFloat, 32)) return Dtype::kFp32;
  if (is_type(q, kDLBfloat, 16)) return Dtype::kBf16;
  if (is_type(q, kDLFloat, 16)) return Dtype::kFp16;
  TVM_FFI_THROW(DtypeError) << "q is " << name_of(q.dtype())
                            << "; the CPU kernel takes float32, bfloat16 and float16. Cast q and "
                               "the caches to one of them";
  __builtin_unreachable();
}

void check_rank(const TensorView& t, int rank, const char* name, const char* axes) {
  if (t.device().device_type != kDLCPU) {
    TVM_FFI_THROW(KernelUnavailableError)
        << name << " is not in CPU memory; this is the CPU kernel. Move all tensors to the CPU";
  }
  check_ndim(t, rank, name, axes);
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
  check_last_axis(t, name);
  return static_cast<const T*>(t.data_ptr());
}

void check_head_dim(const Problem& p) {
  if (p.head_dim < kMinHeadDim || p.head_dim > kMaxHeadDim || p.head_dim % kHeadDimStep) {
    TVM_FFI_THROW(ShapeError) << "head dim must be a multiple of " << kHeadDimStep << " in "
                              << kMinHeadDim << ".." << kMaxHeadDim << ", got " << p.head_dim
                              << "; pad q, k and v with zeros and pass scale explicitly";
  }
}

void check_tokens(const Problem& p, int64_t tokens) {
  const int32_t* indptr = p.q_indptr;
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
  const int64_t page_size = p.cache.page_size;
  for (int b = 0; b < p.num_requests; ++b) {
    if (p.q_indptr[b + 1] == p.q_indptr[b]) continue;
    const int64_t start = p.cache.page_starts[b];
    const int64_t count = (p.kv_lens[b] + page_size - 1) / page_size;
    // Not start + count: that wraps where a start is huge.
    if (start < 0 || start > indices - count) {
      TVM_FFI_THROW(PageIndexError)
          << "request " << b << " reads " << count << " page_indices from " << start
          << " on but page_indices holds " << indices << "; check page_starts and kv_lens";
    }
    const int64_t from = start + first_visible(p, b) / page_size;
    const int64_t bad =
        first_bad(p.cache.page_indices + from, start + count - from, static_cast<int32_t>(pages));
    if (bad >= 0) {
      TVM_FFI_THROW(PageIndexError)
          << "page_indices[" << from + bad << "] of request " << b << " is "
          << p.cache.page_indices[from + bad] << ", outside of the cache's " << pages << " pages";
    }
  }
}

PagedCache check_cache(const Call& call) {
  const TensorView &k = call.k_cache, &v = call.v_cache;
  const int64_t bytes = k.dtype().bits / 8;
  check_rank(k, 4, "k_cache", "[P, S, Hkv, D]");
  check_rank(v, 4, "v_cache", "[P, S, Hkv, D]");
  check_cache_shape(call.q, k, v, call.page_size);
  check_last_axis(k, "k_cache");
  check_last_axis(v, "v_cache");
  if (k.size(0) > INT32_MAX || call.page_size > INT32_MAX) {
    TVM_FFI_THROW(ShapeError) << "k_cache has " << k.size(0) << " pages of " << call.page_size
                              << " tokens, the limit of both is " << INT32_MAX;
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
  check_output_shape(q, out, lse);
  check_last_axis(out, "out");
  check_written_once(out);
  check_not_written(out, q, "q");
  check_not_written(out, call.k_cache, "k_cache");
  check_not_written(out, call.v_cache, "v_cache");
  if (call.sinks.has_value()) check_not_written(out, call.sinks.value(), "sinks");
}

const float* check_sinks(const Call& call) {
  if (!call.sinks.has_value()) return nullptr;
  const TensorView& sinks = call.sinks.value();
  check_rank(sinks, 1, "sinks", "[Hq]");
  check_size(sinks, 0, call.q.size(1), "sinks", "[Hq]", "Hq");
  check_last_axis(sinks, "sinks");
  check_dtype(sinks, kDLFloat, 32, "sinks", "float32");
  return static_cast<const float*>(sinks.data_ptr());
}

void set_scores(const Call& call, Problem& p) {
  constexpr double kLog2e = 1.4426950408889634;
  const double scale = factor_of(call.scalars), cap = call.scalars.logit_cap;
  check_cache_scale(call.scalars.k_scale, "k_scale", call.k_cache);
  check_cache_scale(call.scalars.v_scale, "v_scale", call.v_cache);
  check_scores(call.scalars);
  p.q_scale = static_cast<float>(cap > 0 ? scale / cap : scale * kLog2e);
  p.score_scale = static_cast<float>(cap * kLog2e);
  p.value_scale = static_cast<float>(call.scalars.v_scale);
  p.window_left = static_cast<int>(call.scalars.window_left);
}

}  // namespace

Problem check_call(const Call& call) {
  const TensorView& q = call.q;
  check_rank(q, 3, "q", "[T, Hq, D]");
  check_last_axis(q, "q");
  Problem p{};
  p.dtype = dtype_of(q);
  const int64_t bytes = q.dtype().bits / 8;
  p.num_requests = static_cast<int>(call.kv_lens.size(0));
  p.kv_lens = check_vector<int32_t>(call.kv_lens, -1, "kv_lens");
  p.q_indptr = check_vector<int32_t>(call.q_indptr, p.num_requests + 1, "q_indptr");
  p.cache = check_cache(call);
  p.quantised = is_quantised(call.k_cache);
  p.num_q_heads = static_cast<int>(q.size(1));
  p.num_kv_heads = static_cast<int>(call.k_cache.size(2));
  p.head_dim = static_cast<int>(q.size(2));
  check_head_dim(p);
  p.group = p.num_q_heads / p.num_kv_heads;
  p.row_bytes = p.head_dim * call.k_cache.dtype().bits / 8;
  check_lengths(p.q_indptr, p.kv_lens, p.num_requests);
  check_tokens(p, q.size(0));
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

PodConfig check_config(const packed::PodConfig& c) {
  const PodConfig config{{c.prefill.q_rows, c.prefill.kv_rows, c.prefill.stages},
                         {c.decode.q_rows, c.decode.kv_rows, c.decode.stages},
                         c.ctas_per_sm,
                         c.prefill_ctas,
                         c.decode_ctas,
                         c.max_prefill_waves,
                         c.decode_split_tokens,
                         c.virtual_decode,
                         static_cast<Strategy>(c.strategy)};
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
