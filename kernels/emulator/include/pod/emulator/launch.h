// launch.h: runs a kernel on the emulated GPU, to its end, on the calling thread.
#pragma once

#include <cstddef>

namespace pod::emulator {

// CTAs of `threads` threads with `smem` bytes of dynamic shared memory each.
struct LaunchShape {
  int grid;
  int threads;
  size_t smem;
};

int run(const LaunchShape& shape, void (*body)(void*), void* arguments);

// Text of the calling thread's last failed launch.
const char* error();

// Every thread calls kernel(args...). 0, or 1 with the reason in error(). Launches of one process
// wait for each other, also those of different libraries.
template <class Kernel, class... A>
int launch(Kernel kernel, int grid, int threads, size_t smem, A... args) {
  auto body = [&] { kernel(args...); };
  using Body = decltype(body);
  return run({grid, threads, smem}, [](void* self) { (*static_cast<Body*>(self))(); }, &body);
}

}  // namespace pod::emulator
