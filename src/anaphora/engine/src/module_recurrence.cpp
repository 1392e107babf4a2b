// Python bindings of cells and the recurrence.
#include "layer_arrays.h"
#include "module.h"
#include "pool.h"

#include <algorithm>
#include <iterator>
#include <string_view>

namespace anaphora {
namespace {

Program program(const nb::tuple &parts) {
    if (parts.size() != 4)
        refuse("program: must be (inputs, constants, instructions, outputs)");
    Program p{nb::cast<std::int32_t>(parts[0]),
              nb::cast<std::vector<double>>(parts[1]),
              {},
              nb::cast<std::vector<std::int32_t>>(parts[3])};
    const nb::object code = parts[2];
    for (std::ptrdiff_t k = 0; k < count_items(code); k++) {
        const auto instruction = nb::cast<nb::tuple>(item_of(code, k));
        if (instruction.size() != 3)
            refuse("program: an instruction must be (operation, a, b)");
        // Operations come by name, operands by number.
        const std::string_view name = nb::cast<const char *>(instruction[0]);
        const auto *found = std::find(std::begin(op_names), std::end(op_names), name);
        if (found == std::end(op_names))
            refuse("program: unknown operation '" + std::string(name) + "'");
        p.instructions.push_back({static_cast<Op>(found - op_names),
                                  nb::cast<std::int32_t>(instruction[1]),
                                  nb::cast<std::int32_t>(instruction[2])});
    }
    return p;
}

template <class Array>
void check_states(const Cell &cell, const Sequences &s, const std::vector<Array> &states,
                  const char *name) {
    if (static_cast<std::int32_t>(states.size()) != cell.states)
        refuse(std::string("recurrence: wrong number of ") + name);
    for (std::size_t k = 0; k < states.size(); k++)
        check_shape(states[k], {s.batch, k == 0 ? s.projected : s.hidden}, name);
}

const std::int64_t *check_lengths(const Lengths &lengths, std::int64_t T_, std::int64_t B) {
    if (!lengths)
        return nullptr;
    check_shape(*lengths, {B}, "lengths");
    for (std::int64_t b = 0; b < B; b++)
        if (lengths->data()[b] < 0 || lengths->data()[b] > T_)
            refuse("recurrence: a length is outside 0..T");
    return lengths->data();
}

// The sizes of a call with these first states, [B, P], all arguments checked.
template <class T, class Array>
Sequences check(const Cell &cell, const In<T> &x, const std::vector<Array> &states,
                const char *states_name, const LayerArrays<T> &weights, const Lengths &lengths,
                bool reverse) {
    if (x.ndim() != 3 || states.empty() || states[0].ndim() != 2)
        refuse(std::string("recurrence: x must have three axes and ") + states_name + " two");
    const std::int64_t P = size(states[0], 1);
    Sequences s{.steps = size(x, 0),
                .batch = size(x, 1),
                .hidden = weights.weight_hr ? columns(*weights.weight_hr, "weight_hr") : P,
                .projected = P,
                .lengths = check_lengths(lengths, size(x, 0), size(x, 1)),
                .reverse = reverse};
    if (!weights.weight_ih)
        check_shape(x, {s.steps, s.batch, cell.x_blocks * s.hidden}, "x");
    check_states(cell, s, states, states_name);
    weights.check("recurrence", cell, size(x, 2), s.hidden, P);
    return s;
}

// The data of arrays.
template <class T, class Array> std::vector<T *> pointers(const std::vector<Array> &arrays) {
    std::vector<T *> result;
    for (const auto &array : arrays)
        result.push_back(array.data());
    return result;
}

template <class T> T *data(const std::optional<Result<T>> &array) {
    return array ? array->data() : nullptr;
}

// Run a kernel in both directions: side by side, each on one thread, if no more are available or a
// direction would use no more by itself.
template <class T, class Pass>
void run_both(const Kernels<T> &with, void (*kernel)(const Pass &), const Pass &first,
              const Pass &second) {
    auto threads = [&] {
        const bool projects = first.weights->weight_hr != nullptr;
        return with.recurrence_saved(*first.cell, first.sizes, projects, first.tiles).threads;
    };
    if (available_threads() <= 2 || threads() == 1)
        parallel(2, [&](std::int64_t reversed) { kernel(reversed == 1 ? second : first); });
    else {
        kernel(first);
        kernel(second);
    }
}

// A forward pass with its arrays. Its arguments outlive it.
template <class T> struct ForwardCall {
    // initial: [B, P] and [B, H], by position.
    ForwardCall(const Kernels<T> &with, const Cell &cell, const In<T> &x,
                const std::vector<In<T>> &initial, const LayerArrays<T> &weights,
                const Lengths &lengths, bool reverse, bool save_,
                const std::vector<std::int32_t> &named)
        : layer(weights.weights()), save(save_) {
        const Sequences s = check(cell, x, initial, "initial states", weights, lengths, reverse);
        const bool projects = weights.weight_hr.has_value();
        for (std::int32_t value : named) {
            if (value < 0 || value >= cell.forward.values())
                refuse("recurrence: a named value that does not exist");
            if (projects && value == cell.first_state())
                refuse("recurrence: the initial value of a projected state cannot be recorded");
        }
        const std::size_t steps = x.shape(0), batch = x.shape(1),
                          hidden = static_cast<std::size_t>(s.hidden);
        if (!save || s.reverse || s.lengths != nullptr)
            output = make<T>({steps, batch, initial[0].shape(1)});
        if (projects)
            unprojected = make<T>({save ? steps : 1, batch, hidden});
        SavedShape shape{0, 0, 0};
        if (save) {
            shape = with.recurrence_saved(cell, s, projects, 0);
            saved = make<T>(
                {static_cast<std::size_t>(shape.tiles), static_cast<std::size_t>(shape.size)});
        }
        for (const auto &start : initial) {
            const std::size_t kept = save && states.empty() ? steps + 1 : 2;
            states.push_back(make<T>({kept, batch, start.shape(1)}));
            std::copy_n(start.data(), start.size(), states.back().data());
        }
        for (std::size_t k = 0; k < named.size(); k++)
            recorded.push_back(make<T>({steps, batch, hidden}));
        state_data = pointers<T>(states);
        record_data = pointers<T>(recorded);
        pass = {.cell = &cell,
                .sizes = s,
                .x = x.data(),
                .inputs = size(x, 2),
                .weights = &layer,
                .states = state_data.data(),
                .output = data<T>(output),
                .saved = data<T>(saved),
                .tiles = shape.tiles,
                .unprojected = data<T>(unprojected),
                .named_count = static_cast<std::int32_t>(named.size()),
                .named = named.data(),
                .record = record_data.data()};
    }
    ForwardCall(const ForwardCall &) = delete;

    // The output, or None if it is the first state after each step; that state, [T+1, B, P], or the
    // final one, [B, P], if nothing is saved, and the final ones of the others; what the backward
    // pass needs; the first state before its projection; and the recorded values.
    nb::tuple result() const {
        nb::list kept, records;
        for (const auto &record : recorded)
            records.append(record.object());
        for (const auto &state : states) {
            if (save && nb::len(kept) == 0) {
                kept.append(state.object());
                continue;
            }
            auto final = make<T>({state.shape(1), state.shape(2)});
            std::copy_n(state.data() + pass.sizes.steps % 2 * final.size(), final.size(),
                        final.data());
            kept.append(final.object());
        }
        return nb::make_tuple(output, kept, saved, save ? unprojected : std::nullopt, records);
    }

    const LayerWeights<T> layer;
    const bool save;
    std::optional<Result<T>> output, unprojected, saved;
    std::vector<Result<T>> states, recorded;
    std::vector<T *> state_data, record_data;
    Forward<T> pass;
};

template <class T>
nb::tuple recurrence_forward(const Cell &cell, In<T> x, std::vector<In<T>> initial,
                             LayerArrays<T> weights, Lengths lengths, bool reverse, bool save,
                             std::vector<std::int32_t> named, const char *precision) {
    const Kernels<T> &with = kernels<T>(precision);
    const ForwardCall<T> call(with, cell, x, initial, weights, lengths, reverse, save, named);
    {
        nb::gil_scoped_release release;
        with.recurrence_forward(call.pass);
    }
    return call.result();
}

// The same in two directions, the second one reversed.
template <class T>
nb::tuple bidirectional_forward(const Cell &cell, std::pair<In<T>, In<T>> x,
                                std::pair<std::vector<In<T>>, std::vector<In<T>>> initial,
                                std::pair<LayerArrays<T>, LayerArrays<T>> weights, Lengths lengths,
                                bool save, std::vector<std::int32_t> named, const char *precision) {
    const Kernels<T> &with = kernels<T>(precision);
    const ForwardCall<T> first(with, cell, x.first, initial.first, weights.first, lengths, false,
                               save, named),
        second(with, cell, x.second, initial.second, weights.second, lengths, true, save, named);
    {
        nb::gil_scoped_release release;
        run_both(with, with.recurrence_forward, first.pass, second.pass);
    }
    return nb::make_tuple(first.result(), second.result());
}

// A backward pass with its arrays. Its arguments outlive it.
template <class T> struct BackwardCall {
    // saved, state (the first one) and unprojected: as recurrence_forward returned them; d_states:
    // of the final states, by position; replaced by those of the initial states.
    BackwardCall(const Kernels<T> &with, const Cell &cell, const In<T> &saved, const In<T> &state,
                 const Maybe<T> &unprojected, const In<T> &x, const LayerArrays<T> &weights,
                 const Maybe<T> &d_output, const std::vector<Out<T>> &d_states,
                 const Lengths &lengths, bool reverse, bool wants_d_x)
        : layer(weights.weights()), state_data(pointers<T>(d_states)) {
        const Sequences s = check(cell, x, d_states, "d_states", weights, lengths, reverse);
        const bool projects = weights.weight_hr.has_value();
        if (saved.ndim() != 2)
            refuse("recurrence: saved must have two axes");
        const SavedShape shape = with.recurrence_saved(cell, s, projects, size(saved, 0));
        check_shape(saved, {shape.tiles, shape.size}, "saved");
        check_shape(state, {s.steps + 1, s.batch, s.projected}, "state");
        if (projects != unprojected.has_value())
            refuse("recurrence: unprojected must be given if and only if weight_hr is");
        if (unprojected)
            check_shape(*unprojected, {s.steps, s.batch, s.hidden}, "unprojected");
        if (d_output)
            check_shape(*d_output, {s.steps, s.batch, s.projected}, "d_output");

        auto like = [](const Maybe<T> &array) -> std::optional<Result<T>> {
            if (!array)
                return std::nullopt;
            return make<T>(array->shape());
        };
        if (wants_d_x || !weights.weight_ih)
            d_x = make<T>(x.shape());
        d_weight_ih = like(weights.weight_ih);
        d_weight_hh = like(weights.weight_hh);
        d_bias_ih = like(weights.bias_ih);
        d_bias_hh = like(weights.bias_hh);
        d_weight_hr = like(weights.weight_hr);
        d_parameters = make<T>({static_cast<std::size_t>(cell.parameters), x.shape(1),
                                static_cast<std::size_t>(s.hidden)});
        std::fill_n(d_parameters->data(), d_parameters->size(), T(0));
        gradients = {.weight_ih = data<T>(d_weight_ih),
                     .weight_hh = data<T>(d_weight_hh),
                     .bias_ih = data<T>(d_bias_ih),
                     .bias_hh = data<T>(d_bias_hh),
                     .weight_hr = data<T>(d_weight_hr),
                     .parameters = d_parameters->data()};
        pass = {.cell = &cell,
                .sizes = s,
                .x = x.data(),
                .inputs = size(x, 2),
                .weights = &layer,
                .saved = saved.data(),
                .tiles = shape.tiles,
                .state = state.data(),
                .unprojected = data<T>(unprojected),
                .d_output = data<T>(d_output),
                .d_states = state_data.data(),
                .d_x = data<T>(d_x),
                .gradients = &gradients};
    }
    BackwardCall(const BackwardCall &) = delete;

    // The gradients of x (None if not wanted), weight_ih, weight_hh, bias_ih, bias_hh and weight_hr
    // (None without them), and of the parameters for each row.
    nb::tuple result() const {
        return nb::make_tuple(d_x, d_weight_ih, d_weight_hh, d_bias_ih, d_bias_hh, d_weight_hr,
                              *d_parameters);
    }

    const LayerWeights<T> layer;
    const std::vector<T *> state_data;
    std::optional<Result<T>> d_x, d_weight_ih, d_weight_hh, d_bias_ih, d_bias_hh, d_weight_hr,
        d_parameters;
    LayerGradients<T> gradients;
    Backward<T> pass;
};

template <class T>
nb::tuple recurrence_backward(const Cell &cell, In<T> saved, In<T> state, Maybe<T> unprojected,
                              In<T> x, LayerArrays<T> weights, Maybe<T> d_output,
                              std::vector<Out<T>> d_states, Lengths lengths, bool reverse,
                              bool wants_d_x, const char *precision) {
    const Kernels<T> &with = kernels<T>(precision);
    const BackwardCall<T> call(with, cell, saved, state, unprojected, x, weights, d_output,
                               d_states, lengths, reverse, wants_d_x);
    {
        nb::gil_scoped_release release;
        with.recurrence_backward(call.pass);
    }
    return call.result();
}

// The same in two directions, the second one reversed.
template <class T>
nb::tuple
bidirectional_backward(const Cell &cell, std::pair<In<T>, In<T>> saved,
                       std::pair<In<T>, In<T>> state, std::pair<Maybe<T>, Maybe<T>> unprojected,
                       std::pair<In<T>, In<T>> x, std::pair<LayerArrays<T>, LayerArrays<T>> weights,
                       std::pair<Maybe<T>, Maybe<T>> d_output,
                       std::pair<std::vector<Out<T>>, std::vector<Out<T>>> d_states,
                       Lengths lengths, bool wants_d_x, const char *precision) {
    const Kernels<T> &with = kernels<T>(precision);
    const BackwardCall<T> first(with, cell, saved.first, state.first, unprojected.first, x.first,
                                weights.first, d_output.first, d_states.first, lengths, false,
                                wants_d_x),
        second(with, cell, saved.second, state.second, unprojected.second, x.second, weights.second,
               d_output.second, d_states.second, lengths, true, wants_d_x);
    {
        nb::gil_scoped_release release;
        run_both(with, with.recurrence_backward, first.pass, second.pass);
    }
    return nb::make_tuple(first.result(), second.result());
}

} // namespace

void bind_cell(nb::module_ &m) {
    m.def(
        "make_cell",
        [](nb::tuple forward, nb::tuple backward,
           const std::vector<std::pair<std::int32_t, std::int32_t>> &gates,
           const std::vector<std::int32_t> &saved, std::int32_t states, std::int32_t parameters) {
            Cell cell{program(forward), program(backward), {}, saved, states, parameters, 0, 0};
            for (auto [x, h] : gates) {
                cell.gates.push_back({x, h});
                cell.x_blocks += x != -1;
                cell.h_blocks += h != -1;
            }
            cell.validate();
            for (const Cell &known : built_in_cells()) {
                Cell compiled = cell;
                compiled.built_in = known.built_in;
                if (compiled == known)
                    cell.built_in = known.built_in;
            }
            return Held<Cell>{std::make_unique<Cell>(std::move(cell))};
        },
        "forward"_a, "backward"_a, "gates"_a, "saved"_a, "states"_a, "parameters"_a);
    m.def("is_compiled", [](const Cell &cell) { return cell.built_in >= 0; }, "cell"_a);
}

template <class T> void bind_recurrence(nb::module_ &m) {
    m.def("recurrence_forward", &recurrence_forward<T>, "cell"_a, plain("x"), plain("initial"),
          plain("weights"), optional("lengths"), "reverse"_a, "save"_a, "named"_a, "precision"_a);
    m.def("bidirectional_forward", &bidirectional_forward<T>, "cell"_a, plain("x"),
          plain("initial"), plain("weights"), optional("lengths"), "save"_a, "named"_a,
          "precision"_a);
    m.def("recurrence_backward", &recurrence_backward<T>, "cell"_a, plain("saved"), plain("state"),
          optional("unprojected"), plain("x"), plain("weights"), optional("d_output"),
          plain("d_states"), optional("lengths"), "reverse"_a, "wants_d_x"_a, "precision"_a);
    m.def("bidirectional_backward", &bidirectional_backward<T>, "cell"_a, plain("saved"),
          plain("state"), plain("unprojected"), plain("x"), plain("weights"), plain("d_output"),
          plain("d_states"), optional("lengths"), "wants_d_x"_a, "precision"_a);
}

template void bind_recurrence<float>(nb::module_ &);
template void bind_recurrence<double>(nb::module_ &);

} // namespace anaphora
