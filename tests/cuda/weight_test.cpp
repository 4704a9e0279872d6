#include "grist/ops/weight.h"

#include "cuda/elementwise.h"

namespace grist::test {
namespace {

TEST(CudaWeight, IsADenseRoundedCopy) {
  for_each_schedule([] {
    for (const DType dtype : kActivationTypes) {
      for (const Shape& shape : {Shape{1, 1}, {3, 5}, {192, 200}, {4, 96, 64}, {0, 8, 8}}) {
        const CudaContext ctx;
        const std::vector<float> master = normals(shape.numel(), "weight");
        const OnDevice out(*ctx, dtype, shape);
        const ops::WeightView w{.data = static_cast<std::byte*>(out.view().data),
                                .device = Device::cuda,
                                .dtype = dtype,
                                .shape = shape};
        EXPECT_EQ(ops::weight_bytes(Device::cuda, dtype, shape), out.view().bytes());
        ops::refresh_weight(*ctx, {.out = w, .master = OnDevice(*ctx, master, shape)});
        EXPECT_EQ(out.floats(), dtype == DType::bf16 ? rounded_to_bf16(master) : master);
      }
    }
  });
}

}  // namespace
}  // namespace grist::test
