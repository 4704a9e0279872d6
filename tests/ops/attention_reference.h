#pragma once
// The judge of attention: naive softmax and its gradients in float64, and how large the sums behind
// each output are, which is what rounded operands are judged by.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

namespace grist::test {

using Doubles = std::vector<double>;
using Lengths = std::vector<std::int32_t>;

struct AttentionCase {
  Lengths q, k;  // per document
  std::int64_t H, Hkv, Dh;
};

inline Lengths starts(const Lengths& lengths) {
  Lengths cu{0};
  for (const std::int32_t n : lengths) cu.push_back(cu.back() + n);
  return cu;
}

struct AttentionJudge {
  AttentionJudge(const AttentionCase& c_in, Doubles q_in, Doubles k_in, Doubles v_in)
      : c(c_in), q(std::move(q_in)), k(std::move(k_in)), v(std::move(v_in)) {}

  void forward() { visit_rows({}); }
  void backward(const Doubles& do_) {
    for (Doubles* x : {&dq, &dq_size}) x->assign(q.size(), 0);
    for (Doubles* x : {&dk, &dk_size, &dv, &dv_size}) x->assign(k.size(), 0);
    visit_rows(do_);
  }

  AttentionCase c;
  double scale = 1;
  Doubles q, k, v, o, lse, dq, dk, dv;
  Doubles o_size, dq_size, dk_size, dv_size;  // the same sums of absolute values

 private:
  void visit_rows(const Doubles& do_) {
    o.assign(q.size(), 0);
    o_size.assign(q.size(), 0);
    lse.assign(q.size() / static_cast<std::size_t>(c.Dh), 0);
    const Lengths cu_q = starts(c.q), cu_k = starts(c.k);
    for (std::size_t s = 0; s < c.q.size(); ++s)
      for (std::int64_t i = 0; i < c.q[s]; ++i)
        for (std::int64_t h = 0; h < c.H; ++h)
          row(cu_q[s] + i, cu_k[s], std::max<std::int64_t>(0, i + 1 + c.k[s] - c.q[s]), h, do_);
  }
  void row(std::int64_t i, std::int64_t first, std::int64_t n, std::int64_t h, const Doubles& do_) {
    const auto Dh = static_cast<std::size_t>(c.Dh);
    const std::size_t qi = static_cast<std::size_t>(i * c.H + h) * Dh;
    const auto at = [&](std::int64_t j) {
      return static_cast<std::size_t>(((first + j) * c.Hkv + h / (c.H / c.Hkv)) * c.Dh);
    };
    Doubles p(static_cast<std::size_t>(n));
    double sum = 0;
    for (std::int64_t j = 0; j < n; ++j) {
      double score = 0;
      for (std::size_t d = 0; d < Dh; ++d) score += q[qi + d] * k[at(j) + d];
      sum += p[static_cast<std::size_t>(j)] = std::exp(scale * score);
    }
    lse[qi / Dh] = std::log(sum);
    for (double& pj : p) pj /= sum;
    for (std::int64_t j = 0; j < n; ++j) {
      const double pj = p[static_cast<std::size_t>(j)];
      for (std::size_t d = 0; d < Dh; ++d) {
        o[qi + d] += pj * v[at(j) + d];
        o_size[qi + d] += pj * std::abs(v[at(j) + d]);
      }
    }
    if (do_.empty()) return;
    double delta = 0, delta_size = 0;
    for (std::size_t d = 0; d < Dh; ++d) {
      delta += do_[qi + d] * o[qi + d];
      delta_size += std::abs(do_[qi + d]) * o_size[qi + d];
    }
    for (std::int64_t j = 0; j < n; ++j)
      gradients(qi, at(j), p[static_cast<std::size_t>(j)], {delta, delta_size}, do_);
  }
  struct Sized {
    double value, size;
  };
  void gradients(std::size_t qi, std::size_t kj, double p, Sized delta, const Doubles& do_) {
    const auto Dh = static_cast<std::size_t>(c.Dh);
    double dp = 0, dp_size = 0;
    for (std::size_t d = 0; d < Dh; ++d) {
      dp += do_[qi + d] * v[kj + d];
      dp_size += std::abs(do_[qi + d] * v[kj + d]);
    }
    const double ds = scale * p * (dp - delta.value);
    const double ds_size = scale * p * (dp_size + delta.size);
    for (std::size_t d = 0; d < Dh; ++d) {
      dq[qi + d] += ds * k[kj + d];
      dk[kj + d] += ds * q[qi + d];
      dv[kj + d] += p * do_[qi + d];
      dq_size[qi + d] += ds_size * std::abs(k[kj + d]);
      dk_size[kj + d] += ds_size * std::abs(q[qi + d]);
      dv_size[kj + d] += p * std::abs(do_[qi + d]);
    }
  }
};

}  // namespace grist::test
