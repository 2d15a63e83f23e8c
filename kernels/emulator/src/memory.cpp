// memory.cpp: guarded blocks, shared memory and asynchronous copies.

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <new>

#include "engine.h"
#include "race_detector.h"

namespace pod::emulator {
namespace {

constexpr int kPoison = 0xff;  // NaN in bf16, fp16 and fp32
constexpr size_t kCopyBytes = 16;

size_t page_bytes() {
  static const size_t bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

uint32_t address_of(const Cta& cta, const uint8_t* byte) {
  const bool is_dynamic = byte >= cta.dynamic && byte < cta.dynamic_end;
  return static_cast<uint32_t>(is_dynamic ? kDynamicBase + (byte - cta.dynamic)
                                          : byte - cta.statics);
}

// Of 16 bytes that a thread wrote without the matrix unit: who fenced since may be asked for.
void note_write(const Lane& self, const uint8_t* target) {
  Cta& cta = *self.warp->cta;
  CopyQueue& queue = *self.in_flight;
  cta.landings[address_of(cta, target) / kCopyBytes] = {self.thread, queue.proxy_fences};
  cta.unfenced += !queue.unfenced;
  queue.unfenced = true;
}

void land(const Lane& self, const Copy& copy) {
  if (copy.source) {
    std::memcpy(copy.target, copy.source, kCopyBytes);
  } else {
    std::memset(copy.target, 0, kCopyBytes);
  }
  note_write(self, copy.target);
}

// The 16 bytes at a shared address, which must be aligned to as much and inside.
uint8_t* shared_16(uint32_t address, const char* what) {
  const Cta& cta = *machine.current->warp->cta;
  const bool is_dynamic = address >= kDynamicBase;
  const size_t offset = is_dynamic ? address - kDynamicBase : address;
  const size_t limit = is_dynamic ? cta.dynamic_bytes : cta.static_bytes;
  if (address % 16 || offset + 16 > limit) {
    fail(
        "%s: shared address 0x%x is byte %zu of %s memory; 16 bytes from there must start at a "
        "multiple of 16 and end within %zu bytes",
        what, address, offset, is_dynamic ? "dynamic" : "static", limit);
  }
  require_landed(cta, address, what);
  return (is_dynamic ? cta.dynamic : cta.statics) + offset;
}

}  // namespace

uint8_t* allocate_guarded(size_t bytes) {
  const size_t page = page_bytes(), inside = round_up(bytes, page);
  void* block = mmap(nullptr, inside + 2 * page, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (block == MAP_FAILED) throw std::bad_alloc();
  uint8_t* first = static_cast<uint8_t*>(block) + page;
  if (inside && mprotect(first, inside, PROT_READ | PROT_WRITE)) {
    munmap(block, inside + 2 * page);
    throw std::bad_alloc();
  }
  // Blocks are touched sparsely; a huge page would back all of it. Older kernels may not know it.
  madvise(first, inside, MADV_NOHUGEPAGE);
  return first + inside - round_up(bytes, 16);
}

void release_guarded(uint8_t* block, size_t bytes) {
  const size_t page = page_bytes(), inside = round_up(bytes, page);
  munmap(block + round_up(bytes, 16) - inside - page, inside + 2 * page);
}

void prepare_memory(Cta& cta, size_t dynamic_bytes) {
  if (!cta.statics) cta.statics = allocate_guarded(kStaticCapacity);
  if (!cta.dynamic_end || cta.dynamic_capacity < dynamic_bytes) {
    if (cta.dynamic_end) {
      release_guarded(cta.dynamic_end - cta.dynamic_capacity, cta.dynamic_capacity);
    }
    cta.dynamic_capacity = round_up(dynamic_bytes, page_bytes());
    cta.dynamic_end = allocate_guarded(cta.dynamic_capacity) + cta.dynamic_capacity;
  }
  const size_t rounded = round_up(dynamic_bytes, 16);
  cta.dynamic = cta.dynamic_end - rounded;
  cta.dynamic_bytes = dynamic_bytes;
  cta.static_bytes = 0;
  cta.variables.clear();
  std::memset(cta.dynamic, kPoison, rounded);
  std::memset(cta.statics, kPoison, kStaticCapacity);
  const size_t chunks = (kDynamicBase + rounded) / kCopyBytes;
  cta.landings.assign(chunks, {-1, 0});
  cta.unfenced = 0;
  reset_engine(cta, chunks);
}

const uint8_t* ldmatrix_row(uint32_t address) {
  const uint8_t* row = shared_16(address, "ldmatrix");
  races::reads(row, 16);
  return row;
}

uint8_t* stmatrix_row(uint32_t address) {
  uint8_t* row = shared_16(address, "stmatrix");
  races::writes(row, 16);
  note_write(*machine.current, row);
  return row;
}

void st_shared_16(uint32_t address, const void* bytes) {
  uint8_t* to = shared_16(address, "st.shared");
  races::writes(to, 16);
  std::memcpy(to, bytes, 16);
  note_write(*machine.current, to);
}

void ld_shared_16(void* bytes, uint32_t address) {
  const uint8_t* from = shared_16(address, "ld.shared");
  races::reads(from, 16);
  std::memcpy(bytes, from, 16);
}

uint32_t smem_address(const void* object) {
  const Cta& cta = *machine.current->warp->cta;
  const uint8_t* byte = static_cast<const uint8_t*>(object);
  if (byte >= cta.dynamic && byte <= cta.dynamic + cta.dynamic_bytes) {
    return kDynamicBase + static_cast<uint32_t>(byte - cta.dynamic);
  }
  if (byte >= cta.statics && byte <= cta.statics + cta.static_bytes) {
    return static_cast<uint32_t>(byte - cta.statics);
  }
  fail(
      "%p is not in shared memory: static variables are at %p (%u bytes), dynamic memory is at "
      "%p (%zu bytes)",
      object, static_cast<void*>(cta.statics), cta.static_bytes, static_cast<void*>(cta.dynamic),
      cta.dynamic_bytes);
}

void* static_smem(const void* key, size_t bytes, size_t alignment) {
  Cta& cta = *machine.current->warp->cta;
  for (const StaticVariable& variable : cta.variables) {
    if (variable.key == key) return cta.statics + variable.offset;
  }
  const size_t offset = round_up(cta.static_bytes, alignment);
  if (offset + bytes > kStaticCapacity) {
    fail("static shared variables need %zu bytes, the emulator has %u. Use dynamic memory",
         offset + bytes, kStaticCapacity);
  }
  cta.static_bytes = static_cast<uint32_t>(offset + bytes);
  cta.variables.push_back({key, static_cast<uint32_t>(offset)});
  return cta.statics + offset;
}

void cp_async_16(uint32_t smem, const void* gmem, bool valid) {
  Copy copy{shared_16(smem, "cp.async"), nullptr, 0};
  Lane& self = *machine.current;
  if (valid) {
    if (reinterpret_cast<uintptr_t>(gmem) % kCopyBytes) {
      fail("cp.async: source %p is not a multiple of 16", gmem);
    }
    // Read now, so that a wild source faults where it is named.
    *static_cast<const volatile uint8_t*>(gmem);
    copy.source = gmem;
    races::reads(gmem, kCopyBytes);
  }
  ++machine.statistics.cp_async;
  races::writes(copy.target, kCopyBytes);
  if (machine.configuration.copies == Copies::kLandAtIssue) return land(self, copy);
  copy.group = self.group;
  std::memset(copy.target, kPoison, kCopyBytes);
  self.in_flight->copies.push_back(copy);
}

void cp_async_wait(int pending) {
  const Lane& self = *machine.current;
  CopyQueue& queue = *self.in_flight;
  while (queue.landed < queue.copies.size()) {
    const Copy& copy = queue.copies[queue.landed];
    if (copy.group + pending >= self.group) return;
    races::writes(copy.target, kCopyBytes);
    land(self, copy);
    ++queue.landed;
  }
  queue.copies.clear();
  queue.landed = 0;
}

void fence_proxy_async() {
  const Lane& self = *machine.current;
  CopyQueue& queue = *self.in_flight;
  ++queue.proxy_fences;
  self.warp->cta->unfenced -= queue.unfenced;
  queue.unfenced = false;
  ++machine.statistics.proxy_fences;
}

void require_proxy_fence(const Cta& cta, uint32_t address, const char* what) {
  const Landing& landing = cta.landings[address / kCopyBytes];
  if (landing.thread < 0) return;
  const Warp& writer = *cta.warps[static_cast<size_t>(landing.thread / kLanes)];
  if (writer.in_flight[landing.thread % kLanes].proxy_fences > landing.proxy_fences) return;
  fail(
      "%s shared address 0x%x, which thread %d wrote by cp.async, st.shared or stmatrix; "
      "that thread has not executed fence_proxy_async() since. Call it between the write and the "
      "barrier",
      what, address, landing.thread);
}

void forget_write(Cta& cta, uint32_t address) { cta.landings[address / kCopyBytes] = {-1, 0}; }

SharedTile require_shared(uint32_t first, uint32_t end, const char* what) {
  const Cta& cta = *machine.current->warp->cta;
  const bool is_dynamic = first >= kDynamicBase;
  const uint32_t base = is_dynamic ? kDynamicBase : 0;
  const size_t limit = is_dynamic ? cta.dynamic_bytes : cta.static_bytes;
  if (end - base > limit) {
    fail(
        "%s: its tile is bytes %u to %u of %s memory, which has %zu bytes. Check the descriptor's "
        "start and strides",
        what, first - base, end - base, is_dynamic ? "dynamic" : "static", limit);
  }
  SharedTile tile{};
  tile.memory = is_dynamic ? cta.dynamic : cta.statics;
  tile.base = base;
  tile.first = first;
  tile.end = end;
  return tile;
}

void require_no_copies(const Lane& self) {
  const size_t count = self.in_flight->copies.size() - self.in_flight->landed;
  if (count) fail("thread returns with %zu cp.async in flight. Wait for all groups first", count);
}

}  // namespace pod::emulator
