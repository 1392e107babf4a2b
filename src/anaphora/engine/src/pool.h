// One thread pool for everything; work is cut into tasks whose results do not depend on the thread
// that runs them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>

namespace anaphora {

// The number of threads, the calling one included; at least 1.
int thread_count();

// The same, or 1 within a task, which must not wait for others.
int available_threads();

// Set it. Threads are started when first needed, and again in a forked child.
void set_thread_count(int count);

// Run task(0) ... task(tasks - 1), each once, on any thread and in any order; return when all are
// done. A thread starts with the task of its own number, to reuse what the same task of the
// previous call left in its cache; but no task waits for a thread that is not running. Denormal
// numbers are flushed to zero. Calls from several threads are serialised; a call from within a task
// runs on its own thread. An exception of a task is rethrown here, once.
void parallel(std::int64_t tasks, const std::function<void(std::int64_t)> &task);

// A counter that threads can wait on: they spin for a while, then sleep until it changes.
class Counter {
  public:
    std::int64_t load() const { return count_.load(); }
    std::int64_t add(std::int64_t n); // returns the previous value
    void wait_for(std::int64_t at_least, int spins);

  private:
    alignas(64) std::atomic<std::int64_t> count_{0};
    std::atomic<int> sleepers_{0};
    std::mutex mutex_;
    std::condition_variable changed_;
};

// A barrier for concurrent tasks: wait until `parties` of them have arrived. Once it is broken it
// holds nobody: all that wait, or come to wait, get a Broken.
class Barrier {
  public:
    struct Broken {};

    explicit Barrier(int parties) : parties_(parties) {}
    void wait();
    void break_up();

  private:
    int parties_;
    Counter arrived_;
    std::atomic<bool> broken_{false};
};

// Run task(0) ... task(count - 1) concurrently, one per thread; count <= available_threads() at the
// time of the call. If a task throws, the barrier at which others wait for it is broken, and the
// exception is rethrown here, once all have ended.
void run_concurrently(int count, Barrier &barrier, const std::function<void(int)> &task);

} // namespace anaphora
