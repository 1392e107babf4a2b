#include "memory.h"

#include <cstdlib>
#include <exception>
#include <vector>

#if defined(_WIN32)
#include <malloc.h>
#include <windows.h>
#else
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace anaphora {
namespace {

// The buffers of a thread's Scratch. It is a value of the system's threads, because C++'s
// thread-local objects with a destructor end the process where there is no memory to register that.
struct Thread {
    std::vector<void *> buffers;

    ~Thread() {
        for (void *buffer : buffers)
            free_aligned(buffer);
    }
};

void forget_thread(void *memory) {
    static_cast<Thread *>(memory)->~Thread();
    std::free(memory);
}

// A pointer of each thread, which `forget_thread` gets when the thread ends.
#if defined(_WIN32)
using Key = DWORD;

void WINAPI forget_fiber(void *memory) {
    if (memory != nullptr)
        forget_thread(memory);
}

bool make_key(Key &key) { return (key = FlsAlloc(forget_fiber)) != FLS_OUT_OF_INDEXES; }
void *value_of(Key key) { return FlsGetValue(key); }
bool set_value(Key key, void *value) { return FlsSetValue(key, value) != 0; }
#else
using Key = pthread_key_t;

bool make_key(Key &key) { return pthread_key_create(&key, forget_thread) == 0; }
void *value_of(Key key) { return pthread_getspecific(key); }
bool set_value(Key key, void *value) { return pthread_setspecific(key, value) == 0; }
#endif

thread_local volatile bool touched = false;

// Null if there is no memory for it. Nothing is thrown, not even within operator new, before a
// thread is prepared.
Thread *find_thread() noexcept {
    static Key key;
    static const bool made = make_key(key);
    if (!made)
        return nullptr;
    if (void *found = value_of(key))
        return static_cast<Thread *>(found);
    // The variables of this library and the state of exceptions are allocated when they are first
    // used, from the memory that is free then.
    constexpr std::size_t needed = 1 << 15;
    void *memory = std::malloc(sizeof(Thread)), *room = std::malloc(needed);
    std::free(room);
    if (memory == nullptr || room == nullptr || !set_value(key, memory)) {
        std::free(memory);
        return nullptr;
    }
    touched = std::uncaught_exceptions() > 0;
    return new (memory) Thread;
}

} // namespace

void *allocate_aligned(std::size_t unit, std::size_t bytes) noexcept {
#if defined(_WIN32)
    return _aligned_malloc(bytes, unit);
#else
    return std::aligned_alloc(unit, bytes);
#endif
}

void free_aligned(void *data) noexcept {
#if defined(_WIN32)
    _aligned_free(data);
#else
    std::free(data);
#endif
}

void *try_to_allocate(std::size_t &bytes) noexcept {
    constexpr std::size_t huge = std::size_t{1} << 21;
    const std::size_t unit = bytes >= huge ? huge : 4096;
    bytes = (bytes + unit - 1) / unit * unit;
    void *data = allocate_aligned(unit, bytes);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (data != nullptr && unit == huge)
        madvise(data, bytes, MADV_HUGEPAGE);
#endif
    return data;
}

bool prepare_thread() noexcept { return find_thread() != nullptr; }

void Scratch::grow(std::size_t bytes) {
    void **buffer = &data_;
    if (place_ != owned) {
        Thread *thread = find_thread();
        if (thread == nullptr)
            throw std::bad_alloc();
        if (place_ == none) {
            thread->buffers.push_back(nullptr);
            place_ = static_cast<int>(thread->buffers.size()) - 1;
        }
        buffer = &thread->buffers[static_cast<std::size_t>(place_)];
    }
    free_aligned(*buffer);
    *buffer = data_ = nullptr;
    size_ = 0;
    *buffer = data_ = try_to_allocate(bytes);
    if (data_ == nullptr)
        throw NoMemory(bytes);
    size_ = bytes;
}

OwnScratch::~OwnScratch() { free_aligned(data_); }

} // namespace anaphora
