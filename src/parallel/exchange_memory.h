#pragma once
// Memory of an expert exchange: what each layer keeps of the rows that came, and the space that
// passes share. Laid out at start for expert_receive_factor times balanced; grows when more come.
#include <vector>

#include "grist/nn/activations.h"
#include "row_space.h"

namespace grist::parallel {

struct ExchangeSizes {
  std::int64_t sources = 1;        // S
  std::int64_t first_expert = 0;   // of those held here
  std::int64_t experts = 1;        // El
  std::int64_t chunks = 1;         // runs of experts whose rows travel by themselves
  std::int64_t hidden = 0;         // D
  std::int64_t intermediate = 0;   // F
  std::int64_t layers = 1;         // MoE layers
  std::int64_t first_layer = 0;    // number of the first of them
  std::int64_t balanced_rows = 0;  // that come when all experts are used alike
  std::int64_t most_rows = 0;      // that can come at all
  std::int64_t room = 0;           // rows there is room for at start
  nn::Keep keep = nn::Keep::nothing;
  DType dtype = DType::f32;  // of rows
};

// How one layer's rows are ordered.
struct RowTables {
  TensorView counts;          // (S, El) i32
  TensorView expert_offsets;  // (El+1) i32
  TensorView source_offsets;  // (El*S+1) i32
  TensorView chunk_offsets;   // (chunks, El+1) i32: rows of a chunk's experts only
};

// R rows there is room for. Rows lie in the order they came in ("received") or sorted by expert
// ("grouped").
struct RowArrays {
  TensorView row_received, received_row;  // (R) i32: ops/dispatch.h, regroup_plan
  TensorView row_weight;                  // (R)     grouped
  TensorView x, z;                        // (R, D) received, (R, 2F) grouped
  // Within a pass:
  TensorView a, rows;          // (R, F), (R, D)  grouped: activated; expert outputs or dx
  TensorView packed;           // (R, D)  received: what goes back
  TensorView dy;               // (R, D)  received
  TensorView dz, drow_weight;  // (R, 2F), (R)  grouped
  TensorView weights;          // (R)     received: row weights that came, or gradients that go
};

class ExchangeMemory {
 public:
  ExchangeMemory(const ExchangeSizes& sizes, Device device, MemoryLedger* ledger);
  const ExchangeSizes& sizes() const { return sizes_; }
  // `layer` counts MoE layers. Where nothing is kept, they all have the same memory.
  const RowTables& tables(std::int64_t layer) const { return tables_[place(layer)]; }
  RowArrays arrays(std::int64_t layer) const;
  // Makes room where it does not suffice; what lay there is lost. Throws Error{out_of_memory}.
  void make_room(std::int64_t layer, std::int64_t count);
  std::int64_t growths() const { return growths_; }

 private:
  std::size_t place(std::int64_t layer) const {
    return sizes_.keep == nn::Keep::nothing ? 0 : static_cast<std::size_t>(layer);
  }
  void add_tables();

  ExchangeSizes sizes_;
  Arena table_arena_;
  std::vector<RowTables> tables_;
  std::vector<RowSpace> kept_;
  RowSpace shared_;
  std::int64_t growths_ = 0;
};

}  // namespace grist::parallel
