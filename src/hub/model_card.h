#pragma once
// README.md of an exported folder.
#include <string>

#include "grist/ckpt/checkpoint.h"
#include "grist/config/config.h"
#include "grist/hub/export.h"

namespace grist::hub {

// What the checkpoint knows of its data, and what metrics.jsonl beside it says of losses and
// routing up to its step; a file that is missing or cannot be read leaves its part out.
std::string model_card(const CheckpointReader& step, const Config& config, const Exported& exported,
                       DType dtype);

}  // namespace grist::hub
