#include "grist/core/memory.h"

#include <sys/mman.h>

#include <algorithm>

#include "grist/core/check.h"
#include "grist/core/device.h"
#include "round_up.h"

namespace grist {

namespace {
constexpr std::size_t kAlign = 64;
constexpr std::size_t kMinChunk = std::size_t{1} << 20;
// What a plan holds; smaller pieces are taken as ever.
constexpr std::size_t kPlanned = std::size_t{64} << 20;

void append(std::string& list, const MemoryLedger::Entry& e) {
  list += (list.empty() ? "" : ", ") + e.label + " " + human_bytes(e.bytes);
}
}  // namespace

void MemoryLedger::add(std::string_view label, std::size_t bytes, Device device) {
  for (Entry& e : entries_) {
    if (e.label == label && e.device == device) {
      e.bytes += bytes;
      return;
    }
  }
  entries_.push_back({std::string(label), bytes, device});
}

void MemoryLedger::remove(std::string_view label, std::size_t bytes, Device device) {
  for (Entry& e : entries_) {
    if (e.label == label && e.device == device) e.bytes -= bytes;
  }
}

std::size_t MemoryLedger::total_bytes(Device device) const {
  std::size_t sum = 0;
  for (const Entry& e : entries_) sum += e.device == device ? e.bytes : 0;
  return sum;
}

std::string MemoryLedger::largest_first(Device device) const {
  std::vector<Entry> here;
  for (const Entry& e : entries_)
    if (e.device == device && e.bytes > 0) here.push_back(e);
  std::stable_sort(here.begin(), here.end(),
                   [](const Entry& a, const Entry& b) { return a.bytes > b.bytes; });
  std::string out;
  for (const Entry& e : here) append(out, e);
  return out;
}

std::string MemoryLedger::shortfall(std::size_t available, std::size_t others) const {
  std::size_t sum = others;
  std::string outside, missing;
  for (const Entry& e : entries_) {
    if (!properties(e.device).reads_host_memory) {
      if (std::ranges::find(missed_, e.label) != missed_.end()) append(missing, e);
      continue;
    }
    sum += e.bytes;
    if (sum > available) append(outside, e);
  }
  std::string what;
  if (sum > available)
    what = fmt::format("out of memory: {} are needed, {} are available; what does not fit: {}",
                       human_bytes(sum), human_bytes(available),
                       outside.empty() ? "the program itself" : outside);
  if (!missing.empty())
    what += (what.empty() ? "" : "; ") + ("out of device memory; what does not fit: " + missing);
  return what;
}

Buffer::Buffer(std::size_t bytes, Device device, std::string_view label, MemoryLedger* ledger)
    : bytes_(bytes) {
  if (bytes == 0 || take_planned(device, label, ledger)) return;
  DeviceRuntime& there = runtime(device);
  std::byte* p = there.allocate(bytes);
  if (p == nullptr) {
    const std::string held = ledger != nullptr ? ledger->largest_first(device) : "";
    fail(ExitCode::out_of_memory,
         "out of {}memory: {} for {}{}; use a smaller model, micro_batch_size or recompute: full",
         there.properties().reads_host_memory ? "" : "device ", human_bytes(bytes), label,
         held.empty() ? "" : ", held already: " + held);
  }
  take(p, {.device = device,
           .owner = device,
           .bytes = bytes,
           .label = std::string(label),
           .ledger = ledger});
}

Buffer Buffer::pinned(Device reader, std::size_t bytes, std::string_view label,
                      MemoryLedger* ledger) {
  Buffer b;
  b.bytes_ = bytes;
  if (bytes == 0) return b;
  std::byte* p = runtime(reader).allocate_pinned(bytes);
  if (p == nullptr)
    fail(ExitCode::out_of_memory, "out of pinned host memory: {} for {}", human_bytes(bytes),
         label);
  b.take(p, {.device = Device::cpu,
             .owner = reader,
             .bytes = bytes,
             .label = std::string(label),
             .ledger = ledger});
  return b;
}

// False: the buffer is to be had as any other.
bool Buffer::take_planned(Device device, std::string_view label, MemoryLedger* ledger) {
  if (ledger == nullptr || !ledger->planning() || bytes_ < kPlanned) return false;
  BufferFree how{.device = device,
                 .owner = device,
                 .bytes = bytes_,
                 .label = std::string(label),
                 .ledger = ledger};
  if (!properties(device).reads_host_memory) {
    if (std::byte* p = runtime(device).allocate(bytes_); p != nullptr) {
      take(p, how);
      return true;
    }
    ledger->missed_.emplace_back(label);
  }
  how.planned = true;
  void* space = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (space == MAP_FAILED) return false;
  take(static_cast<std::byte*>(space), how);
  return true;
}

void Buffer::take(std::byte* p, const BufferFree& free) {
  data_ = std::unique_ptr<std::byte, BufferFree>(p, free);
  if (free.ledger != nullptr) free.ledger->add(free.label, free.bytes, free.device);
}

void BufferFree::operator()(std::byte* p) const noexcept {
  if (ledger != nullptr) ledger->remove(label, bytes, device);
  if (planned) {
    ::munmap(p, bytes);
    return;
  }
  DeviceRuntime* there = find_runtime(owner);
  if (there != nullptr) device == owner ? there->release(p) : there->release_pinned(p);
}

TensorView Buffer::view(DType dtype, const Shape& shape, std::size_t offset_bytes) const {
  const std::size_t bytes = static_cast<std::size_t>(shape.numel()) * size_of(dtype);
  GRIST_CHECK(offset_bytes + bytes <= bytes_, "view of {} bytes at {} leaves a buffer of {}", bytes,
              offset_bytes, bytes_);
  GRIST_CHECK(offset_bytes % size_of(dtype) == 0, "offset {} is not aligned for {}", offset_bytes,
              name_of(dtype));
  return {data_.get() + offset_bytes, dtype, shape};
}

std::size_t Arena::reserve(DType dtype, const Shape& shape) {
  return reserve_bytes(static_cast<std::size_t>(shape.numel()) * size_of(dtype));
}

std::size_t Arena::reserve_bytes(std::size_t bytes) {
  GRIST_CHECK(buffer_.size() == 0, "arena {} is committed", label_);
  const std::size_t offset = planned_;
  planned_ += round_up(bytes, kAlign);
  return offset;
}

void Arena::commit() {
  buffer_ = Buffer(planned_, device_, label_, ledger_);
}

std::byte* Scratch::allocate(std::size_t bytes) {
  const std::size_t need = round_up(bytes == 0 ? 1 : bytes, kAlign);
  while (current_ < chunks_.size() &&
         chunks_[current_].buffer.size() - chunks_[current_].used < need)
    ++current_;
  if (current_ == chunks_.size()) {
    ++growths_;
    chunks_.push_back(
        {Buffer(need < kMinChunk ? kMinChunk : need, device_, "scratch", ledger_), 0});
  }
  Chunk& c = chunks_[current_];
  std::byte* p = c.buffer.data() + c.used;
  c.used += need;
  return p;
}

TensorView Scratch::tensor(DType dtype, const Shape& shape) {
  return {allocate(static_cast<std::size_t>(shape.numel()) * size_of(dtype)), dtype, shape};
}

std::size_t Scratch::capacity() const {
  std::size_t sum = 0;
  for (const Chunk& c : chunks_) sum += c.buffer.size();
  return sum;
}

ScratchScope::ScratchScope(Scratch* scratch) : scratch_(scratch), chunk_(0), used_(0) {
  GRIST_CHECK(scratch != nullptr, "this operation needs Context::scratch");
  chunk_ = scratch->current_;
  used_ = chunk_ < scratch->chunks_.size() ? scratch->chunks_[chunk_].used : 0;
}

ScratchScope::~ScratchScope() {
  for (std::size_t i = chunk_; i < scratch_->chunks_.size(); ++i)
    scratch_->chunks_[i].used = i == chunk_ ? used_ : 0;
  scratch_->current_ = chunk_;
}

std::string human_bytes(std::size_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto v = static_cast<double>(bytes);
  int unit = 0;
  while (v >= 1024.0 && unit < 4) {
    v /= 1024.0;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.2f} {}", v, kUnits[unit]);
}

}  // namespace grist
