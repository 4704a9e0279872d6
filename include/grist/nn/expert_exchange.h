#pragma once
// How rows get to experts that other ranks hold, and back. nn decides the routing and does the
// arithmetic; whoever implements this moves rows (parallel/expert_exchange.h). Without an exchange
// all experts are here, and nothing is copied.
//
// A rank is a source (its tokens choose experts) and an owner (its experts get rows of all sources)
// at once. A pass over one layer:
//
//   begin(pass)                  source's rows start to travel
//   for c in [0, chunks()):      a chunk is a run of the owner's experts
//     rows = arrive(c)           waits until the chunk's rows are here
//     ... expert arithmetic on `rows` ...
//     give_back(c)               its results start to travel (not in a recompute pass)
//   finish()                     waits until the source's results are all back
//
// All ranks of an expert-parallel group make the same passes in the same order.
#include <cstddef>
#include <cstdint>

#include "grist/core/context.h"
#include "grist/core/tensor.h"

namespace grist::nn {

// N tokens and R = N*K rows of the source, in the order of its plan (ops/dispatch.h): by expert
// over all E, then by token.
struct ExpertPass {
  enum class Kind : std::uint8_t {
    forward,    // tokens' x goes out, expert outputs come back
    recompute,  // x goes out again where it was not kept; nothing comes back
    backward    // tokens' dy goes out, dx and the gradients of the row weights come back
  };
  Kind kind = Kind::forward;
  std::size_t layer = 0;
  ConstTensorView expert_offsets;  // (E+1) i32
  ConstTensorView row_token;       // (R) i32
  ConstTensorView row_weight;      // (R)
  ConstTensorView tokens;          // (N, D)  x, or dy in backward
  TensorView rows;                 // (R, D)  workspace, then what came back
  TensorView drow_weight;          // (R)     backward only: what came back
};

// A chunk of the owner's rows as the operations of ops/experts.h take them: El experts held here, R
// an upper bound of rows. Only the rows of experts [first, first + count) are present; offsets of
// the others enclose nothing.
struct ExpertRows {
  std::int64_t first = 0;  // local number
  std::int64_t count = 0;
  ConstTensorView x;               // (M, D)  rows of x and dy are those that row_token names
  ConstTensorView dy;              // (M, D)  backward only
  ConstTensorView row_token;       // (R) i32
  ConstTensorView row_weight;      // (R)     backward only
  ConstTensorView expert_offsets;  // (El+1) i32
  ConstTensorView
      source_offsets;          // (count*S+1) i32  the same rows by (expert, source) of the chunk
  TensorView z, a, rows;       // (R, 2F), (R, F), (R, D): rows is y, in backward dx
  TensorView dz, drow_weight;  // (R, 2F), (R): backward only
};

class ExpertExchange {
 public:
  virtual ~ExpertExchange() = default;
  virtual std::int64_t first_expert() const = 0;
  virtual std::int64_t num_experts() const = 0;  // held here
  virtual std::int64_t sources() const = 0;      // S: ranks that send rows, this one included
  virtual int chunks() const = 0;
  // How often the space for received rows had to grow.
  virtual std::int64_t growths() const = 0;

  // The views of `pass` stay until finish(). Throws Error{out_of_memory} where more rows come than
  // there is memory for.
  virtual void begin(const Context& ctx, const ExpertPass& pass) = 0;
  virtual ExpertRows arrive(const Context& ctx, int chunk) = 0;
  virtual void give_back(const Context& ctx, int chunk) = 0;
  virtual void finish(const Context& ctx) = 0;

 protected:
  ExpertExchange() = default;
  ExpertExchange(const ExpertExchange&) = default;
  ExpertExchange& operator=(const ExpertExchange&) = default;
};

}  // namespace grist::nn
