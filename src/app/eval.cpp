// `grist eval`: benchmarks of a trained model, and two models' answers compared.
#include "command_line.h"
#include "grist/config/config.h"
#include "grist/core/check.h"
#include "grist/core/file.h"
#include "grist/core/log.h"
#include "grist/core/output.h"
#include "grist/eval/evaluate.h"

namespace grist::app {

namespace {

// Now rather than after hours of work.
void want_folder_of(const std::string& file) {
  if (file.empty()) return;
  const std::filesystem::path folder = std::filesystem::path(file).parent_path();
  if (!folder.empty()) make_directories(folder);
}

}  // namespace

ExitCode run(const EvalArguments& a) {
  want_folder_of(a.output);
  want_folder_of(a.samples);
  const eval::TrainedModel trained = eval::load_trained_model(
      a.checkpoint,
      {.threads = static_cast<int>(a.threads), .device = from_word<WantedDevice>(a.device)});
  const eval::EvaluateOptions options{.tasks = a.tasks,
                                      .data = a.data,
                                      .num_fewshot = a.num_fewshot,
                                      .limit = a.limit,
                                      .cloze = a.cloze,
                                      .bos = a.bos,
                                      .batch_tokens = a.batch_tokens};
  const eval::Evaluation result = eval::evaluate(trained, options);
  if (!a.samples.empty()) write_text_atomically(a.samples, eval::samples_jsonl(result));
  if (!a.output.empty())
    write_text_atomically(a.output, eval::results_json(result, trained, options).dump(2) + "\n");
  write_output(eval::results_table(result));
  log::info(
      "{} tokens in {:.1f} s ({:.0f} tokens/s), {:.0f} % of them computed: the rest was shared",
      result.tokens, result.seconds, static_cast<double>(result.tokens) / result.seconds,
      100.0 * static_cast<double>(result.computed_tokens) / static_cast<double>(result.tokens));
  return ExitCode::ok;
}

ExitCode run(const EvalCompareArguments& a) {
  write_output(eval::compare_samples(a.first, a.second));
  return ExitCode::ok;
}

}  // namespace grist::app
