#pragma once
// The monitor's connections: small frames over non-blocking TCP, and how ranks find rank 0.
// Frames are plain structs: all ranks run the same binary on one architecture.
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace grist::watch {

double monitor_clock();  // seconds, monotonic

class Descriptor {  // owns a file descriptor
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor();
  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

enum class FrameKind : std::uint32_t {
  hello,      // to rank 0: token, then the rank as text
  heartbeat,  // to rank 0: Heartbeat
  fatal,      // to rank 0: "CODE message"
  good_bye,   // to rank 0
  ready,      // to rank 0: the verdict is carried out as far as this rank can before it ends
  welcome,    // from rank 0, to a hello: you have found it
  pulse,      // from rank 0: it lives
  verdict,    // from rank 0: "CODE 0|1", 1: write stacks
  all_clear,  // from rank 0: everybody has said good-bye
};

struct Heartbeat {
  std::int64_t step = -1;
  std::uint64_t beats = 0, operations = 0, waits = 0;
  std::int64_t waiting = 0;
  char phase[32] = "start";
};

struct Frame {
  FrameKind kind;
  std::string payload;
};

class Link {
 public:
  Link() = default;
  explicit Link(Descriptor socket);
  int fd() const { return socket_.get(); }
  bool blocked() const { return !out_.empty(); }  // poll for POLLOUT, then flush()
  // Queues and sends what fits. Errors of the connection show in receive().
  void send(FrameKind kind, std::string_view payload = {});
  void flush();
  // What poll() said of it: receive() may find something.
  bool readable() const { return readable_; }
  void set_readable(bool readable) { readable_ = readable; }
  // Appends at most `most` frames of what has arrived and keeps the rest; false: the other side has
  // closed or is gone, or sent nonsense.
  bool receive(std::vector<Frame>& frames, std::size_t most = SIZE_MAX);
  void close() { socket_ = Descriptor(); }

 private:
  Descriptor socket_;
  std::string out_, in_;
  bool readable_ = false;
};

constexpr double kConnectSeconds = 30;  // for all ranks to find rank 0

struct Process {  // of the job, as every rank knows it
  std::string host;
  pid_t pid = 0;
};

std::string random_token();
// Whether this process is the first of its machine that asks for `name`; the name is its own until
// `held` goes, or the process ends.
bool is_first_on_machine(const std::string& name, Descriptor& held);
// Listens on a free port of all addresses of this machine; `address` becomes "PORT ADDRESS ...":
// IPv4, and IPv6 where there is any.
Descriptor listen_anywhere(std::string& address);
// Accepts and welcomes one rank in [1, size) each; links[rank]. Strangers are turned away. Raises
// the limit of open files to what so many ranks need.
std::vector<Link> accept_ranks(const Descriptor& listener, int size, const std::string& token,
                               const std::vector<Process>& members);
// Tries the addresses in order, again and again, on rank 0's own machine the loopback first; the
// first that answers `hello` with a welcome is rank 0, for the same address and port may be another
// program on another machine. Gives up after `seconds`.
Link connect_to_root(const std::string& address, bool same_host, const Process& root,
                     const std::string& hello, double seconds = kConnectSeconds);

}  // namespace grist::watch
