// config.h: what one variant of the kernel fixes at compile time, and what that costs.
//
// Field names equal the Python fields and the Optuna parameters. What a variant leaves open (CTA
// ratio, prefill waves, decode split, strategy) is run-time data.
#pragma once

namespace pod {

// One CTA's share of one op.
struct TileConfig {
  int q_rows;   // query rows after GQA packing, multiple of 16; of decode on wgmma also 8
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

// What multiplies in a prefill item: mma.sync, warp by warp, or Hopper's wgmma, a warpgroup per CTA
// or a pair of them. Beside a pair the same CTA decodes, so it is all that an SM holds.
enum class PrefillEngine : int { kMma = 0, kWgmma = 1, kPair = 2 };

// What multiplies in a decode item: mma.sync, warp by warp, or wgmma with operands swapped.
enum class DecodeEngine : int { kMma = 0, kWgmma = 1 };

// Packed rows of a request that is a decode, at most, whatever the tile; and of a decode tile: one
// block of mma.sync. On wgmma, whose columns they are, a tile may have a column tile of 8 instead.
constexpr int kDecodeRows = 16, kColumnTile = 8;
constexpr int kQBytes = 2;  // of an element of Q and out; of K and V: as Q, or 1

// Rows of K and V are multiples of 32 bytes, so that the swizzles of layout/swizzle.cuh apply.
constexpr bool is_head_dim(int d) { return d == 64 || d == 96 || d == 128 || d == 256; }

constexpr int larger(int a, int b) { return a > b ? a : b; }

// Prefill on wgmma has a warpgroup that multiplies and one that copies for it. Two CTAs of both
// would leave each thread 128 registers: too few to multiply, more than enough to copy.
constexpr int kGroupWarps = 4;
constexpr int kGroupThreads = kGroupWarps * 32;
constexpr int kCopyRegisters = 24, kMathRegisters = 232;
// Widening keys and values of bytes on the way takes more of the one and leaves enough of the
// other.
constexpr int kWidenRegisters = 32, kWideMathRegisters = 224;

// A pair has 64 query rows in each warpgroup; with one that copies for both and, where O and copies
// of bytes that are widened leave it registers, one that decodes they share those of an SM.
constexpr int kPairGroups = 2;
constexpr bool pair_decodes(int head_dim, int kv_bytes) {
  return head_dim <= 128 && kv_bytes == kQBytes;
}

// Registers of a thread of a pair's CTA, by what its warpgroup does.
struct PairRegisters {
  int copy, math, decode;
};
constexpr PairRegisters pair_registers(int head_dim, int kv_bytes) {
  if (kv_bytes < kQBytes) return {56, 224, 0};
  if (!pair_decodes(head_dim, kv_bytes)) return {40, 232, 0};
  // Less of O leaves decode the registers for 128 keys at once.
  return head_dim == 96 ? PairRegisters{40, 184, 104} : PairRegisters{40, 192, 88};
}
constexpr int all_registers(const PairRegisters& of) {
  return of.copy + kPairGroups * of.math + of.decode;
}
static_assert(all_registers(pair_registers(128, 2)) == (2 + kPairGroups) * 128 &&
                  all_registers(pair_registers(96, 2)) == (2 + kPairGroups) * 128,
              "512 threads begin with 128 each");
static_assert(all_registers(pair_registers(256, 2)) == (1 + kPairGroups) * 168 &&
                  all_registers(pair_registers(128, 1)) == (1 + kPairGroups) * 168,
              "384 threads begin with 168 each");
// Room for its static variables, items that were drawn and barriers; limits.py has it too.
constexpr int kPairStaticBytes = 768;

// Warps that run items.
constexpr int cta_warps(const PodConfig& c) {
  return larger(c.prefill.warps, c.virtual_decode * c.decode.warps);
}

// Decode runs on wgmma where prefill does, K and V are 16 bits, and a warpgroup that has the CTA
// to itself takes whole blocks of 64 keys.
constexpr DecodeEngine decode_engine(const PodConfig& c, int kv_bytes, PrefillEngine prefill) {
  const bool group = c.decode.warps == kGroupWarps && c.virtual_decode == 1;
  const bool suits = group && c.decode.kv_rows % 64 == 0 && kv_bytes == kQBytes;
  return prefill != PrefillEngine::kMma && suits ? DecodeEngine::kWgmma : DecodeEngine::kMma;
}

// Whether an engine has a decode tile of so many rows.
constexpr bool has_decode_rows(DecodeEngine engine, int rows) {
  return rows == kDecodeRows || (engine == DecodeEngine::kWgmma && rows == kColumnTile);
}

// Whether a CTA's tiles are those of a pair and of the warpgroup that decodes beside it. Where a
// GPU has no such CTAs they run in turns, by plans that suit these.
constexpr bool runs_both(const PodConfig& c) {
  return c.prefill.warps == kPairGroups * kGroupWarps && c.decode.warps == kGroupWarps &&
         c.ctas_per_sm == 1 && c.virtual_decode == 1;
}

// Whether such a CTA runs one op at a time, because none of its warpgroups only decodes.
constexpr bool runs_in_turn(const PodConfig& c, int head_dim, int kv_bytes) {
  return runs_both(c) && !pair_decodes(head_dim, kv_bytes);
}

// Registers that a thread may use when ctas_per_sm CTAs share an SM's 65536.
template <class Variant>
struct RegisterBudget {
  static constexpr int kThreads = 32 * cta_warps(Variant::config) * Variant::config.ctas_per_sm;
  static constexpr int value = 65536 / kThreads;
};

}  // namespace pod
