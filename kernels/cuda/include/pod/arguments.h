// arguments.h: the plain data of one launch, and the layout of a plan in memory.
//
// Included by host code (planner, checks, launch) and by the kernels; no CUDA types.
#pragma once

#include <cstdint>

namespace pod {

// Plan: int32 words that the host writes and the kernels read. Counts and offsets are part of it,
// so a captured graph replays with whatever plan lies in the buffer at that time.
struct PlanHeader {
  int prefill_items;
  int decode_items;
  int merge_blocks;
  int ratio_prefill, ratio_decode;  // CTA ratio; sums to at most kMaxRatioSum, 0 for an empty side
  int prefill_offset;               // of the first item or block, in words from the header
  int decode_offset;
  int merge_offset;
  int partial_rows;  // rows of partial O and RowSums that splits write
  int words;         // length of the plan
  int stamp;         // row of the ring that stamps of this replay go to, from 1; 0: none
  int drawn[2];      // items of each Op that CTAs which stay have asked for; 0 between launches
  int reserved[3];
};
constexpr int kHeaderWords = sizeof(PlanHeader) / 4;
constexpr int kMaxRatioSum = 4096;

// One (request, KV head, block of packed rows, KV range). Packed row r of a request is query token
// r / group, head kv_head * group + r % group.
struct alignas(16) Item {
  int request;
  int kv_head;
  int row0, rows;  // packed rows row0 .. row0 + rows - 1
  int q_begin;     // the request's first row in q
  int offset;      // position of its first query token: kv_len - q_len
  int kv0, kv1;    // keys kv0 .. kv1 - 1
  int slot;        // first row in the partial buffers; -1: the item writes out and lse itself
  int seen_first, seen_last;  // keys that every row sees; empty when last < first
  int first_page;             // of the request in page_indices; the kernel fills it in
};
constexpr int kItemWords = sizeof(Item) / 4;

// Up to kMergeRows packed rows whose KV was split.
struct alignas(16) MergeBlock {
  int slot;  // of the first row in split 0
  int splits;
  int stride;  // rows between two splits of one row
  int rows;
  int q_begin;
  int row0;
  int kv_head;
  int reserved;
};
constexpr int kMergeWords = sizeof(MergeBlock) / 4;
constexpr int kMergeRows = 4;

// Counters of a launch whose CTAs draw tickets; it finds them zeroed. Ops come first: an SM id can
// never alias them.
struct Counters {
  int next[2];  // next item of each Op, in CTAs
  int reserved[2];
  int ticket[1];  // [sm_slots]; an SM's tickets
};

// Softmax of one row over a split of its keys: the unscaled score that weighs 1, and the sum of
// weights. Not their logarithm: at large logits that is too coarse to weigh splits by.
struct alignas(8) RowSums {
  float m, l;
};

// What a CTA did, for traces of a launch.
struct CtaRecord {
  int smid, op, first_item, items;
  int ticket;  // of its SM; -1 where a launch runs one op and draws none
  int reserved;
  uint64_t begin_ns, end_ns;
};
constexpr int kRecordWords = sizeof(CtaRecord) / 8;

// Division by a number that a launch fixes: exact for 0 <= n < 2^31, two instructions on a device.
// Source: Granlund and Montgomery, Division by Invariant Integers using Multiplication, 1994.
struct Divider {
  uint32_t multiplier;  // 0: a power of two
  int shift;
};
inline Divider divider(int d) {
  int log2 = 0;
  while (int64_t{1} << log2 < d) ++log2;
  if (int64_t{1} << log2 == d) return {0, log2};
  return {static_cast<uint32_t>((uint64_t{1} << (31 + log2)) / d + 1), log2 - 1};
}

// Distances within a cache in chunks of 16 bytes, modulo 2^32: a cache ends within that many.
struct CacheStrides {
  uint32_t page, slot, head;
};

// What the kernels read of a launch.
struct KernelArguments {
  const void* q;  // [T, Hq, D]; strides in elements
  int64_t q_token, q_head;
  const void* k;  // [P, S, Hkv, D]
  const void* v;
  CacheStrides k_strides, v_strides;
  const int32_t* page_indices;
  const int64_t* page_starts;  // [B]
  const float* sinks;          // [Hq] or null
  void* out;                   // [T, Hq, D]
  int64_t out_token, out_head;
  float* lse;  // [T, Hq] natural log
  int64_t lse_token, lse_head;
  const int32_t* plan;
  int32_t* counters;      // Counters, cleared by the launch if it draws tickets
  float* partial_o;       // [partial rows, D]
  RowSums* partial_sums;  // [partial rows]
  CtaRecord* records;     // [ctas] or null
  int requests;           // B
  int group;
  Divider group_divider;
  int page_size;
  Divider page_divider;
  int window_left;     // -1: none
  int capped;          // whether scores pass through tanh
  float cap_argument;  // with a cap: tanh(q.k * cap_argument)
  float score_scale;   // > 0; turns q.k, or the tanh, into the exponent of a power of two
  float logit_scale;   // the same into a logit, natural
  float value_scale;   // what V is multiplied by
  int sm_slots;
  int prefill_ctas;  // grid size: at least what the plan needs
};

// One call: what its kernels read, and what the host needs to launch them.
struct LaunchArguments : KernelArguments {
  void* stream;
  void* side_stream;            // of Strategy::kStreams
  int decode_ctas, merge_ctas;  // grid sizes, as prefill_ctas
  int strategy;
  int device;
};

// Bytes of Counters with room for `sm_slots` SMs, a multiple of 16.
constexpr int64_t counter_bytes(int sm_slots) { return (int64_t{4 + sm_slots} * 4 + 15) / 16 * 16; }

// Workspace of one call: Counters | partial_sums [rows] | partial_o [rows, D].
constexpr int64_t padded_rows(int64_t rows) { return (rows + 3) / 4 * 4; }
constexpr int64_t workspace_bytes(int sm_slots, int64_t rows, int64_t head_dim) {
  return counter_bytes(sm_slots) + padded_rows(rows) * 4 * (2 + head_dim);
}

// Registers and memory of the kernels of a variant, as the driver reports them.
struct KernelInfo {
  int registers, static_smem, dynamic_smem, local_bytes, ctas_per_sm;
};

}  // namespace pod
