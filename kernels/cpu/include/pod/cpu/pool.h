// pool.h: persistent threads that sleep between calls.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace pod::cpu {

// Threads spin for some microseconds after a call, in case the next one follows at once, and then
// sleep, so that they do not take cores from other thread pools of the process.
class Pool {
 public:
  ~Pool();

  // Calls body(worker) for worker 0..workers-1, worker 0 on the calling thread; returns when all
  // are done. One caller at a time.
  void run(int workers, const std::function<void(int)>& body);

 private:
  void loop(int worker, uint64_t seen);

  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> call_{0};
  std::atomic<int> running_{0};
  std::atomic<int> workers_{0};
  std::atomic<bool> stop_{false};
  const std::function<void(int)>* body_ = nullptr;
  std::vector<std::thread> threads_;
};

}  // namespace pod::cpu
