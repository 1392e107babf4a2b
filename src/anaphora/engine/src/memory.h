// Scratch memory: aligned, and kept for the next call, so that page faults are paid once.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace anaphora {

// A buffer that only grows; one for each purpose and thread.
class Scratch {
  public:
    Scratch() = default;
    Scratch(const Scratch &) = delete;
    Scratch &operator=(const Scratch &) = delete;
    ~Scratch() { std::free(data_); }

    // At least `count` uninitialised values.
    template <class T> T *get(std::size_t count) {
        std::size_t bytes = count * sizeof(T) + 64;
        if (bytes > size_) {
            constexpr std::size_t huge = std::size_t{1} << 21;
            std::size_t unit = bytes >= huge ? huge : 4096;
            bytes = (bytes + unit - 1) / unit * unit;
            std::free(data_);
            size_ = 0;
            data_ = std::aligned_alloc(unit, bytes);
            if (data_ == nullptr)
                throw std::bad_alloc();
            size_ = bytes;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
            if (unit == huge)
                madvise(data_, bytes, MADV_HUGEPAGE);
#endif
        }
        return static_cast<T *>(data_);
    }

  private:
    void *data_ = nullptr;
    std::size_t size_ = 0;
};

} // namespace anaphora
