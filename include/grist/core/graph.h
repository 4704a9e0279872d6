#pragma once
// Work of a GPU that is recorded once and then started as a whole (CUDA graphs): the host's cost of
// a long run of small operations is paid once (docs/decisions/0014-*.md).
#include <cstdint>
#include <functional>
#include <list>
#include <vector>

#include "grist/core/context.h"

struct CUgraphExec_st;

namespace grist {

// Graphs of the same piece of code by what changes its operations: everything that reaches them
// from the host is in the key, everything else lies on the device, in memory that outlives this.
class GraphCache {
 public:
  using Key = std::vector<std::int64_t>;
  // Puts work on the context's stream; calls cut() where the host has something to do between two
  // parts of it. Neither waits for the device nor takes memory but from the context's scratch.
  using Work = std::function<void(const std::function<void()>& cut)>;
  // Cuts are numbered from 0.
  using AtCut = std::function<void(std::size_t cut)>;

  // `ctx`, its stream and scratch outlive this.
  explicit GraphCache(const Context& ctx) : ctx_(ctx) {}
  ~GraphCache();
  GraphCache(const GraphCache&) = delete;
  GraphCache& operator=(const GraphCache&) = delete;

  // The first time with a key the work is done as it is: scratch grows, kernels are loaded. The
  // second time it is recorded, and from then on launched. Where it cannot be recorded, a warning
  // says why, and all work is done as it is from then on.
  void run(const Key& key, const Work& work, const AtCut& at_cut);

  struct Counts {
    std::int64_t direct = 0, recorded = 0, launched = 0;  // calls of run()
  };
  const Counts& counts() const { return counts_; }

 private:
  // One more part than cuts; null: a part without work.
  using Parts = std::vector<CUgraphExec_st*>;
  struct Entry {
    Key key;
    Parts parts;  // empty: not recorded yet
  };
  Entry* find(const Key& key);
  bool record(const Work& work, Parts& parts);
  void destroy(const Parts& parts) noexcept;

  const Context& ctx_;
  std::list<Entry> entries_;  // the last used first
  bool works_ = true;
  Counts counts_;
};

}  // namespace grist
