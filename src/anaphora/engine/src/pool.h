// One pool of threads for everything; work is cut into tasks whose results do not depend on who
// runs them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

namespace anaphora {

// The number of threads that work together, the calling one included; at least 1.
int thread_count();

// The same, or 1 within a task, which must not wait for others.
int threads_at_hand();

// Change it. Threads are started when they are first needed, and anew in a forked child.
void set_thread_count(int count);

// Run task(0) ... task(tasks - 1), each once, on any thread and in any order; return when all are
// done. Denormal numbers count as zero within. Calls from several threads take turns; a call from
// within a task runs on the thread that makes it. What a task throws is thrown here once.
void parallel(std::int64_t tasks, const std::function<void(std::int64_t)> &task);

// A barrier for tasks that all run at the same time: wait until `parties` of them have arrived.
class Barrier {
  public:
    explicit Barrier(int parties) : parties_(parties) {}
    void wait();

  private:
    int parties_;
    alignas(64) std::atomic<std::int64_t> arrived_{0};
};

// Run task(0) ... task(count - 1) at the same time, one a thread; count <= threads_at_hand() as it
// was when the caller asked. Where count > 1 a task must not throw: the others would wait for it.
void together(int count, const std::function<void(int)> &task);

} // namespace anaphora
