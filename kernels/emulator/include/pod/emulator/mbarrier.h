// mbarrier.h: barriers in shared memory, and the boxes that the copy engine brings for them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

namespace pod::emulator {

struct Lane;

constexpr int kMapDims = 4;
constexpr int64_t kMapElementBytes = 2;

// What a map is made from, innermost dimension first; its elements lie side by side.
struct MapShape {
  const uint8_t* base;
  int64_t sizes[kMapDims];        // elements
  int64_t strides[kMapDims - 1];  // bytes, of the other dimensions
  int64_t box[kMapDims];          // elements
};

// In the place of CUtensorMap, as large and as aligned.
struct alignas(64) TensorMap {
  MapShape shape;
  uint64_t made;  // kMapMade once encode_map() has written it
};
constexpr uint64_t kMapMade = 0x70616d2065646f6d;
static_assert(sizeof(TensorMap) == 128, "the size of CUtensorMap");

// A box on its way.
struct Box {
  uint32_t target, end;  // shared addresses
  uint32_t barrier;      // shared address
  MapShape map;
  int at[kMapDims];  // its first element
  int thread;        // that issued it
};

struct Mbarrier {
  uint32_t address;
  uint8_t* memory;  // holds its token
  int count;        // arrivals of a phase
  int left;         // arrivals that this phase still waits for
  int64_t bytes;    // that were expected and have not come
  unsigned phase;
  int thread;  // that initialised it
  bool published;
  std::vector<Lane*> waiting;  // for the end of this phase
};

// Of a CTA.
struct CopyEngine {
  std::vector<Mbarrier> barriers;
  std::vector<Box> boxes;         // in flight, oldest first
  std::vector<uint8_t> unlanded;  // by shared address / 16: whether a box is on its way there
};

void mbarrier_init(uint32_t address, int arrivals);
void mbarrier_publish();
void mbarrier_arrive(uint32_t address, uint32_t bytes);
void mbarrier_wait(uint32_t address, uint32_t parity);

struct BoxPlace {
  int at[kMapDims];
};
void copy_box(uint32_t smem, const TensorMap& map, const BoxPlace& place, uint32_t barrier);
void prefetch_map(const TensorMap& map);
void require_policy(uint64_t policy, std::initializer_list<uint64_t> known);
// 0, or 1 with the reason in error().
int encode_map(TensorMap* map, const MapShape& shape);

}  // namespace pod::emulator
