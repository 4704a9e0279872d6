#pragma once
// How gradients and optimizer state are cut over ranks. A bucket is a run of parameter groups that
// is reduced at once. Its dense range is cut into one part for each rank of the world, its experts'
// range into one part for each rank of an expert-data-parallel group; the parts of all buckets are
// what a rank reduces, updates (zero_stage 1) and writes to checkpoints.
//
// Where a tensor may be cut is the update rule's answer (optim/optimizer.h): on the edges of norm
// chunks, counted from its start, or only at its ends. Cuts are chosen among these so that what a
// rank has over all buckets is balanced. A part may be empty. The
// plan is a function of the model, the layout's sizes and the bucket size: every rank makes the
// same one.
#include <cstdint>
#include <string>
#include <vector>

#include "grist/nn/parameters.h"
#include "grist/optim/optimizer.h"
#include "grist/parallel/layout.h"

namespace grist::parallel {

// Elements [begin, end) of the flattened global tensor `name`.
struct SlicePlan {
  std::string name;
  Shape shape;  // of the whole tensor
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

// One that this rank holds: of Parameters::tensors()[tensor].
struct TensorPiece {
  std::size_t tensor = 0;
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

struct Bucket {
  std::size_t last_group = 0;  // with it the bucket's gradients are complete
  nn::ArenaRange dense, experts;
  // Part p: elements [cuts[p], cuts[p+1]) of the range, from its start.
  std::vector<std::int64_t> dense_cuts;   // world + 1
  std::vector<std::int64_t> expert_cuts;  // expert_data_parallel + 1
};

// What an update rule is told of a tensor.
OptimizedTensor described(const nn::NamedTensor& tensor);

class ShardPlan {
 public:
  // Keeps a reference to `parameters`. bucket_size: elements that a bucket has at least, dense and
  // experts together; the last one may have fewer.
  ShardPlan(const nn::Parameters& parameters, const Layout& layout, std::int64_t bucket_size,
            const UpdateRule& rule);

  const std::vector<Bucket>& buckets() const { return buckets_; }  // in order of the backward pass
  const Layout& layout() const { return layout_; }

  // This rank's parts, cut at the tensors' ends; in order of (name, begin).
  std::vector<TensorPiece> pieces() const;
  // The same of any rank, by global name. All ranks' slices together tile every tensor once.
  std::vector<SlicePlan> slices_of(std::int64_t rank) const;

 private:
  std::vector<TensorPiece> pieces_in(const nn::ArenaRange& range) const;
  std::vector<TensorPiece> pieces_of(const Layout& layout) const;

  const nn::Parameters& parameters_;
  Layout layout_;
  std::vector<std::size_t> by_offset_;  // indices of tensors()
  std::vector<Bucket> buckets_;
};

}  // namespace grist::parallel
