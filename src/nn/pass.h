#pragma once
// One pass over the layers, forward and backward: what Model::forward_backward() and evaluate() put
// on the context's stream. Nothing here waits for the device or copies to the host, and all that
// differs between two micro-batches with the same graph_key() lies in device memory: the operations
// can be recorded and started again (core/graph.h).
#include "block.h"
#include "grist/core/graph.h"

namespace grist::nn {

// A micro-batch where operations read it.
struct PassInput {
  Batch batch;
  ConstTensorView loss_scale;  // (1) f32
};
// On a GPU: copies it, and the routers' values with it; asynchronous, but the caller's memory may
// be reused at once. Document boundaries are padded there with empty documents, to a power of two:
// so few numbers of documents are told apart. `loss_scale`: one float.
PassInput place(const Context& ctx, Activations& act, const Batch& batch, const float* loss_scale,
                const RouterState& routers, const TensorView& router_values);

class Pass {
 public:
  // All of it outlives the pass. `router_values`: Model::router_values_.
  Pass(const Context& ctx, const ModelConfig& config, const Parameters& parameters,
       const RouterState& routers, const TensorView& router_values, Activations& act,
       const PassInput& input, ConstTensorView rope_table)
      : ctx_(ctx),
        config_(config),
        parameters_(parameters),
        routers_(routers),
        router_values_(router_values),
        act_(act),
        input_(input),
        attention_{input.batch.positions, input.batch.cu_seqlens, input.batch.cu_seqlens,
                   rope_table} {}

  // What changes the operations beside the values on the device.
  GraphCache::Key graph_key(const StepScale& scale) const;
  void forward(std::int64_t capacity);
  // act.losses, act.loss_sum; with gradients also act.dn_final and the output layer's gradient.
  void loss(const StepScale* scale);
  // `ready`: a group of gradients is final (nn/gradient_sink.h).
  void backward(const StepScale& scale, const std::function<void()>& ready);

 private:
  std::size_t first_moe() const;
  LayerRun layer(std::size_t i) const;
  RoutingInput routing(std::size_t i, std::int64_t capacity) const;
  void recompute(std::size_t i) const;
  BalanceScale balance(std::size_t i, const StepScale& scale) const;

  const Context& ctx_;
  const ModelConfig& config_;
  const Parameters& parameters_;
  const RouterState& routers_;
  const TensorView& router_values_;
  Activations& act_;
  PassInput input_;
  AttentionInput attention_;
};

}  // namespace grist::nn
