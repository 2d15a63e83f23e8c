// pool.cpp: see pool.h. Each call has a number; a thread joins a number once at most.

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

void Pool::run(int workers, Wait wait, const std::function<void(int)>& body) {
  if (workers > 1) {
    std::lock_guard<std::mutex> lock(mutex_);
    const uint64_t last = state_.load() >> 32;
    while (static_cast<int>(threads_.size()) < workers - 1) {
      const int worker = static_cast<int>(threads_.size()) + 1;
      threads_.emplace_back([this, worker, last] { loop(worker, last); });
    }
    body_ = &body;
    workers_ = workers;
    finished_ = 0;
    state_ = (last + 1) << 32 | kOpen;
  }
  if (workers > 1) wake_.notify_all();
  body(0);
  if (workers == 1) return;
  // Yielding after the spin matters when another process holds a worker's core.
  if (wait == Wait::kAll) {
    while (!spin_until([&] { return finished_.load() == workers - 1; })) std::this_thread::yield();
  }
  state_.fetch_and(~kOpen);
  while (!spin_until([&] { return (state_.load() & (kOpen - 1)) == 0; })) std::this_thread::yield();
}

// Enters the call unless it is over; from then on the caller waits for this thread.
bool Pool::join(uint64_t call) {
  uint64_t state = state_.load();
  while (state >> 32 == call && (state & kOpen)) {
    if (state_.compare_exchange_weak(state, state + 1)) return true;
  }
  return false;
}

void Pool::loop(int worker, uint64_t seen) {
  const auto ready = [&] { return state_.load() >> 32 != seen || stop_.load(); };
  for (;;) {
    if (!spin_until(ready)) {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, ready);
    }
    if (stop_) return;
    seen = state_.load() >> 32;
    if (!join(seen)) continue;
    if (worker < workers_) {
      (*body_)(worker);
      finished_.fetch_add(1);
    }
    state_.fetch_sub(1);
  }
}

}  // namespace pod::cpu
