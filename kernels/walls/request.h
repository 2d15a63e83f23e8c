// request.h: what a measurement is asked to do, and what it leaves. Python packs and reads both.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace pod::walls {

constexpr int kRowBytes = 256;  // a row of K or V: 128 elements of 2 bytes
constexpr int kMostWarps = 16, kMostStages = 16;

// Warps of each CTA that copy rows of a pool into shared memory as fast as they come. A warp has
// `stages` places of `copies` copies each, and asks for a place's next bytes once it has landed.
struct Stream {
  const char* pool;  // [groups * rows, 256 bytes]
  int64_t rows;      // of a group; a power of two
  uint64_t policy;   // of L2
  int warps, stages, copies;
  int copy_rows;  // rows of a copy
  int panels;     // boxes: 1 of 128 columns, or 2 of 64 with the 128-byte swizzle
  int lanes;      // that issue: 1 .. 32
  int groups;     // CTA c reads group c % groups
  int shared;     // 1: all CTAs of a group read the same; 0: each its own rows
  int scatter;    // odd; 1 reads in order
  int reserved;
};

// The CTA that multiplies beside a decoder: streams[0], of up to 4 warps with places of 16 rows.
struct Corun {
  const char* tiles;  // [groups * tile_rows, 256 bytes], K and V in turns
  int64_t tile_rows;
  uint64_t tile_policy;
  int groups;
  int multiply;  // 0: the multiplying warpgroups leave at once
  int fill;      // what brings K and V: a value of Fill
  int ordered;   // 1: the two multiplying warpgroups take turns by named barriers
};

struct Request {
  int kernel;  // place among pod_walls_kernels()
  int ctas;
  int64_t cycles;  // how long each warp works
  Stream streams[2];
  Corun corun;
  void* records;  // [ctas, kMostWarps] Record, zeroed
  void* stream;
};

// Of one warp; all 0 where it had no work.
struct Record {
  int64_t begin_ns, end_ns, begin_clock, end_clock;
  int64_t units;  // copies, tiles or steps
};

enum Fill : int { kFillNone, kFillBoxes, kFillCopies, kFillRows };

}  // namespace pod::walls
