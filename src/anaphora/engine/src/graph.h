// Small graphs of products, elementwise operations and layers, run in one call: an imported model's
// forward pass for a few rows, where the call of each operation would take longer than its work.
//
// Each sum of a product is one chain of multiply-adds, on every instruction set: fixed point has
// too few magnitudes for spectra, with which models of sound begin.
#pragma once

#include "recurrence.h"

#include <memory>
#include <optional>
#include <vector>

namespace anaphora::ANAPHORA_ISA {

template <class T> class PackedGraph final : public Graph<T> {
    static constexpr int W = lanes<T>;
    using Step = GraphStep<T>;
    using Weight = ChainWeight<Numbers<T>>;

  public:
    explicit PackedGraph(const GraphPlan<T> &plan)
        : Graph<T>(plan), size_(plan.size),
          constants_(plan.constants, plan.constants + plan.constant_count) {
        std::int64_t total = 0;
        for (const Step &s : plan.steps)
            if (s.kind == Step::Kind::product)
                total += padded<T>(Weight::size(shape(s)));
        T *at = memory_.get<T>(static_cast<std::size_t>(total));
        for (const Step &s : plan.steps) {
            Packed &to = steps_.emplace_back(Packed{s, {}, {}, {}});
            if (s.kind == Step::Kind::gather)
                to.places.assign(s.places, s.places + s.count);
            if (s.kind != Step::Kind::product)
                continue;
            const WeightShape weight_shape = shape(s);
            to.weight.emplace(weight_shape, Matrix<const T>{s.weight, 1, s.K}, at);
            at += padded<T>(Weight::size(weight_shape));
            if (s.bias != nullptr)
                to.bias.assign(s.bias, s.bias + s.N);
        }
    }

    void run(const std::vector<const T *> &from, const std::vector<T *> &to) const override {
        parallel(1, [&](std::int64_t) { // denormal numbers are flushed there
            static thread_local Scratch scratch;
            T *memory = scratch.get<T>(static_cast<std::size_t>(size_ + W));
            std::copy(constants_.begin(), constants_.end(), memory);
            for (std::size_t k = 0; k < from.size(); k++)
                std::copy_n(from[k], this->given[k].size(), memory + this->given[k].place);
            for (const Packed &s : steps_)
                run(s, memory);
            for (std::size_t k = 0; k < to.size(); k++)
                std::copy_n(memory + this->results[k].place, this->results[k].size(), to[k]);
        });
    }

  private:
    struct Packed {
        Step step;
        std::vector<std::int32_t> places;
        std::optional<Weight> weight;
        std::vector<T> bias;
    };

    static WeightShape shape(const Step &s) {
        return {.gates = 1, .units = s.N, .K = s.K, .blocks = column_blocks(s.K, s.N, W)};
    }

    static void run(const Packed &p, T *memory) {
        const Step &s = p.step;
        const T *a = memory + s.a;
        T *to = memory + s.to;
        switch (s.kind) {
        case Step::Kind::elementwise:
            return Tiles<T>::step(s.op, a, memory + s.b, to,
                                  static_cast<int>((s.count + W - 1) / W));
        case Step::Kind::square_root:
            ANAPHORA_INDEPENDENT
            for (std::int64_t k = 0; k < s.count; k++)
                to[k] = std::sqrt(a[k]);
            return;
        case Step::Kind::gather:
            ANAPHORA_INDEPENDENT
            for (std::int64_t k = 0; k < s.count; k++)
                to[k] = memory[p.places[static_cast<std::size_t>(k)]];
            return;
        case Step::Kind::product: return multiply(p, a, to);
        case Step::Kind::layers: {
            T *states[max_graph_states];
            for (std::size_t k = 0; k < s.states.size(); k++)
                states[k] = memory + s.states[k];
            s.layers->run(
                {.steps = s.count, .batch = s.batch, .x = a, .states = states, .outputs = to});
        }
        }
    }

    static void multiply(const Packed &p, const T *a, T *to) {
        static thread_local Scratch scratch;
        const Step &s = p.step;
        const std::vector<RowRange<T>> ranges{{a, static_cast<int>(s.count), 0}};
        typename Weight::Rows rows(*p.weight, s.count, false, scratch);
        rows.read(ranges, s.K, false);
        p.weight->multiply(0, column_count(s.N, W), rows, 0, 1, {to, s.row, W}, false);
        for (std::int64_t r = 0; r < s.count && !p.bias.empty(); r++)
            for (std::int64_t n = 0; n < s.N; n++)
                to[r * s.row + n] += p.bias[static_cast<std::size_t>(n)];
    }

    std::int64_t size_;
    std::vector<T> constants_;
    OwnScratch memory_;
    std::vector<Packed> steps_;
};

template <class T> std::unique_ptr<Graph<T>> make_graph(const GraphPlan<T> &plan) {
    return std::make_unique<PackedGraph<T>>(plan);
}

} // namespace anaphora::ANAPHORA_ISA
