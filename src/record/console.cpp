#include "grist/record/console.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

namespace grist::record {

namespace {

std::string count(double n) {
  if (n >= 1e9) return fmt::format("{:.2f}B", n / 1e9);
  if (n >= 1e6) return fmt::format("{:.2f}M", n / 1e6);
  if (n >= 1e3) return fmt::format("{:.1f}k", n / 1e3);
  return fmt::format("{:.0f}", n);
}

// Fixed point where that is readable; a run that blows up prints exponents, not 30 digits.
std::string number(double v, int digits) {
  if (std::isnan(v)) return "nan";
  return std::abs(v) < 1e5 ? fmt::format("{:.{}f}", v, digits) : fmt::format("{:.3e}", v);
}

}  // namespace

std::string duration(double seconds) {
  const auto s = static_cast<std::int64_t>(std::max(0.0, std::round(seconds)));
  if (s >= 86400) return fmt::format("{}d{:02}h", s / 86400, s % 86400 / 3600);
  if (s >= 3600) return fmt::format("{}h{:02}m", s / 3600, s % 3600 / 60);
  if (s >= 60) return fmt::format("{}m{:02}s", s / 60, s % 60);
  return fmt::format("{}s", s);
}

std::string console_line(const StepRecord& r, std::int64_t train_iters) {
  std::string line = fmt::format("step {}/{} | tokens {} | loss {}", r.step, train_iters,
                                 count(static_cast<double>(r.tokens)), number(r.loss, 4));
  for (const nn::LossTerm& t : r.terms)
    if (!t.of_layers || !r.layers.empty())
      line += fmt::format(" | {} {}", t.console, number(t.value, 4));
  line += fmt::format(" | grad norm {} | lr {:.2e} | {} tok/s | {:.1f} GFLOP/s ({:.0f} % of peak)",
                      number(r.grad_norm, 3), r.lr, count(r.tokens_per_second),
                      r.flops_per_second / 1e9, 100 * r.peak_fraction);
  if (!r.layers.empty())
    line +=
        fmt::format(" | MaxVio {:.2f} | dropped {:.2f} %", max_vio(r), 100 * dropped_fraction(r));
  if (r.skipped > 0) line += fmt::format(" | skipped {}", r.skipped);
  return line + fmt::format(" | ETA {}", duration(r.eta_seconds));
}

std::string console_line(const ValidationRecord& r) {
  std::string line = fmt::format("validation at step {}:", r.step);
  for (const ValidationRecord::Set& s : r.sets) {
    line += fmt::format(" {} loss {}", s.name, number(s.loss, 4));
    if (s.bits_per_byte) line += fmt::format(" ({:.3f} bits per byte)", *s.bits_per_byte);
  }
  return line + fmt::format(" | {} tokens in {}", count(static_cast<double>(r.target_tokens)),
                            duration(r.seconds));
}

}  // namespace grist::record
