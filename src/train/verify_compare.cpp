// The verdict of `grist verify parallel`.
#include <cmath>
#include <cstring>
#include <limits>

#include "grist/core/check.h"
#include "grist/train/verify.h"

namespace grist::train {

namespace {

// Sums in another order: some ulps of a float in each gradient; a loss is a mean of many.
constexpr double kLossBound = 1e-6;
constexpr double kGradientBound = 1e-5;

double relative(double a, double b) {
  if (a == b) return 0;
  const double scale = std::max(std::abs(a), std::abs(b));
  return std::isfinite(scale) ? std::abs(a - b) / scale : std::numeric_limits<double>::infinity();
}

struct Difference {
  double relative_norm = 0;  // |g - reference| / |reference|
  std::size_t where = 0;     // element that differs most
  bool same_bits = true;
};

Difference difference(const std::vector<float>& reference, const std::vector<float>& trial) {
  Difference d;
  d.same_bits = std::memcmp(reference.data(), trial.data(), reference.size() * sizeof(float)) == 0;
  double error = 0, norm = 0, worst = -1;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    const double r = reference[i], e = std::abs(static_cast<double>(trial[i]) - r);
    error += e * e;
    norm += r * r;
    if (e > worst || !std::isfinite(e)) {
      worst = e;
      d.where = i;
    }
  }
  d.relative_norm = error == 0 ? 0 : std::sqrt(error / std::max(norm, 1e-60));
  if (!std::isfinite(error)) d.relative_norm = std::numeric_limits<double>::infinity();
  return d;
}

class Comparison {
 public:
  explicit Comparison(bool exact) : exact_(exact) {}

  void steps(const std::vector<StepNumbers>& a, const std::vector<StepNumbers>& b) {
    GRIST_CHECK(a.size() == b.size(), "{} steps and {}", a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      result_.text += fmt::format("step {}: loss {:.9g} and {:.9g}", i + 1, a[i].loss, b[i].loss);
      number("loss", a[i].loss, b[i].loss, kLossBound);
      GRIST_CHECK(a[i].terms.size() == b[i].terms.size(), "{} loss terms and {}", a[i].terms.size(),
                  b[i].terms.size());
      for (std::size_t t = 0; t < a[i].terms.size(); ++t)
        number(a[i].terms[t].name, a[i].terms[t].value, b[i].terms[t].value, kLossBound);
      number("grad_norm", a[i].grad_norm, b[i].grad_norm, kGradientBound);
      result_.text += "\n";
    }
  }

  void gradients(const std::vector<NamedGradient>& a, const std::vector<NamedGradient>& b) {
    GRIST_CHECK(a.size() == b.size(), "{} gradients and {}", a.size(), b.size());
    std::size_t different = 0, worst_at = 0;
    double worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      GRIST_CHECK(a[i].name == b[i].name && a[i].values.size() == b[i].values.size(),
                  "{} beside {}", a[i].name, b[i].name);
      const Difference d = difference(a[i].values, b[i].values);
      if (d.relative_norm > worst) {
        worst = d.relative_norm;
        worst_at = i;
      }
      if (exact_ ? d.same_bits : d.relative_norm <= kGradientBound) continue;
      if (different++ > 0) continue;
      result_.text += fmt::format(
          "first gradient that differs, in the order of the backward pass: {}\n  by {:.3g} of its "
          "norm; most at element {}: {:.9g} and {:.9g}\n",
          a[i].name, d.relative_norm, d.where, a[i].values[d.where], b[i].values[d.where]);
    }
    result_.text +=
        fmt::format("gradients of step 1: {} of {} agree", a.size() - different, a.size());
    if (worst > 0)
      result_.text +=
          fmt::format("; largest difference {:.3g} of the norm, in {}", worst, a[worst_at].name);
    result_.text += "\n";
    if (different > 0) result_.ok = false;
  }

  Agreement finish() {
    const std::string bound = exact_ ? "every bit"
                                     : fmt::format("losses within {:g}, gradients within {:g}",
                                                   kLossBound, kGradientBound);
    result_.text += result_.ok ? fmt::format("the layouts agree ({})\n", bound)
                               : fmt::format("THE LAYOUTS DIFFER (wanted: {})\n", bound);
    return result_;
  }

 private:
  void number(std::string_view name, double a, double b, double bound) {
    const double r = relative(a, b);
    const bool fine = exact_ ? std::memcmp(&a, &b, sizeof a) == 0 : r <= bound;
    result_.text += fmt::format(" | {} {:.2g}{}", name, r, fine ? "" : " DIFFERS");
    if (!fine) result_.ok = false;
  }

  bool exact_;
  Agreement result_{.ok = true, .text = ""};
};

}  // namespace

Agreement compare_trials(const TrialResult& reference, const TrialResult& trial, bool exact) {
  Comparison c(exact);
  c.steps(reference.steps, trial.steps);
  c.gradients(reference.gradients, trial.gradients);
  return c.finish();
}

}  // namespace grist::train
