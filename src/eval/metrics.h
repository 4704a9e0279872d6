#pragma once
// From log-likelihoods to numbers, as lm-evaluation-harness 0.4.13 computes them.
#include "grist/eval/evaluate.h"
#include "tasks.h"

namespace grist::eval {

// Fills the metrics of a sample whose choices have their log-likelihoods.
void judge(Sample& sample, const Item& item, bool acc_norm);

// Mean and standard error of values; `name` is kept. No values: none.
std::optional<Metric> mean_of(const std::string& name, const std::vector<double>& values);
std::vector<Metric> metrics_of(const std::vector<Sample>& samples);

// Size-weighted mean and pooled standard error of what all subtasks have.
std::vector<Metric> pooled(const std::vector<const TaskResult*>& subtasks);

// The metric of that name, or null.
const Metric* find_metric(const std::vector<Metric>& metrics, std::string_view name);

}  // namespace grist::eval
