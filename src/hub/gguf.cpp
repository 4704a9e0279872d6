// grist export --to gguf: a checkpoint, a tensor at a time, into a file aside; renamed last.
#include "grist/hub/gguf.h"

#include <algorithm>
#include <cmath>

#include "aside_folder.h"
#include "gguf_model.h"
#include "gguf_tokenizer.h"
#include "grist/config/load.h"
#include "grist/core/file.h"
#include "part_stream.h"
#include "step_source.h"

namespace grist::hub {

namespace fs = std::filesystem;

namespace {

GgufType type_of(GgufDType dtype) {
  switch (dtype) {
    case GgufDType::fp32: return GgufType::f32;
    case GgufDType::bf16: return GgufType::bf16;
    case GgufDType::f16: return GgufType::f16;
  }
  return GgufType::f32;
}

// Row (h, i, half) of llama.cpp's is row (h, half, i) here.
void pair_neighbours(std::span<const float> from, std::int64_t heads, std::int64_t width,
                     std::vector<float>& to) {
  const std::int64_t rows = std::ssize(from) / width, half = rows / heads / 2;
  to.resize(from.size());
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t head = row / (2 * half), in_head = row % (2 * half);
    const std::int64_t source = head * 2 * half + in_head % 2 * half + in_head / 2;
    std::copy_n(from.begin() + source * width, width, to.begin() + row * width);
  }
}

class Writer {
 public:
  Writer(File& file, std::uint64_t start) : file_(file), at_(start) {}

  void tensor(const GgufTensor& t, PartStream& parts) {
    for (std::size_t i = 0; i < t.parts.size(); ++i) {
      std::span<const float> values = parts.next();
      if (t.rows.heads > 0) {
        pair_neighbours(values, t.rows.heads, t.shape[t.shape.rank() - 1], paired_);
        values = paired_;
      }
      write(values, t);
    }
  }
  void seek(std::uint64_t at) { at_ = at; }

 private:
  void write(std::span<const float> values, const GgufTensor& t) {
    if (t.type == GgufType::f32) return put(std::as_bytes(values));
    const bool half = t.type == GgufType::f16;
    bits_.resize(values.size());
    std::transform(values.begin(), values.end(), bits_.begin(), half ? to_f16 : to_bf16);
    if (half &&
        std::ranges::any_of(bits_, [](std::uint16_t b) { return (b & 0x7C00U) == 0x7C00U; }))
      fail(ExitCode::numeric, "{}: a weight is beyond f16's 65504; use --dtype bf16 or fp32",
           t.parts.front().name);
    put(std::as_bytes(std::span(bits_)));
  }
  void put(std::span<const std::byte> bytes) {
    file_.write_at(at_, bytes);
    at_ += bytes.size();
  }

  File& file_;
  std::uint64_t at_;
  std::vector<float> paired_;
  std::vector<std::uint16_t> bits_;
};

GgufHeader header_of(const CheckpointReader& step, const ModelConfig& model, GgufType type,
                     const fs::path& output) {
  GgufHeader h;
  h.add("general.architecture", gguf_architecture(model));
  h.add("general.type", "model");
  h.add("general.name", output.stem().string());
  h.add_u32("general.quantization_version", 2);
  add_hyperparameters(h, model, type);
  if (step.has_text("tokenizer.json")) {
    const std::string text = step.text("tokenizer.json");
    add_tokenizer(h, Json::parse(text, "tokenizer.json"), Tokenizer::load(step.path()),
                  special_tokens(step), model.vocab_size);
  } else {
    h.add("tokenizer.ggml.model", "no_vocab");
  }
  return h;
}

GgufExported export_step(const CheckpointReader& step, const GgufOptions& options) {
  const ModelConfig model =
      saved_config(step.text("config.yaml"), (step.path() / "config.yaml").string()).model;
  GgufExported out{.checkpoint = step.path(), .architecture = gguf_architecture(model)};
  refuse_lost_biases(step, family_of(model), model);
  const GgufType type = type_of(options.dtype);
  const std::vector<GgufTensor> tensors = gguf_tensors(model, type);
  GgufHeader header = header_of(step, model, type, options.output);
  std::uint64_t source_bytes = 0;
  for (const GgufTensor& t : tensors) {
    header.add_tensor(t.name, t.shape, t.type);
    source_bytes += static_cast<std::uint64_t>(t.shape.numel()) * sizeof(float);
  }
  const AsideFolder aside(options.output);  // locked; goes away with what is left in it
  const fs::path unnamed = aside.path() / "gguf";
  File file = File::create_new(unnamed);
  const std::string head = header.bytes();
  out.bytes = head.size() + header.offset(tensors.size());
  file.preallocate(out.bytes);
  file.write_at(0, std::as_bytes(std::span(head)));
  StepParts source(step, source_bytes);
  const PartReader read = [&](std::span<const PartBuffer> wanted) { source.read(wanted); };
  PartStream parts(read);
  for (const GgufTensor& t : tensors)
    for (const Part& p : t.parts) parts.add(p);
  Writer writer(file, head.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    writer.seek(head.size() + header.offset(i));
    writer.tensor(tensors[i], parts);
  }
  source.finish();
  file.truncate(out.bytes);  // with the padding of the last tensor
  file.sync();
  file.close();
  rename_path(unnamed, options.output);
  sync_directory(options.output.has_parent_path() ? options.output.parent_path() : fs::path("."));
  return out;
}

}  // namespace

GgufExported export_gguf(const GgufOptions& options) {
  return with_newest_good(options.checkpoint,
                          [&](const CheckpointReader& step) { return export_step(step, options); });
}

}  // namespace grist::hub
