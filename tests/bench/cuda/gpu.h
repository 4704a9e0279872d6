#pragma once
// What the GPU's benchmark measures with: operands, times, the rates of the device, one table.
#include <cuda_runtime.h>

#include <cstdio>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "grist/core/device.h"
#include "grist/core/memory.h"
#include "grist/ops/weight.h"

namespace grist::bench {

struct Effort {
  int rounds = 20;                                   // measured calls; the median counts
  double warm_seconds = 0.1;                         // of calls before them
  std::size_t flush_bytes = std::size_t{256} << 20;  // written before each call: more than any L2
};

// Operands on the device, filled with normal numbers: zeros would flatter the clock.
class Operands {
 public:
  explicit Operands(const Context& ctx) : ctx_(ctx) {}
  TensorView empty(DType dtype, const Shape& shape);
  TensorView normals(DType dtype, const Shape& shape);  // f32, bf16; a block of them repeated
  TensorView zeros(DType dtype, const Shape& shape);
  template <class T> TensorView of(const std::vector<T>& values, const Shape& shape) {
    const TensorView v = empty(dtype_of<T>(), shape);
    copy_in(ctx_, v, values.data());
    return v;
  }
  ops::WeightView weight(const Shape& shape, DType dtype = DType::bf16);

 private:
  const Context& ctx_;
  std::vector<Buffer> keep_;
};

struct Way {
  std::string name;
  std::function<void()> run;
};
// One line of the table. `flops` and `bytes` are what the operation cannot do without.
struct Case {
  std::string kernel, shape;
  double flops = 0, bytes = 0;
  std::function<void()> run;
  std::vector<Way> alternatives = {};
};

// Median seconds of each, measured in turn, the L2 flushed before every call.
std::vector<double> measure(const Context& ctx, const std::vector<std::function<void()>>& runs,
                            const Effort& effort);

class Table {
 public:
  Table(const Context& ctx, const Effort& effort, std::FILE* json, std::string filter)
      : ctx_(ctx), effort_(effort), json_(json), filter_(std::move(filter)) {}
  // Whether one of them is asked for.
  bool wants(std::initializer_list<std::string_view> kernels) const;
  // Measures what shares are of: bytes copied a second, and the rate of `multiply`, a large dense
  // bf16 product of that many operations, called `how`.
  void measure_ceilings(Operands& operands, const Way& multiply, const std::string& shape,
                        double flops);
  void measure(const Case& c);  // and prints it
  int failures() const { return failures_; }

 private:
  void write(const Case& c, const std::vector<double>& seconds);
  const Context& ctx_;
  Effort effort_;
  std::FILE* json_;
  std::string filter_;
  double copy_rate_ = 0, dense_rate_ = 0;
  int failures_ = 0;
};

}  // namespace grist::bench
