// The weights of a layer as Python passes them.
#pragma once

#include "arrays.h"

namespace anaphora {

template <class T> using Maybe = std::optional<In<T>>;

template <class T> const T *data(const Maybe<T> &array) { return array ? array->data() : nullptr; }

// The arrays of any object with these attributes (engine.LayerWeights).
template <class T> struct LayerArrays {
    Maybe<T> weight_ih, weight_hh, bias_ih, bias_hh, weight_hr;
    std::vector<In<T>> parameters;

    // Refuse what does not suit a cell with these sizes; `who` begins the message.
    void check(const char *who, const Cell &cell, std::int64_t I, std::int64_t H,
               std::int64_t P) const {
        const std::string of = std::string(who) + ": ";
        const std::int64_t X = cell.x_blocks * H, G = cell.h_blocks * H;
        if (weight_ih)
            check_shape(*weight_ih, {X, I}, "weight_ih");
        if (weight_hh.has_value() != (cell.h_blocks > 0))
            refuse(of + "weight_hh must be given if and only if the cell has recurrent halves");
        if (weight_hh)
            check_shape(*weight_hh, {G, P}, "weight_hh");
        if (bias_ih)
            check_shape(*bias_ih, {X}, "bias_ih");
        if (bias_ih && !weight_ih)
            refuse(of + "bias_ih without weight_ih");
        if (bias_hh)
            check_shape(*bias_hh, {G}, "bias_hh");
        if (weight_hr)
            check_shape(*weight_hr, {P, H}, "weight_hr");
        if (weight_hr && cell.reads_first_state())
            refuse(of + "a state that the program reads cannot be projected");
        if (static_cast<std::int32_t>(parameters.size()) != cell.parameters)
            refuse(of + "wrong number of parameters");
        for (const auto &parameter : parameters)
            check_shape(parameter, {H}, "parameters");
    }

    LayerWeights<T> weights() const {
        LayerWeights<T> w{.weight_ih = data<T>(weight_ih),
                          .weight_hh = data<T>(weight_hh),
                          .bias_ih = data<T>(bias_ih),
                          .bias_hh = data<T>(bias_hh),
                          .weight_hr = data<T>(weight_hr),
                          .parameters = {}};
        for (const auto &parameter : parameters)
            w.parameters.push_back(parameter.data());
        return w;
    }
};

} // namespace anaphora

template <> inline constexpr const char *anaphora::held_name<anaphora::Cell> = "Cell";
template <> struct nanobind::detail::type_caster<anaphora::Cell> : held_caster<anaphora::Cell> {};

template <class T> struct nanobind::detail::type_caster<anaphora::LayerArrays<T>> {
    NB_TYPE_CASTER(anaphora::LayerArrays<T>, const_name("anaphora.engine.LayerWeights"))

    bool from_python(handle source, uint32_t, cleanup_list *cleanup) {
        auto read = [&](const char *name, auto &to) {
            const object found = steal(PyObject_GetAttrString(source.ptr(), name));
            if (found.is_valid())
                return anaphora::convert(found, to, cleanup);
            if (!PyErr_ExceptionMatches(PyExc_AttributeError))
                throw python_error();
            PyErr_Clear();
            return false;
        };
        return read("weight_ih", value.weight_ih) && read("weight_hh", value.weight_hh) &&
               read("bias_ih", value.bias_ih) && read("bias_hh", value.bias_hh) &&
               read("weight_hr", value.weight_hr) && read("parameters", value.parameters);
    }
};
