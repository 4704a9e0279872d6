#include "grist/eval/generate.h"

#include "command_line.h"
#include "grist/core/check.h"
#include "grist/core/file.h"
#include "grist/core/log.h"
#include "grist/core/output.h"
#include "grist/core/stop.h"
#include "grist/data/tokenizer.h"

namespace grist::app {

ExitCode run(const GenerateArguments& a) {
  const eval::TrainedModel trained = eval::load_trained_model(
      a.checkpoint,
      {.threads = static_cast<int>(a.threads), .device = from_word<WantedDevice>(a.device)});
  std::string prompt = a.prompt_file.empty() ? a.prompt : read_text(a.prompt_file);
  if (const std::uint64_t replaced = repair_utf8(prompt); replaced > 0)
    log::warn("the prompt is malformed UTF-8: {} places became U+FFFD", replaced);
  const eval::GenerateOptions options{.prompt = prompt,
                                      .max_tokens = a.max_tokens,
                                      .sampling = {.temperature = a.temperature,
                                                   .top_k = a.top_k,
                                                   .top_p = a.top_p,
                                                   .seed = static_cast<std::uint64_t>(a.seed)}};
  bool begun = false;  // the prompt stands on the screen only when there is something to continue
  const auto emit = [&](std::string_view text) {
    if (!begun) write_output(prompt);
    begun = true;
    write_output(text);
  };
  const eval::StopReason reason = eval::generate(trained, options, emit);
  emit("\n");
  if (reason == eval::StopReason::no_room)
    log::warn("stopped at the model's {} positions", trained.config.model.max_position_embeddings);
  if (reason == eval::StopReason::stopped)
    fail(ExitCode::preempted, "stopped by signal {}", stop_signal());
  return ExitCode::ok;
}

}  // namespace grist::app
