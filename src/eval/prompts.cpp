#include "prompts.h"

#include <algorithm>

#include "grist/core/check.h"
#include "grist/core/log.h"
#include "python_random.h"
#include "rows.h"

namespace grist::eval {

namespace {

constexpr std::uint32_t kFewshotSeed = 1234;  // the harness's default

// Rows of one file that belong together, and how they become items.
struct Rows {
  std::filesystem::path path{};
  std::vector<const Row*> rows{};
};

class SetMaker {
 public:
  SetMaker(const Task& task, const PromptOptions& options)
      : task_(task),
        options_(options),
        shots_(task.draw == Draw::none ? 0 : options.num_fewshot),
        random_(kFewshotSeed) {}

  PromptSet make(const Rows& questions, const Rows& pool, const std::string& subject) {
    PromptSet set{std::string(task_.name),
                  std::string(task_.name),
                  &task_,
                  shots_,
                  std::ssize(questions.rows),
                  {}};
    std::string description;
    if (!subject.empty()) {
      set.name += '_' + subject;
      set.alias = subject;
      std::string words = subject;
      std::replace(words.begin(), words.end(), '_', ' ');
      if (!options_.cloze)
        description =
            "The following are multiple choice questions (with answers) about " + words + ".\n\n";
    }
    check_pool(pool, set.name);
    const std::int64_t count =
        options_.limit > 0 ? std::min(options_.limit, set.num_rows) : set.num_rows;
    for (std::int64_t i = 0; i < count; ++i) {
      const Row& row = *questions.rows[static_cast<std::size_t>(i)];
      Prompt p{item(questions, row), where(questions, row)};
      const std::string front = description + examples(pool, row);
      for (std::string& c : p.item.contexts) c.insert(0, front);
      set.prompts.push_back(std::move(p));
    }
    return set;
  }

 private:
  static std::string where(const Rows& rows, const Row& row) {
    return rows.path.string() + ":" + std::to_string(row.line);
  }

  Item item(const Rows& rows, const Row& row) const {
    try {
      return (options_.cloze ? task_.cloze : task_.item)(row.value);
    } catch (const Error& e) {
      fail(e.code(), "{}: {}", where(rows, row), e.what());
    }
  }

  void check_pool(const Rows& pool, const std::string& name) const {
    if (shots_ == 0) return;
    const std::int64_t need = shots_ + (task_.draw == Draw::one_more ? 1 : 0);
    if (std::ssize(pool.rows) < need)
      fail(ExitCode::usage, "{}: {} rows, --num-fewshot {} of {} needs {}", pool.path.string(),
           pool.rows.size(), shots_, name, need);
  }

  std::string examples(const Rows& pool, const Row& asked) {
    std::string out;
    for (const Row* row : draw(pool, asked)) out += item(pool, *row).example;
    return out;
  }

  std::vector<const Row*> draw(const Rows& pool, const Row& asked) {
    const auto k = static_cast<std::size_t>(shots_);
    if (k == 0) return {};
    if (task_.draw == Draw::first)
      return {pool.rows.begin(), pool.rows.begin() + static_cast<std::ptrdiff_t>(k)};
    if (task_.draw == Draw::sample) return sample(pool.rows, k);
    const auto is_asked = [&](const Row* r) { return r->identity == asked.identity; };
    std::vector<const Row*> drawn = sample(pool.rows, k + 1);
    std::erase_if(drawn, is_asked);
    if (drawn.size() >= k) {
      drawn.resize(k);
      return drawn;
    }
    std::vector<const Row*> others = pool.rows;  // the question is in the pool several times
    std::erase_if(others, is_asked);
    if (others.size() < k)
      fail(ExitCode::usage, "{}: {} rows beside the question asked, --num-fewshot is {}",
           pool.path.string(), others.size(), k);
    return sample(others, k);
  }

  std::vector<const Row*> sample(const std::vector<const Row*>& from, std::size_t k) {
    std::vector<const Row*> out;
    for (const std::size_t i : random_.sample(from.size(), k)) out.push_back(from[i]);
    return out;
  }

  const Task& task_;
  const PromptOptions& options_;
  std::int64_t shots_;
  PythonRandom random_;  // one stream, drawn from in the order of the questions
};

std::vector<const Row*> pointers(const std::vector<Row>& rows) {
  std::vector<const Row*> out;
  for (const Row& r : rows) out.push_back(&r);
  return out;
}

std::string subject_of(const Task& task, const Rows& rows, const Row& row) {
  const Json* subject = row.value.find(task.subject_key);
  if (subject == nullptr || !subject->is_string())
    fail(ExitCode::bad_data, "{}:{}: no column '{}'; export the configuration '{}'",
         rows.path.string(), row.line, task.subject_key, task.questions.config);
  if (mmlu_group(subject->as_string()).empty())
    fail(ExitCode::bad_data, "{}:{}: '{}' is no subject of MMLU", rows.path.string(), row.line,
         subject->as_string());
  return subject->as_string();
}

Rows of_subject(const Task& task, const Rows& all, const std::string& subject) {
  Rows out{all.path, {}};
  for (const Row* r : all.rows)
    if (subject_of(task, all, *r) == subject) out.rows.push_back(r);
  return out;
}

std::vector<std::string> subjects(const Task& task, const Rows& rows) {
  std::vector<std::string> out;
  for (const Row* r : rows.rows) out.push_back(subject_of(task, rows, *r));
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

}  // namespace

std::vector<PromptSet> make_prompts(const Task& task, const PromptOptions& options) {
  const bool shots = task.draw != Draw::none && options.num_fewshot > 0;
  const auto path = path_of(options.data, task.questions),
             pool_path = path_of(options.data, task.pool);
  const std::vector<Row> asked = read_rows(path);
  const std::vector<Row> others =
      shots && pool_path != path ? read_rows(pool_path) : std::vector<Row>{};
  const Rows questions{path, pointers(asked)};
  const Rows pool{pool_path, pool_path != path ? pointers(others) : questions.rows};
  std::vector<PromptSet> sets;
  if (task.subject_key.empty()) {
    sets.push_back(SetMaker(task, options).make(questions, pool, ""));
    return sets;
  }
  const std::vector<std::string> names = subjects(task, questions);
  constexpr std::size_t kSubjects = 57;
  if (names.size() < kSubjects)
    log::warn("{}: {} of {} subjects", path.string(), names.size(), kSubjects);
  for (const std::string& name : names) {
    sets.push_back(SetMaker(task, options)
                       .make(of_subject(task, questions, name),
                             shots ? of_subject(task, pool, name) : Rows{pool_path, {}}, name));
  }
  return sets;
}

}  // namespace grist::eval
