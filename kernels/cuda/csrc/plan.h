// plan.h: cuts a hybrid batch into items. Host only.
#pragma once

#include <cstdint>
#include <vector>

#include "pod/arguments.h"
#include "pod/config.h"

namespace pod {

// Below this many keys an item's start and its merge cost more than a fuller GPU gains: one request
// of 8192 keys took 25 us on an H100 in items of 512 and 26 us in items of 256.
constexpr int kLeastSplit = 256;

// The run-time half of a PodConfig; the variant fixes the other half.
struct PlanConfig {
  PodConfig tiles;
  int prefill_ctas, decode_ctas;  // CTA ratio; 0:0 leaves it to the batch
  int max_prefill_waves;          // 0 never splits the KV of a prefill, 1 where that pays
  int decode_split_tokens;        // most keys of a decode item; 0 never splits the KV of a decode
  Strategy strategy;              // prefill that runs alone is cut as if it were
};

struct PlanProblem {
  const int32_t* q_indptr;  // [requests + 1]
  const int32_t* kv_lens;   // [requests]
  int requests;
  int num_kv_heads;
  int group;  // query heads per KV head
  int head_dim;
  int kv_bytes;  // of an element of K and V
  int window_left;
  int num_sms;
  int fill_ctas;  // most decode CTAs that a batch is given by items that are not the config's
};

struct Plan {
  PlanHeader header;
  std::vector<Item> prefill, decode;
  std::vector<MergeBlock> merge;
  int prefill_ctas, decode_ctas;
};

// Whether the op decode takes a request of `q_len` query tokens: it has at most kDecodeRows packed
// rows, whatever the tile, or is a plain one-token step of a larger group.
bool is_decode(int q_len, int group);

// Items longest first, those of prefill gathered by their keys, LSE slots, merge blocks and the CTA
// ratio of one batch.
Plan make_plan(const PlanProblem& problem, const PlanConfig& config);

// Copies the plan to `buffer`, which holds at least header.words words.
void write_plan(const Plan& plan, int32_t* buffer);

}  // namespace pod
