#pragma once
// Progress of long work: redrawn in place on a terminal, a plain line now and then otherwise (Open
// MPI gives every rank a terminal, so under a launcher it is always plain lines).
#include <chrono>
#include <cstdint>
#include <string>

namespace grist {

class Progress {
 public:
  // `unit` is what `done` counts, e.g. "MB"; scale divides counts for display (1e6 for bytes as
  // MB).
  Progress(std::string label, std::uint64_t total, std::string unit, double scale = 1.0);
  void update(std::uint64_t done);  // cheap: draws at most ten times a second (terminal) or every
                                    // ten seconds (plain)
  void finish(std::uint64_t done);  // a last line with the mean rate

 private:
  void draw(std::uint64_t done, bool last);
  std::string label_, unit_;
  std::uint64_t total_;
  double scale_;
  bool terminal_;
  std::chrono::steady_clock::time_point start_, drawn_;
};

}  // namespace grist
