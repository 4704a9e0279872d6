#include "grist/ckpt/background_save.h"

#include <algorithm>

#include "grist/comm/collectives.h"
#include "grist/core/check.h"
#include "grist/core/device.h"
#include "grist/core/log.h"

namespace grist {

namespace {

constexpr std::size_t kAlign = 64;

std::size_t bytes_of(const TensorSlice& s) {
  return static_cast<std::size_t>(s.part.size()) * size_of(s.dtype);
}

std::size_t copy_bytes(std::span<const TensorSlice> slices) {
  std::size_t bytes = 0;
  for (const TensorSlice& s : slices) bytes += (bytes_of(s) + kAlign - 1) / kAlign * kAlign;
  return bytes;
}

bool in_device_memory(const TensorSlice& s) {
  return !properties(s.device).reads_host_memory;
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

BackgroundSave::BackgroundSave(comm::Communicator& world, const std::filesystem::path& folder,
                               std::string uuid, std::span<const TensorSlice> slices,
                               const BackgroundSaveOptions& options, MemoryLedger* ledger)
    : activity_(world.shared_activity()),
      ranks_(world.split(0, options.asynchronous ? std::make_shared<comm::Activity>() : activity_)),
      folder_(folder, std::move(uuid),
              {.storage = options.storage,
               .block_bytes = options.block_bytes,
               .communicator = ranks_.get(),
               .damaged = options.damaged}),
      options_(options) {
  const bool elsewhere = std::any_of(slices.begin(), slices.end(), in_device_memory);
  if (options.asynchronous || elsewhere)
    copy_ = Buffer(copy_bytes(slices), Device::cpu, "checkpoint copy", ledger);
}

BackgroundSave::~BackgroundSave() {
  wait_for_thread();
}

// To the watchdog this is a wait like one for another rank, and the thread's signs of life are the
// caller's.
void BackgroundSave::wait_for_thread() const {
  if (!running_.valid()) return;
  const comm::Activity& thread = ranks_->activity();
  const auto life = [&] { return thread.beats.load() + thread.operations.load(); };
  std::uint64_t seen = life();
  activity_->waiting += 1;
  while (running_.wait_for(std::chrono::milliseconds(20)) != std::future_status::ready) {
    if (life() != seen) activity_->beat();
    seen = life();
  }
  activity_->waiting -= 1;
  activity_->beat();
}

bool BackgroundSave::busy() {
  if (!running_.valid()) return false;
  if (running_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return true;
  wait();
  return false;
}

void BackgroundSave::wait() {
  if (!running_.valid()) return;
  wait_for_thread();
  keep(running_.get());
}

void BackgroundSave::keep(Ended ended) {
  if (!ended.agreed) throw *ended.verdict.error;
  verdicts_.push_back(std::move(ended.verdict));
}

std::optional<SaveVerdict> BackgroundSave::poll() {
  if (!busy()) wait();
  if (verdicts_.empty()) return {};
  SaveVerdict first = std::move(verdicts_.front());
  verdicts_.pop_front();
  return first;
}

std::optional<SaveVerdict> BackgroundSave::finish() {
  wait();
  return poll();
}

void BackgroundSave::start(SaveRequest request) {
  const Clock::time_point begin = Clock::now();
  wait();
  request_ = std::move(request);
  if (copy_.size() > 0) copy(request_);
  if (!options_.asynchronous) {
    Ended ended = save(request_, begin);
    ended.verdict.pause = seconds_since(begin);
    keep(std::move(ended));
    return;
  }
  const double pause = seconds_since(begin);
  running_ = std::async(std::launch::async, [this, begin, pause] {
    Ended ended = save(request_, begin);
    ended.verdict.pause = pause;
    return ended;
  });
}

void BackgroundSave::copy(SaveRequest& request) const {
  const Context here;
  std::size_t at = 0;
  for (std::vector<TensorSlice>& shard : request.shards) {
    GRIST_CHECK(at + copy_bytes(shard) <= copy_.size(), "{} bytes to save, {} were announced",
                at + copy_bytes(shard), copy_.size());
    for (TensorSlice& s : shard) {
      const std::size_t bytes = bytes_of(s);
      if (bytes == 0) continue;
      const Context* where = in_device_memory(s) ? options_.context : &here;
      GRIST_CHECK(where != nullptr, "{} is on device {}, and nothing says on which stream", s.name,
                  name_of(s.device));
      start_copy_out(*where, copy_.data() + at, {s.data, s.dtype, {s.part.size()}});
      s.data = copy_.data() + at;
      s.device = Device::cpu;
      at += (bytes + kAlign - 1) / kAlign * kAlign;
    }
  }
  if (options_.context != nullptr) grist::wait(*options_.context);
}

BackgroundSave::Ended BackgroundSave::save(const SaveRequest& request,
                                           Clock::time_point begin) noexcept {
  Ended ended;
  ended.verdict.step = request.step;
  const auto failed = [&](bool agreed, ExitCode code, const std::string& what) {
    ended.agreed = agreed || ranks_->size() == 1;
    ended.verdict.error.emplace(code, what);
    ended.verdict.seconds = seconds_since(begin);
  };
  try {
    ended.verdict.bytes = folder_.save(request).bytes;
    ended.verdict.seconds = seconds_since(begin);
    prune(ended.verdict);
  } catch (const comm::Agreed& e) {
    failed(true, e.code(), e.what());
  } catch (const Error& e) {
    failed(false, e.code(), e.what());
  } catch (const std::exception& e) {
    failed(false, ExitCode::internal,
           fmt::format("the save of checkpoint step {} ended early: {}", request.step, e.what()));
  } catch (...) {
    failed(false, ExitCode::internal,
           fmt::format("the save of checkpoint step {} ended early", request.step));
  }
  return ended;
}

// The step is saved: what fails from here on is only worth a line.
void BackgroundSave::prune(SaveVerdict& verdict) {
  try {
    verdict.pruned = folder_.prune(options_.keep);
  } catch (const Error& e) {
    if (ranks_->size() > 1 && dynamic_cast<const comm::Agreed*>(&e) == nullptr) throw;
    if (ranks_->rank() == 0)
      log::warn("checkpoint step {} is saved; old ones could not be removed: {}", verdict.step,
                e.what());
  }
}

}  // namespace grist
