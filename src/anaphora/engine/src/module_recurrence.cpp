// Python bindings of cells and the recurrence.
#include "module.h"

#include <nanobind/stl/pair.h>

#include <algorithm>

namespace anaphora {
namespace {

Program program(std::int32_t inputs, const std::vector<double> &constants,
                const std::vector<std::int32_t> &code, const std::vector<std::int32_t> &outputs) {
    if (code.size() % 3 != 0)
        refuse("program: instructions must be triples (operation, a, b)");
    Program p{inputs, constants, {}, outputs};
    for (std::size_t k = 0; k < code.size(); k += 3)
        p.instructions.push_back({static_cast<Op>(code[k]), code[k + 1], code[k + 2]});
    return p;
}

struct Shapes {
    std::int64_t T, B, I, H, P;
};

template <class T>
void check_inputs(const Cell &cell, const Shapes &s, const In<T> &x,
                  const std::optional<In<T>> &weight_ih) {
    if (weight_ih)
        check_shape(*weight_ih, {cell.x_blocks * s.H, s.I}, "weight_ih");
    else
        check_shape(x, {s.T, s.B, cell.x_blocks * s.H}, "x");
}

template <class Array>
void check_states(const Cell &cell, const Shapes &s, const std::vector<Array> &states,
                  const char *name) {
    if (static_cast<std::int32_t>(states.size()) != cell.states)
        refuse(std::string("recurrence: wrong number of ") + name);
    for (std::size_t k = 0; k < states.size(); k++)
        check_shape(states[k], {s.B, k == 0 ? s.P : s.H}, name);
}

const std::int64_t *check_lengths(const Lengths &lengths, const Shapes &s) {
    if (!lengths)
        return nullptr;
    check_shape(*lengths, {s.B}, "lengths");
    for (std::int64_t b = 0; b < s.B; b++)
        if (lengths->data()[b] < 0 || lengths->data()[b] > s.T)
            refuse("recurrence: a length is outside 0..T");
    return lengths->data();
}

// initial: [B, P] and [B, H], by position. Returns the output; the states, [T+1, B, ...], or the
// final ones, [B, ...], if nothing is saved; what the backward pass needs; the first state before
// its projection; and the recorded values.
template <class T>
nb::tuple recurrence_forward(const Cell &cell, In<T> x, std::optional<In<T>> weight_ih,
                             std::optional<In<T>> bias_ih, std::vector<In<T>> initial,
                             std::optional<In<T>> weight_hh, std::optional<In<T>> bias_hh,
                             std::optional<In<T>> weight_hr, std::vector<In<T>> parameters,
                             Lengths lengths, bool reverse, bool save,
                             std::vector<std::int32_t> named) {
    if (x.ndim() != 3 || initial.empty() || initial[0].ndim() != 2)
        refuse("recurrence: x must have three axes and initial states two");
    Shapes s{size(x, 0), size(x, 1), size(x, 2), 0, size(initial[0], 1)};
    s.H = weight_hr ? columns(*weight_hr, "weight_hr") : s.P;
    check_inputs(cell, s, x, weight_ih);
    if (bias_ih)
        check_shape(*bias_ih, {cell.x_blocks * s.H}, "bias_ih");
    if (bias_ih && !weight_ih)
        refuse("recurrence: bias_ih without weight_ih");
    check_states(cell, s, initial, "initial states");
    if (weight_hh.has_value() != (cell.h_blocks > 0))
        refuse("recurrence: weight_hh must be given if and only if the cell has recurrent halves");
    if (weight_hh)
        check_shape(*weight_hh, {cell.h_blocks * s.H, s.P}, "weight_hh");
    if (bias_hh)
        check_shape(*bias_hh, {cell.h_blocks * s.H}, "bias_hh");
    if (weight_hr)
        check_shape(*weight_hr, {s.P, s.H}, "weight_hr");
    if (static_cast<std::int32_t>(parameters.size()) != cell.parameters)
        refuse("recurrence: wrong number of parameters");
    for (const auto &p : parameters)
        check_shape(p, {s.H}, "parameters");
    for (std::int32_t value : named) {
        if (value < 0 || value >= cell.forward.values())
            refuse("recurrence: a named value that does not exist");
        if (weight_hr && value == cell.first_state())
            refuse("recurrence: the initial value of a projected state cannot be recorded");
    }
    if (weight_hr && cell.reads_first_state())
        refuse("recurrence: a state that the program reads cannot be projected");

    auto uT = static_cast<std::size_t>(s.T), uB = static_cast<std::size_t>(s.B);
    auto uH = static_cast<std::size_t>(s.H), uP = static_cast<std::size_t>(s.P);
    auto output = make<T>({uT, uB, uP});
    std::optional<Result<T>> unprojected, saved;
    if (weight_hr)
        unprojected = make<T>({save ? uT : 1, uB, uH});
    SavedShape shape{0, 0};
    if (save) {
        shape = kernels<T>().recurrence_saved(cell, s.T, s.B, s.H, s.P, weight_hr.has_value(), 0);
        saved =
            make<T>({static_cast<std::size_t>(shape.tiles), static_cast<std::size_t>(shape.size)});
    }
    std::vector<Result<T>> states;
    for (const auto &start : initial) {
        states.push_back(make<T>({save ? uT + 1 : 2, uB, start.shape(1)}));
        std::copy_n(start.data(), start.size(), states.back().data());
    }
    nb::list recorded;
    std::vector<T *> record_data, state_data;
    std::vector<const T *> parameter_data;
    for (std::size_t k = 0; k < named.size(); k++) {
        auto array = make<T>({uT, uB, uH});
        record_data.push_back(array.data());
        recorded.append(nb::cast(array));
    }
    for (auto &state : states)
        state_data.push_back(state.data());
    for (auto &parameter : parameters)
        parameter_data.push_back(parameter.data());
    Forward<T> f{&cell,
                 s.T,
                 s.B,
                 s.H,
                 s.P,
                 x.data(),
                 s.I,
                 weight_ih ? weight_ih->data() : nullptr,
                 bias_ih ? bias_ih->data() : nullptr,
                 weight_hh ? weight_hh->data() : nullptr,
                 bias_hh ? bias_hh->data() : nullptr,
                 weight_hr ? weight_hr->data() : nullptr,
                 parameter_data.data(),
                 check_lengths(lengths, s),
                 reverse,
                 state_data.data(),
                 output.data(),
                 saved ? saved->data() : nullptr,
                 shape.tiles,
                 unprojected ? unprojected->data() : nullptr,
                 static_cast<std::int32_t>(named.size()),
                 named.data(),
                 record_data.data()};
    {
        nb::gil_scoped_release release;
        kernels<T>().recurrence_forward(f);
    }
    nb::list kept;
    for (const auto &state : states) {
        if (save) {
            kept.append(nb::cast(state));
            continue;
        }
        auto final = make<T>({uB, state.shape(2)});
        std::copy_n(state.data() + static_cast<std::size_t>(s.T % 2) * final.size(), final.size(),
                    final.data());
        kept.append(nb::cast(final));
    }
    return nb::make_tuple(output, kept, saved, save ? unprojected : std::nullopt, recorded);
}

// saved, state (the first one) and unprojected: as recurrence_forward returned them; d_states: of
// the final states, by position; replaced by those of the initial states. Returns the gradients of
// x (None if not wanted), weight_ih, bias_ih, weight_hh, bias_hh and weight_hr (None without them),
// and of the parameters for each row.
template <class T>
nb::tuple recurrence_backward(const Cell &cell, In<T> saved, In<T> state,
                              std::optional<In<T>> unprojected, std::optional<In<T>> d_output,
                              std::vector<Out<T>> d_states, In<T> x, bool wants_d_x,
                              std::optional<In<T>> weight_ih, bool has_bias_ih,
                              std::optional<In<T>> weight_hh, bool has_bias_hh,
                              std::optional<In<T>> weight_hr, Lengths lengths, bool reverse) {
    if (d_states.empty() || d_states[0].ndim() != 2 || x.ndim() != 3)
        refuse("recurrence: d_states must have two axes and x three");
    Shapes s{size(x, 0), size(x, 1), size(x, 2), 0, size(d_states[0], 1)};
    s.H = weight_hr ? columns(*weight_hr, "weight_hr") : s.P;
    check_states(cell, s, d_states, "d_states");
    check_inputs(cell, s, x, weight_ih);
    if (saved.ndim() != 2)
        refuse("recurrence: saved must have two axes");
    SavedShape shape = kernels<T>().recurrence_saved(cell, s.T, s.B, s.H, s.P,
                                                     weight_hr.has_value(), size(saved, 0));
    check_shape(saved, {shape.tiles, shape.size}, "saved");
    check_shape(state, {s.T + 1, s.B, s.P}, "state");
    if (weight_hr.has_value() != unprojected.has_value())
        refuse("recurrence: unprojected must be given if and only if weight_hr is");
    if (unprojected)
        check_shape(*unprojected, {s.T, s.B, s.H}, "unprojected");
    if (d_output)
        check_shape(*d_output, {s.T, s.B, s.P}, "d_output");
    if (weight_hh.has_value() != (cell.h_blocks > 0))
        refuse("recurrence: weight_hh must be given if and only if the cell has recurrent halves");
    if (weight_hh)
        check_shape(*weight_hh, {cell.h_blocks * s.H, s.P}, "weight_hh");
    if (weight_hr)
        check_shape(*weight_hr, {s.P, s.H}, "weight_hr");
    const std::int64_t *row_lengths = check_lengths(lengths, s);

    auto unsigned_of = [](std::int64_t n) { return static_cast<std::size_t>(n); };
    std::optional<Result<T>> d_x, d_weight_ih, d_bias_ih, d_weight_hh, d_bias_hh, d_weight_hr;
    if (wants_d_x || !weight_ih)
        d_x = make<T>({x.shape(0), x.shape(1), x.shape(2)});
    if (weight_ih)
        d_weight_ih = make<T>({weight_ih->shape(0), weight_ih->shape(1)});
    if (has_bias_ih && weight_ih)
        d_bias_ih = make<T>({weight_ih->shape(0)});
    if (weight_hh)
        d_weight_hh = make<T>({weight_hh->shape(0), weight_hh->shape(1)});
    if (has_bias_hh && weight_hh)
        d_bias_hh = make<T>({weight_hh->shape(0)});
    if (weight_hr)
        d_weight_hr = make<T>({weight_hr->shape(0), weight_hr->shape(1)});
    auto d_parameters = make<T>({unsigned_of(cell.parameters), unsigned_of(s.B), unsigned_of(s.H)});
    std::fill_n(d_parameters.data(), d_parameters.size(), T(0));
    std::vector<T *> state_data;
    for (auto &d : d_states)
        state_data.push_back(d.data());
    auto data = [](auto &array) { return array ? array->data() : nullptr; };
    Backward<T> f{&cell,
                  s.T,
                  s.B,
                  s.H,
                  s.P,
                  x.data(),
                  s.I,
                  data(weight_ih),
                  data(weight_hh),
                  data(weight_hr),
                  row_lengths,
                  reverse,
                  saved.data(),
                  shape.tiles,
                  state.data(),
                  data(unprojected),
                  data(d_output),
                  state_data.data(),
                  data(d_x),
                  data(d_weight_ih),
                  data(d_bias_ih),
                  data(d_weight_hh),
                  data(d_bias_hh),
                  data(d_weight_hr),
                  d_parameters.data()};
    {
        nb::gil_scoped_release release;
        kernels<T>().recurrence_backward(f);
    }
    return nb::make_tuple(d_x, d_weight_ih, d_bias_ih, d_weight_hh, d_bias_hh, d_weight_hr,
                          d_parameters);
}

} // namespace

void bind_cell(nb::module_ &m) {
    nb::class_<Cell>(m, "Cell").def(
        "__init__",
        [](Cell *self, nb::tuple forward, nb::tuple backward,
           const std::vector<std::pair<std::int32_t, std::int32_t>> &gates,
           const std::vector<std::int32_t> &saved, std::int32_t states, std::int32_t parameters) {
            auto read = [](const nb::tuple &t) {
                if (t.size() != 4)
                    refuse("program: must be (inputs, constants, instructions, outputs)");
                return program(nb::cast<std::int32_t>(t[0]), nb::cast<std::vector<double>>(t[1]),
                               nb::cast<std::vector<std::int32_t>>(t[2]),
                               nb::cast<std::vector<std::int32_t>>(t[3]));
            };
            Cell cell{read(forward), read(backward), {}, saved, states, parameters, 0, 0};
            for (auto [x, h] : gates) {
                cell.gates.push_back({x, h});
                cell.x_blocks += x != -1;
                cell.h_blocks += h != -1;
            }
            cell.validate();
            new (self) Cell(std::move(cell));
        },
        "forward"_a, "backward"_a, "gates"_a, "saved"_a, "states"_a, "parameters"_a);
}

template <class T> void bind_recurrence(nb::module_ &m) {
    m.def("recurrence_forward", &recurrence_forward<T>, "cell"_a, plain("x"), optional("weight_ih"),
          optional("bias_ih"), plain("initial"), optional("weight_hh"), optional("bias_hh"),
          optional("weight_hr"), plain("parameters"), optional("lengths"), "reverse"_a, "save"_a,
          "named"_a);
    m.def("recurrence_backward", &recurrence_backward<T>, "cell"_a, plain("saved"), plain("state"),
          optional("unprojected"), optional("d_output"), plain("d_states"), plain("x"),
          "wants_d_x"_a, optional("weight_ih"), "has_bias_ih"_a, optional("weight_hh"),
          "has_bias_hh"_a, optional("weight_hr"), optional("lengths"), "reverse"_a);
}

template void bind_recurrence<float>(nb::module_ &);
template void bind_recurrence<double>(nb::module_ &);

} // namespace anaphora
