// What may not change the numbers, and what must: threads, recomputation, batch sizes, schedules,
// validation, TensorBoard.
#include <algorithm>
#include <cstring>

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

// ---- TensorBoard -----------------------------------------------------------------------------

// Bit by bit, unlike the writer's table.
std::uint32_t masked_crc32c(std::string_view bytes) {
  std::uint32_t c = ~0U;
  for (const char b : bytes) {
    c ^= static_cast<unsigned char>(b);
    for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ ((c & 1U) != 0 ? 0x82F63B78U : 0U);
  }
  c = ~c;
  return ((c >> 15) | (c << 17)) + 0xa282ead8U;
}

std::uint32_t sum_at(const std::string& file, std::size_t at) {
  std::uint32_t sum = 0;
  std::memcpy(&sum, &file.at(at + 3) - 3, sizeof sum);
  return sum;
}

// One record's payload, its sums checked.
std::string take_record(std::string& file) {
  std::uint64_t size = 0;
  if (file.size() < 16) throw std::runtime_error("record without a header");
  std::memcpy(&size, file.data(), sizeof size);
  if (file.size() < 16 + size) throw std::runtime_error("record is cut");
  EXPECT_EQ(sum_at(file, 8), masked_crc32c(std::string_view(file).substr(0, 8)));
  EXPECT_EQ(sum_at(file, 12 + size), masked_crc32c(std::string_view(file).substr(12, size)));
  std::string payload = file.substr(12, size);
  file.erase(0, 16 + size);
  return payload;
}

std::uint64_t take_varint(std::string& bytes) {
  std::uint64_t v = 0;
  for (int shift = 0;; shift += 7) {
    const auto b = static_cast<unsigned char>(bytes.at(0));
    bytes.erase(0, 1);
    v |= static_cast<std::uint64_t>(b & 127U) << shift;
    if (b < 128) return v;
  }
}

// Fields of a protocol buffer message, numbers and bytes alike as bytes.
std::vector<std::pair<std::uint64_t, std::string>> fields(std::string message) {
  std::vector<std::pair<std::uint64_t, std::string>> out;
  while (!message.empty()) {
    const std::uint64_t key = take_varint(message);
    std::size_t size = 0;
    if ((key & 7) == 0) {
      const std::uint64_t v = take_varint(message);
      out.emplace_back(key >> 3, std::to_string(v));
      continue;
    }
    size = (key & 7) == 1 ? 8 : (key & 7) == 5 ? 4 : take_varint(message);
    out.emplace_back(key >> 3, message.substr(0, size));
    message.erase(0, size);
  }
  return out;
}

TEST(Tensorboard, EventsHoldTheMetrics) {
  ASSERT_EQ(world().train("board", {"log.tensorboard=true"}).code, 0);
  std::map<std::pair<std::string, std::int64_t>, float> scalars;
  int files = 0;
  for (const auto& entry : fs::directory_iterator(world() / "board/tensorboard")) {
    ++files;
    EXPECT_TRUE(entry.path().filename().string().starts_with("events.out.tfevents."));
    std::string file = read_text(entry.path());
    EXPECT_NE(take_record(file).find("brain.Event:2"), std::string::npos);
    while (!file.empty()) {
      std::int64_t step = 0;
      for (const auto& [number, bytes] : fields(take_record(file))) {
        if (number == 2) step = std::stoll(bytes);
        if (number != 5) continue;
        for (const auto& [_, value] : fields(bytes)) {
          const auto parts = fields(value);
          float v = 0;
          std::memcpy(&v, parts.at(1).second.data(), sizeof v);
          scalars[{parts.at(0).second, step}] = v;
        }
      }
    }
  }
  EXPECT_EQ(files, 1);
  int compared = 0;
  for (const Json& r : metrics_records(world() / "board")) {
    const std::int64_t step = r.at("step").as_int();
    const bool validation = r.find("val_loss") != nullptr;
    const std::vector<std::pair<std::string, std::string>> names =
        validation
            ? std::vector<std::pair<std::string, std::string>>{{"validation/validation",
                                                                "val_loss"}}
            : std::vector<std::pair<std::string, std::string>>{{"train/loss", "loss"},
                                                               {"train/lr", "lr"},
                                                               {"train/grad_norm", "grad_norm"},
                                                               {"moe/max_vio", "max_vio"}};
    for (const auto& [tag, key] : names) {
      ASSERT_TRUE(scalars.contains({tag, step})) << tag << " at step " << step;
      EXPECT_EQ((scalars[{tag, step}]), static_cast<float>(r.at(key).as_double())) << tag;
      ++compared;
    }
  }
  EXPECT_EQ(compared, 24 * 4 + 4);
}

}  // namespace
}  // namespace grist::test
