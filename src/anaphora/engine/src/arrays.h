// NumPy arrays as arguments and results of the bindings.
//
// They cross by Python's buffer protocol, and have casters of their own: nanobind's end the process
// where there is no memory for an array, or for the elements of a list.
#pragma once

#include "casters.h"
#include "kernels.h"
#include "memory.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace anaphora {

// An array of Python's, while it is an argument: const T is only read. It is in C order if Axes is
// 0; else it has so many axes and any strides. If it is not aligned for its elements it is copied,
// or refused if it is written to.
template <class T, int Axes = 0> class Array {
    using Element = std::remove_const_t<T>;
    struct Release {
        void operator()(Py_buffer *buffer) const {
            PyBuffer_Release(buffer);
            delete buffer;
        }
    };

  public:
    // False if the object is no such array.
    bool read(PyObject *object) {
        constexpr int flags =
            PyBUF_FORMAT | PyBUF_STRIDES | (std::is_const_v<T> ? 0 : PyBUF_WRITABLE);
        auto buffer = std::make_unique<Py_buffer>();
        if (PyObject_GetBuffer(object, buffer.get(), flags) != 0) {
            if (PyErr_ExceptionMatches(PyExc_MemoryError))
                throw nb::python_error();
            PyErr_Clear();
            return false;
        }
        buffer_.reset(buffer.release());
        if (!has_elements() || !has_layout())
            return false;
        data_ = static_cast<T *>(buffer_->buf);
        if (reinterpret_cast<std::uintptr_t>(data_) % alignof(Element) == 0)
            return true;
        if constexpr (std::is_const_v<T> && Axes == 0) {
            copy_ = std::make_unique_for_overwrite<Element[]>(size());
            std::memcpy(copy_.get(), data_, size() * sizeof(T));
            data_ = copy_.get();
            return true;
        }
        return false;
    }

    T *data() const { return data_; }
    std::size_t ndim() const { return static_cast<std::size_t>(buffer_->ndim); }
    std::size_t shape(std::size_t axis) const {
        return static_cast<std::size_t>(buffer_->shape[axis]);
    }
    std::vector<std::size_t> shape() const {
        return {buffer_->shape, buffer_->shape + buffer_->ndim};
    }
    // In elements.
    std::int64_t stride(std::size_t axis) const {
        return buffer_->strides[axis] / std::int64_t{sizeof(T)};
    }
    std::size_t size() const { return static_cast<std::size_t>(buffer_->len) / sizeof(T); }
    nb::object object() const { return nb::borrow(buffer_->obj); }

  private:
    bool has_elements() const {
        const char *format = buffer_->format;
        if (format == nullptr || buffer_->itemsize != sizeof(T))
            return false;
        const std::uint16_t one = 1;
        const bool little_endian = reinterpret_cast<const std::uint8_t &>(one) == 1;
        if (*format == '@' || *format == '=' || *format == (little_endian ? '<' : '>'))
            format++;
        const char *kinds = std::is_same_v<Element, bool>       ? "?"
                            : std::is_floating_point_v<Element> ? "fd"
                                                                : "bhilq";
        return *format != 0 && std::strchr(kinds, *format) != nullptr && format[1] == 0;
    }
    bool has_layout() const {
        if (Axes > 0) {
            for (int axis = 0; axis < buffer_->ndim; axis++)
                if (buffer_->strides[axis] % std::int64_t{sizeof(T)} != 0)
                    return false;
            return buffer_->ndim == Axes;
        }
        std::int64_t step = sizeof(T);
        for (int axis = buffer_->ndim - 1; axis >= 0 && buffer_->len > 0; axis--) {
            if (buffer_->shape[axis] != 1 && buffer_->strides[axis] != step)
                return false;
            step *= buffer_->shape[axis];
        }
        return true;
    }

    std::unique_ptr<Py_buffer, Release> buffer_;
    std::unique_ptr<Element[]> copy_;
    T *data_ = nullptr;
};

template <class T> using In = Array<const T>;
template <class T> using Out = Array<T>;
template <class T> using Strided = Array<const T, 2>;
using Lengths = std::optional<In<std::int64_t>>;

[[noreturn]] inline void refuse(const std::string &what) { throw std::invalid_argument(what); }

// precision: of the operands of products of float32.
template <class T> const Kernels<T> &kernels(std::string_view precision = "float32") {
    if (!prepare_thread())
        throw std::bad_alloc();
    const InstructionSet &set = instruction_set();
    if (precision != "float32" && precision != "bfloat16" && precision != "int8")
        refuse("unknown precision '" + std::string(precision) + "'");
    if constexpr (sizeof(T) == 4)
        return precision == "float32" ? set.f32 : precision == "int8" ? set.i8 : set.bf16;
    else
        return set.f64;
}

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
        for (bool again = false;; again = true) {
            if (void *data = bytes >= huge ? try_to_allocate(bytes) : allocate_aligned(64, bytes))
                return data;
            if (again)
                throw NoMemory(bytes);
            std::lock_guard lock(mutex_); // what is kept is memory too
            for (const Kept &kept : kept_)
                free_aligned(kept.data);
            kept_.clear();
            total_ = 0;
        }
    }

    void put(void *data, std::size_t bytes) noexcept {
        std::lock_guard lock(mutex_);
        if (bytes > limit / 4 || kept_.size() == kept_.capacity()) {
            free_aligned(data);
            return;
        }
        kept_.push_back({data, bytes});
        total_ += bytes;
        while (total_ > limit) { // evict the oldest
            free_aligned(kept_.front().data);
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

// The type of objects that own the memory of results, and what makes arrays of it: they are never
// freed.
struct ResultTypes {
    nb::object memory, array, float32, float64, int64;

    ResultTypes();
    template <class T> const nb::object &element() const {
        if constexpr (std::is_same_v<T, std::int64_t>)
            return int64;
        else if constexpr (sizeof(T) == 4)
            return float32;
        else
            return float64;
    }
};

// Made at import, so that no call has to.
inline const ResultTypes &result_types() {
    static const auto *types = new ResultTypes();
    return *types;
}

// The Python object that owns the memory of a result.
struct OwnedMemory {
    PyObject_HEAD void *data;
    std::size_t bytes;
    std::size_t used;
};

inline ResultTypes::ResultTypes() {
    static PyType_Slot slots[] = {
        {Py_tp_dealloc, reinterpret_cast<void *>(+[](PyObject *self) {
             auto *memory = reinterpret_cast<OwnedMemory *>(self);
             if (memory->data != nullptr)
                 recycler().put(memory->data, memory->bytes);
             PyTypeObject *type = Py_TYPE(self);
             PyObject_Free(self);
             Py_DECREF(type);
         })},
        {Py_bf_getbuffer, reinterpret_cast<void *>(+[](PyObject *self, Py_buffer *view, int flags) {
             auto *memory = reinterpret_cast<OwnedMemory *>(self);
             return PyBuffer_FillInfo(view, self, memory->data,
                                      static_cast<Py_ssize_t>(memory->used), 0, flags);
         })},
        {0, nullptr}};
    static PyType_Spec spec = {"anaphora.engine._native.Memory", sizeof(OwnedMemory), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
    memory = nb::steal(PyType_FromSpec(&spec));
    if (!memory.is_valid())
        throw nb::python_error();
    const nb::module_ numpy = nb::module_::import_("numpy");
    array = numpy.attr("ndarray");
    const nb::object dtype = numpy.attr("dtype");
    float32 = dtype("float32");
    float64 = dtype("float64");
    int64 = dtype("int64");
}

// A new array.
template <class T> class Result {
  public:
    explicit Result(std::vector<std::size_t> shape) : shape_(std::move(shape)) {
        std::size_t bytes = sizeof(T);
        for (std::size_t size : shape_) {
            if (size != 0 && bytes > std::numeric_limits<std::ptrdiff_t>::max() / size)
                throw NoMemory(std::numeric_limits<std::ptrdiff_t>::max());
            bytes *= size;
        }
        const ResultTypes &types = result_types();
        auto *memory =
            PyObject_New(OwnedMemory, reinterpret_cast<PyTypeObject *>(types.memory.ptr()));
        if (memory == nullptr)
            throw nb::python_error();
        const nb::object owner = nb::steal(reinterpret_cast<PyObject *>(memory));
        memory->data = nullptr;
        memory->used = memory->bytes = bytes;
        memory->data = recycler().get(memory->bytes);
        data_ = static_cast<T *>(memory->data);
        size_ = bytes / sizeof(T);
        const nb::object sizes = nb::steal(PyTuple_New(static_cast<Py_ssize_t>(shape_.size())));
        if (!sizes.is_valid())
            throw nb::python_error();
        for (std::size_t axis = 0; axis < shape_.size(); axis++) {
            PyObject *size = PyLong_FromSize_t(shape_[axis]);
            if (size == nullptr)
                throw nb::python_error();
            PyTuple_SetItem(sizes.ptr(), static_cast<Py_ssize_t>(axis), size);
        }
        object_ = types.array(sizes, types.template element<T>(), owner);
    }

    T *data() const { return data_; }
    std::size_t ndim() const { return shape_.size(); }
    std::size_t shape(std::size_t axis) const { return shape_[axis]; }
    std::size_t size() const { return size_; }
    const nb::object &object() const { return object_; }

  private:
    std::vector<std::size_t> shape_;
    nb::object object_;
    T *data_;
    std::size_t size_;
};

template <class T> Result<T> make(std::vector<std::size_t> shape) {
    return Result<T>(std::move(shape));
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

template <class T, int Axes> struct nanobind::detail::type_caster<anaphora::Array<T, Axes>> {
    using Array = anaphora::Array<T, Axes>;
    NB_TYPE_CASTER(Array, const_name("numpy.ndarray"))

    bool from_python(handle source, uint32_t, cleanup_list *) { return value.read(source.ptr()); }
};

template <class T> struct nanobind::detail::type_caster<anaphora::Result<T>> {
    static constexpr auto Name = const_name("numpy.ndarray");

    static handle from_cpp(const anaphora::Result<T> &result, rv_policy, cleanup_list *) noexcept {
        return handle(result.object()).inc_ref();
    }
};
