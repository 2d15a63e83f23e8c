// smem.h: what lies where in the dynamic shared memory of a CTA.
//
// Item     Q [q_rows, D] | K [kv_rows, D] x stages | V [kv_rows, D] x stages
// Decode   the same; at the end fp32 O, m and l of each warp take the place of K and V. On wgmma
//          also weights [q_rows, kv_rows] and what the warps tell each other
// CTA      one prefill item, or virtual_decode decode items one after the other; a pair's CTA has
//          a prefill item and then a decode item, or without a warpgroup that only decodes either
//          a prefill item or a decode item of each that multiplies
#pragma once

#include "pod/config.h"

namespace pod {

// One item, in bytes; offsets count from its first.
struct ItemSmem {
  int q_row;    // a row of Q, which lies at 0
  int kv_row;   // a row of K or V
  int kv_tile;  // a stage of K, or of V
  int k, v;     // offsets of their first stages
  int scratch;  // offset of the place where decode warps meet
  int landing;  // offset of the place where bytes to be widened land
  int weights;  // offset of the weights of decode on wgmma
  int notes;    // and of what its warps tell each other
  int bytes;    // of all
};

// Floats between two rows of the fp32 scratch in which decode warps meet: free of bank conflicts.
constexpr int scratch_stride(int head_dim) { return head_dim + 8; }

// fp32 O, m and l of each warp of a decode item; one warp alone needs none.
constexpr int scratch_bytes(const TileConfig& tile, int head_dim) {
  return tile.warps == 1 ? 0 : tile.warps * tile.q_rows * (scratch_stride(head_dim) + 2) * 4;
}

// `more` places for a tile of K or V.
constexpr ItemSmem item_smem(const TileConfig& tile, int head_dim, int kv_bytes, int scratch,
                             int more = 0) {
  const int q_row = head_dim * kQBytes, kv_row = head_dim * kv_bytes;
  const int q = tile.q_rows * q_row, kv_tile = tile.kv_rows * kv_row;
  const int stages = tile.stages * kv_tile;
  const int bytes = q + larger(2 * stages + more * kv_tile, scratch);
  return {q_row, kv_row, kv_tile, q, q + stages, q, bytes, bytes, bytes, bytes};
}

// The first panel of the warpgroup's matrix unit starts at a multiple of this, and all others at
// one of where their swizzle repeats; dynamic shared memory is only known to start at one of 16.
constexpr int kPanelAlignment = 1024;
constexpr int alignment_slack(PrefillEngine engine) {
  return engine == PrefillEngine::kMma ? 0 : kPanelAlignment - 16;
}

// Where K and V of bytes land for wgmma, which takes both operands widened: 16 bytes of every
// thread that copies in each of as many places as a tile of both has, but one.
constexpr int kLandingBytes = kGroupThreads * 16;
constexpr int landing_bytes(const TileConfig& tile, int head_dim) {
  return 2 * tile.kv_rows * head_dim - kLandingBytes;
}

// `kv_bytes` is the size of an element of K and V.
constexpr ItemSmem prefill_smem(const TileConfig& tile, int head_dim, int kv_bytes,
                                PrefillEngine engine) {
  const bool widened = engine != PrefillEngine::kMma && kv_bytes < kQBytes;
  ItemSmem smem = item_smem(tile, head_dim, widened ? kQBytes : kv_bytes, 0);
  if (widened) smem.bytes += landing_bytes(tile, head_dim);
  return smem;
}

// What decode warps on wgmma tell each other.
constexpr int kNoteBytes = 512;

// Weights of a tile of decode on wgmma, in 16 bits.
constexpr int weight_bytes(const TileConfig& tile) { return tile.q_rows * tile.kv_rows * kQBytes; }

// Whether keys come a tile ahead of values: see kv_ahead.cuh.
constexpr bool decode_ahead(const TileConfig& tile, PrefillEngine prefill) {
  return prefill == PrefillEngine::kPair && tile.stages == 2;
}

// Beside a pair K and V have a place more on wgmma, all of which they take in turns.
constexpr ItemSmem decode_smem(const TileConfig& tile, int head_dim, int kv_bytes,
                               DecodeEngine engine, PrefillEngine prefill) {
  const int more = prefill == PrefillEngine::kPair && engine == DecodeEngine::kWgmma;
  ItemSmem smem = item_smem(tile, head_dim, kv_bytes, scratch_bytes(tile, head_dim), more);
  if (engine == DecodeEngine::kMma) return smem;
  // They begin where any swizzle does.
  smem.weights = (smem.bytes + kPanelAlignment - 1) / kPanelAlignment * kPanelAlignment;
  const int turns = decode_ahead(tile, prefill) ? 2 : 1;
  smem.notes = smem.weights + turns * weight_bytes(tile);
  smem.bytes = smem.notes + kNoteBytes;
  return smem;
}

// Dynamic shared memory of a CTA that runs a prefill item, and of one that runs decode items.
constexpr int prefill_cta_bytes(const PodConfig& config, int head_dim, int kv_bytes,
                                PrefillEngine engine) {
  return prefill_smem(config.prefill, head_dim, kv_bytes, engine).bytes + alignment_slack(engine);
}
constexpr int decode_cta_bytes(const PodConfig& config, int head_dim, int kv_bytes,
                               PrefillEngine prefill) {
  const DecodeEngine engine = decode_engine(config, kv_bytes, prefill);
  const int slack = engine == DecodeEngine::kWgmma ? alignment_slack(prefill) : 0;
  const ItemSmem item = decode_smem(config.decode, head_dim, kv_bytes, engine, prefill);
  return config.virtual_decode * item.bytes + slack;
}

// From one decode item in the place of a pair's prefill item to the next: panels begin there.
constexpr int turned_bytes(const ItemSmem& decode) {
  return (decode.bytes + kPanelAlignment - 1) / kPanelAlignment * kPanelAlignment;
}

// Of a CTA that may run either op, or runs both.
constexpr int cta_bytes(const PodConfig& config, int head_dim, int kv_bytes, PrefillEngine engine) {
  const int prefill = prefill_cta_bytes(config, head_dim, kv_bytes, engine);
  const int decode = decode_cta_bytes(config, head_dim, kv_bytes, engine);
  if (engine != PrefillEngine::kPair) return larger(prefill, decode);
  const int slack = alignment_slack(engine);
  if (pair_decodes(head_dim, kv_bytes)) return prefill + decode - slack;
  const ItemSmem item = decode_smem(config.decode, head_dim, kv_bytes,
                                    decode_engine(config, kv_bytes, engine), engine);
  return larger(prefill, kPairGroups * turned_bytes(item) + slack);
}

// A variant's shared memory.
template <class Variant>
struct Smem {
  static constexpr int kKvBytes = sizeof(typename Variant::KvElement);
  static constexpr ItemSmem prefill =
      prefill_smem(Variant::config.prefill, Variant::head_dim, kKvBytes, Variant::prefill_engine);
  static constexpr DecodeEngine kDecodeEngine =
      decode_engine(Variant::config, kKvBytes, Variant::prefill_engine);
  static constexpr ItemSmem decode = decode_smem(Variant::config.decode, Variant::head_dim,
                                                 kKvBytes, kDecodeEngine, Variant::prefill_engine);
  static constexpr int kPrefillCta =
      prefill_cta_bytes(Variant::config, Variant::head_dim, kKvBytes, Variant::prefill_engine);
  static constexpr int kDecodeCta =
      decode_cta_bytes(Variant::config, Variant::head_dim, kKvBytes, Variant::prefill_engine);
  static constexpr int kCta =
      cta_bytes(Variant::config, Variant::head_dim, kKvBytes, Variant::prefill_engine);
};

// What the loop over an item's KV tiles needs to know of its op.
template <class Variant, Op kOp>
struct ItemShape {
  static constexpr TileConfig tile =
      kOp == Op::kPrefill ? Variant::config.prefill : Variant::config.decode;
  static constexpr ItemSmem smem =
      kOp == Op::kPrefill ? Smem<Variant>::prefill : Smem<Variant>::decode;
};

}  // namespace pod
