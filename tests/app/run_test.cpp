// What may not change the numbers, and what must: threads, recomputation, batch sizes, schedules,
// validation, TensorBoard.
#include <algorithm>

#include "app/support.h"

namespace grist::test {
namespace {

namespace fs = std::filesystem;

TEST(SameNumbers, ForAnyNumberOfThreadsAndRecomputation) {
  ASSERT_EQ(world().train("same").code, 0);
  const std::vector<Arguments> variants = {{"threads=2"},
                                           {"threads=3"},
                                           {"data.tokenizer=tokenizer"},
                                           {"train.recompute=selective"},
                                           {"train.recompute=full"},
                                           {"train.recompute=full", "threads=2"},
                                           {"checkpoint.save_interval=0"},
                                           {"checkpoint.save_interval=7", "checkpoint.keep=1"}};
  for (const Arguments& sets : variants) {
    fs::remove_all(world() / "variant");
    ASSERT_EQ(world().train("variant", sets).code, 0) << sets[0];
    expect_same_run(world() / "variant", world() / "same");
    ASSERT_FALSE(HasFailure()) << sets[0];
  }
}

TEST(SameNumbers, ValidationAndLoggingDoNotTouchTraining) {
  ASSERT_EQ(world().train("quiet", {"train.eval_interval=0", "log.interval=8"}).code, 0);
  ASSERT_EQ(world().train("talkative", {"train.eval_interval=1"}).code, 0);
  EXPECT_TRUE(tensors(step_folder(world() / "quiet", 24)) ==
              tensors(step_folder(world() / "talkative", 24)));
}

// Without a balance loss and without capacity, a step's gradient does not depend on how its
// sequences are cut into micro-batches, but for rounding.
TEST(SameNumbers, ForAnyAccumulation) {
  const Arguments sets = {"model.moe.aux_loss_coeff=0", "train.train_iters=4",
                          "optim.lr_warmup_iters=0", "train.global_batch_size=8"};
  std::vector<double> losses;
  for (const char* size : {"1", "2", "8"}) {
    Arguments all = sets;
    all.push_back(std::string("train.micro_batch_size=") + size);
    const std::string run = std::string("micro-") + size;
    ASSERT_EQ(world().train(run, all).code, 0);
    for (const Json& r : metrics_records(world() / run))
      if (r.at("step").as_int() == 4 && r.find("loss") != nullptr)
        losses.push_back(r.at("loss").as_double());
  }
  ASSERT_EQ(losses.size(), 3U);
  EXPECT_NEAR(losses[1], losses[0], 2e-4 * losses[0]);
  EXPECT_NEAR(losses[2], losses[0], 2e-4 * losses[0]);
}

TEST(Schedules, BatchSizeRampResumesToo) {
  // 2, then 4, 6, 8 sequences a step as samples are consumed.
  const Arguments sets = {"train.global_batch_size=8", "train.rampup_batch_size=[2, 2, 24]",
                          "train.train_iters=16"};
  ASSERT_EQ(world().train("ramp", sets).code, 0);
  std::int64_t before = 0;
  std::vector<std::int64_t> sizes;
  for (const Json& r : metrics_records(world() / "ramp")) {
    if (r.find("loss") == nullptr) continue;
    sizes.push_back(r.at("samples").as_int() - before);
    before = r.at("samples").as_int();
    EXPECT_EQ(r.at("tokens").as_int(), before * 32);
  }
  ASSERT_EQ(sizes.size(), 16U);
  EXPECT_EQ(sizes.front(), 2);
  EXPECT_EQ(sizes.back(), 8);
  EXPECT_TRUE(std::is_sorted(sizes.begin(), sizes.end()));
  EXPECT_NE(std::find(sizes.begin(), sizes.end(), 4), sizes.end());

  for (int start = 0; start < 3; ++start) {
    Arguments limited = sets;
    limited.emplace_back("train.max_hours=1e-7");
    ASSERT_EQ(world().train("ramp-part", limited).code, 75);
  }
  ASSERT_EQ(world().train("ramp-part", sets).code, 0);
  expect_same_run(world() / "ramp-part", world() / "ramp");
}

TEST(Schedules, WsdWarmsUpHoldsAndDecays) {
  ASSERT_EQ(world()
                .train("wsd", {"optim.lr_decay_style=wsd", "optim.lr_wsd_decay_iters=8",
                               "optim.min_lr=3.0e-4", "train.eval_iters=2"})
                .code,
            0);
  for (const Json& r : metrics_records(world() / "wsd")) {
    if (r.find("loss") == nullptr) {
      EXPECT_LE(r.at("val_tokens").as_int(), 2 * 2 * 32);
      EXPECT_EQ(r.find("val_bits_per_byte"), nullptr);  // only a part of the text was read
      continue;
    }
    const auto step = static_cast<double>(r.at("step").as_int());
    double want = 3e-3;
    if (step <= 4) want = 3e-3 * step / 4;
    if (step > 16) want = 3e-4 + (3e-3 - 3e-4) * (24 - step) / 8;
    EXPECT_NEAR(r.at("lr").as_double(), want, 1e-12) << step;
  }
}

// The records' bytes: tests/train/tensorboard_test.cpp.
TEST(Tensorboard, OneEventFileHoldsEveryCurve) {
  ASSERT_EQ(world().train("board", {"log.tensorboard=true"}).code, 0);
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(world() / "board/tensorboard"))
    files.push_back(entry.path().filename().string());
  ASSERT_EQ(files.size(), 1U);
  EXPECT_TRUE(files[0].starts_with("events.out.tfevents."));
  const std::string events = read_text(world() / "board/tensorboard" / files[0]);
  for (const char* tag :
       {"train/loss", "train/lr", "train/grad_norm", "moe/max_vio", "validation/validation"})
    EXPECT_NE(events.find(tag), std::string::npos) << tag;
}

}  // namespace
}  // namespace grist::test
