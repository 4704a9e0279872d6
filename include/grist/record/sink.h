#pragma once
// Who is told of a run's records. A sink never ends the run: what it cannot write is a warning.
#include "grist/record/metrics.h"

namespace grist::record {

class Sink {
 public:
  virtual ~Sink() = default;
  virtual void write(const StepRecord& r) = 0;
  virtual void write(const ValidationRecord& r) = 0;
};

}  // namespace grist::record
