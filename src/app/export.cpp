// grist export: a checkpoint for other tools.
#include "grist/hub/export.h"

#include "command_line.h"
#include "grist/core/check.h"
#include "grist/core/log.h"
#include "grist/core/memory.h"
#include "grist/hub/gguf.h"
#include "proof_line.h"

namespace grist::app {

namespace {

ExitCode export_to_hf(const ExportArguments& a) {
  if (a.dtype == "f16")
    fail(ExitCode::usage, "--dtype f16: --to hf writes fp32 or bf16; f16 is for --to gguf");
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

ExitCode export_to_gguf(const ExportArguments& a) {
  const hub::GgufExported x =
      hub::export_gguf({.checkpoint = a.checkpoint,
                        .output = a.output,
                        .dtype = from_word<hub::GgufDType>(a.dtype).value()});
  log::info("{}: {} for llama.cpp, {} in {}, from {}", a.output, x.architecture,
            human_bytes(x.bytes), a.dtype, x.checkpoint.string());
  return ExitCode::ok;
}

}  // namespace

ExitCode run(const ExportArguments& a) {
  return a.to == "gguf" ? export_to_gguf(a) : export_to_hf(a);
}

}  // namespace grist::app
