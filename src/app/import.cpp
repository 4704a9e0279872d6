// grist import: a model of the hub as a run folder.
#include "grist/hub/import.h"

#include "command_line.h"
#include "grist/core/log.h"
#include "grist/core/memory.h"
#include "proof_line.h"

namespace grist::app {

ExitCode run(const ImportArguments& a) {
  const hub::Imported x = hub::import_model({.input = a.input,
                                             .output = a.output,
                                             .prove = !a.no_proof,
                                             .threads = static_cast<int>(a.threads)});
  log::info("{}: {} model, {} of tensors, {}", x.folder.string(), word(x.model.family),
            human_bytes(x.bytes), x.has_tokenizer ? "with its tokenizer" : "without a tokenizer");
  if (x.proof) log::info("{}", proof_line(*x.proof));
  return ExitCode::ok;
}

}  // namespace grist::app
