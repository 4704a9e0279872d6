#include "grist/ckpt/safetensors.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <numeric>
#include <set>
#include <tuple>

#include "grist/core/check.h"
#include "grist/core/json.h"
#include "header_scanner.h"

namespace grist {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

namespace {

struct TypeInfo {
  const char* name;
  std::uint64_t bytes;
  std::optional<DType> dtype;
};

constexpr std::array<TypeInfo, 17> kTypes{{{"F64", 8, DType::f64},
                                           {"I64", 8, DType::i64},
                                           {"U64", 8, {}},
                                           {"C64", 8, {}},
                                           {"F32", 4, DType::f32},
                                           {"I32", 4, DType::i32},
                                           {"U32", 4, {}},
                                           {"BF16", 2, DType::bf16},
                                           {"F16", 2, {}},
                                           {"I16", 2, {}},
                                           {"U16", 2, {}},
                                           {"U8", 1, DType::u8},
                                           {"I8", 1, {}},
                                           {"F8_E5M2", 1, {}},
                                           {"F8_E4M3", 1, {}},
                                           {"F8_E8M0", 1, {}},
                                           {"BOOL", 1, {}}}};

const TypeInfo* find_type(std::string_view name) {
  const auto* found =
      std::find_if(kTypes.begin(), kTypes.end(), [&](const TypeInfo& t) { return t.name == name; });
  return found == kTypes.end() ? nullptr : found;
}

// false: the product does not fit in 63 bits.
bool multiply(std::uint64_t& product, std::uint64_t factor) {
  constexpr std::uint64_t kMax = std::numeric_limits<std::int64_t>::max();
  if (factor != 0 && product > kMax / factor) return false;
  product *= factor;
  return true;
}

// One header being read: tensors in the order of the text, offsets relative to the data.
class HeaderParser {
 public:
  HeaderParser(std::string_view json, std::string_view where) : scan_(json, where) {}

  SafetensorsHeader parse() {
    scan_.check_utf8();
    scan_.list('{', '}', [this] {
      std::string name = scan_.string();
      scan_.expect(':');
      if (name == "__metadata__")
        metadata();
      else
        tensor(std::move(name));
    });
    if (!scan_.at_end()) scan_.wrong("text after the header's object");
    return std::move(header_);
  }

 private:
  void metadata() {
    if (seen_metadata_) scan_.wrong("a second __metadata__");
    seen_metadata_ = true;
    scan_.list('{', '}', [this] {
      std::string key = scan_.string();
      scan_.expect(':');
      header_.metadata.emplace_back(std::move(key), scan_.string());
    });
    std::vector<std::string_view> keys;
    keys.reserve(header_.metadata.size());
    for (const auto& [key, value] : header_.metadata) keys.emplace_back(key);
    std::sort(keys.begin(), keys.end());
    if (std::adjacent_find(keys.begin(), keys.end()) != keys.end())
      scan_.wrong("duplicate key in __metadata__");
  }

  void shape(SafetensorsEntry& e) {
    scan_.list('[', ']', [&] {
      const std::uint64_t extent = scan_.integer();
      if (extent > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
        scan_.wrong("extent too large");
      if (e.shape.rank() == Shape::kMaxRank)
        scan_.wrong(fmt::format("a tensor of more than {} dims", Shape::kMaxRank));
      e.shape.append(static_cast<std::int64_t>(extent));
    });
  }

  void tensor(std::string name) {
    SafetensorsEntry e;
    e.name = std::move(name);
    bool have_type = false, have_shape = false, have_offsets = false;
    const auto once = [this](bool& seen, const char* key) {
      if (seen) scan_.wrong(fmt::format("a second \"{}\"", key));
      seen = true;
    };
    scan_.list('{', '}', [&] {
      const std::string key = scan_.string();
      scan_.expect(':');
      if (key == "dtype") {
        once(have_type, "dtype");
        e.type = scan_.string();
      } else if (key == "shape") {
        once(have_shape, "shape");
        shape(e);
      } else if (key == "data_offsets") {
        once(have_offsets, "data_offsets");
        scan_.expect('[');
        e.begin = scan_.integer();
        scan_.expect(',');
        e.end = scan_.integer();
        scan_.expect(']');
      } else {
        scan_.wrong("a key other than dtype, shape, data_offsets");
      }
    });
    if (!have_type || !have_shape || !have_offsets)
      scan_.wrong(fmt::format("tensor \"{}\" lacks dtype, shape or data_offsets", e.name));
    check_size(e);
    header_.entries.push_back(std::move(e));
  }

  void check_size(SafetensorsEntry& e) const {
    const TypeInfo* type = find_type(e.type);
    if (type == nullptr)
      scan_.wrong(fmt::format("tensor \"{}\" has the unknown dtype \"{}\"", e.name, e.type));
    e.dtype = type->dtype;
    std::uint64_t bytes = type->bytes;
    for (int i = 0; i < e.shape.rank(); ++i) {
      if (!multiply(bytes, static_cast<std::uint64_t>(e.shape[i])))
        scan_.wrong(fmt::format("tensor \"{}\" is too large", e.name));
    }
    if (e.end < e.begin || e.end - e.begin != bytes)
      scan_.wrong(fmt::format("tensor \"{}\": offsets [{}, {}) do not hold the {} bytes of {} {}",
                              e.name, e.begin, e.end, bytes, e.type, e.shape.str()));
  }

  ckpt::HeaderScanner scan_;
  SafetensorsHeader header_;
  bool seen_metadata_ = false;
};

// Sorts by offset, checks that the tensors tile [0, data_bytes), and makes offsets absolute.
void place(SafetensorsHeader& h, std::uint64_t data_start, std::uint64_t file_bytes,
           std::string_view where) {
  auto& entries = h.entries;
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  std::uint64_t next = 0;
  for (const SafetensorsEntry& e : entries) {
    if (e.begin != next)
      fail(ExitCode::bad_data,
           "{}: tensor \"{}\" begins at byte {} of the data, {} was expected ({})", where, e.name,
           e.begin, next, e.begin < next ? "overlap" : "hole");
    next = e.end;
  }
  const std::uint64_t data_bytes = file_bytes - data_start;
  if (next != data_bytes)
    fail(ExitCode::bad_data, "{}: holds {} bytes of data, its header describes {} ({})", where,
         data_bytes, next, next > data_bytes ? "truncated" : "bytes after the last tensor");
  for (SafetensorsEntry& e : entries) {
    e.begin += data_start;
    e.end += data_start;
  }
}

}  // namespace

const SafetensorsEntry* SafetensorsHeader::find(std::string_view name) const {
  const auto at =
      std::lower_bound(by_name.begin(), by_name.end(), name,
                       [this](std::uint32_t i, std::string_view n) { return entries[i].name < n; });
  return at != by_name.end() && entries[*at].name == name ? &entries[*at] : nullptr;
}

const std::string* SafetensorsHeader::find_metadata(std::string_view key) const {
  for (const auto& [k, v] : metadata) {
    if (k == key) return &v;
  }
  return nullptr;
}

std::uint64_t safetensors_header_length(std::span<const std::byte, 8> start,
                                        std::uint64_t file_bytes, std::string_view where) {
  std::uint64_t length = 0;
  for (std::size_t i = 8; i-- > 0;) length = length << 8 | std::to_integer<std::uint64_t>(start[i]);
  if (length < 2 || length > kMaxSafetensorsHeader)
    fail(ExitCode::bad_data, "{}: not a safetensors file (its header would have {} bytes)", where,
         length);
  if (file_bytes < 8 || length > file_bytes - 8)
    fail(ExitCode::bad_data,
         "{}: header of {} bytes in a file of {} (truncated, or not safetensors)", where, length,
         file_bytes);
  return length;
}

SafetensorsHeader parse_safetensors_header(std::string_view json, std::uint64_t file_bytes,
                                           std::string_view where) {
  if (json.empty() || json.front() != '{')
    fail(ExitCode::bad_data, "{}: not a safetensors file (the header does not open with {{)",
         where);
  SafetensorsHeader h = HeaderParser(json, where).parse();
  GRIST_CHECK(file_bytes >= 8 + json.size(), "header of {} bytes in {}", json.size(), file_bytes);
  place(h, 8 + json.size(), file_bytes, where);
  h.by_name.resize(h.entries.size());
  std::iota(h.by_name.begin(), h.by_name.end(), 0U);
  std::sort(h.by_name.begin(), h.by_name.end(), [&h](std::uint32_t a, std::uint32_t b) {
    return h.entries[a].name < h.entries[b].name;
  });
  for (std::size_t i = 1; i < h.by_name.size(); ++i) {
    const std::string& name = h.entries[h.by_name[i]].name;
    if (name == h.entries[h.by_name[i - 1]].name)
      fail(ExitCode::bad_data, "{}: tensor \"{}\" appears twice", where, name);
  }
  return h;
}

SafetensorsReader::SafetensorsReader(const std::filesystem::path& path)
    : file_(File::open_read(path)) {
  const std::string where = path.string();
  const std::uint64_t file_bytes = file_.size();
  if (file_bytes < 8)
    fail(ExitCode::bad_data, "{}: {} bytes is too short for a safetensors file", where, file_bytes);
  std::array<std::byte, 8> start{};
  file_.read_at(0, start);
  std::string json(safetensors_header_length(start, file_bytes, where), '\0');
  file_.read_at(8, std::as_writable_bytes(std::span(json)));
  header_ = parse_safetensors_header(json, file_bytes, where);
}

const SafetensorsEntry& SafetensorsReader::at(std::string_view name) const {
  const SafetensorsEntry* e = header_.find(name);
  if (e == nullptr) fail(ExitCode::bad_data, "{}: has no tensor \"{}\"", path().string(), name);
  return *e;
}

void SafetensorsReader::read(const SafetensorsEntry& entry, std::span<std::byte> out) const {
  GRIST_CHECK(out.size() == entry.end - entry.begin, "{} bytes for tensor {} of {}", out.size(),
              entry.name, entry.end - entry.begin);
  file_.read_at(entry.begin, out);
}

void SafetensorsReader::read(const SafetensorsEntry& entry, std::uint64_t offset,
                             std::span<std::byte> out) const {
  const std::uint64_t bytes = entry.end - entry.begin;
  GRIST_CHECK(offset <= bytes && out.size() <= bytes - offset, "bytes [{}, {}) of {} of tensor {}",
              offset, offset + out.size(), bytes, entry.name);
  file_.read_at(entry.begin + offset, out);
}

void SafetensorsReader::read(std::string_view name, const TensorView& out) const {
  const SafetensorsEntry& e = at(name);
  if (e.dtype != out.dtype || !(e.shape == out.shape))
    fail(ExitCode::bad_data, "{}: tensor \"{}\" is {} {}, {} {} was expected", path().string(),
         name, e.type, e.shape.str(), safetensors_type(out.dtype), out.shape.str());
  read(e, {static_cast<std::byte*>(out.data), out.bytes()});
}

const char* safetensors_type(DType dtype) {
  for (const TypeInfo& t : kTypes) {
    if (t.dtype == dtype) return t.name;
  }
  return "?";
}

SafetensorsLayout layout_safetensors(std::span<const SafetensorsTensor> tensors,
                                     const SafetensorsMetadata& metadata) {
  SafetensorsLayout layout;
  layout.order.resize(tensors.size());
  std::iota(layout.order.begin(), layout.order.end(), std::size_t{0});
  std::sort(layout.order.begin(), layout.order.end(), [&](std::size_t a, std::size_t b) {
    const std::size_t size_a = size_of(tensors[a].view.dtype);
    const std::size_t size_b = size_of(tensors[b].view.dtype);
    return size_a != size_b ? size_a > size_b : tensors[a].name < tensors[b].name;
  });
  Json header = Json::object();
  if (!metadata.empty()) {
    Json m = Json::object();
    for (const auto& [key, value] : metadata) m.set(key, value);
    header.as_object().emplace_back("__metadata__", std::move(m));
  }
  std::set<std::string_view> names;
  std::uint64_t at = 0;
  for (const std::size_t i : layout.order) {
    const SafetensorsTensor& t = tensors[i];
    GRIST_CHECK(names.insert(t.name).second, "two tensors \"{}\"", t.name);
    GRIST_CHECK(!t.name.empty() && t.name != "__metadata__", "tensor name \"{}\"", t.name);
    Json shape = Json::array();
    for (int d = 0; d < t.view.shape.rank(); ++d) shape.push_back(t.view.shape[d]);
    Json entry = Json::object();
    entry.set("dtype", safetensors_type(t.view.dtype));
    entry.set("shape", std::move(shape));
    entry.set("data_offsets", Json::Array{Json(at), Json(at + t.view.bytes())});
    at += t.view.bytes();
    header.as_object().emplace_back(t.name, std::move(entry));
  }
  std::string json = header.dump();
  json.append((8 - json.size() % 8) % 8, ' ');
  GRIST_CHECK(json.size() <= kMaxSafetensorsHeader, "header of {} bytes", json.size());
  for (std::uint64_t n = json.size(), i = 0; i < 8; ++i, n >>= 8)
    layout.prefix += static_cast<char>(n & 255);
  layout.prefix += json;
  layout.file_bytes = layout.prefix.size() + at;
  return layout;
}

void write_safetensors(const std::filesystem::path& path,
                       std::span<const SafetensorsTensor> tensors,
                       const SafetensorsMetadata& metadata) {
  const SafetensorsLayout layout = layout_safetensors(tensors, metadata);
  const std::filesystem::path aside = path.string() + ".tmp-" + std::to_string(::getpid());
  try {
    File f = File::create(aside);
    f.preallocate(layout.file_bytes);
    f.write_at(0, std::as_bytes(std::span(layout.prefix)));
    std::uint64_t at = layout.prefix.size();
    for (const std::size_t i : layout.order) {
      const ConstTensorView& v = tensors[i].view;
      f.write_at(at, {static_cast<const std::byte*>(v.data), v.bytes()});
      at += v.bytes();
    }
    f.sync();
    f.close();
    rename_path(aside, path);
  } catch (...) {
    ::unlink(aside.c_str());
    throw;
  }
  sync_directory(path.has_parent_path() ? path.parent_path() : std::filesystem::path("."));
}

}  // namespace grist
