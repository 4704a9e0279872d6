// `grist eval`: benchmarks of a trained model, and two models' answers compared.
#include "command_line.h"
#include "grist/config/config.h"
#include "grist/core/check.h"
#include "grist/core/file.h"
#include "grist/core/json.h"
#include "grist/core/log.h"
#include "grist/core/output.h"
#include "grist/eval/evaluate.h"
#include "grist/eval/text_loss.h"

namespace grist::app {

namespace {

// Now rather than after hours of work.
void want_folder_of(const std::string& file) {
  if (file.empty()) return;
  const std::filesystem::path folder = std::filesystem::path(file).parent_path();
  if (!folder.empty()) make_directories(folder);
}

// Returns the report.
Json run_benchmarks(const EvalArguments& a, const eval::TrainedModel& trained) {
  const eval::EvaluateOptions options{.tasks = a.tasks,
                                      .data = a.data,
                                      .num_fewshot = a.num_fewshot,
                                      .limit = a.limit,
                                      .cloze = a.cloze,
                                      .bos = a.bos,
                                      .batch_tokens = a.batch_tokens};
  const eval::Evaluation result = eval::evaluate(trained, options);
  if (!a.samples.empty()) write_text_atomically(a.samples, eval::samples_jsonl(result));
  write_output(eval::results_table(result));
  log::info(
      "{} tokens in {:.1f} s ({:.0f} tokens/s), {:.0f} % of them computed: the rest was shared",
      result.tokens, result.seconds, static_cast<double>(result.tokens) / result.seconds,
      100.0 * static_cast<double>(result.computed_tokens) / static_cast<double>(result.tokens));
  return eval::results_json(result, trained, options);
}

}  // namespace

ExitCode run(const EvalArguments& a) {
  want_folder_of(a.output);
  want_folder_of(a.samples);
  const eval::TrainedModel trained = eval::load_trained_model(
      a.checkpoint,
      {.threads = static_cast<int>(a.threads), .device = from_word<WantedDevice>(a.device)});
  Json report = Json::object();
  if (!a.data.empty()) report = run_benchmarks(a, trained);
  if (!a.texts.empty()) {
    const std::vector<eval::TextLoss> losses =
        eval::text_losses(trained, {.sources = a.texts,
                                    .text_key = a.text_key,
                                    .on_bad_line = parse_on_bad_line(a.on_bad_line),
                                    .batch_tokens = a.batch_tokens});
    write_output(eval::text_loss_table(losses));
    report.set("text", eval::text_loss_json(losses));
    report.set("model_name", trained.checkpoint.string());
  }
  if (!a.output.empty()) write_text_atomically(a.output, report.dump(2) + "\n");
  return ExitCode::ok;
}

ExitCode run(const EvalCompareArguments& a) {
  write_output(eval::compare_samples(a.first, a.second));
  return ExitCode::ok;
}

}  // namespace grist::app
