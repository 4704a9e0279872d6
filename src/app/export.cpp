// grist export: a checkpoint for other tools.
#include "grist/hub/export.h"

#include "command_line.h"
#include "grist/core/log.h"
#include "grist/core/memory.h"
#include "proof_line.h"

namespace grist::app {

ExitCode run(const ExportArguments& a) {
  const hub::Exported x =
      hub::export_model({.checkpoint = a.checkpoint,
                         .output = a.output,
                         .write = {.dtype = a.dtype == "bf16" ? DType::bf16 : DType::f32,
                                   .max_shard_bytes = hub::parse_size(a.max_shard_size)},
                         .prove = !a.no_proof,
                         .save_logits = a.save_logits,
                         .threads = static_cast<int>(a.threads)});
  log::info("{}: {} ({}), {} of tensors in {}, from {}", x.folder.string(),
            hub::architecture_of(x.family), word(x.family), human_bytes(x.bytes), a.dtype,
            x.checkpoint.string());
  if (x.proof) log::info("{}", proof_line(*x.proof));
  return ExitCode::ok;
}

}  // namespace grist::app
