#include "grist/ckpt/manifest.h"

#include <algorithm>
#include <limits>
#include <set>
#include <span>
#include <tuple>

#include "grist/core/check.h"
#include "grist/core/hash.h"

namespace grist {

namespace {

constexpr std::string_view kFormat = "grist-checkpoint";
constexpr std::string_view kTailStart = ",\n  \"checksum\": \"xxh3-64:";
constexpr std::string_view kTailEnd = "\"\n}\n";
constexpr std::size_t kTailBytes = kTailStart.size() + 16 + kTailEnd.size();

std::string tail(std::string_view body) {
  return std::string(kTailStart) + hash_hex(hash64(body)) + std::string(kTailEnd);
}

Json to_json(const Shape& shape) {
  Json j = Json::array();
  for (int i = 0; i < shape.rank(); ++i) j.push_back(shape[i]);
  return j;
}

Json to_json(const FileRecord& f) {
  Json sums = Json::array();
  for (const std::uint64_t s : f.sums) sums.push_back(hash_hex(s));
  Json j = Json::object();
  j.set("name", f.name);
  j.set("kind", f.shard ? "shard" : "text");
  j.set("bytes", f.bytes);
  j.set("sums", std::move(sums));
  return j;
}

Json to_json(const TensorRecord& t) {
  Json slices = Json::array();
  for (const SliceRecord& s : t.slices) {
    Json::Array numbers{Json(static_cast<std::int64_t>(s.file)), Json(s.part.begin),
                        Json(s.part.end)};
    if (!s.part.is_flat()) {
      numbers.emplace_back(s.part.first_column);
      numbers.emplace_back(s.part.columns);
    }
    slices.push_back(std::move(numbers));
  }
  Json j = Json::object();
  j.set("name", t.name);
  j.set("dtype", name_of(t.dtype));
  j.set("shape", to_json(t.shape));
  j.set("slices", std::move(slices));
  return j;
}

// One line an element: thousands of tensors stay readable and diffable.
template <class T> std::string lines(const std::vector<T>& items) {
  std::string out = "[";
  for (std::size_t i = 0; i < items.size(); ++i)
    out += (i == 0 ? "\n    " : ",\n    ") + to_json(items[i]).dump();
  return out + (items.empty() ? "]" : "\n  ]");
}

// Reads the checked JSON. Everything wrong ends in fail(): the text may come from anywhere.
class ManifestParser {
 public:
  explicit ManifestParser(std::string_view where) : where_(where) {}

  Manifest parse(const Json& j) {
    if (const Json* format = j.find("format");
        format == nullptr || !format->is_string() || format->as_string() != kFormat)
      wrong("not a checkpoint manifest");
    version_ = j.at("version").as_int();
    if (version_ != kCheckpointVersion && version_ != kColumnPartsVersion)
      wrong(fmt::format("format version {}, this program reads versions {} and {}", version_,
                        kCheckpointVersion, kColumnPartsVersion));
    m_.uuid = j.at("uuid").as_string();
    m_.step = j.at("step").as_int();
    m_.parent_step = j.at("parent_step").as_int();
    if (m_.step < 0) wrong("negative step");
    m_.layout = j.at("layout");
    m_.state = j.at("state");
    const std::int64_t block = j.at("block_bytes").as_int();
    if (block < 512 || block > (64 << 20)) wrong(fmt::format("blocks of {} bytes", block));
    m_.block_bytes = static_cast<std::uint64_t>(block);
    for (const Json& f : j.at("files").as_array()) file(f);
    for (const Json& t : j.at("tensors").as_array()) tensor(t);
    check_names();
    return std::move(m_);
  }

 private:
  [[noreturn]] void wrong(const std::string& problem) const {
    fail(ExitCode::bad_data, "{}: {}", where_, problem);
  }

  static std::uint64_t parse_sum(const std::string& text) {
    std::uint64_t v = 0;
    for (const char c : text) {
      const bool digit = c >= '0' && c <= '9';
      if (text.size() != 16 || !(digit || (c >= 'a' && c <= 'f')))
        fail(ExitCode::bad_data, "\"{}\" is not a sum", text);
      v = v << 4 | static_cast<std::uint64_t>(digit ? c - '0' : c - 'a' + 10);
    }
    return v;
  }

  void file(const Json& j) {
    FileRecord f;
    f.name = j.at("name").as_string();
    if (!is_plain_file_name(f.name)) wrong(fmt::format("file name \"{}\"", f.name));
    f.shard = j.at("kind").as_string() == "shard";
    const std::int64_t bytes = j.at("bytes").as_int();
    if (bytes < 0) wrong(fmt::format("{}: negative size", f.name));
    f.bytes = static_cast<std::uint64_t>(bytes);
    for (const Json& s : j.at("sums").as_array()) f.sums.push_back(parse_sum(s.as_string()));
    if (f.sums.size() != (f.bytes + m_.block_bytes - 1) / m_.block_bytes)
      wrong(fmt::format("{}: {} sums for {} bytes", f.name, f.sums.size(), f.bytes));
    m_.files.push_back(std::move(f));
  }

  DType dtype(const std::string& name) const {
    for (const DType d : {DType::f32, DType::bf16, DType::f64, DType::i32, DType::i64, DType::u8}) {
      if (name == name_of(d)) return d;
    }
    wrong(fmt::format("unknown dtype \"{}\"", name));
  }

  void shape(const Json& j, TensorRecord& t) const {
    std::int64_t bytes = static_cast<std::int64_t>(size_of(t.dtype));
    for (const Json& extent : j.as_array()) {
      const std::int64_t n = extent.as_int();
      if (n < 0 || t.shape.rank() == Shape::kMaxRank ||
          (n > 0 && bytes > std::numeric_limits<std::int64_t>::max() / n))
        wrong(fmt::format("tensor {}: impossible shape", t.name));
      bytes *= n;
      t.shape.append(n);
    }
  }

  void tensor(const Json& j) {
    TensorRecord t;
    t.name = j.at("name").as_string();
    t.dtype = dtype(j.at("dtype").as_string());
    shape(j.at("shape"), t);
    for (const Json& item : j.at("slices").as_array()) t.slices.push_back(slice(item, t));
    check_tiling(t);
    m_.tensors.push_back(std::move(t));
  }

  SliceRecord slice(const Json& j, const TensorRecord& t) const {
    const Json::Array& s = j.as_array();
    if (s.size() != 3 && !(version_ == kColumnPartsVersion && s.size() == 5))
      wrong(fmt::format("tensor {}: bad slice", t.name));
    const std::int64_t f = s[0].as_int();
    SliceRecord slice{.file = static_cast<std::size_t>(f),
                      .part = {.begin = s[1].as_int(), .end = s[2].as_int()}};
    if (s.size() == 5) {
      slice.part.first_column = s[3].as_int();
      slice.part.columns = s[4].as_int();
    }
    if (f < 0 || slice.file >= m_.files.size() || !m_.files[slice.file].shard)
      wrong(fmt::format("tensor {}: slice in an unknown file", t.name));
    if (!fits(slice.part, t.shape) || slice.part.is_flat() != (s.size() == 3))
      wrong(fmt::format("tensor {}: a slice beyond {}", t.name, t.shape.str()));
    return slice;
  }

  void check_tiling(const TensorRecord& t) const {
    std::vector<TensorPart> parts;
    for (const SliceRecord& s : t.slices) parts.push_back(s.part);
    const Tiling found = tiling(parts, t.shape);
    if (found.hole || found.twice)
      wrong(fmt::format("tensor {}: slices have {} at element {}", t.name,
                        found.hole ? "a hole" : "an overlap",
                        found.hole ? *found.hole : *found.twice));
    if (t.slices.empty()) wrong(fmt::format("tensor {}: no slices", t.name));
    if (!std::is_sorted(t.slices.begin(), t.slices.end(), slice_order))
      wrong(fmt::format("tensor {}: slices are out of order", t.name));
  }

  void check_names() const {
    for (std::size_t i = 1; i < m_.tensors.size(); ++i) {
      if (m_.tensors[i].name <= m_.tensors[i - 1].name)
        wrong(fmt::format("tensor {} is out of order or there twice", m_.tensors[i].name));
    }
    std::set<std::string_view> names;
    for (const FileRecord& f : m_.files) {
      if (!names.insert(f.name).second) wrong(fmt::format("file {} is there twice", f.name));
    }
  }

  std::string_view where_;
  std::int64_t version_ = 0;
  Manifest m_;
};

}  // namespace

std::string Damage::str() const {
  return end == 0 ? fmt::format("{}: {}", file, problem)
                  : fmt::format("{} bytes [{}, {}): {}", file, begin, end, problem);
}

DamagedStep::DamagedStep(const std::filesystem::path& step, Damage damage)
    : Error(ExitCode::bad_data, fmt::format("{}: {}", step.string(), damage.str())),
      damage_(std::move(damage)) {}

const FileRecord* Manifest::find_file(std::string_view name) const {
  for (const FileRecord& f : files) {
    if (f.name == name) return &f;
  }
  return nullptr;
}

const TensorRecord* Manifest::find_tensor(std::string_view name) const {
  const auto at =
      std::lower_bound(tensors.begin(), tensors.end(), name,
                       [](const TensorRecord& t, std::string_view n) { return t.name < n; });
  return at != tensors.end() && at->name == name ? &*at : nullptr;
}

std::uint64_t Manifest::total_bytes() const {
  std::uint64_t n = 0;
  for (const FileRecord& f : files) n += f.bytes;
  return n;
}

std::uint64_t block_sum(const Manifest& m, std::string_view file, std::uint64_t block,
                        std::span<const std::byte> bytes) {
  const std::uint64_t seed = hash64(fmt::format("{}\n{}\n{}\n{}", m.uuid, m.step, file, block));
  return hash64(bytes, seed);
}

std::string entry_name(const TensorRecord& tensor, const SliceRecord& slice) {
  const TensorPart& p = slice.part;
  if (is_whole(p, tensor.shape)) return tensor.name;
  const std::string range = fmt::format("{}@{}:{}", tensor.name, p.begin, p.end);
  if (p.is_flat()) return range;
  return fmt::format("{}@{}:{}", range, p.first_column, p.first_column + p.columns);
}

Shape entry_shape(const TensorRecord& tensor, const SliceRecord& slice) {
  return is_whole(slice.part, tensor.shape) ? tensor.shape : Shape{slice.part.size()};
}

bool slice_order(const SliceRecord& a, const SliceRecord& b) {
  return std::tie(a.part.first_column, a.part.begin) < std::tie(b.part.first_column, b.part.begin);
}

namespace {

bool has_column_parts(const Manifest& m) {
  return std::any_of(m.tensors.begin(), m.tensors.end(), [](const TensorRecord& t) {
    return std::any_of(t.slices.begin(), t.slices.end(),
                       [](const SliceRecord& s) { return !s.part.is_flat(); });
  });
}

}  // namespace

std::string step_name(std::int64_t step) {
  return fmt::format("step-{:08}", step);
}

std::int64_t parse_step_name(std::string_view name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix) || name.size() > kPrefix.size() + 18) return -1;
  std::int64_t step = 0;
  for (const char c : name.substr(kPrefix.size())) {
    if (c < '0' || c > '9') return -1;
    step = step * 10 + (c - '0');
  }
  return step_name(step) == name ? step : -1;
}

bool is_plain_file_name(std::string_view name) {
  if (name.empty() || name.size() > 200 || name.front() == '.') return false;
  return std::all_of(name.begin(), name.end(),
                     [](char c) { return c > ' ' && c != '/' && c != '\\' && c != 127; });
}

std::string manifest_text(const Manifest& m) {
  std::string body = "{\n";
  const auto line = [&body](std::string_view key, const std::string& value, bool last = false) {
    body += fmt::format("  \"{}\": {}{}", key, value, last ? "" : ",\n");
  };
  line("format", Json(kFormat).dump());
  line("version", Json(has_column_parts(m) ? kColumnPartsVersion : kCheckpointVersion).dump());
  line("uuid", Json(m.uuid).dump());
  line("step", Json(m.step).dump());
  line("parent_step", Json(m.parent_step).dump());
  line("layout", m.layout.dump());
  line("block_bytes", Json(m.block_bytes).dump());
  line("files", lines(m.files));
  line("tensors", lines(m.tensors));
  line("state", m.state.dump(), true);
  return body + tail(body);
}

Manifest parse_manifest(std::string_view text, std::string_view where) {
  if (text.size() < kTailBytes)
    fail(ExitCode::bad_data, "{}: {} bytes is too short for a manifest", where, text.size());
  const std::string_view body = text.substr(0, text.size() - kTailBytes);
  const std::string want = tail(body);
  const std::string_view found = text.substr(body.size());
  if (found != want) {
    if (found.starts_with(kTailStart) && found.ends_with(kTailEnd))
      fail(ExitCode::bad_data, "{}: checksum {} was saved, the text has {}", where,
           found.substr(kTailStart.size(), 16), hash_hex(hash64(body)));
    fail(ExitCode::bad_data, "{}: does not end with its checksum (truncated or edited)", where);
  }
  try {
    return ManifestParser(where).parse(Json::parse(text, where));
  } catch (const Error& e) {
    if (std::string_view(e.what()).starts_with(where)) throw;
    fail(ExitCode::bad_data, "{}: {}", where, e.what());
  }
}

}  // namespace grist
