// The native engine's Python module: checks every argument, then calls the kernels without the GIL.
#include "module.h"
#include "pool.h"

NB_MODULE(_native, m) {
    using namespace anaphora;
    m.doc() = "The native engine.";
    if (!prepare_thread())
        throw std::bad_alloc();
    result_types();
    bind_cell(m);
    nb::module_ float32 = m.def_submodule("float32"), float64 = m.def_submodule("float64");
    bind_kernels<float>(float32);
    bind_kernels<double>(float64);
    bind_along<float>(float32);
    bind_along<double>(float64);
    bind_batches<float>(float32);
    bind_batches<double>(float64);
    bind_crf<float>(float32);
    bind_crf<double>(float64);
    bind_ctc<float>(float32);
    bind_ctc<double>(float64);
    bind_graph<float>(float32);
    bind_graph<double>(float64);
    bind_layers<float>(float32);
    bind_layers<double>(float64);
    bind_updates<float>(float32);
    bind_updates<double>(float64);
    bind_recurrence<float>(float32);
    bind_recurrence<double>(float64);
    bind_stack<float>(float32);
    bind_stack<double>(float64);
    m.def("get_num_threads", &thread_count);
    m.def("set_num_threads", &set_thread_count, "count"_a);
    m.def("instruction_set", [] { return instruction_set().name; });
    m.def("bfloat16_unit", &bfloat16_unit);
    m.def(
        "use_instruction_set",
        [](const char *name) {
            if (!use_instruction_set(name))
                refuse("this machine or build has no instruction set '" + std::string(name) + "'");
        },
        "name"_a);
    m.def("peak", [] {
        nb::gil_scoped_release release;
        return instruction_set().peak();
    });
}
