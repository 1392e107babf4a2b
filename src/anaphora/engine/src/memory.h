// Scratch memory: aligned, and kept for the next call, so that page faults are paid once.
#pragma once

#include <cstddef>
#include <cstdio>
#include <new>

namespace anaphora {

// Memory that cannot be had; in Python a MemoryError.
class NoMemory : public std::bad_alloc {
  public:
    explicit NoMemory(std::size_t bytes) {
        std::snprintf(text_, sizeof text_, "the engine cannot allocate %.1f MB of memory",
                      static_cast<double>(bytes) / 1e6);
    }
    const char *what() const noexcept override { return text_; }

  private:
    char text_[64];
};

// Memory aligned to `unit`, a power of two that divides `bytes`. Null if there is none.
void *allocate_aligned(std::size_t unit, std::size_t bytes) noexcept;

// Free what `allocate_aligned` or `try_to_allocate` returned.
void free_aligned(void *data) noexcept;

// At least this much memory, aligned for any vector, in pages of 2 MB if it is large. `bytes`
// becomes its size. Null if there is none.
void *try_to_allocate(std::size_t &bytes) noexcept;

// See to it that this thread can use its thread-local variables and throw exceptions: where there
// is no memory for that, the system would end the process at the first use of them. Called before
// that in every thread; false if there is none.
bool prepare_thread() noexcept;

// A buffer that only grows; a thread-local one for each purpose and thread, whose memory is freed
// when the thread ends. (It has no destructor, which the system may have no memory to register.)
class Scratch {
  public:
    constexpr Scratch() = default;
    Scratch(const Scratch &) = delete;
    Scratch &operator=(const Scratch &) = delete;

    // At least `count` uninitialised values.
    template <class T> T *get(std::size_t count) {
        const std::size_t bytes = count * sizeof(T) + 64;
        if (bytes > size_)
            grow(bytes);
        return static_cast<T *>(data_);
    }

  protected:
    static constexpr int none = -1, owned = -2;

    void grow(std::size_t bytes);

    void *data_ = nullptr;
    std::size_t size_ = 0;
    int place_ = none; // among the buffers of its thread
};

// The same for a scope or an object.
class OwnScratch : public Scratch {
  public:
    OwnScratch() { place_ = owned; }
    ~OwnScratch();
};

} // namespace anaphora
