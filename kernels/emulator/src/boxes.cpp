// boxes.cpp: what the copy engine brings: boxes of a tensor, counted by an mbarrier.
//
// A box lands at once, or as late as it may, and all at once. Where it is on its way, shared memory
// is poison and nobody may read or write.

#include <algorithm>
#include <cinttypes>
#include <cstring>

#include "engine.h"
#include "race_detector.h"

namespace pod::emulator {
namespace {

constexpr int kPoison = 0xff;
constexpr uint32_t kChunk = 16, kRow = 128, kAtom = 1024;
constexpr int64_t kMostBoxSide = 256, kMostSize = int64_t{1} << 32, kMostStride = int64_t{1} << 40;

int64_t bytes_of(const MapShape& map) {
  int64_t bytes = kMapElementBytes;
  for (int64_t side : map.box) bytes *= side;
  return bytes;
}

uint8_t* memory_at(const Cta& cta, uint32_t address) {
  return address >= kDynamicBase ? cta.dynamic + (address - kDynamicBase) : cta.statics + address;
}

// Where row `row` of the box lies in the tensor; rows count along the outer dimensions.
const uint8_t* source_row(const Box& box, int64_t row) {
  const uint8_t* from = box.map.base + box.at[0] * kMapElementBytes;
  for (int dim = 1; dim < kMapDims; ++dim) {
    from += (box.at[dim] + row % box.map.box[dim]) * box.map.strides[dim - 1];
    row /= box.map.box[dim];
  }
  return from;
}

void announce(const uint8_t* from, uint8_t* to) {
  const races::OnOnesOwn seen;
  races::reads(from, kChunk);
  races::writes(to, kChunk);
}

// Row r of the box is row r of a tile of rows of 128 bytes, its chunks swizzled.
void land(Cta& cta, const Box& box) {
  for (uint32_t at = box.target; at < box.end; at += kChunk) {
    const uint32_t place = at ^ (at >> 3 & 0x70);
    const uint8_t* from = source_row(box, (at - box.target) / kRow) + (at - box.target) % kRow;
    announce(from, memory_at(cta, place));
    std::memcpy(memory_at(cta, place), from, kChunk);
    forget_write(cta, place);
    cta.engine.unlanded[place / kChunk] = 0;
  }
}

void require_inside(const MapShape& map, const int (&at)[kMapDims]) {
  static const char* const kNames[kMapDims] = {"column", "head", "slot", "page"};
  for (int dim = 0; dim < kMapDims; ++dim) {
    if (at[dim] >= 0 && at[dim] + map.box[dim] <= map.sizes[dim]) continue;
    fail("box from %s %d on, %" PRId64 " of them: the tensor has %" PRId64
         ". What is outside of it would be zeros",
         kNames[dim], at[dim], map.box[dim], map.sizes[dim]);
  }
}

void require_made(const TensorMap& map, const char* what) {
  if (map.made == kMapMade) return;
  fail("%s: the tensor map was not made by encode_boxes()", what);
}

void require_free(const Cta& cta, uint32_t first, uint32_t end) {
  require_no_product_reads(cta, first, end, "box");
  for (uint32_t at = first; at < end; at += kChunk) {
    require_landed(cta, at, "box");
    if (cta.unfenced) require_proxy_fence(cta, at, "box overwrites");
  }
}

std::string shape_error(const MapShape& s) {
  if (reinterpret_cast<uintptr_t>(s.base) % 16) return "its memory is not at a multiple of 16";
  for (int64_t size : s.sizes) {
    if (size < 1 || size > kMostSize) return "a size of " + std::to_string(size);
  }
  for (int64_t stride : s.strides) {
    if (stride < 0 || stride % 16 || stride >= kMostStride) {
      return "a stride of " + std::to_string(stride) +
             " bytes, which is no multiple of 16 below 2^40";
    }
  }
  for (int64_t side : s.box) {
    if (side < 1 || side > kMostBoxSide)
      return "a box of " + std::to_string(side) + " along a side";
  }
  if (s.box[0] * kMapElementBytes != kRow) return "rows of a box that have not 128 bytes";
  return "";
}

}  // namespace

void reset_engine(Cta& cta, size_t chunks) {
  cta.engine.barriers.clear();
  cta.engine.boxes.clear();
  cta.engine.unlanded.assign(chunks, 0);
}

int encode_map(TensorMap* map, const MapShape& shape) {
  const std::string wrong = shape_error(shape);
  if (!wrong.empty()) return refuse("encode_boxes: " + wrong);
  *map = {shape, kMapMade};
  return 0;
}

void prefetch_map(const TensorMap& map) { require_made(map, "prefetch_map"); }

void require_policy(uint64_t policy, std::initializer_list<uint64_t> known) {
  if (std::find(known.begin(), known.end(), policy) != known.end()) return;
  fail("box with cache policy 0x%" PRIx64 ", which is none of box_copy.cuh", policy);
}

void copy_box(uint32_t smem, const TensorMap& map, const BoxPlace& place, uint32_t address) {
  Lane& self = *machine.current;
  Cta& cta = *self.warp->cta;
  const races::OnBehalfOfOthers unseen;
  require_made(map, "box");
  Mbarrier& barrier = require_mbarrier(address, "box");
  const uint32_t end = smem + static_cast<uint32_t>(bytes_of(map.shape));
  if (smem % kAtom) {
    fail(
        "box to shared address 0x%x, byte %u of a swizzle atom; it must start at a multiple of "
        "1024",
        smem, smem % kAtom);
  }
  require_shared(smem, end, "box");
  require_inside(map.shape, place.at);
  require_free(cta, smem, end);
  Box box{smem, end, address, map.shape, {}, self.thread};
  std::copy(std::begin(place.at), std::end(place.at), box.at);
  // Read now, so that a wild source faults where it is named.
  *static_cast<const volatile uint8_t*>(source_row(box, 0));
  ++machine.statistics.boxes;
  races::release(phase_tag(barrier));
  {
    const races::OnOnesOwn seen;
    races::writes(memory_at(cta, smem), end - smem);
  }
  std::memset(memory_at(cta, smem), kPoison, end - smem);
  std::fill(&cta.engine.unlanded[smem / kChunk], &cta.engine.unlanded[end / kChunk], uint8_t{1});
  cta.engine.boxes.push_back(box);
  if (machine.configuration.copies == Copies::kLandAtIssue) land_boxes(cta, barrier);
  settle(cta, barrier);
}

void land_boxes(Cta& cta, Mbarrier& barrier) {
  races::acquire(phase_tag(barrier));
  auto& boxes = cta.engine.boxes;
  for (const Box& box : boxes) {
    if (box.barrier != barrier.address) continue;
    land(cta, box);
    barrier.bytes -= box.end - box.target;
  }
  boxes.erase(std::remove_if(boxes.begin(), boxes.end(),
                             [&](const Box& box) { return box.barrier == barrier.address; }),
              boxes.end());
  races::release(phase_tag(barrier));
}

int64_t bytes_in_flight(const Cta& cta, const Mbarrier& barrier) {
  int64_t bytes = 0;
  for (const Box& box : cta.engine.boxes) {
    if (box.barrier == barrier.address) bytes += box.end - box.target;
  }
  return bytes;
}

void require_landed(const Cta& cta, uint32_t address, const char* what) {
  if (cta.engine.boxes.empty() || !cta.engine.unlanded[address / kChunk]) return;
  const auto holds = [&](const Box& box) { return address >= box.target && address < box.end; };
  const auto& boxes = cta.engine.boxes;
  const auto box = std::find_if(boxes.begin(), boxes.end(), holds);
  if (box == boxes.end()) return;
  fail(
      "%s touches shared address 0x%x, where a box of thread %d has not landed. Wait for its "
      "mbarrier at shared address 0x%x first",
      what, address, box->thread, box->barrier);
}

bool may_be_unlanded(const Cta& cta, uint32_t first, uint32_t end) {
  return std::any_of(cta.engine.boxes.begin(), cta.engine.boxes.end(),
                     [=](const Box& box) { return first < box.end && box.target < end; });
}

void require_no_boxes(const Cta& cta) {
  if (cta.engine.boxes.empty()) return;
  fail(
      "%zu boxes were in flight when the CTA ended, the oldest for the mbarrier at shared address "
      "0x%x. Wait for all phases first",
      cta.engine.boxes.size(), cta.engine.boxes.front().barrier);
}

}  // namespace pod::emulator
