#pragma once
// What export and import say of their proof.
#include <fmt/core.h>

#include <string>

#include "grist/hub/proof.h"

namespace grist::app {

inline std::string proof_line(const hub::Proof& p) {
  std::string line = fmt::format(
      "proof: over {} tokens the files' logits differ from the checkpoint's by at most {:.2e} "
      "(largest logit {:.3g}; {:.2e} is allowed)",
      p.ids.size(), p.difference, p.largest_logit, p.bound());
  if (p.rounding > 0)
    line += fmt::format("; rounding to bf16 moves them by up to {:.2e}", p.rounding);
  return line;
}

}  // namespace grist::app
