// grist upcycle: a dense model as experts.
#include "grist/hub/upcycle.h"

#include "command_line.h"
#include "grist/core/log.h"

namespace grist::app {

namespace {

void say_proof(const hub::Upcycled& x) {
  log::info(
      "step 0: loss {:.6f} on fixed tokens, the dense model's {:.6f}; logits differ by at most "
      "{:.2e} (largest {:.3g}){}",
      x.loss, x.dense_loss, x.difference, x.largest_logit,
      x.exact ? "" : "; this router's weights do not always sum to the same, so they may");
}

}  // namespace

ExitCode run(const UpcycleArguments& a) {
  const hub::Upcycled x = hub::upcycle({.checkpoint = a.checkpoint,
                                        .output = a.output,
                                        .granularity = a.granularity,
                                        .expansion_rate = a.expansion_rate,
                                        .flops_multiplier = a.flops_multiplier,
                                        .sets = a.sets,
                                        .prove = !a.no_proof,
                                        .threads = static_cast<int>(a.threads)});
  const auto millions = [](std::int64_t n) { return static_cast<double>(n) / 1e6; };
  log::info("{}: {:.2f}M parameters, {:.2f}M active per token, from the {:.2f}M of {}",
            x.folder.string(), millions(x.parameters), millions(x.active_parameters),
            millions(x.dense_parameters), x.checkpoint.string());
  if (x.proved) say_proof(x);
  return ExitCode::ok;
}

}  // namespace grist::app
