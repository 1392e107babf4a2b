// The Python face of the native engine: checks every argument, then calls the kernels without the
// interpreter's lock.
#include "kernels.h"
#include "pool.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace nb = nanobind;
using namespace nb::literals;

namespace anaphora {
namespace {

template <class T> using In = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
template <class T> using Strided = nb::ndarray<const T, nb::ndim<2>, nb::device::cpu>;
template <class T> using Out = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
template <class T> using Result = nb::ndarray<nb::numpy, T>;
using Lengths = std::optional<In<std::int64_t>>;

template <class T> const Kernels<T> &kernels() {
    if constexpr (sizeof(T) == 4)
        return instruction_set().f32;
    else
        return instruction_set().f64;
}

[[noreturn]] void refuse(const std::string &what) { throw std::invalid_argument(what); }

template <class Array>
void check_shape(const Array &array, std::initializer_list<std::int64_t> shape, const char *name) {
    bool fits = array.ndim() == shape.size();
    std::size_t axis = 0;
    for (std::int64_t size : shape)
        fits = fits && static_cast<std::int64_t>(array.shape(axis++)) == size;
    if (!fits)
        refuse(std::string("the shape of ") + name + " does not fit");
}

// Large arrays are kept when Python drops them, up to a total, because fresh pages cost more than
// most kernels.
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
        while (total_ > limit) { // the oldest goes
            std::free(kept_.front().data);
            total_ -= kept_.front().bytes;
            kept_.erase(kept_.begin());
        }
    }

    Recycler() { kept_.reserve(256); }

  private:
    static constexpr std::size_t huge = std::size_t{1} << 21, limit = std::size_t{256} << 20;

    // Sizes are rounded so that nearly equal ones share memory.
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

Recycler &recycler() {
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
        refuse(std::string(name) + " has two axes");
    return size(array, 1);
}

template <class T> Result<T> multiply(Strided<T> a, Strided<T> b, std::optional<In<T>> bias) {
    std::int64_t M = size(a, 0), K = size(a, 1), N = size(b, 1);
    if (size(b, 0) != K)
        refuse("matmul: the inner sizes differ");
    if (bias)
        check_shape(*bias, {N}, "bias");
    auto c = make<T>({a.shape(0), b.shape(1)});
    Matrix<const T> A{a.data(), a.stride(0), a.stride(1)}, B{b.data(), b.stride(0), b.stride(1)};
    const T *bias_data = bias ? bias->data() : nullptr;
    T *to = c.data();
    nb::gil_scoped_release release;
    kernels<T>().multiply(M, N, K, A, B, to, N, bias_data, false);
    return c;
}

void check_targets(const In<std::int64_t> &targets, std::int64_t N, std::int64_t V) {
    check_shape(targets, {N}, "targets");
    for (std::int64_t n = 0; n < N; n++)
        if (targets.data()[n] < 0 || targets.data()[n] >= V)
            refuse("cross_entropy: a target is outside 0..V-1");
}

template <class T>
nb::tuple cross_entropy_forward(In<T> logits, In<std::int64_t> targets, std::optional<Out<T>> out) {
    if (logits.ndim() != 2)
        refuse("cross_entropy: logits are [N, V]");
    std::int64_t N = size(logits, 0), V = size(logits, 1);
    check_targets(targets, N, V);
    auto losses = make<T>({logits.shape(0)});
    nb::object probabilities;
    T *l = losses.data(), *p = nullptr;
    if (out) {
        check_shape(*out, {N, V}, "out");
        p = out->data();
        probabilities = nb::cast(*out);
    } else {
        auto made = make<T>({logits.shape(0), logits.shape(1)});
        p = made.data();
        probabilities = nb::cast(made);
    }
    {
        nb::gil_scoped_release release;
        kernels<T>().cross_entropy_forward(N, V, logits.data(), targets.data(), l, p);
    }
    return nb::make_tuple(losses, probabilities);
}

template <class T>
Result<T> cross_entropy_backward(In<T> probabilities, In<std::int64_t> targets, In<T> d_losses) {
    if (probabilities.ndim() != 2)
        refuse("cross_entropy: probabilities are [N, V]");
    std::int64_t N = size(probabilities, 0), V = size(probabilities, 1);
    check_targets(targets, N, V);
    check_shape(d_losses, {N}, "d_losses");
    auto d = make<T>({probabilities.shape(0), probabilities.shape(1)});
    T *to = d.data();
    nb::gil_scoped_release release;
    kernels<T>().cross_entropy_backward(N, V, probabilities.data(), targets.data(), d_losses.data(),
                                        to);
    return d;
}

template <class T> Result<T> sum_columns(In<T> x) {
    if (x.ndim() != 2)
        refuse("sum_columns: x is [M, N]");
    auto sums = make<T>({x.shape(1)});
    T *to = sums.data();
    nb::gil_scoped_release release;
    kernels<T>().sum_columns(size(x, 0), size(x, 1), x.data(), to);
    return sums;
}

template <class T>
void sgd(Out<T> parameter, In<T> gradient, double learning_rate, double weight_decay) {
    if (parameter.size() != gradient.size())
        refuse("sgd: a gradient of another size than its parameter");
    nb::gil_scoped_release release;
    kernels<T>().sgd(static_cast<std::int64_t>(parameter.size()), parameter.data(), gradient.data(),
                     static_cast<T>(learning_rate), static_cast<T>(weight_decay));
}

template <class T> void scale(Out<T> x, double factor) {
    nb::gil_scoped_release release;
    kernels<T>().scale(static_cast<std::int64_t>(x.size()), x.data(), static_cast<T>(factor));
}

template <class T> double sum_of_squares(In<T> x) {
    nb::gil_scoped_release release;
    return kernels<T>().sum_of_squares(static_cast<std::int64_t>(x.size()), x.data());
}

// The recurrence
// -----------------------------------------------------------------------------------

Program program(std::int32_t inputs, const std::vector<double> &constants,
                const std::vector<std::int32_t> &code, const std::vector<std::int32_t> &outputs) {
    if (code.size() % 3 != 0)
        refuse("program: instructions are triples (operation, a, b)");
    Program p{inputs, constants, {}, outputs};
    for (std::size_t k = 0; k < code.size(); k += 3)
        p.instructions.push_back({static_cast<Op>(code[k]), code[k + 1], code[k + 2]});
    return p;
}

struct Shapes {
    std::int64_t T, B, H, P;
};

template <class Array>
void check_states(const Cell &cell, const Shapes &s, const std::vector<Array> &states,
                  std::int64_t steps, const char *name) {
    if (static_cast<std::int32_t>(states.size()) != cell.states)
        refuse(std::string("recurrence: the number of ") + name);
    for (std::size_t k = 0; k < states.size(); k++) {
        if (steps > 0)
            check_shape(states[k], {steps, s.B, k == 0 ? s.P : s.H}, name);
        else
            check_shape(states[k], {s.B, k == 0 ? s.P : s.H}, name);
    }
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

// states: [T+1, B, P] and [T+1, B, H], whose step 0 is the initial state, by position; they are
// filled in. Returns the output, what the way back needs, the first state before its projection,
// and the recorded values.
template <class T>
nb::tuple recurrence_forward(const Cell &cell, In<T> x_gates, std::vector<Out<T>> states,
                             std::optional<In<T>> weight_hh, std::optional<In<T>> bias_hh,
                             std::optional<In<T>> weight_hr, std::vector<In<T>> parameters,
                             Lengths lengths, bool reverse, bool save,
                             std::vector<std::int32_t> named) {
    if (x_gates.ndim() != 3 || states.empty() || states[0].ndim() != 3)
        refuse("recurrence: x_gates and states have three axes");
    Shapes s{size(x_gates, 0), size(x_gates, 1), 0, size(states[0], 2)};
    s.H = weight_hr ? columns(*weight_hr, "weight_hr") : s.P;
    check_shape(x_gates, {s.T, s.B, cell.x_blocks * s.H}, "x_gates");
    check_states(cell, s, states, s.T + 1, "states");
    if (weight_hh.has_value() != (cell.h_blocks > 0))
        refuse("recurrence: weight_hh is there just if the cell has recurrent halves");
    if (weight_hh)
        check_shape(*weight_hh, {cell.h_blocks * s.H, s.P}, "weight_hh");
    if (bias_hh)
        check_shape(*bias_hh, {cell.h_blocks * s.H}, "bias_hh");
    if (weight_hr)
        check_shape(*weight_hr, {s.P, s.H}, "weight_hr");
    if (static_cast<std::int32_t>(parameters.size()) != cell.parameters)
        refuse("recurrence: the number of parameters");
    for (const auto &p : parameters)
        check_shape(p, {s.H}, "parameters");
    for (std::int32_t value : named) {
        if (value < 0 || value >= cell.forward.values())
            refuse("recurrence: a named value that does not exist");
        if (weight_hr && value == cell.first_state())
            refuse("recurrence: a projected state cannot be recorded before its step");
    }
    if (weight_hr && cell.reads_first_state())
        refuse("recurrence: a state that the program reads cannot be projected");

    auto uT = static_cast<std::size_t>(s.T), uB = static_cast<std::size_t>(s.B);
    auto uH = static_cast<std::size_t>(s.H), uP = static_cast<std::size_t>(s.P);
    auto output = make<T>({uT, uB, uP});
    std::optional<Result<T>> unprojected;
    if (weight_hr)
        unprojected = make<T>({uT, uB, uH});
    std::optional<Result<T>> saved;
    if (save)
        saved = make<T>(
            {static_cast<std::size_t>(kernels<T>().recurrence_saved(cell, s.T, s.B, s.H, s.P))});
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
                 x_gates.data(),
                 weight_hh ? weight_hh->data() : nullptr,
                 bias_hh ? bias_hh->data() : nullptr,
                 weight_hr ? weight_hr->data() : nullptr,
                 parameter_data.data(),
                 check_lengths(lengths, s),
                 reverse,
                 state_data.data(),
                 output.data(),
                 saved ? saved->data() : nullptr,
                 unprojected ? unprojected->data() : nullptr,
                 static_cast<std::int32_t>(named.size()),
                 named.data(),
                 record_data.data()};
    {
        nb::gil_scoped_release release;
        kernels<T>().recurrence_forward(f);
    }
    return nb::make_tuple(output, saved, unprojected, recorded);
}

// saved: as recurrence_forward returned it; d_states: of the final states, by position; on return
// of the initial ones. Returns the gradients of x_gates, of the recurrent halves and of the
// projected state at every step (None where there are none), and of the parameters for each row.
template <class T>
nb::tuple recurrence_backward(const Cell &cell, In<T> saved, std::optional<In<T>> d_output,
                              std::vector<Out<T>> d_states, std::int64_t steps,
                              std::optional<In<T>> weight_hh, std::optional<In<T>> weight_hr,
                              Lengths lengths, bool reverse) {
    if (d_states.empty() || d_states[0].ndim() != 2)
        refuse("recurrence: d_states have two axes");
    Shapes s{steps, size(d_states[0], 0), 0, size(d_states[0], 1)};
    s.H = weight_hr ? columns(*weight_hr, "weight_hr") : s.P;
    check_states(cell, s, d_states, 0, "d_states");
    check_shape(saved, {kernels<T>().recurrence_saved(cell, s.T, s.B, s.H, s.P)}, "saved");
    if (d_output)
        check_shape(*d_output, {s.T, s.B, s.P}, "d_output");
    if (weight_hh.has_value() != (cell.h_blocks > 0))
        refuse("recurrence: weight_hh is there just if the cell has recurrent halves");
    if (weight_hh)
        check_shape(*weight_hh, {cell.h_blocks * s.H, s.P}, "weight_hh");
    if (weight_hr)
        check_shape(*weight_hr, {s.P, s.H}, "weight_hr");

    auto uT = static_cast<std::size_t>(s.T), uB = static_cast<std::size_t>(s.B);
    auto uH = static_cast<std::size_t>(s.H), uP = static_cast<std::size_t>(s.P);
    auto d_x_gates = make<T>({uT, uB, static_cast<std::size_t>(cell.x_blocks) * uH});
    std::optional<Result<T>> d_h_gates, d_projected;
    bool whole = !lengths && !reverse;
    for (const GateInput &gate : cell.gates)
        whole = whole && gate.x == gate.h;
    if (whole)
        d_h_gates = d_x_gates;
    else if (cell.h_blocks > 0)
        d_h_gates = make<T>({uT, uB, static_cast<std::size_t>(cell.h_blocks) * uH});
    if (weight_hr)
        d_projected = make<T>({uT, uB, uP});
    auto d_parameters = make<T>({static_cast<std::size_t>(cell.parameters), uB, uH});
    std::fill_n(d_parameters.data(), static_cast<std::size_t>(cell.parameters) * uB * uH, T(0));
    std::vector<T *> state_data;
    for (auto &state : d_states)
        state_data.push_back(state.data());
    Backward<T> f{&cell,
                  s.T,
                  s.B,
                  s.H,
                  s.P,
                  weight_hh ? weight_hh->data() : nullptr,
                  weight_hr ? weight_hr->data() : nullptr,
                  check_lengths(lengths, s),
                  reverse,
                  saved.data(),
                  d_output ? d_output->data() : nullptr,
                  state_data.data(),
                  d_x_gates.data(),
                  d_h_gates ? d_h_gates->data() : nullptr,
                  d_projected ? d_projected->data() : nullptr,
                  d_parameters.data()};
    {
        nb::gil_scoped_release release;
        kernels<T>().recurrence_backward(f);
    }
    return nb::make_tuple(d_x_gates, d_h_gates, d_projected, d_parameters);
}

// No argument is converted: Python gives arrays of the right precision and layout.
template <class T> void bind(nb::module_ m) {
    auto plain = [](const char *name) { return nb::arg(name).noconvert(); };
    auto optional = [](const char *name) { return nb::arg(name).noconvert().none(); };
    m.def("matmul", &multiply<T>, plain("a"), plain("b"), optional("bias"));
    m.def("cross_entropy_forward", &cross_entropy_forward<T>, plain("logits"), plain("targets"),
          optional("out"));
    m.def("cross_entropy_backward", &cross_entropy_backward<T>, plain("probabilities"),
          plain("targets"), plain("d_losses"));
    m.def("sum_columns", &sum_columns<T>, plain("x"));
    m.def("sgd", &sgd<T>, plain("parameter"), plain("gradient"), "learning_rate"_a,
          "weight_decay"_a);
    m.def("scale", &scale<T>, plain("x"), "factor"_a);
    m.def("sum_of_squares", &sum_of_squares<T>, plain("x"));
    m.def("recurrence_forward", &recurrence_forward<T>, "cell"_a, plain("x_gates"), plain("states"),
          optional("weight_hh"), optional("bias_hh"), optional("weight_hr"), plain("parameters"),
          optional("lengths"), "reverse"_a, "save"_a, "named"_a);
    m.def("recurrence_backward", &recurrence_backward<T>, "cell"_a, plain("saved"),
          optional("d_output"), plain("d_states"), "steps"_a, optional("weight_hh"),
          optional("weight_hr"), optional("lengths"), "reverse"_a);
}

} // namespace
} // namespace anaphora

NB_MODULE(_native, m) {
    using namespace anaphora;
    m.doc() = "The native engine.";
    nb::class_<Cell>(m, "Cell").def(
        "__init__",
        [](Cell *self, nb::tuple forward, nb::tuple backward,
           const std::vector<std::pair<std::int32_t, std::int32_t>> &gates,
           const std::vector<std::int32_t> &saved, std::int32_t states, std::int32_t parameters) {
            auto read = [](const nb::tuple &t) {
                if (t.size() != 4)
                    refuse("program: (inputs, constants, instructions, outputs)");
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
    bind<float>(m.def_submodule("float32"));
    bind<double>(m.def_submodule("float64"));
    m.def("get_num_threads", &thread_count);
    m.def("set_num_threads", &set_thread_count, "count"_a);
    m.def("instruction_set", [] { return std::string(instruction_set().name); });
    m.def(
        "use_instruction_set",
        [](const std::string &name) {
            if (!use_instruction_set(name.c_str()))
                refuse("this machine or build has no instruction set '" + name + "'");
        },
        "name"_a);
    m.def("peak", [] {
        nb::gil_scoped_release release;
        return instruction_set().peak();
    });
}
