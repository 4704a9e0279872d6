#pragma once
// Collectives over a Communicator. All ranks call each with sizes that fit together. What returns a
// Pending is asynchronous: buffers must stay until it is waited for. Views are dense, and may be of
// any dtype where no sum is asked for.
//
// Sums add the ranks' contributions by a balanced tree, as ops::tree_sum() does: its shape
// depends on the number of ranks alone, and for powers of two the tree over 2n ranks contains that
// over n.
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "grist/comm/communicator.h"
#include "grist/core/error.h"
#include "grist/core/tensor.h"

namespace grist::comm {

// offsets of size()+1 rows (indices of the outermost dim): rank p gets rows
// [send_offsets[p], send_offsets[p+1]) of `send`; what p sends arrives at
// [receive_offsets[p], receive_offsets[p+1]) of `receive`.
Pending all_to_all(Communicator& c, const ConstTensorView& send,
                   std::span<const std::int64_t> send_offsets, const TensorView& receive,
                   std::span<const std::int64_t> receive_offsets);

// In place: rank p's part is rows [offsets[p], offsets[p+1]) of `buffer`; all parts arrive.
Pending all_gather(Communicator& c, const TensorView& buffer,
                   std::span<const std::int64_t> offsets);

// A reduce-scatter but for the sum: rank p's part [offsets[p], offsets[p+1]) of everybody's flat
// `buffer` comes to rank p. `staging` (size() rows of the own part's length, f32) receives them in
// rank order; ops::tree_add() of it is the sum.
Pending gather_parts(Communicator& c, const ConstTensorView& buffer,
                     std::span<const std::int64_t> offsets, const TensorView& staging);

// ---- small values on the host; these block --------------------------------------------------

void barrier(Communicator& c);
void broadcast(Communicator& c, std::span<std::byte> bytes, int root);
std::string broadcast(Communicator& c, const std::string& text, int root);            // any length
std::vector<std::string> gather(Communicator& c, const std::string& text, int root);  // else empty
std::vector<std::string> all_gather(Communicator& c, const std::string& text);
double all_reduce_sum(Communicator& c, double value);
std::int64_t all_reduce_sum(Communicator& c, std::int64_t value);
std::int64_t all_reduce_max(Communicator& c, std::int64_t value);
// values[i] = sum over ranks of values[i].
void all_reduce_sum(Communicator& c, std::span<std::int64_t> values);

// As many values from every rank, in rank order.
std::vector<double> all_gather(Communicator& c, std::span<const double> values);

// An error that every rank throws at the same place: the job can end in order.
class Agreed : public Error {
 public:
  using Error::Error;
};

// One rank's failure is every rank's: runs `work` here, then agrees. When it threw on some rank,
// every rank throws Agreed with the code and the line of the lowest such rank, with "rank R: " in
// front unless all ranks say the same. Other exceptions than Error count as internal. One rank:
// what `work` throws.
void agree(Communicator& c, const std::function<void()>& work);

}  // namespace grist::comm
