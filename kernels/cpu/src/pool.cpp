// pool.cpp: see pool.h. Each call has a number; a thread serves every number once.

#include "pod/cpu/pool.h"

#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pod::cpu {
namespace {

constexpr std::chrono::microseconds kSpin{20};

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// True once `ready` holds; false when it did not within the spinning time.
template <typename Ready>
bool spin_until(Ready ready) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() < end);
  return ready();
}

}  // namespace

Pool::~Pool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Pool::run(int workers, const std::function<void(int)>& body) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const uint64_t now = call_.load();
    while (static_cast<int>(threads_.size()) < workers - 1) {
      const int worker = static_cast<int>(threads_.size()) + 1;
      threads_.emplace_back([this, worker, now] { loop(worker, now); });
    }
    body_ = &body;
    workers_ = workers;
    // Every thread answers every call, also those without work in it: body_ must outlive them.
    running_ = static_cast<int>(threads_.size());
    call_ = now + 1;
  }
  wake_.notify_all();
  body(0);
  // Yielding after the spin matters when another process holds a worker's core.
  while (!spin_until([&] { return running_.load() == 0; })) std::this_thread::yield();
}

void Pool::loop(int worker, uint64_t seen) {
  const auto ready = [&] { return call_.load() != seen || stop_.load(); };
  for (;;) {
    if (!spin_until(ready)) {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, ready);
    }
    if (stop_) return;
    seen = call_.load();
    if (worker < workers_) (*body_)(worker);
    running_.fetch_sub(1);
  }
}

}  // namespace pod::cpu
