// race_detector.h: what ThreadSanitizer must be told; nothing without -DPOD_EMULATOR_TSAN.
//
// The kernel's file is instrumented, the emulator's files are not: its switches, barriers and
// accesses on behalf of a lane are announced here.
#pragma once

#include <cstddef>

#ifdef POD_EMULATOR_TSAN
#include <sanitizer/tsan_interface.h>

extern "C" void __tsan_read_range(void* address, unsigned long bytes);
extern "C" void __tsan_write_range(void* address, unsigned long bytes);
extern "C" void __tsan_ignore_thread_begin();
extern "C" void __tsan_ignore_thread_end();
#endif

namespace pod::emulator::races {

#ifdef POD_EMULATOR_TSAN

constexpr bool kWatching = true;
inline void release(void* tag) { __tsan_release(tag); }
inline void acquire(void* tag) { __tsan_acquire(tag); }
inline void reads(const void* address, size_t bytes) {
  __tsan_read_range(const_cast<void*>(address), bytes);
}
inline void writes(void* address, size_t bytes) { __tsan_write_range(address, bytes); }

// While it lives, what the running lane does to the memory of others is not held against it; the
// detector sees calls of memcpy and memset in files that it does not instrument, too.
struct OnBehalfOfOthers {
  OnBehalfOfOthers() { __tsan_ignore_thread_begin(); }
  ~OnBehalfOfOthers() { __tsan_ignore_thread_end(); }
};

// While it lives within an OnBehalfOfOthers, the running lane's own accesses count again.
struct OnOnesOwn {
  OnOnesOwn() { __tsan_ignore_thread_end(); }
  ~OnOnesOwn() { __tsan_ignore_thread_begin(); }
};

#else

constexpr bool kWatching = false;
inline void release(void*) {}
inline void acquire(void*) {}
inline void reads(const void*, size_t) {}
inline void writes(void*, size_t) {}
struct OnBehalfOfOthers {
  OnBehalfOfOthers() {}
};
struct OnOnesOwn {
  OnOnesOwn() {}
};

#endif

}  // namespace pod::emulator::races
