// Long phases without messages: the watchdog sees that a rank works.
#include <gtest/gtest.h>

#include "engine.h"
#include "rows.h"

namespace grist::train {
namespace {

TEST(SignsOfLife, EveryPhaseOfComputeGivesThemAllTheTime) {
  Config config;
  config.model = test::tiny_model();
  config.data.seq_length = kRowLength;
  config.train.micro_batch_size = 2;
  config.train.global_batch_size = 2;
  const auto world = comm::alone();
  Scratch scratch(Device::cpu, nullptr);
  Context ctx;
  ctx.scratch = &scratch;
  ctx.beats = &world->activity().beats;
  Engine engine(config, *world, ctx, nullptr);
  EXPECT_GE(world->activity().beats, 2U);
  const auto beats_of = [&](const std::function<void()>& phase) {
    const std::uint64_t before = world->activity().beats;
    phase();
    return world->activity().beats - before;
  };
  Batch batch;
  read_rows(0, 2, batch);

  const auto tensors = static_cast<std::uint64_t>(engine.model().parameters().tensors().size());
  const auto layers = static_cast<std::uint64_t>(config.model.num_hidden_layers);
  EXPECT_GE(beats_of([&] { engine.initialize(); }), tensors);
  EXPECT_GE(beats_of([&] { engine.refresh(); }), layers);
  EXPECT_GE(beats_of([&] { engine.warm_up(batch); }), 10 * layers);
  EXPECT_GE(beats_of([&] { engine.step({&batch, 1}, 1e-3, [] { return false; }); }), 10 * layers);
}

}  // namespace
}  // namespace grist::train
