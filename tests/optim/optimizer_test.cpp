// A whole optimizer step against a float64 loop: norm, clipping, decay, rates, skipped updates.
#include "grist/optim/optimizer.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "grist/core/error.h"
#include "support/compare.h"

namespace grist {
namespace {

using namespace test;
using Floats = std::vector<float>;

constexpr double kInf = std::numeric_limits<double>::infinity();

struct Tensor {
  std::string name;
  Floats p, m, v, g;
  bool decay;
  double lr_factor;

  Tensor(std::string n, std::int64_t size, bool d, double factor)
      : name(std::move(n)),
        p(normals(size, name)),
        m(p.size()),
        v(p.size()),
        g(p.size()),
        decay(d),
        lr_factor(factor) {}
  OptimizerEntry entry() {
    const Shape n{static_cast<std::int64_t>(p.size())};
    return {.tensor = {.name = name, .shape = n, .decay = decay},
            .part = whole_part(n),
            .param = view(p, n),
            .grad = view(std::as_const(g), n),
            .state = {{"m", view(m, n)}, {"v", view(v, n)}},
            .lr_factor = lr_factor};
  }
};

// A matrix longer than a norm chunk, a router, a norm weight and an empty tensor.
struct Model {
  std::vector<Tensor> tensors;

  Model() {
    tensors.emplace_back("layers.0.w", 150000, true, 1.0);
    tensors.emplace_back("layers.0.router", 301, false, 0.5);
    tensors.emplace_back("final.norm", 17, false, 1.0);
    tensors.emplace_back("layers.0.none", 0, true, 1.0);
  }
  std::vector<OptimizerEntry> entries() {
    std::vector<OptimizerEntry> list;
    for (Tensor& t : tensors) list.push_back(t.entry());
    return list;
  }
  void set_gradients(int step, float scale) {
    for (Tensor& t : tensors) {
      const auto size = static_cast<std::int64_t>(t.g.size());
      const Floats g = normals(size, t.name + std::to_string(step), scale);
      std::copy(g.begin(), g.end(), t.g.begin());  // in place: the optimizer holds a view
    }
  }
};

// The same in double.
struct Reference {
  std::vector<std::vector<double>> p, m, v;
  int updates = 0;

  explicit Reference(const Model& model) {
    for (const Tensor& t : model.tensors) {
      p.emplace_back(t.p.begin(), t.p.end());
      m.emplace_back(t.p.size());
      v.emplace_back(t.p.size());
    }
  }
  static double norm(const Model& model) {
    double sum = 0;
    for (const Tensor& t : model.tensors)
      for (const float g : t.g) sum += static_cast<double>(g) * static_cast<double>(g);
    return std::sqrt(sum);
  }
  void step(const Model& model, const OptimConfig& c, double lr) {
    ++updates;
    const double n = norm(model);
    const double factor = c.clip_grad > 0 && n > c.clip_grad ? c.clip_grad / (n + 1e-6) : 1.0;
    for (std::size_t k = 0; k < model.tensors.size(); ++k) {
      const Tensor& t = model.tensors[k];
      for (std::size_t i = 0; i < t.p.size(); ++i) {
        const double g = factor * static_cast<double>(t.g[i]);
        m[k][i] = c.adam_beta1 * m[k][i] + (1 - c.adam_beta1) * g;
        v[k][i] = c.adam_beta2 * v[k][i] + (1 - c.adam_beta2) * g * g;
        const double direction =
            m[k][i] / (1 - std::pow(c.adam_beta1, updates)) /
            (std::sqrt(v[k][i] / (1 - std::pow(c.adam_beta2, updates))) + c.adam_eps);
        p[k][i] -= lr * t.lr_factor * (direction + (t.decay ? c.weight_decay : 0.0) * p[k][i]);
      }
    }
  }
  void expect_close(const Model& model) const {
    for (std::size_t k = 0; k < p.size(); ++k) {
      EXPECT_TRUE(close(model.tensors[k].p, p[k], {1e-6, 3e-6})) << model.tensors[k].name;
      EXPECT_TRUE(close(model.tensors[k].m, m[k], {3e-6, 1e-7})) << model.tensors[k].name;
      EXPECT_TRUE(close(model.tensors[k].v, v[k], {6e-6, 1e-8})) << model.tensors[k].name;
    }
  }
};

OptimConfig config(double clip) {
  OptimConfig c;
  c.clip_grad = clip;
  return c;
}

TEST(Optimizer, FollowsTheFormulaOverManySteps) {
  const CpuContext ctx;
  for (const double clip : {1.0, 0.0, 1e9}) {
    Model model;
    Reference reference(model);
    Optimizer optimizer(config(clip), model.entries());
    for (int step = 1; step <= 10; ++step) {
      model.set_gradients(step, 0.5F);
      const double norm = Reference::norm(model);

      const OptimizerResult r = optimizer.step(*ctx, {.lr = 1e-3 * step, .loss = 2.0});

      reference.step(model, config(clip), 1e-3 * step);
      EXPECT_TRUE(r.applied);
      EXPECT_NEAR(r.grad_norm, norm, 1e-9 * norm);
      EXPECT_DOUBLE_EQ(r.clip_factor, clip == 1.0 ? 1.0 / (r.grad_norm + 1e-6) : 1.0);
    }
    EXPECT_EQ(optimizer.updates(), 10);
    reference.expect_close(model);
  }
}

TEST(Optimizer, SkipsWhatIsNotFiniteAndDoesNotCountIt) {
  const CpuContext ctx;
  Model model;
  Reference reference(model);
  const OptimConfig c = config(1.0);
  Optimizer optimizer(c, model.entries());
  const auto good_step = [&](int step) {
    model.set_gradients(step, 1.0F);
    EXPECT_TRUE(optimizer.step(*ctx, {.lr = 1e-2, .loss = 1.0}).applied);
    reference.step(model, c, 1e-2);
  };
  const auto skipped = [&](double loss) {
    const Model before = model;
    const OptimizerResult r = optimizer.step(*ctx, {.lr = 1e-2, .loss = loss});
    EXPECT_FALSE(r.applied);
    for (std::size_t k = 0; k < before.tensors.size(); ++k) {
      EXPECT_EQ(model.tensors[k].p, before.tensors[k].p);
      EXPECT_EQ(model.tensors[k].m, before.tensors[k].m);
      EXPECT_EQ(model.tensors[k].v, before.tensors[k].v);
    }
    return r;
  };

  good_step(1);
  model.set_gradients(2, 1.0F);
  EXPECT_TRUE(std::isfinite(skipped(kInf).grad_norm));
  skipped(std::numeric_limits<double>::quiet_NaN());
  model.tensors[1].g[300] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(skipped(1.0).grad_norm));
  model.tensors[1].g[300] = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(skipped(1.0).grad_norm, kInf);
  EXPECT_EQ(optimizer.updates(), 1);
  good_step(3);

  EXPECT_EQ(optimizer.updates(), 2);
  reference.expect_close(model);  // the bias correction saw two updates, not six steps
}

TEST(Optimizer, ResumesFromItsUpdateCount) {
  const CpuContext ctx;
  Model straight;
  Optimizer a(config(1.0), straight.entries());
  for (int step = 1; step <= 3; ++step) {
    straight.set_gradients(step, 1.0F);
    a.step(*ctx, {.lr = 1e-2, .loss = 1.0});
  }
  Model resumed;
  for (int step = 1; step <= 3; ++step) {
    Optimizer b(config(1.0), resumed.entries());
    b.set_updates(step - 1);
    resumed.set_gradients(step, 1.0F);
    b.step(*ctx, {.lr = 1e-2, .loss = 1.0});
  }
  for (std::size_t k = 0; k < straight.tensors.size(); ++k)
    EXPECT_EQ(straight.tensors[k].p, resumed.tensors[k].p);
}

TEST(Optimizer, BitsDoNotDependOnThreadsOrOrderOfEntries) {
  const auto run = [](int threads, bool reversed) {
    const CpuContext ctx(threads);
    Model model;
    std::vector<OptimizerEntry> entries = model.entries();
    if (reversed) std::reverse(entries.begin(), entries.end());
    Optimizer optimizer(config(1.0), entries);
    model.set_gradients(1, 1.0F);
    const double norm = optimizer.step(*ctx, {.lr = 1e-2, .loss = 1.0}).grad_norm;
    return std::pair(norm, model.tensors[0].p);
  };
  const auto one = run(1, false);
  EXPECT_EQ(one, run(4, false));
  EXPECT_EQ(one, run(3, true));
}

// Spread over owners of pieces: each makes the partial sums of its own chunks, the norm is that of
// all in name order, and every piece is updated as the whole would be.
TEST(Optimizer, PiecesHaveTheBitsOfTheWhole) {
  const CpuContext ctx;
  Model whole, cut;
  whole.set_gradients(1, 1.0F);
  cut.set_gradients(1, 1.0F);
  Optimizer one(config(1.0), whole.entries());
  std::vector<OptimizerEntry> pieces;
  for (const OptimizerEntry& e : one.entries()) {  // in name order, with views of `whole`
    const auto it = std::find_if(cut.tensors.begin(), cut.tensors.end(),
                                 [&](const Tensor& t) { return t.name == e.tensor.name; });
    OptimizerEntry all = it->entry();
    const std::int64_t n = all.param.numel(), edge = std::min<std::int64_t>(n, 65536);
    for (const auto& [begin, end] :
         {std::pair(edge, n), std::pair<std::int64_t, std::int64_t>(0, edge)}) {
      OptimizerEntry piece = all;
      piece.part = {.begin = begin, .end = end};
      piece.param = rows(piece.param, begin, end);
      for (OptimizerState& s : piece.state) s.values = rows(s.values, begin, end);
      piece.grad = rows(piece.grad, begin, end);
      if (begin < end) pieces.push_back(piece);
    }
  }
  Optimizer many(config(1.0), pieces);
  std::vector<double> partials;
  for (const OptimizerEntry& e : many.entries()) {  // each as if it lay on another rank
    const GradientNorm norm({e.grad});
    std::vector<double> own(static_cast<std::size_t>(norm.num_partials()));
    norm.partials(*ctx, view(own, {norm.num_partials()}));
    partials.insert(partials.end(), own.begin(), own.end());
  }

  const OptimizerStep step{.lr = 1e-2, .loss = 1.0};
  const OptimizerResult a = one.step(*ctx, step);
  const double norm = norm_of(*ctx, view(partials, {static_cast<std::int64_t>(partials.size())}));
  many.update(*ctx, step, norm);

  EXPECT_EQ(a.grad_norm, norm);
  EXPECT_EQ(partials.size(), 5U);
  for (std::size_t k = 0; k < whole.tensors.size(); ++k) {
    EXPECT_EQ(whole.tensors[k].p, cut.tensors[k].p);
    EXPECT_EQ(whole.tensors[k].v, cut.tensors[k].v);
  }
}

TEST(Optimizer, ZeroGradientsOnlyDecay) {
  const CpuContext ctx;
  Model model;
  const Model before = model;
  Optimizer optimizer(config(1.0), model.entries());

  const OptimizerResult r = optimizer.step(*ctx, {.lr = 0.1, .loss = 1.0});

  EXPECT_EQ(r.grad_norm, 0.0);
  EXPECT_TRUE(r.applied);
  EXPECT_NEAR(model.tensors[0].p[5], before.tensors[0].p[5] * 0.99F, 1e-6F);
  EXPECT_EQ(model.tensors[1].p, before.tensors[1].p);
}

// What a rule for matrices is given: a whole one in its shape, the rest in chunks as before.
class Recorded final : public UpdateRule {
 public:
  std::vector<std::string> states(const OptimizedTensor& t) const override {
    return t.shape.rank() == 2 ? std::vector<std::string>{"momentum"} : std::vector<std::string>{};
  }
  CutRule cut(const OptimizedTensor& t) const override {
    return t.shape.rank() == 2 ? CutRule::whole : CutRule::chunks;
  }
  void apply(const Context& /*ctx*/, std::span<const UpdateItem> items,
             const UpdateStep& step) const override {
    for (const UpdateItem& item : items)
      seen += item.tensor->name + item.param.shape.str() + item.grad.shape.str() +
              std::to_string(item.state.size()) + " update " + std::to_string(step.number) + "\n";
  }
  mutable std::string seen;
};

TEST(Optimizer, ARuleThatNeedsMatricesGetsThemWhole) {
  const CpuContext ctx;
  Floats matrix(300 * 400), vector(70000), momentum(matrix.size());
  const Floats of_matrix(matrix.size(), 0.5F), of_vector(vector.size(), 0.5F);
  const auto entry = [&](const std::string& name, Floats& p, const Floats& gradient,
                         const Shape& shape) {
    return OptimizerEntry{.tensor = {.name = name, .shape = shape},
                          .part = whole_part(shape),
                          .param = view(p, shape),
                          .grad = view(gradient, shape),
                          .state = {}};
  };
  OptimizerEntry first = entry("matrix", matrix, of_matrix, {300, 400});
  first.state = {{"momentum", view(momentum, {300, 400})}};
  const auto rule = std::make_shared<Recorded>();

  Optimizer optimizer(rule, 1.0, {first, entry("vector", vector, of_vector, {70000})}, {});
  const OptimizerResult r = optimizer.step(*ctx, {.lr = 0.1, .loss = 1.0});

  EXPECT_TRUE(r.applied);
  EXPECT_NEAR(r.grad_norm, 0.5 * std::sqrt(190000.0), 1e-9);
  EXPECT_NE(rule->seen.find("matrix(300, 400)(300, 400)1 update 1\n"), std::string::npos);
  EXPECT_NE(rule->seen.find("vector(65536)(65536)0 update 1\n"), std::string::npos);
  EXPECT_NE(rule->seen.find("vector(4464)(4464)0 update 1\n"), std::string::npos);
  OptimizerEntry half = first;
  half.part.end = 65536;
  half.param = rows(reshape(first.param, {120000}), 0, 65536);
  half.grad = rows(reshape(first.grad, {120000}), 0, 65536);
  half.state[0].values = rows(reshape(first.state[0].values, {120000}), 0, 65536);
  EXPECT_THROW(Optimizer(rule, 1.0, {half}, {}), Error);
}

TEST(Optimizer, StatesHaveTheNamesThatCheckpointsOfBeforeHave) {
  const auto rule = make_update_rule({});
  EXPECT_EQ(rule->states({}), (std::vector<std::string>{"m", "v"}));
  EXPECT_EQ(state_tensor_name("m", "model.norm.weight"), "optim.m.model.norm.weight");
}

TEST(Optimizer, RefusesWhatDoesNotFit) {
  Model model;
  auto twice = model.entries();
  twice.push_back(twice[0]);
  EXPECT_THROW(Optimizer(config(1.0), twice), Error);
  auto short_state = model.entries();
  short_state[0].state[0] = short_state[1].state[0];
  EXPECT_THROW(Optimizer(config(1.0), short_state), Error);
  auto no_state = model.entries();
  no_state[0].state.pop_back();
  EXPECT_THROW(Optimizer(config(1.0), no_state), Error);
  auto other_state = model.entries();
  other_state[0].state[1].name = "momentum";
  EXPECT_THROW(Optimizer(config(1.0), other_state), Error);
  auto off_the_edge = model.entries();
  off_the_edge[0].tensor.shape = {151000};
  off_the_edge[0].part = {.begin = 1000, .end = 151000};
  EXPECT_THROW(Optimizer(config(1.0), off_the_edge), Error);
}

}  // namespace
}  // namespace grist
