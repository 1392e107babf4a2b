// Python bindings of graphs.
#include "held_stack.h"
#include "layer_arrays.h"
#include "module.h"

template <>
inline constexpr const char *anaphora::held_name<anaphora::Graph<float>> = "Graph of float32";
template <>
inline constexpr const char *anaphora::held_name<anaphora::Graph<double>> = "Graph of float64";
template <class T>
struct nanobind::detail::type_caster<anaphora::Graph<T>> : held_caster<anaphora::Graph<T>> {};

namespace anaphora {
namespace {

// The items of a tuple that describes a step, one after the other.
class Items {
  public:
    explicit Items(nb::handle tuple) : tuple_(tuple) {}

    nb::object next() { return item_of(tuple_, position_++); }
    template <class T> T next() {
        T value;
        if (!convert(next(), value, nullptr))
            throw nb::type_error(("graph: incompatible function arguments: item " +
                                  std::to_string(position_ - 1) + " of a step is of another type")
                                     .c_str());
        return value;
    }
    std::string text() {
        const nb::object item = next();
        const char *text = PyUnicode_Check(item.ptr()) ? PyUnicode_AsUTF8(item.ptr()) : nullptr;
        if (text == nullptr)
            refuse("graph: a step's name is no text");
        return text;
    }

  private:
    nb::handle tuple_;
    std::size_t position_ = 0;
};

// Steps as they are read, with the arrays whose data they point to.
template <class T> class ReadSteps {
  public:
    explicit ReadSteps(std::int64_t size) : size_(size) {}

    void add(nb::handle tuple) {
        using Kind = typename GraphStep<T>::Kind;
        Items items(tuple);
        const std::string name = items.text();
        GraphStep<T> step{};
        step.to = items.next<std::int64_t>();
        if (name == "gather") {
            step.kind = Kind::gather;
            const auto &places = arrays_.emplace_back(items.next<In<std::int64_t>>());
            step.count = static_cast<std::int64_t>(places.size());
            step.places = places.data();
            for (std::int64_t k = 0; k < step.count; k++)
                check(step.places[k], 1);
            check(step.to, step.count);
        } else if (name == "product") {
            step.kind = Kind::product;
            step.row = items.next<std::int64_t>();
            step.a = items.next<std::int64_t>();
            step.count = items.next<std::int64_t>();
            const auto &weight = weights_.emplace_back(items.next<In<T>>());
            step.K = columns(weight, "graph: a weight");
            step.N = size(weight, 0);
            step.weight = weight.data();
            if (auto bias = items.next<Maybe<T>>()) {
                check_shape(*bias, {step.N}, "graph: a bias");
                step.bias = weights_.emplace_back(std::move(*bias)).data();
            }
            constexpr std::int64_t line = 64 / sizeof(T);
            if (step.count < 0 || step.N < 1 || step.row < (step.N + line - 1) / line * line)
                refuse("graph: a product of no such sizes");
            check(step.a, step.count * step.K);
            check(step.to, step.count * step.row);
        } else if (name == "layers") {
            step.kind = Kind::layers;
            step.a = items.next<std::int64_t>();
            step.count = items.next<std::int64_t>();
            step.batch = items.next<std::int64_t>();
            nb::detail::make_caster<Stack<T>> stack;
            if (!stack.from_python(items.next(), 0, nullptr))
                refuse("graph: layers that are not packed");
            step.layers = stack.held;
            step.states = items.next<std::vector<std::int64_t>>();
            const Stack<T> &s = *step.layers;
            if (step.count < 0 || step.batch < 0 || s.ids > 0 || s.layer_count != 1 ||
                static_cast<std::int32_t>(step.states.size()) != s.cell.states ||
                step.states.size() > max_graph_states)
                refuse("graph: layers of no such sizes");
            check(step.a, step.count * step.batch * s.input);
            check(step.to, step.count * step.batch * s.width());
            for (std::size_t k = 0; k < step.states.size(); k++)
                check(step.states[k], step.batch * (k == 0 ? s.projected : s.hidden));
        } else {
            step.a = items.next<std::int64_t>();
            step.b = items.next<std::int64_t>();
            step.count = items.next<std::int64_t>();
            for (std::int64_t place : {step.to, step.a, step.b})
                check(place, step.count);
            int op = 0;
            while (op < op_count && name != op_names[op])
                op++;
            if (name == "square_root")
                step.kind = Kind::square_root;
            else if (op == op_count)
                refuse("graph: unknown operation '" + name + "'");
            step.op = static_cast<Op>(op < op_count ? op : 0);
        }
        steps_.push_back(std::move(step));
    }

    std::vector<GraphStep<T>> take() { return std::move(steps_); }

    void check(std::int64_t place, std::int64_t count) const {
        if (place < 0 || count < 0 || place > size_ || count > size_ - place)
            refuse("graph: a place outside its memory");
    }

  private:
    std::int64_t size_;
    std::vector<GraphStep<T>> steps_;
    std::vector<In<std::int64_t>> arrays_;
    std::vector<In<T>> weights_;
};

using Places = std::vector<std::pair<std::int64_t, std::vector<std::size_t>>>;

template <class T>
Held<Graph<T>> make_graph(std::int64_t memory, In<T> constants, Places given, Places results,
                          nb::object steps) {
    if (memory < 0 || memory > std::numeric_limits<std::int32_t>::max() ||
        static_cast<std::int64_t>(constants.size()) > memory)
        refuse("graph: a memory of no such size");
    GraphPlan<T> plan{.size = memory,
                      .constant_count = static_cast<std::int64_t>(constants.size()),
                      .constants = constants.data(),
                      .given = {},
                      .results = {},
                      .steps = {}};
    ReadSteps<T> read(memory);
    for (auto [places, to] : {std::pair{&given, &plan.given}, std::pair{&results, &plan.results}})
        for (auto &[place, shape] : *places) {
            read.check(place, to->emplace_back(GraphArray{place, std::move(shape)}).size());
        }
    const std::ptrdiff_t count = count_items(steps);
    for (std::ptrdiff_t k = 0; k < count; k++)
        read.add(item_of(steps, static_cast<std::size_t>(k)));
    plan.steps = read.take();
    const Kernels<T> &with = kernels<T>();
    nb::gil_scoped_release release;
    return {with.make_graph(plan)};
}

template <class T> nb::object run_graph(const Graph<T> &graph, std::vector<In<T>> given) {
    if (!prepare_thread())
        throw std::bad_alloc();
    if (given.size() != graph.given.size())
        refuse("graph: a wrong number of arrays");
    std::vector<const T *> from;
    for (std::size_t k = 0; k < given.size(); k++) {
        if (static_cast<std::int64_t>(given[k].size()) != graph.given[k].size())
            refuse("graph: an array of another size");
        from.push_back(given[k].data());
    }
    std::vector<T *> to;
    nb::object results = nb::steal(PyTuple_New(std::ssize(graph.results)));
    if (!results.is_valid())
        throw nb::python_error();
    for (std::size_t k = 0; k < graph.results.size(); k++) {
        const auto result = make<T>(graph.results[k].shape);
        to.push_back(result.data());
        PyTuple_SetItem(results.ptr(), static_cast<Py_ssize_t>(k), result.object().inc_ref().ptr());
    }
    nb::gil_scoped_release release;
    graph.run(from, to);
    return results;
}

} // namespace

template <class T> void bind_graph(nb::module_ &m) {
    m.def("make_graph", &make_graph<T>, "memory"_a, plain("constants"), plain("given"),
          plain("results"), "steps"_a);
    m.def("run_graph", &run_graph<T>, "graph"_a, plain("given"));
}

template void bind_graph<float>(nb::module_ &);
template void bind_graph<double>(nb::module_ &);

} // namespace anaphora
