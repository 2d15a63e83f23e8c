// launch.h: the plain data of one call that scheduler and compute core share.
//
// No function bodies: the core is compiled once per instruction set, and an inline function of
// two such objects would be merged into either one by the linker.
#pragma once

#include <cstdint>

namespace pod::cpu {

enum class Dtype : int { kFp32, kBf16, kFp16 };
enum class Strategy : int { kFused, kSerial, kStreams };

constexpr int kMinHeadDim = 32;
constexpr int kMaxHeadDim = 256;
constexpr int kHeadDimStep = 16;
constexpr int kMaxDecodeRows = 64;  // of decode.q_rows: their m and l live on the stack
// Keys whose products with V are summed in O before O is folded into a sum that keeps what rounding
// loses: so the error does not grow with the length.
constexpr int kFoldKeys = 1024;

// One op's share of a CTA; field names equal the Python fields and Optuna parameters.
struct TileConfig {
  int q_rows;   // query rows after GQA packing
  int kv_rows;  // KV rows per tile
  int stages;   // KV tiles in flight: stages - 1 are prefetched ahead
};

struct PodConfig {
  TileConfig prefill, decode;
  int ctas_per_sm;                // 2: a core carries a decode item beside its prefill item
  int prefill_ctas, decode_ctas;  // 0:0 is proportional to the work at hand
  int max_prefill_waves;          // 0 never splits the KV of a prefill
  int decode_split_tokens;        // 0 never splits the KV of a decode
  int virtual_decode;             // decode items per ticket
  Strategy strategy;
};

// K and V pages; strides in bytes, so that one type serves all dtypes.
struct PagedCache {
  const char* k;
  const char* v;
  int64_t k_page, k_slot, k_head;
  int64_t v_page, v_slot, v_head;
  const int32_t* page_indices;
  const int64_t* page_starts;
  int page_size;
};

struct Problem {
  const char* q;  // [T, Hq, D], strides in bytes
  int64_t q_token, q_head;
  char* out;  // [T, Hq, D], strides in bytes
  int64_t out_token, out_head;
  float* lse;  // [T, Hq] natural log, strides in elements
  int64_t lse_token, lse_head;
  const float* sinks;  // [Hq] or null
  PagedCache cache;
  const int32_t* q_indptr;
  const int32_t* kv_lens;
  int num_requests;
  int num_q_heads, num_kv_heads, group, head_dim;
  Dtype dtype;        // of q and out
  bool quantised;     // K and V are e4m3, else of the dtype of q
  int row_bytes;      // of one K or V row of one head
  float q_scale;      // folded into Q: scale * log2(e), or scale / cap, times that of K
  float value_scale;  // of V: folded into the answer
  float score_scale;  // cap * log2(e) when a cap is set, else 0
  int window_left;    // -1: none
};

// Rows [row0, row0 + rows) of the packed (token, head in group) rows of one request and KV head
// against keys [kv0, kv1). Packed row r is token r / group, head r % group.
struct Item {
  int request, kv_head;
  int row0, rows;
  int kv0, kv1;
  int split_group;  // -1: writes the answer itself
  int split;
  int64_t cost;  // multiply-adds of a prefill item, bytes of a decode item
};

// Items whose partial answers merge into the same rows; the last one to finish merges.
struct SplitGroup {
  int request, kv_head;
  int row0, rows;
  int splits;
  int left;        // splits still to finish, changed atomically
  float* partial;  // [splits][rows * (D + 2)]: O unnormalized, then m base 2, then l
};

// K and V rows to prefetch into L2, spread evenly over the compute loop.
constexpr uint32_t kWholeRow = 1 << 16;
struct Stream {
  const char** next;
  const char** end;
  uint32_t credit, pace;  // rows due, and rows per multiply-add of depth, in 1 / kWholeRow
  int row_bytes;
};

// One worker's buffers; prefill and decode parts are disjoint because a worker may run a decode
// item between two tiles of a prefill item.
struct Scratch {
  float *q, *o;              // prefill [panels][D][panel rows]
  float *k, *v;              // prefill [kv_rows, D]
  float* s;                  // prefill [kv_rows, panel rows]
  float *m, *l;              // prefill [q_rows], m base 2
  float* l_low;              // prefill [q_rows], what l lost to rounding
  int* position;             // prefill [q_rows]
  float *dq, *dop;           // decode [q_rows, D]
  float* ds;                 // decode [q_rows, kv_rows + lanes]
  float *sum, *low, *m_sum;  // prefill: O of the keys folded so far, its lost bits, their m
  float *dsum, *dlow;        // decode, likewise
  const char** rows;    // decode [stages][2][kv_rows + lanes]: K, then V row pointers of a tile
  const char** stream;  // prefetch list of one prefill tile
  int stream_capacity;
};

// The scheduler's say inside a prefill item. `tile` is called before each KV tile with the list
// the item has already put into `stream` (its own next tiles); it may run decode items and append
// rows; `cost` is what was computed since the last call.
struct Hooks {
  void (*tile)(void* context, int64_t cost, Stream& stream);
  void* context;
};

struct Core {
  void (*prefill)(const Problem&, const PodConfig&, const Item&, SplitGroup*, Scratch&, Hooks&);
  void (*decode)(const Problem&, const PodConfig&, const Item&, SplitGroup*, Scratch&);
};

#if POD_HAS_AVX512
namespace avx512 {
const Core& core();
}
#endif
#if POD_HAS_AVX2
namespace avx2 {
const Core& core();
}
#endif
namespace portable {
const Core& core();
}

}  // namespace pod::cpu
