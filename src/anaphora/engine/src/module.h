// The parts of the Python module; each binds functions of one precision. No argument is converted:
// Python passes arrays of the right precision and layout.
#pragma once

#include "arrays.h"

namespace anaphora {

inline auto plain(const char *name) { return nb::arg(name).noconvert(); }
inline auto optional(const char *name) { return nb::arg(name).noconvert().none(); }

template <class T> void bind_kernels(nb::module_ &m);
template <class T> void bind_along(nb::module_ &m);
template <class T> void bind_batches(nb::module_ &m);
template <class T> void bind_crf(nb::module_ &m);
template <class T> void bind_ctc(nb::module_ &m);
template <class T> void bind_graph(nb::module_ &m);
template <class T> void bind_layers(nb::module_ &m);
template <class T> void bind_updates(nb::module_ &m);
template <class T> void bind_recurrence(nb::module_ &m);
template <class T> void bind_stack(nb::module_ &m);
void bind_cell(nb::module_ &m);

} // namespace anaphora
