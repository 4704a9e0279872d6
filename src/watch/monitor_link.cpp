#include "monitor_link.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <sstream>

#include "grist/core/check.h"

namespace grist::watch {

namespace {

constexpr double kFirstPatience = 0.5;  // for an address; each round over all of them doubles it
constexpr double kWelcomeSeconds = 10;
constexpr rlim_t kOtherFiles = 256;  // beside the monitor's connections
constexpr std::size_t kFrameLimit = 16384;

struct Header {
  FrameKind kind;
  std::uint32_t bytes;
};

int milliseconds_until(double deadline) {
  return static_cast<int>(std::clamp((deadline - monitor_clock()) * 1000 + 1, 0.0, 1e6));
}

struct Address {
  sockaddr_storage bytes{};
  socklen_t size = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&bytes); }
};

// `host` is a number, of either version.
Address address_of(const std::string& host, int port) {
  Address a;
  const in_port_t there = htons(static_cast<std::uint16_t>(port));
  if (host.find(':') != std::string::npos) {
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = there;
    inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr);
    std::memcpy(&a.bytes, &v6, a.size = sizeof v6);
  } else {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = there;
    inet_pton(AF_INET, host.c_str(), &v4.sin_addr);
    std::memcpy(&a.bytes, &v4, a.size = sizeof v4);
  }
  return a;
}

std::string number_of(const sockaddr* address) {
  char text[INET6_ADDRSTRLEN] = {};
  if (address->sa_family == AF_INET) {
    sockaddr_in v4;
    std::memcpy(&v4, address, sizeof v4);
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
  } else if (address->sa_family == AF_INET6) {
    sockaddr_in6 v6;
    std::memcpy(&v6, address, sizeof v6);
    if (IN6_IS_ADDR_LINKLOCAL(&v6.sin6_addr) == 0)  // of no use without the other's interface
      inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
  }
  return text;
}

// The machine's addresses beside the loopback, IPv4 first.
std::string addresses(int listener_family) {
  ifaddrs* all = nullptr;
  std::string v4, v6;
  if (getifaddrs(&all) != 0) return v4;
  for (const ifaddrs* a = all; a != nullptr; a = a->ifa_next) {
    if (a->ifa_addr == nullptr) continue;
    if ((a->ifa_flags & IFF_LOOPBACK) != 0 || (a->ifa_flags & IFF_UP) == 0) continue;
    const std::string number = number_of(a->ifa_addr);
    if (number.empty()) continue;
    if (a->ifa_addr->sa_family == AF_INET) v4 += " " + number;
    if (a->ifa_addr->sa_family == AF_INET6 && listener_family == AF_INET6) v6 += " " + number;
  }
  freeifaddrs(all);
  return v4 + v6;
}

// On all addresses, on a port that the system chooses. AF_INET6 takes IPv4 too.
Descriptor listen_on(int family, int& port) {
  Descriptor listener(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (listener.get() < 0) return {};
  const int off = 0;
  if (family == AF_INET6 &&
      setsockopt(listener.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) != 0)
    return {};
  Address own = address_of(family == AF_INET6 ? "::" : "0.0.0.0", 0);
  if (::bind(listener.get(), own.get(), own.size) != 0 || ::listen(listener.get(), 4096) != 0 ||
      ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&own.bytes), &own.size) != 0)
    return {};
  in_port_t chosen = 0;  // at the same place in both
  static_assert(offsetof(sockaddr_in, sin_port) == offsetof(sockaddr_in6, sin6_port));
  std::memcpy(&chosen, reinterpret_cast<const char*>(&own.bytes) + offsetof(sockaddr_in, sin_port),
              sizeof chosen);
  port = ntohs(chosen);
  return listener;
}

// Rank 0 holds a connection to every rank; many systems start programs with 1024 files at most.
void make_room_for(int ranks) {
  rlimit limit{};
  const rlim_t wanted = static_cast<rlim_t>(ranks) + kOtherFiles;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) return;
  limit.rlim_cur = std::min(wanted, limit.rlim_max);
  setrlimit(RLIMIT_NOFILE, &limit);  // where it is refused, accept() will say so
}

// A connected socket, or none.
Descriptor try_connect(const std::string& host, int port, double seconds) {
  const Address address = address_of(host, port);
  Descriptor socket(
      ::socket(address.bytes.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (::connect(socket.get(), address.get(), address.size) == 0) return socket;
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

// Says hello to whoever answers there; closed when it is not rank 0, or rank 0 does not answer.
Link say_hello(Descriptor socket, const std::string& hello) {
  Link link(std::move(socket));
  link.send(FrameKind::hello, hello);
  const double deadline = monitor_clock() + kWelcomeSeconds;
  std::vector<Frame> frames;
  while (monitor_clock() < deadline && link.receive(frames, 1) && frames.empty()) {
    pollfd p{link.fd(), POLLIN, 0};
    ::poll(&p, 1, milliseconds_until(deadline));
  }
  if (frames.empty() || frames[0].kind != FrameKind::welcome) link.close();
  return link;
}

// The rank that a newcomer's first frame proves to be; -1: not yet, -2: a stranger.
int introduced(Link& link, const std::string& token, int size) {
  std::vector<Frame> frames;
  const bool open = link.receive(frames, 1);
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
    if (rank >= 0) {  // a second time when it has not heard the first welcome
      Link& known = links[static_cast<std::size_t>(rank)];
      if (known.fd() < 0) --missing;
      known = std::move(link);
      known.send(FrameKind::welcome);
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

bool Link::receive(std::vector<Frame>& frames, std::size_t most) {
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
  for (; most > 0 && in_.size() - at >= sizeof header; --most) {
    std::memcpy(&header, in_.data() + at, sizeof header);
    if (header.bytes > kFrameLimit) return false;
    if (in_.size() - at - sizeof header < header.bytes) break;
    frames.push_back({header.kind, in_.substr(at + sizeof header, header.bytes)});
    at += sizeof header + header.bytes;
  }
  in_.erase(0, at);
  return open;
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
  int port = 0, family = AF_INET6;
  Descriptor listener = listen_on(family, port);
  if (listener.get() < 0) listener = listen_on(family = AF_INET, port);
  if (listener.get() < 0)
    fail(ExitCode::io, "rank 0 cannot listen for the other ranks' monitors: {}",
         std::strerror(errno));
  address = std::to_string(port) + addresses(family);
  return listener;
}

std::vector<Link> accept_ranks(const Descriptor& listener, int size, const std::string& token,
                               const std::vector<Process>& members) {
  std::vector<Link> links(static_cast<std::size_t>(size));
  std::vector<Link> strangers;  // have not said who they are
  int missing = size - 1;
  make_room_for(size);
  const double deadline = monitor_clock() + kConnectSeconds;
  while (missing > 0 && monitor_clock() < deadline) {
    std::vector<pollfd> polls{{listener.get(), POLLIN, 0}};
    for (const Link& link : strangers) polls.push_back({link.fd(), POLLIN, 0});
    ::poll(polls.data(), polls.size(), milliseconds_until(deadline));
    for (;;) {
      const int fd = ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (fd < 0 && (errno == EMFILE || errno == ENFILE))
        fail(ExitCode::io, "rank 0 cannot hold {} connections: {}; raise ulimit -n to {}", size - 1,
             std::strerror(errno), static_cast<rlim_t>(size) + kOtherFiles);
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

Link connect_to_root(const std::string& address, bool same_host, const Process& root,
                     const std::string& hello, double seconds) {
  std::istringstream words(address);
  int port = 0;
  words >> port;
  std::vector<std::string> hosts;
  if (same_host) hosts = {"127.0.0.1", "::1"};
  for (std::string host; words >> host;) hosts.push_back(host);
  const double deadline = monitor_clock() + seconds;
  for (double patience = kFirstPatience; monitor_clock() < deadline; patience *= 2) {
    for (const std::string& host : hosts) {
      Descriptor socket = try_connect(host, port, patience);
      if (socket.get() < 0) continue;
      Link link = say_hello(std::move(socket), hello);
      if (link.fd() >= 0) return link;
    }
    ::poll(nullptr, 0, 50);
  }
  fail(
      ExitCode::peer_lost,
      "cannot connect to rank 0's monitor on host {} (port and addresses: {}) in {} s; TCP between "
      "the machines must be possible",
      root.host, address, seconds);
}

}  // namespace grist::watch
