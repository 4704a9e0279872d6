#include "grist/core/progress.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "grist/core/log.h"

namespace grist {

namespace {
bool under_launcher() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}
double seconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double>(d).count();
}
}  // namespace

Progress::Progress(std::string label, std::uint64_t total, std::string unit, double scale)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      total_(total),
      scale_(scale),
      terminal_(::isatty(STDERR_FILENO) == 1 && !under_launcher()),
      start_(std::chrono::steady_clock::now()),
      drawn_(start_) {}

void Progress::update(std::uint64_t done) {
  const auto now = std::chrono::steady_clock::now();
  if (seconds(now - drawn_) < (terminal_ ? 0.1 : 10.0)) return;
  drawn_ = now;
  draw(done, false);
}

void Progress::finish(std::uint64_t done) {
  draw(done, true);
}

void Progress::draw(std::uint64_t done, bool last) {
  const double elapsed = seconds(std::chrono::steady_clock::now() - start_);
  const double amount = static_cast<double>(done) / scale_;
  const double rate = elapsed > 0 ? amount / elapsed : 0;
  std::string line = fmt::format("{}: {:.1f} {}", label_, amount, unit_);
  if (total_ > 0 && !last) {
    const double share = static_cast<double>(done) / static_cast<double>(total_);
    line +=
        fmt::format(" of {:.1f} ({:.0f} %), {:.0f} s left", static_cast<double>(total_) / scale_,
                    100 * share, share > 0 ? elapsed / share - elapsed : 0.0);
  }
  line += fmt::format(", {:.1f} {}/s", rate, unit_);
  if (last) line += fmt::format(", {:.1f} s", elapsed);
  if (!terminal_) {
    log::info("{}", line);
  } else {
    std::fprintf(stderr, "\r\033[K%s%s", line.c_str(), last ? "\n" : "");
    std::fflush(stderr);
  }
}

}  // namespace grist
