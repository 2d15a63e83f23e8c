// tensor_map.cuh: what the copy engine is told of a paged pool; the host makes it (sm_90).
//
// The pool [P, S, Hkv, D] of 16-bit elements is a tensor of (D, Hkv, S, P), innermost first, with
// strides of its own. A box is 64 columns of one head in `rows` slots of one page: rows of 128
// bytes, as layout/panels.cuh has them.
#pragma once

#include "pod/ptx/launch.cuh"

#ifdef __CUDACC__
#include <cuda.h>
#endif

namespace pod::ptx {

// Sizes in elements, distances in bytes, multiples of 16 as is `base`.
struct PagedPool {
  const void* base;
  int64_t pages, slots, heads, columns;
  int64_t page_bytes, slot_bytes, head_bytes;
};

constexpr int kBoxColumns = 64;
constexpr int kMostBoxRows = 256;

#ifdef __CUDACC__

using TensorMap = CUtensorMap;

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

// The driver's function, found at run time: nothing links to the driver. Null when it has none.
inline EncodeTiled find_encode_tiled() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  const cudaError_t code = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                            12000, cudaEnableDefault, &found);
  return code || found != cudaDriverEntryPointSuccess ? nullptr
                                                      : reinterpret_cast<EncodeTiled>(function);
}

// Writes the map of boxes of `rows` slots, at most kMostBoxRows. Host work only.
inline Error encode_boxes(TensorMap* map, const PagedPool& pool, int rows) {
  static const EncodeTiled encode = find_encode_tiled();
  if (encode == nullptr) return cudaErrorNotSupported;
  const auto size = [](int64_t n) { return static_cast<cuuint64_t>(n); };
  const cuuint64_t sizes[4] = {size(pool.columns), size(pool.heads), size(pool.slots),
                               size(pool.pages)};
  const cuuint64_t strides[3] = {size(pool.head_bytes), size(pool.slot_bytes),
                                 size(pool.page_bytes)};
  const cuuint32_t box[4] = {kBoxColumns, 1, static_cast<cuuint32_t>(rows), 1};
  const cuuint32_t steps[4] = {1, 1, 1, 1};
  const CUresult code =
      encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 4, const_cast<void*>(pool.base), sizes, strides,
             box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return code == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

#else

using TensorMap = emulator::TensorMap;

inline Error encode_boxes(TensorMap* map, const PagedPool& pool, int rows) {
  return emulator::encode_map(map, {static_cast<const uint8_t*>(pool.base),
                                    {pool.columns, pool.heads, pool.slots, pool.pages},
                                    {pool.head_bytes, pool.slot_bytes, pool.page_bytes},
                                    {kBoxColumns, 1, rows, 1}});
}

#endif

}  // namespace pod::ptx
