#pragma once
// The sink behind metrics.jsonl.
#include "appender.h"
#include "grist/record/sink.h"

namespace grist::record {

// Appends a line a record; knows its length so that a checkpoint can say where to cut on resume.
class MetricsLog final : public Sink {
 public:
  // Cuts the file to `keep_bytes`, or to the last whole line before; what was behind moves to
  // metrics.jsonl.tail-<n>, nothing is lost. Where there is no room for that, the lines stay where
  // they are.
  MetricsLog(const std::filesystem::path& path, std::uint64_t keep_bytes);
  void write(const StepRecord& r) override { append(to_json(r)); }
  void write(const ValidationRecord& r) override { append(to_json(r)); }
  void append(const Json& record) { file_.append(record.dump() + "\n"); }
  void sync() { file_.sync(); }
  std::uint64_t bytes() const { return file_.bytes(); }

 private:
  Appender file_;
};

}  // namespace grist::record
