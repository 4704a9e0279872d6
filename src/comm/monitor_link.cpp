#include "monitor_link.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <climits>
#include <cstddef>
#include <cstring>
#include <sstream>

#include "grist/core/check.h"

namespace grist::comm {

namespace {

constexpr double kConnectSeconds = 30;
constexpr std::size_t kFrameLimit = 16384;

struct Header {
  FrameKind kind;
  std::uint32_t bytes;
};

int milliseconds_until(double deadline) {
  return static_cast<int>(std::clamp((deadline - monitor_clock()) * 1000 + 1, 0.0, 1e6));
}

sockaddr_in ipv4(const std::string& host, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  inet_pton(AF_INET, host.c_str(), &address.sin_addr);
  return address;
}

// The machine's addresses beside the loopback.
std::string addresses() {
  ifaddrs* all = nullptr;
  std::string found;
  if (getifaddrs(&all) != 0) return found;
  for (const ifaddrs* a = all; a != nullptr; a = a->ifa_next) {
    if (a->ifa_addr == nullptr || a->ifa_addr->sa_family != AF_INET) continue;
    if ((a->ifa_flags & IFF_LOOPBACK) != 0 || (a->ifa_flags & IFF_UP) == 0) continue;
    sockaddr_in address;
    std::memcpy(&address, a->ifa_addr, sizeof address);
    char text[INET_ADDRSTRLEN];
    if (inet_ntop(AF_INET, &address.sin_addr, text, sizeof text) != nullptr)
      found += std::string(" ") + text;
  }
  freeifaddrs(all);
  return found;
}

// A connected socket, or none.
Descriptor try_connect(const std::string& host, int port, double seconds) {
  Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const sockaddr_in address = ipv4(host, port);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0)
    return socket;
  if (errno != EINPROGRESS) return {};
  pollfd p{socket.get(), POLLOUT, 0};
  const double deadline = monitor_clock() + seconds;
  while (::poll(&p, 1, milliseconds_until(deadline)) < 0 && errno == EINTR) {
  }
  int error = ETIMEDOUT;
  socklen_t size = sizeof error;
  if (p.revents == 0 || getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0 ||
      error != 0)
    return {};
  return socket;
}

// The rank that a newcomer's first frame proves to be; -1: not yet, -2: a stranger.
int introduced(Link& link, const std::string& token, int size) {
  std::vector<Frame> frames;
  const bool open = link.receive(frames);
  if (frames.empty()) return open ? -1 : -2;
  const std::string& text = frames[0].payload;
  if (frames[0].kind != FrameKind::hello || text.size() <= token.size() ||
      text.compare(0, token.size(), token) != 0)
    return -2;
  int rank = -2;
  std::from_chars(text.data() + token.size(), text.data() + text.size(), rank);
  return rank >= 1 && rank < size ? rank : -2;
}

void receive_hellos(std::vector<Link>& strangers, std::vector<Link>& links,
                    const std::string& token, int& missing) {
  for (Link& link : strangers) {
    const int rank = introduced(link, token, static_cast<int>(links.size()));
    if (rank == -1) continue;
    if (rank >= 0 && links[static_cast<std::size_t>(rank)].fd() < 0) {
      links[static_cast<std::size_t>(rank)] = std::move(link);
      --missing;
    }
    link.close();
  }
  std::erase_if(strangers, [](const Link& link) { return link.fd() < 0; });
}

}  // namespace

double monitor_clock() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = other.fd_;
    other.fd_ = -1;
  }
  return *this;
}

Descriptor::~Descriptor() {
  if (fd_ >= 0) ::close(fd_);
}

Link::Link(Descriptor socket) : socket_(std::move(socket)) {
  const int on = 1;
  setsockopt(fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

void Link::send(FrameKind kind, std::string_view payload) {
  payload = payload.substr(0, kFrameLimit);
  const Header header{kind, static_cast<std::uint32_t>(payload.size())};
  out_.append(reinterpret_cast<const char*>(&header), sizeof header);
  out_.append(payload);
  flush();
}

void Link::flush() {
  while (!out_.empty() && fd() >= 0) {
    const ssize_t n = ::send(fd(), out_.data(), out_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno != EAGAIN) out_.clear();  // broken: receive() tells
    if (n <= 0) return;
    out_.erase(0, static_cast<std::size_t>(n));
  }
}

bool Link::receive(std::vector<Frame>& frames) {
  bool open = true;
  char buffer[4096];
  for (;;) {
    const ssize_t n = ::recv(fd(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (n > 0) {
      in_.append(buffer, static_cast<std::size_t>(n));
      continue;
    }
    if (n < 0 && errno == EINTR) continue;
    open = n < 0 && errno == EAGAIN;
    break;
  }
  std::size_t at = 0;
  Header header;
  while (in_.size() - at >= sizeof header) {
    std::memcpy(&header, in_.data() + at, sizeof header);
    if (header.bytes > kFrameLimit) return false;
    if (in_.size() - at - sizeof header < header.bytes) break;
    frames.push_back({header.kind, in_.substr(at + sizeof header, header.bytes)});
    at += sizeof header + header.bytes;
  }
  in_.erase(0, at);
  return open;
}

std::string host_name() {
  char name[HOST_NAME_MAX + 1] = {};
  return gethostname(name, sizeof name - 1) == 0 ? name : "unknown";
}

std::string random_token() {
  unsigned char bytes[16];
  if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
    fail(ExitCode::io, "no random bytes from the kernel: {}", std::strerror(errno));
  std::string token;
  for (const unsigned char b : bytes) token += fmt::format("{:02x}", b);
  return token;
}

bool is_first_on_machine(const std::string& name, Descriptor& held) {
  sockaddr_un address{};  // an abstract name: a zero first, no file
  address.sun_family = AF_UNIX;
  name.copy(address.sun_path + 1, sizeof address.sun_path - 1);
  const auto size =
      offsetof(sockaddr_un, sun_path) + 1 + std::min(name.size(), sizeof address.sun_path - 1);
  held = Descriptor(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return ::bind(held.get(), reinterpret_cast<const sockaddr*>(&address),
                static_cast<socklen_t>(size)) == 0 ||
         errno != EADDRINUSE;
}

Descriptor listen_anywhere(std::string& address) {
  Descriptor listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_in own = ipv4("0.0.0.0", 0);
  socklen_t size = sizeof own;
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&own), size) != 0 ||
      ::listen(listener.get(), 4096) != 0 ||
      ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&own), &size) != 0)
    fail(ExitCode::io, "rank 0 cannot listen for the other ranks' monitors: {}",
         std::strerror(errno));
  address = std::to_string(ntohs(own.sin_port)) + addresses();
  return listener;
}

std::vector<Link> accept_ranks(const Descriptor& listener, int size, const std::string& token,
                               const std::vector<Process>& members) {
  std::vector<Link> links(static_cast<std::size_t>(size));
  std::vector<Link> strangers;  // have not said who they are
  int missing = size - 1;
  const double deadline = monitor_clock() + kConnectSeconds;
  while (missing > 0 && monitor_clock() < deadline) {
    std::vector<pollfd> polls{{listener.get(), POLLIN, 0}};
    for (const Link& link : strangers) polls.push_back({link.fd(), POLLIN, 0});
    ::poll(polls.data(), polls.size(), milliseconds_until(deadline));
    for (;;) {
      const int fd = ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (fd < 0) break;
      strangers.emplace_back(Descriptor(fd));
    }
    receive_hellos(strangers, links, token, missing);
  }
  for (std::size_t r = 1; r < links.size(); ++r)
    if (links[r].fd() < 0)
      fail(ExitCode::peer_lost,
           "rank {} (host {}, pid {}) has not connected to rank 0's monitor on host {} in {} s; "
           "TCP between the machines must be possible",
           r, members[r].host, members[r].pid, members[0].host, kConnectSeconds);
  return links;
}

Link connect_to_root(const std::string& address, bool same_host, const Process& root) {
  std::istringstream words(address);
  int port = 0;
  words >> port;
  std::vector<std::string> hosts;
  if (same_host) hosts.emplace_back("127.0.0.1");
  for (std::string host; words >> host;) hosts.push_back(host);
  const double deadline = monitor_clock() + kConnectSeconds;
  while (monitor_clock() < deadline && !hosts.empty()) {
    for (const std::string& host : hosts) {
      Descriptor socket = try_connect(host, port, 3);
      if (socket.get() >= 0) return Link(std::move(socket));
    }
    ::poll(nullptr, 0, 50);
  }
  fail(
      ExitCode::peer_lost,
      "cannot connect to rank 0's monitor on host {} (port and addresses: {}) in {} s; TCP between "
      "the machines must be possible",
      root.host, address, kConnectSeconds);
}

}  // namespace grist::comm
