#include "pool.h"
#include "memory.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
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

// How often a thread spins on a counter before it sleeps: 100 microseconds or more.
constexpr int short_spin = 4000;
// The same for workers that wait for the next call: one to two milliseconds, since waking a thread
// takes 50 microseconds or more, and a training step spends hundreds between its calls.
constexpr int long_spin = 40000;

// Whether a spinning thread may occupy the processor of the one it waits for.
bool more_threads_than_processors() {
    static const int processors = static_cast<int>(std::thread::hardware_concurrency());
    return processors > 0 && thread_count() > processors;
}

// Flushes denormal numbers to zero within its scope, then restores the caller's mode.
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

thread_local bool in_task = false;

// The system does not say whether it is memory that is missing.
class NoThread : public std::bad_alloc {
  public:
    const char *what() const noexcept override {
        return "the engine cannot start its threads, for lack of memory or because of a limit; "
               "ANAPHORA_NUM_THREADS or engine.set_num_threads asks for fewer";
    }
};

class Pool {
  public:
    explicit Pool(int workers) {
        try {
            for (int k = 1; k <= workers; k++) {
                threads_.emplace_back([this, k] { work(k); });
                prepared_.wait_for(k, short_spin); // the next one may take the memory that is left
                if (unprepared_.load())
                    throw NoThread();
            }
        } catch (const std::system_error &) {
            stop();
            throw NoThread();
        } catch (...) {
            stop();
            throw;
        }
    }

    ~Pool() { stop(); }

    int workers() const { return static_cast<int>(threads_.size()); }

    // Run job(k) on thread k for k = 0 (the caller) ... participants - 1: on all of them, or only
    // on those that start before the caller has finished its own. A job must not throw.
    void run(int participants, bool wait_for_all, const std::function<void(int)> &job) {
        const std::int64_t before = finished_.load();
        {
            std::lock_guard lock(mutex_);
            job_ = &job;
            participants_ = participants;
            joined_ = 0;
            calls_.add(1);
        }
        job(0);
        if (wait_for_all)
            finished_.wait_for(before + participants - 1, short_spin);
        std::int64_t joined = 0;
        {
            std::lock_guard lock(mutex_);
            job_ = nullptr;
            joined = joined_;
        }
        finished_.wait_for(before + joined, short_spin);
    }

  private:
    void stop() {
        {
            std::lock_guard lock(mutex_);
            stopping_ = true;
        }
        calls_.add(1);
        for (auto &thread : threads_)
            thread.join();
    }

    void work(int number) {
        const bool prepared = prepare_thread();
        if (!prepared)
            unprepared_.store(true);
        prepared_.add(1);
        if (!prepared)
            return;
        in_task = true;
        FlushDenormals flush;
        std::int64_t seen = 0;
        while (true) {
            calls_.wait_for(seen + 1, long_spin);
            const std::function<void(int)> *job = nullptr;
            {
                std::lock_guard lock(mutex_);
                seen = calls_.load();
                if (stopping_)
                    return;
                if (number < participants_ && job_ != nullptr) {
                    job = job_;
                    joined_++;
                }
            }
            if (job != nullptr) {
                (*job)(number);
                finished_.add(1);
            }
        }
    }

    std::vector<std::thread> threads_;
    std::mutex mutex_;
    Counter prepared_, calls_, finished_;
    std::atomic<bool> unprepared_{false};
    const std::function<void(int)> *job_ = nullptr;
    int participants_ = 0, joined_ = 0;
    bool stopping_ = false;
};

std::mutex call_mutex; // one call at a time
std::atomic<int> wanted_threads{1};
Pool *pool = nullptr; // owned; see forget_threads

#if defined(__unix__) || defined(__APPLE__)
// A forked child has none of its parent's threads: abandon them, and start new ones when needed.
void forget_threads() {
    pool = nullptr;
    new (&call_mutex) std::mutex();
    in_task = false;
}
#endif

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

// Within its scope calls from this thread are single-threaded.
class InTask {
  public:
    InTask() { in_task = true; }
    ~InTask() { in_task = false; }
};

} // namespace

int thread_count() { return wanted_threads.load(); }

void set_thread_count(int count) { wanted_threads.store(count < 1 ? 1 : count); }

int available_threads() { return in_task ? 1 : thread_count(); }

namespace {

void run(int count, bool wait_for_all, const std::function<void(int)> &job) {
    FlushDenormals flush;
    if (count <= 1) {
        job(0);
        return;
    }
    std::lock_guard lock(call_mutex);
    Pool &workers = pool_of(count - 1);
    InTask in_task_scope;
    workers.run(count, wait_for_all, job);
}

} // namespace

void run_concurrently(int count, Barrier &barrier, const std::function<void(int)> &task) {
    if (count <= 1) {
        run(1, true, task);
        return;
    }
    std::mutex error_mutex;
    std::exception_ptr error;
    run(count, true, [&](int k) noexcept {
        try {
            task(k);
        } catch (const Barrier::Broken &) { // another one's exception is the reason
        } catch (...) {
            barrier.break_up();
            std::lock_guard lock(error_mutex);
            error = std::current_exception();
        }
    });
    if (error)
        std::rethrow_exception(error);
}

void parallel(std::int64_t tasks, const std::function<void(std::int64_t)> &task) {
    const auto threads = static_cast<int>(std::min<std::int64_t>(tasks, available_threads()));
    if (threads <= 1) {
        run(1, false, [&](int) {
            for (std::int64_t k = 0; k < tasks; k++)
                task(k);
        });
        return;
    }
    // Each thread starts with the task of its own number, continues with those after the first
    // `threads`, and finally takes the first tasks of threads that have not started.
    std::vector<std::atomic<bool>> started(static_cast<std::size_t>(threads));
    std::atomic<std::int64_t> next{threads};
    std::mutex error_mutex;
    std::exception_ptr error;
    run(threads, false, [&](int thread) noexcept {
        try {
            auto begin = [&](std::int64_t k) {
                if (!started[static_cast<std::size_t>(k)].exchange(true))
                    task(k);
            };
            begin(thread);
            for (std::int64_t k = next.fetch_add(1); k < tasks; k = next.fetch_add(1))
                task(k);
            for (int other = 0; other < threads; other++)
                begin(other);
        } catch (...) {
            next.store(tasks); // so that the others stop
            for (std::atomic<bool> &flag : started)
                flag.store(true);
            std::lock_guard lock(error_mutex);
            error = std::current_exception();
        }
    });
    if (error)
        std::rethrow_exception(error);
}

std::int64_t Counter::add(std::int64_t n) {
    std::int64_t before = count_.fetch_add(n);
    if (sleepers_.load() > 0) {
        std::lock_guard lock(mutex_);
        changed_.notify_all();
    }
    return before;
}

void Counter::wait_for(std::int64_t at_least, int spins) {
    for (int spin = more_threads_than_processors() ? spins - 1 : 0; spin < spins; spin++) {
        if (count_.load(std::memory_order_acquire) >= at_least)
            return;
        relax();
    }
    std::unique_lock lock(mutex_);
    sleepers_.fetch_add(1); // before the count is read: whoever changes it reads this afterwards
    changed_.wait(lock, [&] { return count_.load() >= at_least; });
    sleepers_.fetch_sub(1);
}

void Barrier::wait() {
    std::int64_t mine = arrived_.add(1);
    if (!broken_.load())
        arrived_.wait_for((mine / parties_ + 1) * parties_, short_spin);
    if (broken_.load())
        throw Broken();
}

void Barrier::break_up() {
    broken_.store(true);
    arrived_.add(std::int64_t{1} << 40); // whoever waits has seen enough arrive
}

} // namespace anaphora
