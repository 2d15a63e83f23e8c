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
  enum class Wait { kJoined, kAll };

  ~Pool();

  // Calls body(worker) for worker 0..workers-1, worker 0 on the calling thread. One caller at a
  // time.
  //
  // kJoined  returns once worker 0 and every worker that began are done; a thread that was not
  //          scheduled by then is left out. For bodies that draw from common queues.
  // kAll     returns once every worker has run.
  void run(int workers, Wait wait, const std::function<void(int)>& body);

 private:
  static constexpr uint64_t kOpen = uint64_t{1} << 31;

  void loop(int worker, uint64_t seen);
  bool join(uint64_t call);

  std::mutex mutex_;
  std::condition_variable wake_;
  // Call number << 32, kOpen while workers may join, number of workers inside the body.
  std::atomic<uint64_t> state_{0};
  std::atomic<int> finished_{0};
  std::atomic<bool> stop_{false};
  // Written between calls, read by workers that joined one.
  int workers_ = 0;
  const std::function<void(int)>* body_ = nullptr;
  std::vector<std::thread> threads_;
};

}  // namespace pod::cpu
