// Conversions between Python and C++ that throw where there is no memory: nanobind's own, in
// nanobind/stl, end the process then.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace anaphora {

namespace nb = nanobind;
using namespace nb::literals;

// Item k of a sequence.
inline nb::object item_of(nb::handle sequence, std::size_t k) {
    PyObject *item = PySequence_GetItem(sequence.ptr(), static_cast<Py_ssize_t>(k));
    if (item == nullptr)
        throw nb::python_error();
    return nb::steal(item);
}

// The number of items; -1 if it is no sequence.
inline std::ptrdiff_t count_items(nb::handle object) {
    if (PySequence_Check(object.ptr()) == 0 || PyUnicode_Check(object.ptr()))
        return -1;
    const std::ptrdiff_t count = PySequence_Size(object.ptr());
    if (count < 0)
        throw nb::python_error();
    return count;
}

// A C++ object that Python holds, and passes back to functions that take a const T &. (An instance
// of a class of nanobind's is entered in a table, which ends the process if it cannot grow.)
template <class T> struct Held {
    std::unique_ptr<T> object;
};
template <class T> inline constexpr const char *held_name = nullptr;

// Convert to a C++ type, into `to`; false if it is another type.
template <class T> bool convert(nb::handle object, T &to, nb::detail::cleanup_list *cleanup) {
    nb::detail::make_caster<T> caster;
    if (!caster.from_python(object, 0, cleanup))
        return false;
    to = caster.operator nb::detail::cast_t<T>();
    return true;
}

} // namespace anaphora

namespace nanobind::detail {

template <class T> struct type_caster<std::optional<T>> {
    using Optional = std::optional<T>;
    NB_TYPE_CASTER(Optional, make_caster<T>::Name)

    bool from_python(handle source, uint32_t, cleanup_list *cleanup) {
        value.reset();
        if (source.is_none())
            return true;
        T found;
        if (!anaphora::convert(source, found, cleanup))
            return false;
        value.emplace(std::move(found));
        return true;
    }

    static handle from_cpp(const Optional &value, rv_policy policy,
                           cleanup_list *cleanup) noexcept {
        return value ? make_caster<T>::from_cpp(*value, policy, cleanup) : none().release();
    }
};

template <class T> struct type_caster<std::vector<T>> {
    NB_TYPE_CASTER(std::vector<T>, const_name("list[") + make_caster<T>::Name + const_name("]"))

    bool from_python(handle source, uint32_t, cleanup_list *cleanup) {
        const std::ptrdiff_t count = anaphora::count_items(source);
        value.clear();
        for (std::ptrdiff_t k = 0; k < count; k++) {
            T item;
            if (!anaphora::convert(anaphora::item_of(source, k), item, cleanup))
                return false;
            value.push_back(std::move(item));
        }
        return count >= 0;
    }
};

template <class First, class Second> struct type_caster<std::pair<First, Second>> {
    using Pair = std::pair<First, Second>;
    NB_TYPE_CASTER(Pair, const_name("tuple[") + make_caster<First>::Name + const_name(", ") +
                             make_caster<Second>::Name + const_name("]"))

    bool from_python(handle source, uint32_t, cleanup_list *cleanup) {
        return anaphora::count_items(source) == 2 &&
               anaphora::convert(anaphora::item_of(source, 0), value.first, cleanup) &&
               anaphora::convert(anaphora::item_of(source, 1), value.second, cleanup);
    }
};

template <class T> struct type_caster<anaphora::Held<T>> {
    static constexpr auto Name = const_name("types.CapsuleType");

    static handle from_cpp(anaphora::Held<T> &&held, rv_policy, cleanup_list *) noexcept {
        PyObject *capsule =
            PyCapsule_New(held.object.get(), anaphora::held_name<T>, [](PyObject *self) {
                delete static_cast<T *>(PyCapsule_GetPointer(self, anaphora::held_name<T>));
            });
        if (capsule != nullptr)
            held.object.release();
        return capsule;
    }
};

// The argument of a function that is given a held object.
template <class T> struct held_caster {
    static constexpr auto Name = const_name("types.CapsuleType");
    template <typename> using Cast = const T &;
    template <typename> static constexpr bool can_cast() { return true; }

    bool from_python(handle source, uint32_t, cleanup_list *) noexcept {
        if (PyCapsule_IsValid(source.ptr(), anaphora::held_name<T>) == 0)
            return false;
        held = static_cast<const T *>(PyCapsule_GetPointer(source.ptr(), anaphora::held_name<T>));
        return true;
    }
    explicit operator const T &() { return *held; }

    const T *held = nullptr;
};

} // namespace nanobind::detail
