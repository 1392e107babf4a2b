// Packed stacks as Python holds them.
#pragma once

#include "casters.h"
#include "kernels.h"

template <>
inline constexpr const char *anaphora::held_name<anaphora::Stack<float>> = "Stack of float32";
template <>
inline constexpr const char *anaphora::held_name<anaphora::Stack<double>> = "Stack of float64";
template <class T>
struct nanobind::detail::type_caster<anaphora::Stack<T>> : held_caster<anaphora::Stack<T>> {};
