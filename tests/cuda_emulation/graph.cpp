// Graphs that a capture made: launched as one piece of work on a stream.
#include "graph.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <atomic>

#include "random.h"
#include "state.h"

struct CUgraphExec_st {
  std::shared_ptr<const grist::emu::Nodes> nodes;  // launches that are not done yet share them
};

namespace {

using grist::emu::Node;
using grist::emu::Nodes;
using grist::emu::Places;

// In the order of recording, or in any that the nodes allow.
cudaError_t run(const Nodes& nodes, grist::emu::Random* random) {
  if (random == nullptr) {
    for (const Node& n : nodes)
      if (const cudaError_t status = n.work(); status != cudaSuccess) return status;
    return cudaSuccess;
  }
  Places waiting(nodes.size()), ready;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    waiting[i] = nodes[i].after.size();
    if (waiting[i] == 0) ready.push_back(i);
  }
  while (!ready.empty()) {
    const auto pick = ready.begin() + random->below(static_cast<std::uint32_t>(ready.size()));
    const std::size_t place = *pick;
    ready.erase(pick);
    if (const cudaError_t status = nodes[place].work(); status != cudaSuccess) return status;
    for (std::size_t i = place + 1; i < nodes.size(); ++i) {
      const Places& after = nodes[i].after;
      if (std::find(after.begin(), after.end(), place) != after.end() && --waiting[i] == 0)
        ready.push_back(i);
    }
  }
  return cudaSuccess;
}

}  // namespace

extern "C" {

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, std::size_t* count) {
  if (nodes != nullptr)
    return grist::emu::report(cudaErrorNotSupported, "the emulation only counts nodes");
  *count = graph->nodes->size();
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{graph->nodes};
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  static std::atomic<std::uint64_t> launches{0};
  return grist::emu::enqueue(
      stream, [nodes = exec->nodes, seed = launches++, any = grist::emu::deferred()] {
        grist::emu::Random random(seed);
        return run(*nodes, any ? &random : nullptr);
      });
}

}  // extern "C"
