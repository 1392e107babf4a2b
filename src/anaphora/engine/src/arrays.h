// NumPy arrays as arguments and results of the bindings.
#pragma once

#include "kernels.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace anaphora {

namespace nb = nanobind;
using namespace nb::literals;

// An array whose data are aligned for its elements, which nanobind does not guarantee. The caster
// below copies misaligned arrays that are read-only and contiguous, and rejects others.
template <class... Arguments> struct Aligned : nb::ndarray<Arguments...> {
    Aligned() = default;
    template <class... Others>
    explicit Aligned(const nb::ndarray<Others...> &array) : nb::ndarray<Arguments...>(array) {}
};

template <class T> using In = Aligned<const T, nb::c_contig, nb::device::cpu>;
template <class T> using Strided = Aligned<const T, nb::ndim<2>, nb::device::cpu>;
template <class T> using Out = Aligned<T, nb::c_contig, nb::device::cpu>;
template <class T> using Result = nb::ndarray<nb::numpy, T>;
using Lengths = std::optional<In<std::int64_t>>;

template <class T> const Kernels<T> &kernels() {
    if constexpr (sizeof(T) == 4)
        return instruction_set().f32;
    else
        return instruction_set().f64;
}

[[noreturn]] inline void refuse(const std::string &what) { throw std::invalid_argument(what); }

template <class Array>
void check_shape(const Array &array, std::initializer_list<std::int64_t> shape, const char *name) {
    bool fits = array.ndim() == shape.size();
    std::size_t axis = 0;
    for (std::int64_t size : shape)
        fits = fits && static_cast<std::int64_t>(array.shape(axis++)) == size;
    if (!fits)
        refuse(std::string("wrong shape of ") + name);
}

// Keeps the memory of large arrays that Python has freed, up to a limit, because fresh pages cost
// more than most kernels.
class Recycler {
  public:
    void *get(std::size_t &bytes) {
        bytes = round(bytes);
        {
            std::lock_guard lock(mutex_);
            for (std::size_t k = kept_.size(); k-- > 0;)
                if (kept_[k].bytes == bytes) {
                    void *data = kept_[k].data;
                    kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(k));
                    total_ -= bytes;
                    return data;
                }
        }
        std::size_t unit = bytes >= huge ? huge : 64;
        void *data = std::aligned_alloc(unit, bytes);
        if (data == nullptr)
            throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
        if (bytes >= huge)
            madvise(data, bytes, MADV_HUGEPAGE);
#endif
        return data;
    }

    void put(void *data, std::size_t bytes) noexcept {
        std::lock_guard lock(mutex_);
        if (bytes > limit / 4 || kept_.size() == kept_.capacity()) {
            std::free(data);
            return;
        }
        kept_.push_back({data, bytes});
        total_ += bytes;
        while (total_ > limit) { // evict the oldest
            std::free(kept_.front().data);
            total_ -= kept_.front().bytes;
            kept_.erase(kept_.begin());
        }
    }

    Recycler() { kept_.reserve(256); }

  private:
    static constexpr std::size_t huge = std::size_t{1} << 21, limit = std::size_t{256} << 20;

    // Sizes are rounded so that similar ones share memory.
    static std::size_t round(std::size_t bytes) {
        std::size_t unit = bytes >= 4 * huge ? huge : bytes >= 65536 ? 16384 : 1024;
        bytes = (bytes + unit - 1) / unit * unit;
        return bytes >= huge ? (bytes + huge - 1) / huge * huge : bytes == 0 ? unit : bytes;
    }

    struct Kept {
        void *data;
        std::size_t bytes;
    };
    std::mutex mutex_;
    std::vector<Kept> kept_;
    std::size_t total_ = 0;
};

inline Recycler &recycler() {
    static auto *one = new Recycler(); // never destroyed: arrays may outlive static objects
    return *one;
}

template <class T> Result<T> make(std::vector<std::size_t> shape) {
    std::size_t bytes = sizeof(T);
    for (std::size_t size : shape) {
        if (size != 0 && bytes > std::numeric_limits<std::ptrdiff_t>::max() / size)
            throw std::bad_alloc();
        bytes *= size;
    }
    struct Owned {
        void *data;
        std::size_t bytes;
    };
    auto owned = std::make_unique<Owned>();
    owned->data = recycler().get(bytes);
    owned->bytes = bytes;
    T *data = static_cast<T *>(owned->data);
    nb::capsule owner(owned.release(), [](void *p) noexcept {
        auto *memory = static_cast<Owned *>(p);
        recycler().put(memory->data, memory->bytes);
        delete memory;
    });
    return Result<T>(data, shape.size(), shape.data(), owner);
}

template <class T> std::int64_t size(const T &array, std::size_t axis) {
    return static_cast<std::int64_t>(array.shape(axis));
}

template <class T> std::int64_t columns(const T &array, const char *name) {
    if (array.ndim() != 2)
        refuse(std::string(name) + " must have two axes");
    return size(array, 1);
}

} // namespace anaphora

template <class... Arguments>
struct nanobind::detail::type_caster<anaphora::Aligned<Arguments...>> {
    using Array = nanobind::ndarray<Arguments...>;
    using Caster = make_caster<Array>;
    NB_TYPE_CASTER(anaphora::Aligned<Arguments...>, Caster::Name)

    bool from_python(handle source, uint32_t flags, cleanup_list *cleanup) noexcept {
        Caster caster;
        if (!caster.from_python(source, flags, cleanup))
            return false;
        value = Value(caster.value);
        using Scalar = typename Array::Scalar;
        if (reinterpret_cast<std::uintptr_t>(value.data()) % alignof(Scalar) == 0)
            return true;
        if constexpr (Array::ReadOnly && Array::Order == 'C') {
            try {
                auto copy = anaphora::make<std::remove_const_t<Scalar>>(
                    {value.shape_ptr(), value.shape_ptr() + value.ndim()});
                std::memcpy(copy.data(), value.data(), value.nbytes());
                value = Value(copy);
                return true;
            } catch (const std::exception &) { // out of memory
            }
        }
        return false;
    }

    static handle from_cpp(const anaphora::Aligned<Arguments...> &array, rv_policy policy,
                           cleanup_list *cleanup) noexcept {
        return Caster::from_cpp(array, policy, cleanup);
    }
};
