// launch.h: runs a kernel on the emulated GPU, to its end, on the calling thread.
#pragma once

#include <cstddef>
#include <vector>

namespace pod::emulator {

// CTAs of `threads` threads with `smem` bytes of dynamic shared memory each.
struct LaunchShape {
  int grid;
  int threads;
  size_t smem;
};

// Memory that the launch before writes and a dependent one reads.
struct Handed {
  void* begin;
  size_t bytes;
};

int run(const LaunchShape& shape, void (*body)(void*), void* arguments);
// The same for a launch whose threads must wait for the launch before.
int run_dependent(const LaunchShape& shape, const std::vector<Handed>& handed, void (*body)(void*),
                  void* arguments);

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

// As launch(), without dynamic memory, as if it began before the launch before had ended: what is
// handed over holds NaN until the first thread has waited, and every thread must wait.
template <class Kernel, class... A>
int launch_dependent(Kernel kernel, int grid, int threads, const std::vector<Handed>& handed,
                     A... args) {
  auto body = [&] { kernel(args...); };
  using Body = decltype(body);
  const auto call = [](void* self) { (*static_cast<Body*>(self))(); };
  return run_dependent({grid, threads, 0}, handed, call, &body);
}

}  // namespace pod::emulator
