// The recurrence and packed layers: random cells, the compiled steps beside the interpreter, stacks
// beside their layers, programs that are refused, concurrent callers, fork.
#include "testing.h"

#include <algorithm>
#include <atomic>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace testing {
namespace {

// A random straight-line program; `hidden` is a value that it must not read, or -1.
Program random_program(Random &random, int32_t inputs, std::size_t outputs, int32_t hidden) {
    Program program{inputs, {}, {}, {}};
    for (int64_t k = random.between(1, 2); k > 0; k--)
        program.constants.push_back(random.number());
    auto value = [&] {
        int32_t known = program.values(), any = static_cast<int32_t>(random.below(known));
        return any == hidden ? known - 1 : any;
    };
    for (int64_t k = random.between(0, 12); k > 0; k--) {
        int32_t a = value(), b = value();
        program.instructions.push_back({static_cast<Op>(random.below(op_count)), a, b});
    }
    for (std::size_t k = 0; k < outputs; k++)
        program.outputs.push_back(value());
    return program;
}

// A cell whose two programs match in size; the second is not the first's adjoint.
Cell random_cell(Random &random, bool projected) {
    Cell cell;
    for (int64_t k = random.between(1, 5); k > 0; k--) {
        int64_t halves = random.below(4); // usually both
        cell.gates.push_back({halves == 1 ? -1 : cell.x_blocks, halves == 2 ? -1 : cell.h_blocks});
        cell.x_blocks += halves != 1;
        cell.h_blocks += halves != 2;
    }
    cell.states = static_cast<int32_t>(random.between(1, 3));
    cell.parameters = static_cast<int32_t>(random.below(3));
    auto gates = static_cast<int32_t>(cell.gates.size());
    int32_t inputs = gates + cell.states + cell.parameters, hidden = projected ? gates : -1;
    cell.forward = random_program(random, inputs, static_cast<std::size_t>(cell.states), hidden);
    auto constants_end = inputs + static_cast<int32_t>(cell.forward.constants.size());
    for (int32_t value = 0; value < cell.forward.values(); value++)
        if ((value < inputs || value >= constants_end) && value != hidden && random.chance(2))
            cell.saved.push_back(value);
    cell.backward = random_program(random, static_cast<int32_t>(cell.saved.size()) + cell.states,
                                   static_cast<std::size_t>(inputs), -1);
    cell.validate();
    return cell;
}

// A random cell, or a built-in one, which is compiled.
Cell any_cell(Random &random, bool projected) {
    const std::vector<Cell> &known = built_in_cells();
    const Cell &cell = known[static_cast<std::size_t>(random.below(std::ssize(known)))];
    if (random.chance(2) || (projected && cell.reads_first_state()))
        return random_cell(random, projected);
    return cell;
}

template <class T> using Arrays = std::vector<Array<T>>;

template <class T> std::vector<T *> pointers(const Arrays<T> &arrays) {
    std::vector<T *> result;
    for (const Array<T> &array : arrays)
        result.push_back(array.data());
    return result;
}

template <class T> bool same(const Arrays<T> &a, const Arrays<T> &b) {
    bool equal = a.size() == b.size();
    for (std::size_t k = 0; equal && k < a.size(); k++)
        equal = a[k] == b[k];
    return equal;
}

// The arguments of one recurrence, and a run of it.
template <class T> struct Recurrence {
    int64_t steps, batch, inputs, hidden, projected;
    bool projects, reverse, has_lengths, has_bias, has_weight_ih = false;
    Cell cell;
    Array<T> x, weight_ih, bias_ih, weight_hh, bias_hh, weight_hr, d_output;
    Arrays<T> initial, d_final, parameters;
    Array<int64_t> lengths;
    std::vector<int32_t> named;

    explicit Recurrence(Random &random)
        : steps(random.one_of({0, 1, 2, 6, 40})), batch(random.one_of({0, 1, 2, 5, 9, 20})),
          inputs(random.one_of({0, 1, 5, 40, 100})), // 0: the input halves of gates are given
          hidden(random.one_of({1, 3, 16, 33, 70, 130})), projected(hidden),
          projects(random.chance(4)), reverse(random.chance(2)), has_lengths(random.chance(2)),
          has_bias(random.chance(2)), cell(any_cell(random, projects)), x(0), weight_ih(0),
          bias_ih(0), weight_hh(0), bias_hh(0), weight_hr(0), d_output(0), lengths(batch) {
        if (projects)
            projected = random.between(1, hidden);
        bool given = inputs == 0;
        inputs = given ? cell.x_blocks * hidden : inputs;
        x = {steps * batch * inputs, random};
        weight_ih = {given ? 0 : cell.x_blocks * hidden * inputs, random};
        bias_ih = {given ? 0 : cell.x_blocks * hidden, random};
        has_weight_ih = !given;
        weight_hh = {cell.h_blocks * hidden * projected, random};
        bias_hh = {cell.h_blocks * hidden, random};
        weight_hr = {projected * hidden, random};
        d_output = {steps * batch * projected, random};
        for (int32_t k = 0; k < cell.states; k++) {
            initial.emplace_back(batch * (k == 0 ? projected : hidden), random);
            d_final.emplace_back(batch * (k == 0 ? projected : hidden), random);
        }
        for (int32_t k = 0; k < cell.parameters; k++)
            parameters.emplace_back(hidden, random);
        for (int64_t b = 0; b < batch; b++)
            lengths[b] = random.between(0, steps);
        for (int32_t value = 0; value < cell.forward.values(); value++)
            if (random.chance(4) && !(projects && value == static_cast<int32_t>(cell.gates.size())))
                named.push_back(value);
        if (random.chance(2))
            named.clear();
    }

    std::string name() const {
        return "recurrence T " + std::to_string(steps) + " B " + std::to_string(batch) + " H " +
               std::to_string(hidden) + " P " + std::to_string(projected) + " gates " +
               std::to_string(cell.x_blocks) + "+" + std::to_string(cell.h_blocks);
    }

    // Forward, then backward; all results in one list.
    Arrays<T> run() const {
        Arrays<T> states, record, results;
        for (const Array<T> &start : initial) {
            const int64_t kept = states.empty() ? steps + 1 : std::min<int64_t>(steps + 1, 2);
            states.emplace_back(kept * start.size());
            for (int64_t k = 0; k < start.size(); k++)
                states.back()[k] = start[k];
        }
        for (std::size_t k = 0; k < named.size(); k++)
            record.emplace_back(steps * batch * hidden);
        Array<T> output(steps * batch * projected);
        Array<T> unprojected(projects ? steps * batch * hidden : 0);
        const Sequences sizes{.steps = steps,
                              .batch = batch,
                              .hidden = hidden,
                              .projected = projected,
                              .lengths = has_lengths ? lengths.data() : nullptr,
                              .reverse = reverse};
        const SavedShape shape = kernels<T>().recurrence_saved(cell, sizes, projects, 0);
        Array<T> saved(shape.tiles * shape.size);
        std::vector<T *> state_data = pointers(states), record_data = pointers(record);
        std::vector<T *> pointers_to_parameters = pointers(parameters);
        std::vector<const T *> parameter_data(pointers_to_parameters.begin(),
                                              pointers_to_parameters.end());
        const bool has_hh = cell.h_blocks > 0;
        const LayerWeights<T> weights{.weight_ih = has_weight_ih ? weight_ih.data() : nullptr,
                                      .weight_hh = has_hh ? weight_hh.data() : nullptr,
                                      .bias_ih =
                                          has_bias && has_weight_ih ? bias_ih.data() : nullptr,
                                      .bias_hh = has_bias && has_hh ? bias_hh.data() : nullptr,
                                      .weight_hr = projects ? weight_hr.data() : nullptr,
                                      .parameters = parameter_data};
        kernels<T>().recurrence_forward({.cell = &cell,
                                         .sizes = sizes,
                                         .x = x.data(),
                                         .inputs = inputs,
                                         .weights = &weights,
                                         .states = state_data.data(),
                                         .output = output.data(),
                                         .saved = saved.data(),
                                         .tiles = shape.tiles,
                                         .unprojected = projects ? unprojected.data() : nullptr,
                                         .named_count = static_cast<int32_t>(named.size()),
                                         .named = named.data(),
                                         .record = record_data.data()});

        Arrays<T> d_states;
        for (const Array<T> &d : d_final)
            d_states.push_back(d.copy());
        Array<T> d_x(x.size()), d_weight_ih(weight_ih.size()), d_bias_ih(bias_ih.size());
        Array<T> d_weight_hh(weight_hh.size()), d_bias_hh(bias_hh.size());
        Array<T> d_weight_hr(projects ? weight_hr.size() : 0);
        Array<T> d_parameters(cell.parameters * batch * hidden);
        for (int64_t k = 0; k < d_parameters.size(); k++)
            d_parameters[k] = 0;
        std::vector<T *> d_state_data = pointers(d_states);
        const LayerGradients<T> gradients{.weight_ih = has_weight_ih ? d_weight_ih.data() : nullptr,
                                          .weight_hh = has_hh ? d_weight_hh.data() : nullptr,
                                          .bias_ih = has_weight_ih ? d_bias_ih.data() : nullptr,
                                          .bias_hh = has_hh ? d_bias_hh.data() : nullptr,
                                          .weight_hr = projects ? d_weight_hr.data() : nullptr,
                                          .parameters = d_parameters.data()};
        kernels<T>().recurrence_backward({.cell = &cell,
                                          .sizes = sizes,
                                          .x = x.data(),
                                          .inputs = inputs,
                                          .weights = &weights,
                                          .saved = saved.data(),
                                          .tiles = shape.tiles,
                                          .state = states[0].data(),
                                          .unprojected = projects ? unprojected.data() : nullptr,
                                          .d_output = has_bias ? d_output.data() : nullptr,
                                          .d_states = d_state_data.data(),
                                          .d_x = d_x.data(),
                                          .gradients = &gradients});

        for (Arrays<T> *list : {&states, &record, &d_states})
            for (Array<T> &array : *list)
                results.push_back(std::move(array));
        for (Array<T> *array : {&output, &unprojected, &d_x, &d_weight_ih, &d_bias_ih, &d_weight_hh,
                                &d_bias_hh, &d_weight_hr, &d_parameters})
            results.push_back(std::move(*array));
        return results;
    }
};

} // namespace

template <class T> void test_recurrence(Random &random) {
    Recurrence<T> recurrence(random);
    where = recurrence.name();
    set_thread_count(1);
    Arrays<T> expected = recurrence.run();
    for (const Array<T> &array : expected)
        check(array.written(), "a result was not written");
    for (const Array<T> &array : expected)
        recurrences.add(array);
    for (int threads : {2, 3}) {
        set_thread_count(threads);
        check(same(recurrence.run(), expected), "the result depends on the number of threads");
    }
    recurrence.cell.built_in = -1;
    check(same(recurrence.run(), expected), "the compiled steps differ from the interpreter's");
}
template void test_recurrence<float>(Random &);
template void test_recurrence<double>(Random &);

namespace {

// Packed layers -----------------------------------------------------------------------------------

// A stack of random layers, and the same computation by the recurrence, layer by layer.
template <class T> struct Layers {
    int64_t batch, input, hidden, projected, count, ids, outputs;
    bool projects, has_bias, normalized;
    Cell cell;
    Arrays<T> weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, parameters, norm_weight, norm_bias;
    Array<T> table, weight, bias;

    explicit Layers(Random &random)
        : batch(random.one_of({0, 1, 2, 7, 20})), input(random.one_of({1, 5, 40})),
          hidden(random.one_of({1, 3, 16, 33, 70, 200})), projected(hidden),
          count(random.between(1, 3)), ids(random.one_of({0, 1, 9, 30})),
          outputs(ids > 0 ? ids : random.one_of({0, 1, 70})), projects(random.chance(4)),
          has_bias(random.chance(2)), normalized(random.chance(2)),
          cell(any_cell(random, projects)), table(0), weight(0), bias(0) {
        if (projects)
            projected = random.between(1, hidden);
        const int64_t X = cell.x_blocks * hidden, G = cell.h_blocks * hidden;
        for (int64_t l = 0; l < count; l++) {
            weight_ih.emplace_back(X * (l == 0 ? input : projected), random);
            weight_hh.emplace_back(G * projected, random);
            bias_ih.emplace_back(X, random);
            bias_hh.emplace_back(G, random);
            weight_hr.emplace_back(projected * hidden, random);
            norm_weight.emplace_back(projected, random);
            norm_bias.emplace_back(projected, random);
            for (int32_t k = 0; k < cell.parameters; k++)
                parameters.emplace_back(hidden, random);
        }
        table = {ids * input, random};
        weight = {outputs * projected, random};
        bias = {outputs, random};
    }

    std::string name() const {
        return "stack B " + std::to_string(batch) + " I " + std::to_string(input) + " H " +
               std::to_string(hidden) + " P " + std::to_string(projected) + " L " +
               std::to_string(count) + " V " + std::to_string(ids);
    }

    Array<T> product(int64_t rows, int64_t N, int64_t K, const T *x, const T *w, const T *b) const {
        Array<T> y(rows * N);
        kernels<T>().multiply(Use::weight, rows, N, K, {x, K, 1}, {w, 1, K}, y.data(), N, b, false);
        return y;
    }

    LayerWeights<T> layer(int64_t l) const {
        LayerWeights<T> w{.weight_ih = weight_ih[l].data(),
                          .weight_hh = cell.h_blocks > 0 ? weight_hh[l].data() : nullptr,
                          .bias_ih = has_bias ? bias_ih[l].data() : nullptr,
                          .bias_hh = has_bias && cell.h_blocks > 0 ? bias_hh[l].data() : nullptr,
                          .weight_hr = projects ? weight_hr[l].data() : nullptr,
                          .parameters = {}};
        for (int32_t k = 0; k < cell.parameters; k++)
            w.parameters.push_back(parameters[l * cell.parameters + k].data());
        return w;
    }

    std::unique_ptr<Stack<T>> make() const {
        StackWeights<T> w{.input = input,
                          .hidden = hidden,
                          .projected = projected,
                          .layers = {},
                          .ids = ids,
                          .table = ids > 0 ? table.data() : nullptr,
                          .outputs = outputs,
                          .weight = outputs > 0 ? weight.data() : nullptr,
                          .bias = outputs > 0 && has_bias ? bias.data() : nullptr,
                          .epsilon = T(1e-5)};
        for (int64_t l = 0; l < count; l++)
            w.layers.push_back({.weights = layer(l),
                                .norm_weight = normalized ? norm_weight[l].data() : nullptr,
                                .norm_bias = normalized ? norm_bias[l].data() : nullptr});
        return kernels<T>().make_stack(cell, w);
    }

    // The recurrence over x [steps, B, I]; updates the states in place.
    Array<T> run_recurrence(int64_t steps, const Array<T> &input_rows,
                            const Arrays<T> &states) const {
        Array<T> x = input_rows.copy();
        for (int64_t l = 0; l < count; l++) {
            const int64_t rows = steps * batch;
            Arrays<T> buffers; // the states before and after a step, since nothing is saved
            for (int32_t k = 0; k < cell.states; k++) {
                int64_t size = batch * (k == 0 ? projected : hidden);
                buffers.emplace_back(2 * size);
                for (int64_t j = 0; j < size; j++)
                    buffers.back()[j] = states[k][l * size + j];
            }
            Array<T> output(rows * projected), unprojected(batch * hidden);
            std::vector<T *> state_data = pointers(buffers);
            const LayerWeights<T> weights = layer(l);
            kernels<T>().recurrence_forward(
                {.cell = &cell,
                 .sizes = {steps, batch, hidden, projected},
                 .x = x.data(),
                 .inputs = l == 0 ? input : projected,
                 .weights = &weights,
                 .states = state_data.data(),
                 .output = output.data(),
                 .unprojected = projects ? unprojected.data() : nullptr});
            for (int32_t k = 0; k < cell.states; k++) {
                int64_t size = batch * (k == 0 ? projected : hidden);
                for (int64_t j = 0; j < size; j++)
                    states[k][l * size + j] = buffers[k][steps % 2 * size + j];
            }
            x = std::move(output);
            if (normalized) {
                Array<T> y(rows * projected), means(rows), factors(rows);
                kernels<T>().layer_norm_forward(rows, projected, x.data(), norm_weight[l].data(),
                                                norm_bias[l].data(), T(1e-5), y.data(),
                                                means.data(), factors.data());
                x = std::move(y);
            }
        }
        if (outputs == 0)
            return x;
        return product(steps * batch, outputs, projected, x.data(), weight.data(),
                       has_bias ? bias.data() : nullptr);
    }
};

} // namespace

template <class T> void test_stack(Random &random) {
    Layers<T> layers(random);
    where = layers.name();
    const int64_t B = layers.batch, steps = random.one_of({0, 1, 2, 5, 70}), rows = steps * B;
    Array<int64_t> ids(layers.ids > 0 ? rows : 0);
    Array<T> x(rows * layers.input, random);
    for (int64_t r = 0; r < ids.size(); r++) {
        ids[r] = random.below(layers.ids);
        for (int64_t k = 0; k < layers.input; k++)
            x[r * layers.input + k] = layers.table[ids[r] * layers.input + k];
    }
    Arrays<T> start;
    for (int32_t k = 0; k < layers.cell.states; k++)
        start.emplace_back(layers.count * B * (k == 0 ? layers.projected : layers.hidden), random);
    auto copy = [](const Arrays<T> &arrays) {
        Arrays<T> result;
        for (const Array<T> &array : arrays)
            result.push_back(array.copy());
        return result;
    };
    const std::unique_ptr<Stack<T>> stack = layers.make();
    layers.cell.built_in = -1;
    Arrays<T> expected_states = copy(start);
    Array<T> expected = layers.run_recurrence(steps, x, expected_states);

    const int64_t length = layers.ids > 0 && steps > 0 && B > 0 ? random.between(0, 4) : 0;
    Array<double> uniforms(length * B, random);
    Array<int64_t> first_sampled(0);
    for (int threads : {1, 2, 3}) {
        set_thread_count(threads);
        Arrays<T> states = copy(start);
        std::vector<T *> state_data = pointers(states);
        Array<T> outputs(rows * stack->width());
        const T *given = layers.ids > 0 ? nullptr : x.data();
        const int64_t *given_ids = layers.ids > 0 ? ids.data() : nullptr;
        stack->run({.steps = steps,
                    .batch = B,
                    .x = given,
                    .ids = given_ids,
                    .states = state_data.data(),
                    .outputs = outputs.data()});
        check(outputs == expected, "the outputs are not those of the recurrence");
        check(same(states, expected_states), "the states are not those of the recurrence");
        if (length == 0)
            continue;
        Array<int64_t> sampled(length * B);
        Array<T> logits(B * layers.outputs);
        int64_t count = stack->run({.steps = steps,
                                    .batch = B,
                                    .ids = given_ids,
                                    .states = state_data.data(),
                                    .outputs = logits.data(),
                                    .length = length,
                                    .sampling = {0.8, 3, 0.9},
                                    .uniforms = uniforms.data(),
                                    .sampled = sampled.data()});
        for (int64_t k = 0; k < count * B; k++)
            check(sampled[k] >= 0 && sampled[k] < layers.ids,
                  "an id outside the table was sampled");
        if (threads == 1)
            first_sampled = sampled.copy();
        for (int64_t k = 0; k < count * B; k++)
            check(sampled[k] == first_sampled[k], "the ids depend on the number of threads");
    }
}
template void test_stack<float>(Random &);
template void test_stack<double>(Random &);

void test_invalid_programs() {
    where = "invalid programs";
    auto refused = [](auto change) {
        Random random(7);
        Cell cell = random_cell(random, false);
        change(cell);
        try {
            cell.validate();
        } catch (const std::invalid_argument &) {
            return true;
        }
        return false;
    };
    check(!refused([](Cell &) {}), "a valid cell is refused");
    check(refused([](Cell &c) { c.forward.inputs = -1; }), "a negative number of inputs");
    check(refused([](Cell &c) { c.forward.inputs = INT32_MAX; }), "too many inputs");
    check(refused([](Cell &c) { c.parameters = INT32_MAX; }), "more parameters than inputs");
    check(refused([](Cell &c) { c.forward.outputs[0] = c.forward.values(); }), "an unknown output");
    check(refused([](Cell &c) { c.forward.instructions.push_back({Op::add, 0, 10000}); }),
          "an unknown operand");
    check(refused([](Cell &c) { c.backward.instructions.push_back({static_cast<Op>(99), 0, 0}); }),
          "an unknown operation");
    for (int32_t operand : {10000, INT32_MAX, INT32_MIN, -1})
        check(refused([=](Cell &c) { c.forward.instructions.push_back({Op::tanh, 0, operand}); }),
              "an unknown operand that is not read");
    check(refused([](Cell &c) { c.saved.push_back(-1); }), "an unknown saved value");
    check(refused([](Cell &c) { c.gates[0].x = c.x_blocks; }), "an unknown block");
    check(refused([](Cell &c) { c.states = 0; }), "no state");
}

// Random changes to a valid cell: those that are accepted must run within bounds.
void test_random_programs() {
    Random random(19);
    int refused = 0, ran = 0;
    set_thread_count(2);
    for (int k = 0; k < 4000; k++) {
        where = "random program " + std::to_string(k);
        Recurrence<float> recurrence(random);
        Cell &cell = recurrence.cell;
        cell.built_in = -1;
        std::vector<int32_t *> fields{&cell.forward.inputs, &cell.backward.inputs, &cell.states,
                                      &cell.parameters};
        for (Program *program : {&cell.forward, &cell.backward}) {
            for (Instruction &i : program->instructions)
                for (int32_t *field : {reinterpret_cast<int32_t *>(&i.op), &i.a, &i.b})
                    fields.push_back(field);
            for (int32_t &output : program->outputs)
                fields.push_back(&output);
        }
        for (GateInput &gate : cell.gates)
            for (int32_t *field : {&gate.x, &gate.h})
                fields.push_back(field);
        for (int32_t &value : cell.saved)
            fields.push_back(&value);
        const int32_t values = cell.forward.values();
        const int32_t states = cell.states, parameters = cell.parameters;
        for (int64_t changes = random.between(1, 3); changes > 0; changes--)
            *fields[static_cast<std::size_t>(random.below(static_cast<int64_t>(fields.size())))] =
                static_cast<int32_t>(
                    random.one_of({-1, 0, 1, 2, values - 1, values, values + 1, INT32_MAX,
                                   INT32_MIN, INT32_MAX - 1, random.below(20), random.below(20)}));
        try {
            cell.validate();
        } catch (const std::invalid_argument &) {
            refused++;
            continue;
        }
        // The arrays have the sizes of the original cell, which the module checks.
        if (cell.states != states || cell.parameters != parameters ||
            (recurrence.projects && cell.reads_first_state()) || recurrence.steps > 6)
            continue;
        recurrence.named.clear();
        recurrence.run();
        ran++;
    }
    check(refused > 500 && ran > 500, "too few programs of either kind");
}

// Callers

// Several threads call concurrently, while another changes the number of threads.
void test_callers() {
    where = "callers";
    Random random(11);
    std::vector<Recurrence<float>> recurrences;
    std::vector<Arrays<float>> expected;
    set_thread_count(1);
    while (recurrences.size() < 6) {
        recurrences.emplace_back(random);
        expected.push_back(recurrences.back().run());
    }
    std::atomic<int> running{4};
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 4; caller++)
        callers.emplace_back([&] {
            for (int repeat = 0; repeat < 5; repeat++)
                for (std::size_t k = 0; k < recurrences.size(); k++)
                    check(same(recurrences[k].run(), expected[k]),
                          "concurrent callers affect each other");
            running--;
        });
    for (int count = 1; running > 0; count = count % 4 + 1) {
        set_thread_count(count);
        std::this_thread::yield();
    }
    for (std::thread &caller : callers)
        caller.join();
}

// A forked child has its own pool. (No thread of the parent may be in a call here: it might hold
// the lock of AddressSanitizer's allocator, on which a child would wait forever.)
void test_fork() {
#if defined(__unix__) || defined(__APPLE__)
    where = "fork";
    Random random(13);
    Recurrence<float> recurrence(random);
    while (recurrence.batch < 9 || recurrence.hidden < 70 || recurrence.steps < 2)
        recurrence = Recurrence<float>(random);
    set_thread_count(2);
    Arrays<float> expected = recurrence.run();
    for (int k = 0; k < 10; k++) {
        pid_t child = fork();
        if (child == 0) {
            check(same(recurrence.run(), expected), "the child's result differs");
            std::_Exit(0);
        }
        int status = 1;
        check(child > 0 && waitpid(child, &status, 0) == child, "no child");
        check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child failed");
    }
#endif
}

} // namespace testing
