// The memory table at start-up is true: the process stays within 10 % of the printed sum.
#include <cmath>

#include "app/support.h"

namespace grist::test {
namespace {

// "  sum        8.88 MiB"
double bytes_of(const std::string& out, const std::string& label) {
  for (const std::string& line : lines(out)) {
    if (!line.starts_with("  " + label + " ")) continue;
    const std::size_t unit = line.find_last_of(' ');
    const std::size_t number = line.find_last_of(' ', unit - 1);
    double scale = 1;
    for (const char* name : {"B", "KiB", "MiB", "GiB", "TiB"}) {
      if (line.substr(unit + 1) == name) return std::stod(line.substr(number)) * scale;
      scale *= 1024;
    }
  }
  return 0;
}

TEST(Memory, StaysWithinTenPercentOfThePrintedSum) {
  if (kSanitized) GTEST_SKIP() << "sanitizers take memory of their own";
  for (const char* recompute : {"none", "full"}) {
    const Outcome o = world().run(
        {"train", GRIST_SOURCE_DIR "/configs/run/quickstart.yaml", "--set",
         std::string("run.dir=memory-") + recompute, "--set",
         std::string("train.recompute=") + recompute, "--set",
         "data.tokenizer=tokenizer/tokenizer.json", "--set", "data.train=[{path: train}]", "--set",
         "data.validation=[{path: validation}]", "--set", "train.train_iters=3", "--set",
         "optim.lr_warmup_iters=1", "--set", "threads=2"});
    ASSERT_EQ(o.code, 0) << o;
    const double sum = bytes_of(o.out, "sum");
    ASSERT_GT(sum, 100e6) << o;
    const auto peak = static_cast<double>(o.peak_bytes);
    RecordProperty(std::string("peak_over_sum_") + recompute, std::to_string(peak / sum));
    EXPECT_LT(std::abs(peak / sum - 1), 0.1)
        << "peak " << peak / 1e6 << " MB, printed " << sum / 1e6 << " MB\n"
        << o;
  }
}

}  // namespace
}  // namespace grist::test
