#include "exchange_memory.h"

#include <algorithm>
#include <utility>

#include "grist/core/check.h"
#include "grist/core/log.h"

namespace grist::parallel {

namespace {

struct Array {
  TensorView RowArrays::*member;
  DType dtype;
  std::int64_t columns;  // 0: one value a row
};

// x and z are large: kept with what else is large, else sent and computed again.
std::vector<Array> large_arrays(const ExchangeSizes& s) {
  return {{&RowArrays::x, s.dtype, s.hidden}, {&RowArrays::z, s.dtype, 2 * s.intermediate}};
}

std::vector<Array> kept_arrays(const ExchangeSizes& s) {
  std::vector<Array> arrays = {{&RowArrays::row_received, DType::i32, 0},
                               {&RowArrays::received_row, DType::i32, 0}};
  if (s.keep == nn::Keep::nothing) return arrays;
  arrays.push_back({&RowArrays::row_weight, DType::f32, 0});
  if (s.keep == nn::Keep::everything) {
    for (const Array& a : large_arrays(s)) arrays.push_back(a);
  }
  return arrays;
}

std::vector<Array> shared_arrays(const ExchangeSizes& s) {
  std::vector<Array> arrays = {{&RowArrays::a, s.dtype, s.intermediate},
                               {&RowArrays::rows, s.dtype, s.hidden},
                               {&RowArrays::packed, s.dtype, s.hidden}};
  if (s.keep != nn::Keep::everything) {
    for (const Array& a : large_arrays(s)) arrays.push_back(a);
  }
  if (s.keep == nn::Keep::nothing) return arrays;
  arrays.insert(arrays.end(), {{&RowArrays::dy, s.dtype, s.hidden},
                               {&RowArrays::dz, s.dtype, 2 * s.intermediate},
                               {&RowArrays::drow_weight, DType::f32, 0},
                               {&RowArrays::weights, DType::f32, 0}});
  return arrays;
}

void add_arrays(RowSpace& space, const std::vector<Array>& arrays) {
  for (const Array& a : arrays) space.add(a.dtype, a.columns);
}

void bind_arrays(RowArrays& out, const RowSpace& space, const std::vector<Array>& arrays,
                 std::int64_t count) {
  for (std::size_t i = 0; i < arrays.size(); ++i)
    out.*arrays[i].member = rows(space.array(i), 0, count);
}

}  // namespace

ExchangeMemory::ExchangeMemory(const ExchangeSizes& sizes, Device device, MemoryLedger* ledger)
    : sizes_(sizes),
      table_arena_("expert exchange (tables)", device, ledger),
      shared_(sizes.keep == nn::Keep::nothing ? "expert exchange (evaluation)"
                                              : "expert exchange (one layer)",
              device, ledger) {
  const std::int64_t layers = sizes.keep == nn::Keep::nothing ? 1 : sizes.layers;
  add_tables();
  for (std::int64_t i = 0; i < layers; ++i) {
    kept_.emplace_back(sizes.keep == nn::Keep::nothing ? "expert exchange (evaluation)"
                                                       : "expert exchange (kept for backward)",
                       device, ledger);
    add_arrays(kept_.back(), kept_arrays(sizes));
    kept_.back().allocate(sizes.room);
  }
  add_arrays(shared_, shared_arrays(sizes));
  shared_.allocate(sizes.room);
}

void ExchangeMemory::add_tables() {
  const ExchangeSizes& s = sizes_;
  const std::vector<std::pair<TensorView RowTables::*, Shape>> fields = {
      {&RowTables::counts, {s.sources, s.experts}},
      {&RowTables::expert_offsets, {s.experts + 1}},
      {&RowTables::source_offsets, {s.experts * s.sources + 1}},
      {&RowTables::chunk_offsets, {s.chunks, s.experts + 1}}};
  tables_.resize(s.keep == nn::Keep::nothing ? 1 : static_cast<std::size_t>(s.layers));
  std::vector<std::size_t> offsets;
  for (std::size_t i = 0; i < tables_.size(); ++i)
    for (const auto& f : fields) offsets.push_back(table_arena_.reserve(DType::i32, f.second));
  table_arena_.commit();
  std::size_t next = 0;
  for (RowTables& t : tables_)
    for (const auto& [member, shape] : fields)
      t.*member = table_arena_.view(offsets[next++], DType::i32, shape);
}

RowArrays ExchangeMemory::arrays(std::int64_t layer) const {
  const RowSpace& kept = kept_[place(layer)];
  const std::int64_t R = std::min(kept.capacity(), shared_.capacity());
  RowArrays out;
  bind_arrays(out, kept, kept_arrays(sizes_), R);
  bind_arrays(out, shared_, shared_arrays(sizes_), R);
  return out;
}

void ExchangeMemory::make_room(std::int64_t layer, std::int64_t count) {
  RowSpace& kept = kept_[place(layer)];
  const std::int64_t room = std::min(kept.capacity(), shared_.capacity());
  if (count <= room) return;
  if (growths_++ == 0) {
    log::from_rank(fmt::format(
        "layer {}: {} rows come for experts {} to {}, {} if balanced, with room for {}: making "
        "room (said once). model.moe.capacity_factor bounds the rows, "
        "parallel.expert_receive_factor sets the room at start",
        sizes_.first_layer + layer, count, sizes_.first_expert,
        sizes_.first_expert + sizes_.experts - 1, sizes_.balanced_rows, room));
  }
  const std::int64_t spare = count / 8;
  const std::int64_t target = std::max(count, std::min(count + spare, sizes_.most_rows));
  try {
    if (kept.capacity() < count) kept.allocate(target);
    if (shared_.capacity() < count) shared_.allocate(target);
  } catch (const Error& e) {
    if (e.code() != ExitCode::out_of_memory) throw;
    fail(ExitCode::out_of_memory,
         "out of memory: layer {}: no room for {} rows that come for experts {} to {}, {} if "
         "balanced; set model.moe.capacity_factor or a smaller train.micro_batch_size",
         sizes_.first_layer + layer, count, sizes_.first_expert,
         sizes_.first_expert + sizes_.experts - 1, sizes_.balanced_rows);
  }
}

}  // namespace grist::parallel
