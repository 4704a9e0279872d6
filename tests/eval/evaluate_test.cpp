// Evaluation beyond the harness's numbers: the same bits for any batch and threads, errors, sample
// files, comparing, rows from strangers.
#include "grist/eval/evaluate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "eval/golden.h"
#include "grist/core/error.h"
#include "grist/core/random.h"
#include "likelihood.h"
#include "prompts.h"
#include "rows.h"
#include "support/scale.h"
#include "support/temporary_folder.h"
#include "tasks.h"

namespace grist::eval {
namespace {

const TrainedModel& trained() {
  static const TrainedModel model = test::golden_model();
  return model;
}

Evaluation evaluated(const EvaluateOptions& options, const TrainedModel& model = trained()) {
  EvaluateOptions o = options;
  if (o.data.empty()) o.data = test::golden_folder();
  return evaluate(model, o);
}

void expect_error(ExitCode code, const std::vector<std::string>& words,
                  const std::function<void()>& f) {
  try {
    f();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    for (const std::string& w : words)
      EXPECT_NE(std::string(e.what()).find(w), std::string::npos) << e.what() << " lacks " << w;
  }
}

TEST(Evaluate, HasTheSameBitsForAnyBatchAndThreads) {
  const EvaluateOptions base{.tasks = "arc_easy,winogrande", .num_fewshot = 2, .limit = 9};
  const std::string want = samples_jsonl(evaluated(base));
  for (const std::int64_t batch : {1, 300, 100000}) {
    EvaluateOptions o = base;
    o.batch_tokens = batch;
    EXPECT_EQ(samples_jsonl(evaluated(o)), want) << batch;
  }
  EXPECT_EQ(samples_jsonl(evaluated(base, test::golden_model(1))), want);
}

TEST(Evaluate, ComputesWhatAnswersShareOnce) {
  const Evaluation letters = evaluated({.tasks = "commonsense_qa"});
  const Evaluation words = evaluated({.tasks = "piqa", .limit = 6});

  EXPECT_LT(letters.computed_tokens * 4, letters.tokens);  // five answers of one token
  EXPECT_LT(words.computed_tokens, words.tokens);
}

TEST(Evaluate, TheLimitTakesTheFirstQuestionsWithTheirExamples) {
  const Evaluation all = evaluated({.tasks = "openbookqa", .num_fewshot = 2});
  const Evaluation some = evaluated({.tasks = "openbookqa", .num_fewshot = 2, .limit = 5});

  ASSERT_EQ(some.tasks[0].samples.size(), 5U);
  EXPECT_EQ(some.tasks[0].num_rows, 32);
  for (std::size_t i = 0; i < 5; ++i)
    EXPECT_EQ(some.tasks[0].samples[i].contexts, all.tasks[0].samples[i].contexts);
}

TEST(Evaluate, BitsPerByteCountTheBytesOfTheAnswerAlone) {
  const Evaluation e = evaluated({.tasks = "hellaswag", .limit = 4});
  for (const Sample& s : e.tasks[0].samples) {
    const ScoredChoice& right = s.choices[static_cast<std::size_t>(s.gold)];
    EXPECT_DOUBLE_EQ(s.bits_per_byte.value(), -right.log_likelihood / std::log(2.0) /
                                                  static_cast<double>(right.text.size()));
  }
}

TEST(Evaluate, AveragesTheElevenWhenAllWereAsked) {
  const Evaluation e = evaluated({.limit = 2});
  double acc = 0, normed = 0;
  const auto add = [&](const std::vector<Metric>& metrics) {
    acc += metrics[0].value / 11;
    const bool norm = metrics.size() > 1 && metrics[1].name == "acc_norm";
    normed += metrics[norm ? 1 : 0].value / 11;
  };
  for (const TaskResult& t : e.tasks)
    if (t.name.find("mmlu_") != 0 && t.name != "truthfulqa_mc1") add(t.metrics);
  add(e.groups.back().metrics);

  ASSERT_EQ(e.averages.size(), 2U);
  EXPECT_NEAR(e.averages[0].value, acc, 1e-12);
  EXPECT_NEAR(e.averages[1].value, normed, 1e-12);
  EXPECT_TRUE(evaluated({.tasks = "piqa", .limit = 2}).averages.empty());
}

TEST(Evaluate, ClozeAsksForWords) {
  const Evaluation e = evaluated({.tasks = "commonsense_qa,mmlu", .limit = 1, .cloze = true});

  const Sample& s = e.tasks[0].samples[0];
  EXPECT_EQ(s.contexts[0].find("\nA. "), std::string::npos) << s.contexts[0];
  EXPECT_TRUE(s.contexts[0].starts_with("Question: "));
  EXPECT_GT(s.choices[0].text.size(), 1U);
  EXPECT_TRUE(e.tasks[1].samples[0].contexts[0].starts_with("Question: "));
}

// ---- errors ------------------------------------------------------------------------------------

TEST(Evaluate, NamesAllMissingFilesAndThePythonThatExportsThem) {
  const test::TemporaryFolder folder;
  expect_error(
      ExitCode::not_found,
      {"hellaswag_validation.jsonl, ", "piqa_train.jsonl", "python3 -c",
       "d(\"Rowan/hellaswag\", split=\"validation\").to_json("},
      [&] { evaluated({.tasks = "hellaswag,piqa", .data = folder.path(), .num_fewshot = 1}); });
}

TEST(Evaluate, RefusesWhatItCannotAsk) {
  expect_error(ExitCode::usage, {"'arc'", "arc_easy"}, [] { evaluated({.tasks = "arc"}); });
  expect_error(ExitCode::usage, {"''"}, [] { evaluated({.tasks = "piqa,"}); });
  expect_error(ExitCode::usage, {"9 rows", "needs 10"},
               [] { evaluated({.tasks = "piqa", .num_fewshot = 9}); });
  expect_error(ExitCode::usage, {"beside the question"},  // which is in the pool four times
               [] { evaluated({.tasks = "piqa", .num_fewshot = 7}); });
  expect_error(ExitCode::usage, {"bos_token"}, [] { evaluated({.tasks = "piqa", .bos = true}); });
}

TEST(Evaluate, NamesTheRowThatIsWrong) {
  const test::TemporaryFolder folder;
  const auto with = [&](const std::string& task, const std::string& file, const std::string& line,
                        const std::vector<std::string>& words) {
    folder.write(file, line);
    expect_error(ExitCode::bad_data, words,
                 [&] { evaluated({.tasks = task, .data = folder.path()}); });
  };
  const std::string good = "{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"c\", \"label\": 1}\n";
  with("piqa", "piqa_validation.jsonl",
       good + "\n{\"goal\": 1, \"sol1\": \"b\", \"sol2\": \"c\", \"label\": 1}\n",
       {"piqa_validation.jsonl:3", "string"});
  with("piqa", "piqa_validation.jsonl", good + "{\"goal\"", {"piqa_validation.jsonl:2"});
  with("piqa", "piqa_validation.jsonl", "[]\n", {"not an object"});
  with("piqa", "piqa_validation.jsonl", "\n", {"no rows"});
  with("piqa", "piqa_validation.jsonl",
       "{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"c\", \"label\": -1}\n", {"without answers"});
  with("winogrande", "winogrande_validation.jsonl",
       "{\"sentence\": \"no blank\", \"option1\": \"b\", \"option2\": \"c\", \"answer\": \"1\"}\n",
       {"has no _"});
  with("race", "race_test.jsonl", "{\"article\": \"a\", \"problems\": \"[{\"}\n",
       {"race_test.jsonl:1", "not a Python literal"});
  with("arc_easy", "arc_easy_test.jsonl",
       "{\"question\": \"a\", \"choices\": {\"text\": [\"b\"], \"label\": [\"A\"]}, "
       "\"answerKey\": \"B\"}\n",
       {"'B'", "labels"});
  with("mmlu", "mmlu_test.jsonl",
       "{\"question\": \"a\", \"choices\": [\"b\",\"b\",\"b\",\"b\"], \"answer\": 0, "
       "\"subject\": \"cooking\"}\n",
       {"'cooking'"});
}

TEST(Evaluate, AnAnswerLongerThanTheModelIsAnError) {
  const test::TemporaryFolder folder;
  std::string much;
  for (int i = 0; i < 400; ++i) much += " x";
  folder.write("piqa_validation.jsonl",
               "{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"" + much + "\", \"label\": 1}\n");
  expect_error(ExitCode::bad_data, {"piqa_validation.jsonl:1", "192 positions"},
               [&] { evaluated({.tasks = "piqa", .data = folder.path()}); });
}

TEST(Evaluate, AModelThatGivesNoNumbersGetsNoAccuracy) {
  const TrainedModel broken = test::golden_model();
  broken.model->parameters().final_norm.master.as<float>()[3] =
      std::numeric_limits<float>::quiet_NaN();
  expect_error(ExitCode::numeric, {"arc_easy_test.jsonl:", "not finite"},
               [&] { evaluated({.tasks = "arc_easy", .limit = 2}, broken); });
}

// ---- requests ----------------------------------------------------------------------------------

std::vector<double> scores(const std::vector<Request>& requests, std::int64_t batch = 2048) {
  return score_requests(trained(), requests, {.batch_tokens = batch}, "test",
                        [](std::size_t i) { return std::to_string(i); })
      .values;
}

TEST(Requests, BlanksBehindTheContextBelongToTheAnswer) {
  const auto s = scores({{"the blue gate  ", "x"},
                         {"the blue gate", "  x"},
                         {"", " x"},
                         {"<|endoftext|>", " x"},
                         {" \n", " x"}});
  EXPECT_EQ(s[0], s[1]);
  EXPECT_EQ(s[2], s[3]);  // no context: the end-of-text token stands for it
  EXPECT_TRUE(std::isfinite(s[4]));
}

// The golden tokenizer with something changed, for the same model.
TrainedModel with_tokenizer(const std::function<void(Json&)>& change) {
  Json json = Json::parse(read_text(test::golden_folder() / "tokenizer.json"), "tokenizer.json");
  change(json);
  TrainedModel out = test::golden_model();
  out.tokenizer = Tokenizer::parse(json.dump(), "changed");
  return out;
}

// Merges across spaces (superword BPE): "~ ^" is one token, "~ !" begins with "~ ".
void merge_across_spaces(Json& json) {
  Json pre = json.at("pre_tokenizer");
  pre.set("use_regex", false);
  json.set("pre_tokenizer", pre);
  Json model = json.at("model"), vocab = Json::object(), merges = model.at("merges");
  for (const auto& [token, id] : model.at("vocab").as_object())
    if (id.as_int() < 382) vocab.set(token, id);
  vocab.set("~\u0120", 382);
  vocab.set("~\u0120^", 383);
  merges.as_array().resize(merges.as_array().size() - 2);
  for (const auto& [left, right] : {std::pair{"~", "\u0120"}, {"~\u0120", "^"}}) {
    Json pair = Json::array();
    pair.push_back(left);
    pair.push_back(right);
    merges.push_back(pair);
  }
  model.set("vocab", vocab);
  model.set("merges", merges);
  json.set("model", model);
}

TEST(Requests, TokensOfTheAnswerThatJoinTheContextAreNotScored) {
  const TrainedModel across = with_tokenizer(merge_across_spaces);
  const auto here = [](std::size_t) { return "here"; };
  const auto score = [&](std::string_view context, std::string_view continuation) {
    return score_requests(across, {{context, continuation}}, {}, "test", here).values[0];
  };

  const std::int32_t mark = across.tokenizer->token_id("!").value();
  // "~ " and "!": the blank of the answer went into a token that is the context's.
  EXPECT_EQ(score("~", " !"),
            score_texts(across, {{{382, mark}, 1}}, 64, nullptr, here, {}).values[0]);
  expect_error(ExitCode::bad_data, {"here", "no token of the answer"}, [&] { score("~", " ^"); });
}

TEST(Requests, WhatAPostProcessorAddsIsLeftOut) {
  const auto score = [](const TrainedModel& model) {
    return score_requests(model, {{"the blue gate", " is here"}}, {}, "test",
                          [](std::size_t) { return "here"; })
        .values[0];
  };
  const TrainedModel ends_texts = with_tokenizer([](Json& json) {
    json.set("post_processor",
             Json::parse(R"({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A",
                          "type_id": 0}}, {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}],
                          "pair": [], "special_tokens": {"<|endoftext|>": {"id":
                          "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}}})",
                         "post_processor"));
  });

  EXPECT_EQ(score(ends_texts), score(trained()));
}

TEST(Requests, ABosTokenStandsInFrontWhenAsked) {
  const test::TemporaryFolder folder;
  folder.write("tokenizer.json", read_text(test::golden_folder() / "tokenizer.json"));
  folder.write("tokenizer_config.json", "{\"bos_token\": \"<|endoftext|>\"}");
  TrainedModel model = test::golden_model();
  model.tokenizer = Tokenizer::load(folder.path());
  const auto score = [&](std::string_view context, bool bos) {
    return score_requests(model, {{context, " is here"}}, {.bos = bos}, "test",
                          [](std::size_t) { return "here"; })
        .values[0];
  };

  EXPECT_EQ(score("the gate", true), score("<|endoftext|>the gate", false));
  EXPECT_EQ(score("<|endoftext|>the gate", true), score("<|endoftext|>the gate", false));
  EXPECT_NE(score("the gate", true), score("the gate", false));
}

TEST(Requests, TextsThatBeginAlikeScoreAsAlone) {
  std::vector<std::string> contexts, answers;
  const Random random(4, "requests");
  std::uint64_t at = 0;
  for (int i = 0; i < 40; ++i) {
    std::string text = "Question: the miller counts seven eggs";
    for (std::uint64_t n = random.below(at++, 30); n > 0; --n)
      text += " " + std::string(random.below(at++, 3) + 1, static_cast<char>('a' + n % 2));
    contexts.push_back(text);
    answers.push_back(random.below(at++, 2) == 0 ? " A" : " seven eggs by the river");
  }
  std::vector<Request> all;
  for (std::size_t i = 0; i < contexts.size(); ++i) all.push_back({contexts[i], answers[i]});

  const auto together = scores(all);

  for (std::size_t i = 0; i < all.size(); ++i) EXPECT_EQ(together[i], scores({all[i]})[0]) << i;
}

// ---- comparing ---------------------------------------------------------------------------------

TEST(Compare, GivesThePairedStandardError) {
  const test::TemporaryFolder folder;
  const auto line = [](int id, double bits) {
    return "{\"task\": \"t\", \"doc_id\": " + std::to_string(id) +
           ", \"acc\": 1, \"bits_per_byte\": " + std::to_string(bits) + "}\n";
  };
  const auto a = folder.write("a", line(0, 1) + line(1, 2) + line(2, 6));
  const auto b = folder.write("b", line(2, 6.5) + line(0, 1.25) + line(1, 2.75));

  const std::string table = compare_samples(a, b);

  // Differences 0.25, 0.75, 0.5: mean 0.5, deviation 0.25, divided by sqrt(3).
  EXPECT_NE(table.find("bits_per_byte    3.0000   3.5000   +0.5000   0.1443       3"),
            std::string::npos)
      << table;
  EXPECT_NE(table.find("acc              1.0000   1.0000   +0.0000   0.0000       3"),
            std::string::npos)
      << table;
}

TEST(Compare, RefusesOtherQuestionsAndOtherFiles) {
  const test::TemporaryFolder folder;
  const auto a = folder.write("a", "{\"task\": \"t\", \"doc_id\": 0, \"acc\": 1}\n");
  const auto more = folder.write("more",
                                 "{\"task\": \"t\", \"doc_id\": 0, \"acc\": 1}\n"
                                 "{\"task\": \"t\", \"doc_id\": 1, \"acc\": 1}\n");
  const auto twice = folder.write("twice",
                                  "{\"task\": \"t\", \"doc_id\": 0, \"acc\": 1}\n"
                                  "{\"task\": \"t\", \"doc_id\": 0, \"acc\": 1}\n");
  const auto other = folder.write("other", "{\"text\": \"t\"}\n");
  expect_error(ExitCode::bad_data, {"same tasks and limit"}, [&] { compare_samples(a, more); });
  expect_error(ExitCode::bad_data, {"question 1 of t", "not there"},
               [&] { compare_samples(more, a); });
  expect_error(ExitCode::bad_data, {"twice:2", "second time"}, [&] { compare_samples(a, twice); });
  expect_error(ExitCode::bad_data, {"other:1", "missing key"}, [&] { compare_samples(other, a); });
  expect_error(ExitCode::not_found, {}, [&] { compare_samples(a, folder / "none"); });
}

TEST(Compare, ReadsTheSamplesThatEvalWrites) {
  const test::TemporaryFolder folder;
  const auto a =
      folder.write("a", samples_jsonl(evaluated({.tasks = "arc_easy,race", .limit = 4})));
  const std::string table = compare_samples(a, a);
  EXPECT_NE(table.find("acc_norm"), std::string::npos);
  EXPECT_NE(table.find("+0.0000   0.0000       4"), std::string::npos) << table;
}

TEST(Compare, AnyBytesAreReadOrRefused) {
  const test::TemporaryFolder folder;
  const std::string good = samples_jsonl(evaluated({.tasks = "piqa", .limit = 3}));
  const auto a = folder.write("a", good);
  const Random random(12, "samples");
  std::uint64_t at = 0;
  int refused = 0;
  for (int i = 0; i < test::scaled(400); ++i) {
    std::string text = good;
    const std::size_t place = random.below(at++, text.size());
    switch (random.below(at++, 3)) {
      case 0: text[place] = static_cast<char>(random.below(at++, 256)); break;
      case 1: text.erase(place, random.below(at++, 20) + 1); break;
      default: text.resize(place); break;
    }
    const auto b = folder.write("b", text);
    try {
      compare_samples(a, b);
    } catch (const Error& e) {
      ASSERT_EQ(e.code(), ExitCode::bad_data) << e.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, 10);
}

// ---- rows from strangers -----------------------------------------------------------------------

// Bytes of a file changed, cut, doubled: every task reads it or says which row is wrong.
TEST(Rows, AnyBytesAreReadOrRefused) {
  const test::TemporaryFolder folder;
  const Random random(11, "rows");
  std::uint64_t at = 0;
  int read = 0, refused = 0;
  for (const Task& task : all_tasks()) {
    const auto path = path_of(test::golden_folder(), task.questions);
    const std::string whole = read_text(path);
    std::size_t end = 0;
    for (int lines = 0; lines < 4; ++lines) end = whole.find('\n', end) + 1;
    const std::string good = whole.substr(0, end);
    for (int i = 0; i < test::scaled(150); ++i) {
      std::string text = good;
      const std::size_t place = random.below(at++, text.size());
      switch (random.below(at++, 5)) {
        case 0: text[place] = static_cast<char>(random.below(at++, 256)); break;
        case 1: text.erase(place, random.below(at++, 20) + 1); break;
        case 2: text.insert(place, text.substr(random.below(at++, text.size()), 9)); break;
        case 3: text.resize(place); break;
        default: text[place] = "[]{}\",:0\\"[random.below(at++, 9)]; break;
      }
      folder.write(path.filename().string(), text);
      try {
        for (const bool cloze : {false, true})
          make_prompts(task, {.data = folder.path(), .limit = 3, .cloze = cloze});
        ++read;
      } catch (const Error& e) {
        ASSERT_EQ(e.code(), ExitCode::bad_data) << e.what();
        ASSERT_NE(std::string(e.what()).find(path.filename().string()), std::string::npos)
            << e.what();
        ++refused;
      }
    }
  }
  EXPECT_GT(read, 12);
  EXPECT_GT(refused, 12);
}

}  // namespace
}  // namespace grist::eval
