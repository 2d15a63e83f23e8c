// packed.h: numbers that Python packs and C++ reads by name. Host only.
//
// Fields have the names and the order of terms/scalars.py and terms/config.py, which make their
// layout from their own fields; a test compares both.
#pragma once

#include <tvm/ffi/error.h>
#include <tvm/ffi/string.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace pod::packed {

// The numbers of one call that are not lengths.
struct Scalars {
  double scale;
  int64_t window_left;
  double logit_cap;
  double k_scale;
  double v_scale;
};

struct TileConfig {
  int32_t q_rows;
  int32_t kv_rows;
  int32_t stages;
  int32_t warps;
};

struct PodConfig {
  TileConfig prefill;
  TileConfig decode;
  int32_t ctas_per_sm;
  int32_t prefill_ctas;
  int32_t decode_ctas;
  int32_t max_prefill_waves;
  int32_t decode_split_tokens;
  int32_t virtual_decode;
  int32_t strategy;
};

template <class T>
T unpack(const tvm::ffi::Bytes& bytes) {
  static_assert(std::is_trivially_copyable_v<T>, "bytes become a T by a copy");
  if (bytes.size() != sizeof(T)) {
    TVM_FFI_THROW(ValueError) << "packed numbers must be " << sizeof(T) << " bytes, got "
                              << bytes.size() << "; the library is older or newer than its caller";
  }
  T values;
  std::memcpy(&values, bytes.data(), sizeof(T));
  return values;
}

}  // namespace pod::packed
