// config.h: what one variant of the kernel fixes at compile time.
//
// Field names equal the Python fields and the Optuna parameters. What a variant leaves open (CTA
// ratio, prefill waves, decode split, strategy) is run-time data of the plan.
#pragma once

namespace pod {

// One CTA's share of one op.
struct TileConfig {
  int q_rows;   // query rows after GQA packing, multiple of 16
  int kv_rows;  // KV rows per stage, multiple of 16
  int stages;   // K tiles in flight, and V tiles, >= 1
  int warps;
};

struct PodConfig {
  TileConfig prefill, decode;
  int ctas_per_sm;     // residency that registers and shared memory leave room for
  int virtual_decode;  // decode items of one CTA, each on decode.warps warps of its own
};

enum class Op : int { kPrefill = 0, kDecode = 1 };
enum class Strategy : int { kFused = 0, kSerial = 1, kStreams = 2 };

// Rows of K and V are multiples of 64 bytes, so that the swizzles of layout/swizzle.cuh apply.
constexpr bool is_head_dim(int d) { return d == 64 || d == 96 || d == 128 || d == 256; }

constexpr int smem_bytes(const TileConfig& tile, int head_dim) {
  return 2 * head_dim * (tile.q_rows + 2 * tile.stages * tile.kv_rows);
}

}  // namespace pod
