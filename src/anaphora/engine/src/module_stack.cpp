// Python bindings of packed stacks, their runs, and sampling.
#include "held_stack.h"
#include "layer_arrays.h"
#include "module.h"

namespace anaphora {
namespace {

template <class T> using Norm = std::pair<In<T>, In<T>>; // weight, bias

// table: [V, I], the embeddings of the ids that are the input then.
template <class T>
Held<Stack<T>> pack_stack(const Cell &cell, std::int64_t hidden, std::vector<LayerArrays<T>> layers,
                          Maybe<T> table, std::optional<std::pair<In<T>, Maybe<T>>> output,
                          std::vector<Norm<T>> norms, double epsilon, const char *precision) {
    if (layers.empty())
        refuse("stack: no layers");
    if (!norms.empty() && norms.size() != layers.size())
        refuse("stack: a layer norm for some layers only");
    if (hidden < 1)
        refuse("stack: hidden is less than 1");
    StackWeights<T> w{.input = 0,
                      .hidden = hidden,
                      .projected = hidden,
                      .layers = {},
                      .epsilon = static_cast<T>(epsilon)};
    const auto &projection = layers[0].weight_hr;
    if (projection) {
        if (projection->ndim() != 2)
            refuse("stack: weight_hr must have two axes");
        w.projected = size(*projection, 0);
    }
    const std::int64_t P = w.projected;
    if (layers[0].weight_ih)
        w.input = columns(*layers[0].weight_ih, "weight_ih");
    if (w.input < 1 || P < 1)
        refuse("stack: a size is less than 1");
    if (table) {
        w.ids = table->ndim() == 2 ? size(*table, 0) : 0;
        check_shape(*table, {w.ids, w.input}, "table");
        if (w.ids < 1)
            refuse("stack: the table is empty");
        w.table = table->data();
    }
    for (const LayerArrays<T> &layer : layers) {
        if (!layer.weight_ih)
            refuse("stack: a layer without weight_ih");
        if (layer.weight_hr.has_value() != projection.has_value())
            refuse("stack: a projection in some layers only");
        layer.check("stack", cell, w.layers.empty() ? w.input : P, hidden, P);
        StackLayer<T> to{.weights = layer.weights()};
        if (!norms.empty()) {
            const auto &[weight, bias] = norms[w.layers.size()];
            check_shape(weight, {P}, "the weight of a layer norm");
            check_shape(bias, {P}, "the bias of a layer norm");
            to.norm_weight = weight.data();
            to.norm_bias = bias.data();
        }
        w.layers.push_back(to);
    }
    if (output) {
        const auto &[weight, bias] = *output;
        w.outputs = weight.ndim() == 2 ? size(weight, 0) : 0;
        check_shape(weight, {w.outputs, P}, "the output's weight");
        if (w.outputs < 1)
            refuse("stack: the output layer is empty");
        if (bias)
            check_shape(*bias, {w.outputs}, "the output's bias");
        w.weight = weight.data();
        w.bias = data<T>(bias);
    }
    const Kernels<T> &with = kernels<T>(precision);
    nb::gil_scoped_release release;
    return {with.make_stack(cell, w)};
}

// Check the states' shapes; returns their batch size.
template <class T>
std::int64_t check_states(const Stack<T> &stack, const std::vector<Out<T>> &states,
                          std::vector<T *> &pointers) {
    if (!prepare_thread())
        throw std::bad_alloc();
    if (static_cast<std::int32_t>(states.size()) != stack.cell.states || states[0].ndim() != 3)
        refuse("stack: the states must be [L, B, P] and [L, B, H]");
    const std::int64_t B = size(states[0], 1), L = stack.layer_count;
    for (std::size_t k = 0; k < states.size(); k++) {
        check_shape(states[k], {L, B, k == 0 ? stack.projected : stack.hidden}, "a state");
        pointers.push_back(states[k].data());
    }
    return B;
}

// The number of steps of B rows in `count` rows.
std::int64_t count_steps(std::int64_t count, std::int64_t B) {
    if (B == 0 ? count != 0 : count % B != 0)
        refuse("stack: every step needs one row for each row of the states");
    return B == 0 ? 0 : count / B;
}

template <class T> void check_ids(const Stack<T> &stack, const In<std::int64_t> &ids) {
    for (std::size_t k = 0; k < ids.size(); k++)
        if (ids.data()[k] < 0 || ids.data()[k] >= stack.ids)
            throw nb::index_error(("an id of " + std::to_string(ids.data()[k]) +
                                   " for a table of " + std::to_string(stack.ids) + " rows")
                                      .c_str());
}

template <class T> Result<T> run(const Stack<T> &stack, In<T> x, std::vector<Out<T>> states) {
    std::vector<T *> pointers;
    const std::int64_t B = check_states(stack, states, pointers);
    if (stack.ids > 0 || x.ndim() < 1 || size(x, x.ndim() - 1) != stack.input)
        refuse("stack: the input must be [..., I]");
    std::vector<std::size_t> shape;
    std::int64_t rows = 1;
    for (std::size_t axis = 0; axis + 1 < x.ndim(); axis++) {
        shape.push_back(x.shape(axis));
        rows *= size(x, axis);
    }
    shape.push_back(static_cast<std::size_t>(stack.width()));
    const std::int64_t steps = count_steps(rows, B);
    auto outputs = make<T>(shape);
    nb::gil_scoped_release release;
    stack.run({.steps = steps,
               .batch = B,
               .x = x.data(),
               .states = pointers.data(),
               .outputs = outputs.data()});
    return outputs;
}

template <class T>
Result<T> run_ids(const Stack<T> &stack, In<std::int64_t> ids, std::vector<Out<T>> states) {
    std::vector<T *> pointers;
    const std::int64_t B = check_states(stack, states, pointers);
    check_ids(stack, ids);
    std::vector<std::size_t> shape;
    for (std::size_t axis = 0; axis < ids.ndim(); axis++)
        shape.push_back(ids.shape(axis));
    shape.push_back(static_cast<std::size_t>(stack.width()));
    const std::int64_t steps = count_steps(static_cast<std::int64_t>(ids.size()), B);
    auto outputs = make<T>(shape);
    nb::gil_scoped_release release;
    stack.run({.steps = steps,
               .batch = B,
               .ids = ids.data(),
               .states = pointers.data(),
               .outputs = outputs.data()});
    return outputs;
}

Sampling make_sampling(double temperature, std::int64_t top_k, double top_p) {
    if (!(temperature >= 0) || !(top_k >= 0) || !(top_p > 0))
        refuse("sample: temperature and top_k must be at least 0, top_p greater than 0");
    if (temperature > 0) // a denormal number would count as 0 in the kernels
        temperature = std::max(temperature, std::numeric_limits<double>::min());
    return {temperature, top_k, top_p};
}

// Returns the ids [length, B]; how many steps of them are valid; and the last logits [B, V].
template <class T>
nb::tuple generate(const Stack<T> &stack, In<std::int64_t> ids, std::vector<Out<T>> states,
                   In<double> uniforms, double temperature, std::int64_t top_k, double top_p) {
    std::vector<T *> pointers;
    const std::int64_t B = check_states(stack, states, pointers);
    check_ids(stack, ids);
    const std::int64_t steps = count_steps(static_cast<std::int64_t>(ids.size()), B);
    if (stack.ids == 0 || stack.outputs != stack.ids)
        refuse("generate: the stack's outputs are not logits of its ids");
    if (steps < 1 || uniforms.ndim() != 2 || size(uniforms, 1) != B)
        refuse("generate: needs at least one step of ids, and uniforms [length, B]");
    auto sampled = make<std::int64_t>({uniforms.shape(0), uniforms.shape(1)});
    auto logits = make<T>({static_cast<std::size_t>(B), static_cast<std::size_t>(stack.outputs)});
    const std::int64_t length = size(uniforms, 0);
    if (length == 0)
        refuse("generate: no uniforms");
    const Steps<T> f{.steps = steps,
                     .batch = B,
                     .ids = ids.data(),
                     .states = pointers.data(),
                     .outputs = logits.data(),
                     .length = length,
                     .sampling = make_sampling(temperature, top_k, top_p),
                     .uniforms = uniforms.data(),
                     .sampled = sampled.data()};
    std::int64_t count = 0;
    {
        nb::gil_scoped_release release;
        count = stack.run(f);
    }
    return nb::make_tuple(sampled, count, logits);
}

template <class T>
nb::tuple sample(In<T> logits, In<double> uniforms, double temperature, std::int64_t top_k,
                 double top_p) {
    if (logits.ndim() != 2 || logits.shape(1) == 0)
        refuse("sample: logits must be [B, V], V > 0");
    const std::int64_t B = size(logits, 0), V = size(logits, 1);
    check_shape(uniforms, {B}, "uniforms");
    const Sampling options = make_sampling(temperature, top_k, top_p);
    auto ids = make<std::int64_t>({logits.shape(0)});
    std::int64_t valid = 0, *to = ids.data();
    {
        nb::gil_scoped_release release;
        valid = kernels<T>().sample(B, V, logits.data(), uniforms.data(), options, to);
    }
    return nb::make_tuple(ids, valid == B);
}

} // namespace

template <class T> void bind_stack(nb::module_ &m) {
    m.def("pack_stack", &pack_stack<T>, "cell"_a, "hidden"_a, plain("layers"), optional("table"),
          optional("output"), plain("norms"), "epsilon"_a, "precision"_a);
    m.def("stack_bytes", [](const Stack<T> &stack) { return stack.bytes; }, "stack"_a);
    m.def("run_stack", &run<T>, "stack"_a, plain("x"), plain("states"));
    m.def("run_stack_on_ids", &run_ids<T>, "stack"_a, plain("ids"), plain("states"));
    m.def("generate", &generate<T>, "stack"_a, plain("ids"), plain("states"), plain("uniforms"),
          "temperature"_a, "top_k"_a, "top_p"_a);
    m.def("sample", &sample<T>, plain("logits"), plain("uniforms"), "temperature"_a, "top_k"_a,
          "top_p"_a);
}

template void bind_stack<float>(nb::module_ &);
template void bind_stack<double>(nb::module_ &);

} // namespace anaphora
