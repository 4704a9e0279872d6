// schedules() and use() of tests/cuda/fixture.h for the emulation.
#include "cuda/fixture.h"
#include "emulation/control.h"
#include "observer.h"
#include "support/scale.h"

namespace grist::test {

const std::vector<Schedule>& schedules() {
  static const std::vector<Schedule> all = {
      {"forward, eager", 0, 0, 1},     {"forward, lazy", 0, 1, 2},
      {"reverse, lazy", 1, 1, 3},      {"random warps, eager", 3, 0, 4},
      {"random warps, lazy", 3, 1, 5}, {"random priorities, lazy", 4, 1, 6},
  };
  // The race checker judges what orders accesses, not the order in which they came. It watches a
  // copy's destination until the wait, so copies have to come late.
  static const std::vector<Schedule> one = {{"race check, lazy", 0, 1, 1}};
  // What the address sanitizer finds depends little on the order, and it takes thirty times as
  // long.
  static const std::vector<Schedule> sanitized = {{"random warps, lazy", 3, 1, 5}};
  return emu::observer != nullptr ? one : kSanitized ? sanitized : all;
}

void use(const Schedule& s) {
  emu::Options o;
  o.order = static_cast<emu::Order>(s.order);
  o.async = static_cast<emu::Async>(s.async);
  o.streams = s.deferred ? emu::Streams::deferred : emu::Streams::immediate;
  o.seed = s.seed;
  emu::set_options(o);
}

}  // namespace grist::test
