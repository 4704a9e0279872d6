#include "grist/comm/launch.h"

#include <mpi.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <thread>
#include <vector>

#include "cores.h"
#include "grist/core/check.h"
#include "grist/core/host.h"
#include "mpi_world.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>

// LeakSanitizer asks at the end of the process. Open MPI keeps memory of modules that it unloads,
// so no suppression can name it, and their thread-local storage crashes the check. Programs are
// checked where ranks are threads.
int __lsan_is_turned_off() {
  int begun = 0;
  MPI_Initialized(&begun);
  return begun;
}
#endif

namespace grist::comm {

namespace {

struct Launcher {
  std::string name;         // as the user sees it in the environment
  std::optional<int> size;  // ranks that it says there are
};

std::optional<int> number(const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr) return std::nullopt;
  return std::atoi(text);
}

// SLURM_NTASKS is set in batch scripts too, SLURM_STEP_NUM_TASKS by srun alone.
std::optional<Launcher> launcher() {
  for (const char* size : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"})
    if (const auto n = number(size)) return Launcher{fmt::format("mpirun ({}={})", size, *n), n};
  if (const auto n = number("SLURM_STEP_NUM_TASKS"); n && (*n > 1) && number("SLURM_PROCID"))
    return Launcher{fmt::format("srun (SLURM_STEP_NUM_TASKS={})", *n), n};
  for (const char* rank : {"PMIX_RANK", "PMI_RANK"})
    if (number(rank)) return Launcher{fmt::format("a launcher ({})", rank), std::nullopt};
  return std::nullopt;
}

std::string library() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  const std::string all(text.data(), static_cast<std::size_t>(length));
  return all.substr(0, all.find_first_of(",\n"));
}

void initialise(const Launcher& by) {
  int threads = 0;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &threads) != MPI_SUCCESS)
    fail(ExitCode::device_unavailable, "MPI did not start under {}", by.name);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (by.size && *by.size != size) {
    fail(ExitCode::usage,
         "{} has started {} ranks, but {} sees {}; use the mpirun of that MPI, or srun --mpi=pmix",
         by.name, *by.size, library(), size);
  }
  if (threads < MPI_THREAD_SERIALIZED)
    fail(ExitCode::device_unavailable, "{} has no MPI_THREAD_SERIALIZED", library());
}

// The cores that each rank of this machine may run on; none where that cannot be known.
std::vector<cpu_set_t> allowed_cores(MPI_Comm local, int size) {
  cpu_set_t mine;
  CPU_ZERO(&mine);
  if (sched_getaffinity(0, sizeof mine, &mine) != 0) CPU_ZERO(&mine);
  std::vector<cpu_set_t> all(static_cast<std::size_t>(size));
  MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all.data(), sizeof mine, MPI_BYTE, local);
  return all;
}

}  // namespace

int started_processes() {
  const std::optional<Launcher> by = launcher();
  return by && by->size ? *by->size : 1;
}

Launch connect() {
  Launch launch;
  launch.host = host_name();
  const std::optional<Launcher> by = launcher();
  if (!by) {
    launch.world = alone();
    return launch;
  }
  int before = 0;
  MPI_Initialized(&before);
  GRIST_CHECK(before == 0, "connect() is called once");
  initialise(*by);
  MPI_Comm local = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &local);
  MPI_Comm_rank(local, &launch.local_rank);
  MPI_Comm_size(local, &launch.local_size);
  launch.cores = core_share(allowed_cores(local, launch.local_size),
                            static_cast<std::size_t>(launch.local_rank));
  MPI_Comm_free(&local);
  launch.mpi = true;
  launch.world = mpi_world(std::make_shared<MpiEngine>());
  return launch;
}

void abort(ExitCode code) {
  std::fflush(nullptr);
  // Another thread may be in MPI, for milliseconds; one that is stuck there must not keep us.
  std::unique_lock lock(mpi_mutex(), std::defer_lock);
  for (int i = 0; i < 200 && !lock.try_lock(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  int begun = 0;
  int ended = 0;
  MPI_Initialized(&begun);
  MPI_Finalized(&ended);
  if (begun != 0 && ended == 0) MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  _exit(static_cast<int>(code));
}

}  // namespace grist::comm
