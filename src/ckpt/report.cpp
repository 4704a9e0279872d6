#include "grist/ckpt/report.h"

#include <sys/stat.h>

#include <ctime>

#include "grist/ckpt/checkpoint.h"
#include "grist/core/check.h"
#include "grist/core/memory.h"

namespace grist {

namespace {

std::string saved_at(const std::filesystem::path& folder) {
  struct stat st {};
  std::tm t{};
  if (::stat((folder / kManifestName).c_str(), &st) != 0 ||
      ::localtime_r(&st.st_mtime, &t) == nullptr)
    return "?";
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", t.tm_year + 1900, t.tm_mon + 1,
                     t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec);
}

std::string step_number(const VerifyReport& r) {
  return r.step < 0 ? r.folder.filename().string() : std::to_string(r.step);
}

std::string damage_lines(const VerifyReport& r) {
  std::string out;
  for (const Damage& d : r.damage) out += fmt::format("    {}\n", d.str());
  return out;
}

}  // namespace

CheckpointReport checkpoint_ls(const std::filesystem::path& path) {
  CheckpointReport report;
  report.text = fmt::format("{:>10}  {:>10}  {:>7}  {:<19}  {}\n", "step", "size", "tensors",
                            "saved", "state (manifest and sizes; `verify` reads every byte)");
  for (const StepInfo& s : resolve_steps(path)) {
    const VerifyReport r = verify_step(s.folder, VerifyDepth::sizes);
    report.ok = report.ok && r.ok();
    report.text +=
        fmt::format("{:>10}  {:>10}  {:>7}  {:<19}  {}\n", step_number(r), human_bytes(r.bytes),
                    r.num_tensors, saved_at(s.folder), r.ok() ? "ok" : "damaged");
    report.text += damage_lines(r);
  }
  return report;
}

CheckpointReport checkpoint_verify(const std::filesystem::path& path) {
  CheckpointReport report;
  for (const StepInfo& s : resolve_steps(path)) {
    const VerifyReport r = verify_step(s.folder, VerifyDepth::blocks);
    report.ok = report.ok && r.ok();
    report.text += fmt::format("{}: {} ({}, {} tensors)\n", s.folder.string(),
                               r.ok() ? "ok" : "damaged", human_bytes(r.bytes), r.num_tensors);
    report.text += damage_lines(r);
  }
  return report;
}

}  // namespace grist
