// One pool of threads for everything; work is cut into tasks whose results do not depend on who
// runs them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>

namespace anaphora {

// The number of threads that work together, the calling one included; at least 1.
int thread_count();

// The same, or 1 within a task, which must not wait for others.
int available_threads();

// Change it. Threads are started when they are first needed, and anew in a forked child.
void set_thread_count(int count);

// Run task(0) ... task(tasks - 1), each once, on any thread and in any order; return when all are
// done. A thread begins with the task of its number, so that what the same task of the call before
// has left in its cache is used; but no task waits for a thread that is not running. Denormal
// numbers count as zero within. Calls from several threads take turns; a call from within a task
// runs on the thread that makes it. What a task throws is thrown here once.
void parallel(std::int64_t tasks, const std::function<void(std::int64_t)> &task);

// A count that threads wait for: they watch it for a while, and then sleep until it changes.
class Counter {
  public:
    std::int64_t load() const { return count_.load(); }
    std::int64_t add(std::int64_t n); // returns what it was before
    void wait_for(std::int64_t at_least, int spins);

  private:
    alignas(64) std::atomic<std::int64_t> count_{0};
    std::atomic<int> sleepers_{0};
    std::mutex mutex_;
    std::condition_variable changed_;
};

// A barrier for tasks that all run at the same time: wait until `parties` of them have arrived.
class Barrier {
  public:
    explicit Barrier(int parties) : parties_(parties) {}
    void wait();

  private:
    int parties_;
    Counter arrived_;
};

// Run task(0) ... task(count - 1) at the same time, one a thread; count <= available_threads() as
// it was when the caller asked. Where count > 1 a task must not throw: the others would wait for
// it.
void run_concurrently(int count, const std::function<void(int)> &task);

} // namespace anaphora
