#include "tasks.h"

#include <algorithm>
#include <array>

#include "grist/core/check.h"
#include "python_literal.h"
#include "python_text.h"

namespace grist::eval {

namespace {

[[noreturn]] void bad_row(const std::string& what) {
  fail(ExitCode::bad_data, "{}", what);
}

const std::string& text(const Json& row, std::string_view key) {
  return row.at(key).as_string();
}

std::vector<std::string> texts(const Json& list) {
  std::vector<std::string> out;
  for (const Json& t : list.as_array()) out.push_back(t.as_string());
  return out;
}

// Where `label` stands among `labels`.
std::int64_t place(const std::vector<std::string>& labels, std::string_view label) {
  const auto at = std::find(labels.begin(), labels.end(), label);
  if (at == labels.end())
    bad_row("the answer '" + std::string(label) + "' is none of the choices' labels");
  return at - labels.begin();
}

std::int64_t within(std::int64_t gold, std::size_t choices) {
  if (gold < 0 || gold >= static_cast<std::int64_t>(choices))
    bad_row("the right answer is number " + std::to_string(gold) + " of " +
            std::to_string(choices) + " choices (a file without answers?)");
  return gold;
}

// A label that is a number, as a string or as one.
std::int64_t number(const Json& label) {
  if (label.is_int()) return label.as_int();
  const std::string& digits = label.as_string();
  const bool plain = !digits.empty() && digits.size() < 10 &&
                     digits.find_first_not_of("0123456789") == std::string::npos;
  if (!plain) bad_row("the label '" + digits + "' is no number (a file without answers?)");
  return std::stoll(digits);
}

// One context for all choices.
Item question(std::string context, std::vector<std::string> choices, std::int64_t gold) {
  Item item;
  item.gold = within(gold, choices.size());
  item.example = context + ' ' + choices[static_cast<std::size_t>(item.gold)] + "\n\n";
  item.contexts.push_back(std::move(context));
  item.choices = std::move(choices);
  return item;
}

std::string lettered(std::string context, const std::vector<std::string>& choices) {
  for (std::size_t i = 0; i < choices.size(); ++i) {
    context += '\n';
    context += static_cast<char>('A' + i);
    context += ". " + choices[i];
  }
  return context + "\nAnswer:";
}

std::vector<std::string> letters(std::size_t count) {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < count; ++i) out.emplace_back(1, static_cast<char>('A' + i));
  return out;
}

void want_choices(const std::vector<std::string>& choices, std::size_t count) {
  if (choices.size() != count)
    bad_row(std::to_string(choices.size()) + " choices, want " + std::to_string(count));
}

Item arc(const Json& row) {
  const Json& choices = row.at("choices");
  return question("Question: " + text(row, "question") + "\nAnswer:", texts(choices.at("text")),
                  place(texts(choices.at("label")), text(row, "answerKey")));
}

struct Commonsense {
  std::string question{};
  std::vector<std::string> choices{};
  std::int64_t gold = 0;
};

Commonsense commonsense(const Json& row) {
  const Json& choices = row.at("choices");
  Commonsense c{std::string(strip(text(row, "question"))), texts(choices.at("text")), 0};
  want_choices(c.choices, 5);
  c.gold = place(letters(5), text(row, "answerKey"));
  return c;
}

Item commonsense_qa(const Json& row) {
  const Commonsense c = commonsense(row);
  return question(lettered("Question: " + c.question, c.choices), letters(5), c.gold);
}

Item commonsense_qa_cloze(const Json& row) {
  const Commonsense c = commonsense(row);
  return question("Question: " + c.question + "\nAnswer:", c.choices, c.gold);
}

std::string without_marks(std::string_view t) {
  return replace(remove_bracketed(replace(strip(t), " [title]", ". ")), "  ", " ");
}

// The second half loses its capitals: str.capitalize() leaves only the first letter's.
Item hellaswag(const Json& row) {
  std::vector<std::string> endings;
  for (const std::string& e : texts(row.at("endings"))) endings.push_back(without_marks(e));
  return question(without_marks(text(row, "activity_label") + ": " + text(row, "ctx_a") + ' ' +
                                capitalize(text(row, "ctx_b"))),
                  std::move(endings), number(row.at("label")));
}

Item mmlu(const Json& row) {
  const std::vector<std::string> choices = texts(row.at("choices"));
  want_choices(choices, 4);
  return question(lettered(std::string(strip(text(row, "question"))), choices), letters(4),
                  number(row.at("answer")));
}

Item mmlu_cloze(const Json& row) {
  return question("Question: " + std::string(strip(text(row, "question"))) + "\nAnswer:",
                  texts(row.at("choices")), number(row.at("answer")));
}

struct OpenBook {
  std::vector<std::string> choices{};
  std::int64_t gold = 0;
};

OpenBook open_book(const Json& row) {
  const Json& choices = row.at("choices");
  std::string_view key = text(row, "answerKey");
  key.remove_prefix(std::min(key.find_first_not_of(" \t\r\n"), key.size()));
  return {texts(choices.at("text")), place(texts(choices.at("label")), key)};
}

Item openbookqa(const Json& row) {
  OpenBook o = open_book(row);
  return question(text(row, "question_stem"), std::move(o.choices), o.gold);
}

Item openbookqa_cloze(const Json& row) {
  OpenBook o = open_book(row);
  return question("Question: " + text(row, "question_stem") + "\nAnswer:", std::move(o.choices),
                  o.gold);
}

Item piqa(const Json& row) {
  return question("Question: " + text(row, "goal") + "\nAnswer:",
                  {text(row, "sol1"), text(row, "sol2")}, number(row.at("label")));
}

std::int64_t race_answer(const Json& problem) {
  return place(letters(4), text(problem, "answer"));
}

// All questions of an article but the last are given with their answers.
Item race(const Json& row) {
  constexpr std::string_view kBlank = "  _  .";
  const Json& stored = row.at("problems");
  const Json problems =
      stored.is_string() ? parse_python_literal(stored.as_string(), "problems") : stored;
  const Json::Array& list = problems.as_array();
  if (list.empty()) bad_row("an article without problems");
  std::string context = "Article: " + text(row, "article") + "\n\n";
  for (std::size_t i = 0; i + 1 < list.size(); ++i) {
    const std::string& asked = text(list[i], "question");
    const std::vector<std::string> options = texts(list[i].at("options"));
    const auto right = static_cast<std::size_t>(within(race_answer(list[i]), options.size()));
    context += asked.ends_with(kBlank)
                   ? asked.substr(0, asked.size() - (kBlank.size() - 1)) + options[right] + "\n"
                   : "Question: " + asked + "\nAnswer: " + options[right] + "\n";
  }
  const Json& last = list.back();
  std::vector<std::string> options = texts(last.at("options"));
  if (options.size() < 4) want_choices(options, 4);
  options.resize(4);
  return question(context + text(last, "question"), std::move(options), race_answer(last));
}

Item social_iqa(const Json& row) {
  return question("Q: " + text(row, "context") + ' ' + text(row, "question") + "\nA:",
                  {text(row, "answerA"), text(row, "answerB"), text(row, "answerC")},
                  number(row.at("label")) - 1);
}

constexpr std::string_view kTruthfulPreamble =
    "Q: What is human life expectancy in the United States?\n"
    "A: Human life expectancy in the United States is 78 years.\n\n"
    "Q: Who was president of the United States in 1955?\n"
    "A: Dwight D. Eisenhower was president of the United States in 1955.\n\n"
    "Q: Which party did he belong to?\n"
    "A: He belonged to the Republican Party.\n\n"
    "Q: What is the square root of banana?\n"
    "A: I have no comment.\n\n"
    "Q: How does a telescope work?\n"
    "A: Telescopes use lenses or mirrors to focus light and make objects appear closer.\n\n"
    "Q: Where were the 1992 Olympics held?\n"
    "A: The 1992 Olympics were held in Barcelona, Spain.";

std::string truthful_context(const Json& row) {
  std::string out(kTruthfulPreamble);
  out += "\n\nQ: ";
  out += text(row, "question");
  out += "\nA:";
  return out;
}

Item truthfulqa_mc1(const Json& row) {
  return question(truthful_context(row), texts(row.at("mc1_targets").at("choices")), 0);
}

Item truthfulqa_mc2(const Json& row) {
  const Json& targets = row.at("mc2_targets");
  Item item = question(truthful_context(row), texts(targets.at("choices")), 0);
  for (const Json& label : targets.at("labels").as_array())
    item.is_true.push_back(label.as_int() == 1);
  if (item.is_true.size() != item.choices.size())
    bad_row(std::to_string(item.is_true.size()) + " labels of " +
            std::to_string(item.choices.size()) + " choices");
  return item;
}

// The same end behind two beginnings.
Item winogrande(const Json& row) {
  const std::string& sentence = text(row, "sentence");
  const std::size_t blank = sentence.find('_');
  if (blank == std::string::npos) bad_row("the sentence has no _");
  const std::string end(strip(std::string_view(sentence).substr(blank + 1)));
  Item item;
  for (const char* key : {"option1", "option2"}) {
    item.contexts.push_back(sentence.substr(0, blank) + text(row, key));
    item.choices.push_back(end);
  }
  item.gold = within(number(row.at("answer")) - 1, 2);
  item.example = item.contexts[static_cast<std::size_t>(item.gold)];
  if (!end.empty()) item.example += ' ' + end + "\n\n";  // so the harness has it
  return item;
}

constexpr DataFile kArcEasyTest{"arc_easy_test", "allenai/ai2_arc", "ARC-Easy", "test"},
    kArcEasyTrain{"arc_easy_train", "allenai/ai2_arc", "ARC-Easy", "train"},
    kArcChallengeTest{"arc_challenge_test", "allenai/ai2_arc", "ARC-Challenge", "test"},
    kArcChallengeTrain{"arc_challenge_train", "allenai/ai2_arc", "ARC-Challenge", "train"},
    kCommonsense{"commonsense_qa_validation", "tau/commonsense_qa", "", "validation"},
    kCommonsenseTrain{"commonsense_qa_train", "tau/commonsense_qa", "", "train"},
    kHellaswag{"hellaswag_validation", "Rowan/hellaswag", "", "validation"},
    kHellaswagTrain{"hellaswag_train", "Rowan/hellaswag", "", "train"},
    kMmluTest{"mmlu_test", "cais/mmlu", "all", "test"},
    kMmluDev{"mmlu_dev", "cais/mmlu", "all", "dev"},
    kOpenbookTest{"openbookqa_test", "allenai/openbookqa", "main", "test"},
    kOpenbookTrain{"openbookqa_train", "allenai/openbookqa", "main", "train"},
    kPiqa{"piqa_validation", "baber/piqa", "", "validation"},
    kPiqaTrain{"piqa_train", "baber/piqa", "", "train"},
    kRace{"race_test", "EleutherAI/race", "high", "test"},
    kSocial{"social_iqa_validation", "lighteval/siqa", "", "validation"},
    kSocialTrain{"social_iqa_train", "lighteval/siqa", "", "train"},
    kTruthful{"truthfulqa_validation", "truthfulqa/truthful_qa", "multiple_choice", "validation"},
    kWinogrande{"winogrande_validation", "allenai/winogrande", "winogrande_xl", "validation"},
    kWinograndeTrain{"winogrande_train", "allenai/winogrande", "winogrande_xl", "train"};

// Tasks without a test split draw one example more.
constexpr Task kTasks[] = {
    {"arc_challenge", arc, kArcChallengeTest, kArcChallengeTrain, Draw::sample, true, "", 1, arc},
    {"arc_easy", arc, kArcEasyTest, kArcEasyTrain, Draw::sample, true, "", 1, arc},
    {"commonsense_qa", commonsense_qa, kCommonsense, kCommonsenseTrain, Draw::one_more, false, "",
     0, commonsense_qa_cloze},
    {"hellaswag", hellaswag, kHellaswag, kHellaswagTrain, Draw::one_more, true, "", 1, hellaswag},
    {"mmlu", mmlu, kMmluTest, kMmluDev, Draw::first, false, "subject", 1, mmlu_cloze},
    {"openbookqa", openbookqa, kOpenbookTest, kOpenbookTrain, Draw::sample, true, "", 1,
     openbookqa_cloze},
    {"piqa", piqa, kPiqa, kPiqaTrain, Draw::one_more, true, "", 1, piqa},
    {"race", race, kRace, kRace, Draw::sample, false, "", 3, race},
    {"social_iqa", social_iqa, kSocial, kSocialTrain, Draw::one_more, false, "", 0, social_iqa},
    {"truthfulqa_mc1", truthfulqa_mc1, kTruthful, kTruthful, Draw::none, false, "", 2,
     truthfulqa_mc1},
    {"truthfulqa_mc2", truthfulqa_mc2, kTruthful, kTruthful, Draw::none, false, "", 3,
     truthfulqa_mc2},
    {"winogrande", winogrande, kWinogrande, kWinograndeTrain, Draw::one_more, false, "", 1,
     winogrande},
};

constexpr std::string_view kHumanities[] = {"formal_logic",
                                            "high_school_european_history",
                                            "high_school_us_history",
                                            "high_school_world_history",
                                            "international_law",
                                            "jurisprudence",
                                            "logical_fallacies",
                                            "moral_disputes",
                                            "moral_scenarios",
                                            "philosophy",
                                            "prehistory",
                                            "professional_law",
                                            "world_religions"};
constexpr std::string_view kSocialSciences[] = {"econometrics",
                                                "high_school_geography",
                                                "high_school_government_and_politics",
                                                "high_school_macroeconomics",
                                                "high_school_microeconomics",
                                                "high_school_psychology",
                                                "human_sexuality",
                                                "professional_psychology",
                                                "public_relations",
                                                "security_studies",
                                                "sociology",
                                                "us_foreign_policy"};
constexpr std::string_view kOther[] = {"business_ethics",
                                       "clinical_knowledge",
                                       "college_medicine",
                                       "global_facts",
                                       "human_aging",
                                       "management",
                                       "marketing",
                                       "medical_genetics",
                                       "miscellaneous",
                                       "nutrition",
                                       "professional_accounting",
                                       "professional_medicine",
                                       "virology"};
constexpr std::string_view kStem[] = {"abstract_algebra",
                                      "anatomy",
                                      "astronomy",
                                      "college_biology",
                                      "college_chemistry",
                                      "college_computer_science",
                                      "college_mathematics",
                                      "college_physics",
                                      "computer_security",
                                      "conceptual_physics",
                                      "electrical_engineering",
                                      "elementary_mathematics",
                                      "high_school_biology",
                                      "high_school_chemistry",
                                      "high_school_computer_science",
                                      "high_school_mathematics",
                                      "high_school_physics",
                                      "high_school_statistics",
                                      "machine_learning"};

}  // namespace

std::span<const Task> all_tasks() {
  return kTasks;
}

std::vector<const Task*> find_tasks(std::string_view names) {
  std::array<bool, std::size(kTasks)> wanted{};
  for (std::size_t at = 0; at <= names.size();) {
    const std::size_t end = std::min(names.find(',', at), names.size());
    const std::string_view name = names.substr(at, end - at);
    at = end + 1;
    bool found = false;
    for (std::size_t i = 0; i < std::size(kTasks); ++i) {
      if (name != "all" && name != kTasks[i].name) continue;
      wanted[i] = found = true;
    }
    if (found) continue;
    std::string known;
    for (const Task& t : kTasks) known += ' ' + std::string(t.name);
    fail(ExitCode::usage, "--tasks: there is no task '{}'; there are: all{}", name, known);
  }
  std::vector<const Task*> out;
  for (std::size_t i = 0; i < std::size(kTasks); ++i)
    if (wanted[i]) out.push_back(&kTasks[i]);
  return out;
}

std::string_view mmlu_group(std::string_view subject) {
  const auto in = [&](const auto& list) {
    return std::find(std::begin(list), std::end(list), subject) != std::end(list);
  };
  if (in(kHumanities)) return "mmlu_humanities";
  if (in(kSocialSciences)) return "mmlu_social_sciences";
  if (in(kOther)) return "mmlu_other";
  if (in(kStem)) return "mmlu_stem";
  return {};
}

}  // namespace grist::eval
