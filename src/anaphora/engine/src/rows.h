// Rows of a table: gathered and summed by index.
#pragma once

#include "weight.h"

namespace anaphora::ANAPHORA_ISA {

// The number of rows of `width` elements in a task.
inline std::int64_t rows_in_task(std::int64_t width) {
    return 1 + 8192 / std::max<std::int64_t>(width, 1);
}

template <class T>
void gather_rows(Units units, std::int64_t N, std::int64_t width, const T *table,
                 const std::int64_t *ids, T *rows) {
    std::int64_t count = rows_in_task(width);
    parallel((N + count - 1) / count, [=](std::int64_t task) {
        for (std::int64_t n = task * count; n < std::min(N, (task + 1) * count); n++) {
            std::copy_n(table + ids[n] * width, width, rows + n * width);
            if constexpr (sizeof(T) == 4)
                if (units.precision == Precision::int8)
                    Int8Rows::round(width, rows + n * width);
        }
    });
}

template <class T>
void sum_rows(std::int64_t M, std::int64_t width, const T *values, const std::int64_t *order,
              const std::int64_t *ends, T *sums) {
    std::int64_t count = rows_in_task(width);
    parallel((M + count - 1) / count, [=](std::int64_t task) {
        for (std::int64_t m = task * count; m < std::min(M, (task + 1) * count); m++) {
            std::int64_t begin = m == 0 ? 0 : ends[m - 1];
            T *sum = sums + m * width;
            std::copy_n(values + order[begin] * width, width, sum);
            for (std::int64_t n = begin + 1; n < ends[m]; n++) {
                const T *value = values + order[n] * width;
                for (std::int64_t k = 0; k < width; k++)
                    sum[k] += value[k];
            }
        }
    });
}

} // namespace anaphora::ANAPHORA_ISA
