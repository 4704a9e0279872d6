#pragma once
// What a step tells of itself, summed over its micro-batches. The two lists below serve all who
// reset, gather, add, log or compare the sums: a new one is a field, an entry, and the line of
// src/nn/statistics.cpp that takes it from the memory which a pass left.
#include <cstdint>
#include <string_view>
#include <vector>

#include "grist/config/config.h"

namespace grist::nn {

// Of one MoE layer; host memory.
struct LayerStatistics {
  std::vector<std::int64_t> counts;  // (E) choices per expert, before drops
  std::int64_t tokens = 0;
  std::int64_t dropped = 0;  // choices dropped by capacity
  double aux_loss = 0;       // weighted by micro_batch_weight, coefficient included
  double z_loss = 0;
  double entropy_sum = 0;  // nats, over tokens
  double top1_share_sum = 0;
};

struct StepStatistics {
  double loss_sum = 0;                  // CE over target tokens, nats
  double lm_head_z_loss = 0;            // times loss_scale, coefficient included
  std::vector<LayerStatistics> layers;  // MoE layers in order
  void reset();                         // keeps the layers' shapes
};

enum class SumKind {
  cross_entropy,  // over target tokens; logged as their mean
  loss_term,      // added to the loss as it is: nats, weight and coefficient included
  token_mean,     // over the layer's tokens; logged as their mean, layer by layer
};

template <class Owner> struct SumEntry {
  double Owner::*field;
  SumKind kind;
  std::string_view name;               // in metrics.jsonl, TensorBoard and `grist verify`
  std::string_view console;            // of a loss term, before its value on the console
  bool (*in_use)(const ModelConfig&);  // of a loss term: only then it is added and logged
};

inline constexpr auto kAlways = [](const ModelConfig&) { return true; };
inline constexpr auto kHeadZ = [](const ModelConfig& c) { return c.lm_head_z_loss_coeff != 0; };

inline constexpr SumEntry<LayerStatistics> kLayerSums[] = {
    {&LayerStatistics::aux_loss, SumKind::loss_term, "aux_loss", "aux", kAlways},
    {&LayerStatistics::z_loss, SumKind::loss_term, "z_loss", "z", kAlways},
    {&LayerStatistics::entropy_sum, SumKind::token_mean, "entropy", "", kAlways},
    {&LayerStatistics::top1_share_sum, SumKind::token_mean, "top1_share", "", kAlways},
};
inline constexpr SumEntry<StepStatistics> kModelSums[] = {
    {&StepStatistics::loss_sum, SumKind::cross_entropy, "loss", "", kAlways},
    {&StepStatistics::lm_head_z_loss, SumKind::loss_term, "lm_head_z_loss", "head z", kHeadZ},
};

// Calls f with every sum of both lists, always in the same order.
template <class Statistics, class F> void for_each_sum(Statistics& s, const F& f) {
  for (const auto& entry : kModelSums) f(s.*entry.field);
  for (auto& layer : s.layers)
    for (const auto& entry : kLayerSums) f(layer.*entry.field);
}

// The same for what is counted in whole numbers, where the order of additions does not matter.
template <class Statistics, class F> void for_each_count(Statistics& s, const F& f) {
  for (auto& layer : s.layers) {
    for (auto& n : layer.counts) f(n);
    f(layer.tokens);
    f(layer.dropped);
  }
}

struct LossTerm {
  std::string_view name, console;
  double value = 0;       // of the step, over all layers
  bool of_layers = true;  // else of the whole model
};
// What the loss consists of beside the cross entropy, in the order of the lists, layers' first.
std::vector<LossTerm> loss_terms(const ModelConfig& config, const StepStatistics& statistics);

struct TokenMean {
  std::string_view name;
  double value = 0;
};
std::vector<TokenMean> token_means(const LayerStatistics& layer);

}  // namespace grist::nn
