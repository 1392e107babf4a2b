#include "pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <unistd.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace anaphora {
namespace {

void relax() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Wait for what other threads are about to do. Where they are not running, because the machine is
// busy with something else, this one steps aside for them.
template <class Done> void wait_until(Done done) {
    for (int spin = 0; !done(); spin++) {
        if (spin < 4000)
            relax();
        else
            std::this_thread::yield();
    }
}

// Within it, denormal numbers count as zero; the caller's mode is restored.
class FlushDenormals {
  public:
#if defined(__x86_64__) || defined(_M_X64)
    FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
    ~FlushDenormals() { _mm_setcsr(before_); }

  private:
    unsigned before_;
#elif defined(__aarch64__)
    FlushDenormals() {
        asm volatile("mrs %0, fpcr" : "=r"(before_));
        asm volatile("msr fpcr, %0" ::"r"(before_ | (std::uint64_t{1} << 24)));
    }
    ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(before_)); }

  private:
    std::uint64_t before_;
#endif
};

thread_local bool inside_a_task = false;

// Sleeping threads wait for `generation_` to change. They watch it before they sleep, for as long
// as the next call of a training step usually takes to come, some 200 microseconds on x86
// servers: to be woken takes 50 and more.
class Pool {
  public:
    explicit Pool(int workers) {
        try {
            for (int k = 1; k <= workers; k++)
                threads_.emplace_back([this, k] { work(k); });
        } catch (...) { // the system has no more threads
            stop();
            throw;
        }
    }

    ~Pool() { stop(); }

    int workers() const { return static_cast<int>(threads_.size()); }

    // Run job(k) on thread k for k = 0 (this one) ... participants - 1. A job must not throw.
    void run(int participants, const std::function<void(int)> &job) {
        {
            std::lock_guard lock(mutex_);
            job_ = &job;
            participants_ = participants;
            unfinished_.store(participants - 1);
            generation_.fetch_add(1);
        }
        wake_.notify_all();
        job(0);
        wait_until([this] { return unfinished_.load(std::memory_order_acquire) == 0; });
    }

  private:
    void stop() {
        {
            std::lock_guard lock(mutex_);
            stopping_ = true;
            generation_.fetch_add(1);
        }
        wake_.notify_all();
        for (auto &thread : threads_)
            thread.join();
    }

    void work(int number) {
        inside_a_task = true;
        FlushDenormals flush;
        std::uint64_t seen = 0;
        while (true) {
            for (int spin = 0; spin < 16000 && generation_.load() == seen; spin++)
                relax();
            const std::function<void(int)> *job = nullptr;
            {
                std::unique_lock lock(mutex_);
                wake_.wait(lock, [&] { return generation_.load() != seen; });
                seen = generation_.load();
                if (stopping_)
                    return;
                if (number < participants_)
                    job = job_;
            }
            if (job != nullptr) {
                (*job)(number);
                unfinished_.fetch_sub(1, std::memory_order_release);
            }
        }
    }

    std::vector<std::thread> threads_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<std::uint64_t> generation_{0};
    std::atomic<int> unfinished_{0};
    const std::function<void(int)> *job_ = nullptr;
    int participants_ = 0;
    bool stopping_ = false;
};

std::mutex turn; // one call at a time
std::atomic<int> wanted_threads{1};
Pool *pool = nullptr; // owned; see forget_threads

// A forked child has none of its parent's threads: leave them alone and start new ones when needed.
void forget_threads() {
    pool = nullptr;
    new (&turn) std::mutex();
    inside_a_task = false;
}

// The pool, with at least this many workers.
Pool &pool_of(int workers) {
#if defined(__unix__) || defined(__APPLE__)
    static const int registered = pthread_atfork(nullptr, nullptr, forget_threads);
    (void)registered;
#endif
    if (pool != nullptr && pool->workers() < workers) {
        delete pool;
        pool = nullptr;
    }
    if (pool == nullptr)
        pool = new Pool(workers);
    return *pool;
}

// Within it, calls from this thread find a single one at hand.
class InsideATask {
  public:
    InsideATask() { inside_a_task = true; }
    ~InsideATask() { inside_a_task = false; }
};

} // namespace

int thread_count() { return wanted_threads.load(); }

void set_thread_count(int count) { wanted_threads.store(count < 1 ? 1 : count); }

int threads_at_hand() { return inside_a_task ? 1 : thread_count(); }

void together(int count, const std::function<void(int)> &task) {
    FlushDenormals flush;
    if (count <= 1) {
        task(0);
        return;
    }
    std::lock_guard lock(turn);
    Pool &workers = pool_of(count - 1);
    InsideATask inside;
    workers.run(count, [&](int k) noexcept { task(k); });
}

void parallel(std::int64_t tasks, const std::function<void(std::int64_t)> &task) {
    std::atomic<std::int64_t> next{0};
    std::int64_t threads = std::min<std::int64_t>(tasks, threads_at_hand());
    std::mutex one;
    std::exception_ptr thrown;
    together(static_cast<int>(threads), [&](int) {
        try {
            for (std::int64_t k = next.fetch_add(1); k < tasks; k = next.fetch_add(1))
                task(k);
        } catch (...) {
            next.store(tasks); // the others need not go on
            std::lock_guard lock(one);
            thrown = std::current_exception();
        }
    });
    if (thrown)
        std::rethrow_exception(thrown);
}

void Barrier::wait() {
    std::int64_t mine = arrived_.fetch_add(1, std::memory_order_acq_rel);
    std::int64_t target = (mine / parties_ + 1) * parties_;
    wait_until([&] { return arrived_.load(std::memory_order_acquire) >= target; });
}

} // namespace anaphora
