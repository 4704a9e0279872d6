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
#include "grist/train/training.h"

namespace grist::app {

namespace {

// Now rather than after hours of work.
void want_folder_of(const std::string& file) {
  if (file.empty()) return;
  const std::filesystem::path folder = std::filesystem::path(file).parent_path();
  if (!folder.empty()) make_directories(folder);
}

// Returns the report.
Json run_benchmarks(const EvalArguments& a, const eval::TrainedModel& trained,
                    comm::Communicator& world) {
  const eval::EvaluateOptions options{.tasks = a.tasks,
                                      .data = a.data,
                                      .num_fewshot = a.num_fewshot,
                                      .limit = a.limit,
                                      .cloze = a.cloze,
                                      .bos = a.bos,
                                      .batch_tokens = a.batch_tokens,
                                      .world = &world};
  const eval::Evaluation result = eval::evaluate(trained, options);
  if (world.rank() != 0) return {};
  if (!a.samples.empty()) write_text_atomically(a.samples, eval::samples_jsonl(result));
  write_output(eval::results_table(result));
  log::info(
      "{} tokens in {:.1f} s ({:.0f} tokens/s), {:.0f} % of them computed: the rest was shared",
      result.tokens, result.seconds, static_cast<double>(result.tokens) / result.seconds,
      100.0 * static_cast<double>(result.computed_tokens) / static_cast<double>(result.tokens));
  return eval::results_json(result, trained, options);
}

Json run_texts(const EvalArguments& a, const eval::TrainedModel& trained,
               comm::Communicator& world) {
  const std::vector<eval::TextLoss> losses =
      eval::text_losses(trained, {.sources = a.texts,
                                  .text_key = a.text_key,
                                  .on_bad_line = parse_on_bad_line(a.on_bad_line),
                                  .batch_tokens = a.batch_tokens,
                                  .world = &world});
  if (world.rank() == 0) write_output(eval::text_loss_table(losses));
  return eval::text_loss_json(losses);
}

void run_on(const EvalArguments& a, const train::Ranks& ranks) {
  const bool leader = ranks.world.rank() == 0;
  if (leader) want_folder_of(a.output);
  if (leader) want_folder_of(a.samples);
  const eval::TrainedModel trained =
      eval::load_trained_model(a.checkpoint, {.threads = ranks.threads,
                                              .device_index = ranks.local_rank,
                                              .device = from_word<WantedDevice>(a.device)});
  Json report = Json::object();
  if (!a.data.empty()) report = run_benchmarks(a, trained, ranks.world);
  if (!a.texts.empty()) {
    Json text = run_texts(a, trained, ranks.world);
    if (leader) report.set("text", std::move(text));
    if (leader) report.set("model_name", trained.checkpoint.string());
  }
  if (leader && !a.output.empty()) write_text_atomically(a.output, report.dump(2) + "\n");
}

}  // namespace

ExitCode run(const EvalArguments& a) {
  return train::on_all_ranks(a.threads, [&](const train::Ranks& ranks) { run_on(a, ranks); });
}

ExitCode run(const EvalCompareArguments& a) {
  write_output(eval::compare_samples(a.first, a.second));
  return ExitCode::ok;
}

}  // namespace grist::app
