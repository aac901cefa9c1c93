#include "torch/processes.h"

#include <netdb.h>
#include <sys/socket.h>
#include <torch/torch.h>
#include <torch/version.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <type_traits>

#include "core/format.h"
#include "torch/device.h"
#include "torch/exchange.h"

// c10d's header of Gloo wants Gloo's, which libtorch does not bring.
#if defined(USE_C10D_GLOO) && __has_include(<gloo/rendezvous/store.h>)
#define WEFT_TORCH_HAS_GLOO
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#if defined(USE_C10D_NCCL) && __has_include(<nccl.h>)
#define WEFT_TORCH_HAS_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif
#endif

namespace weft::torch_engine {
namespace {

constexpr std::string_view kPlace = "processes";

#ifdef WEFT_TORCH_HAS_GLOO

#if TORCH_VERSION_MAJOR >= 2
using Group = c10d::Backend;
#else
using Group = c10d::ProcessGroup;
#endif

// The address by which this machine reaches the meeting place; empty when the system knows no way there.
std::string own_address(const Meeting& meeting) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;  // to be connected without a packet being sent
  addrinfo* found = nullptr;
  if (getaddrinfo(meeting.host.c_str(), std::to_string(meeting.port).c_str(), &hints, &found) != 0) return "";
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, &freeaddrinfo);
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    const int descriptor = socket(address->ai_family, address->ai_socktype, address->ai_protocol);
    if (descriptor < 0) continue;
    sockaddr_storage own{};
    socklen_t size = sizeof own;
    char text[NI_MAXHOST] = "";
    const bool ok =
        connect(descriptor, address->ai_addr, address->ai_addrlen) == 0 &&
        getsockname(descriptor, reinterpret_cast<sockaddr*>(&own), &size) == 0 &&
        getnameinfo(reinterpret_cast<sockaddr*>(&own), size, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0;
    close(descriptor);
    if (ok) return text;
  }
  return "";
}

// GLOO_SOCKET_IFNAME is what Gloo's users know.
std::shared_ptr<gloo::transport::Device> open_network(const Meeting& meeting) {
  const char* const interface = std::getenv("GLOO_SOCKET_IFNAME");
  if (interface != nullptr && *interface != '\0') return c10d::ProcessGroupGloo::createDeviceForInterface(interface);
  const std::string address = own_address(meeting);
  if (address.empty()) return c10d::ProcessGroupGloo::createDefaultDevice();
  return c10d::ProcessGroupGloo::createDeviceForHostname(address);
}

c10::intrusive_ptr<Group> make_nccl([[maybe_unused]] const c10::intrusive_ptr<c10d::Store>& store,
                                    [[maybe_unused]] const Meeting& meeting) {
#ifdef WEFT_TORCH_HAS_NCCL
  // What takes too long is to be thrown by wait(), not to end the process: in the names of 1.13 and of 2.2 and later.
  for (const char* const name : {"NCCL_BLOCKING_WAIT", "TORCH_NCCL_BLOCKING_WAIT"}) setenv(name, "1", 0);
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = meeting.timeout;
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, meeting.rank, meeting.world, options);
#else
  fail<UnsupportedError>(kPlace,
                         "this build of weft cannot train in several processes on CUDA devices: it needs a libtorch "
                         "with NCCL, and libnccl-dev of the same version; install it and build weft again");
#endif
}

class C10d final : public Exchange {
 public:
  explicit C10d(const Meeting& meeting) : rank_(meeting.rank), world_(meeting.world), timeout_(meeting.timeout) {
    const std::string place = fmt::format("{}:{}", printable(meeting.host), meeting.port);
    const std::chrono::milliseconds patience = 10 * timeout_;
    c10d::TCPStoreOptions options;
    options.port = static_cast<std::uint16_t>(meeting.port);
    options.isServer = !meeting.hosted && rank_ == 0;
    options.numWorkers = static_cast<std::size_t>(world_);
    options.waitWorkers = false;
    options.timeout = patience;
    c10::intrusive_ptr<c10d::Store> store;
    try {
      store = c10::make_intrusive<c10d::TCPStore>(meeting.host, options);
    } catch (const std::exception& error) {
      fail<Error>(kPlace, "rank {} of {} cannot meet the others at {}: {}; {}", rank_, world_, place, line_of(error),
                  options.isServer ? "is the port taken? MASTER_PORT names another one"
                                   : "does rank 0 run there? MASTER_ADDR and MASTER_PORT say where");
    }
    const auto room = [&](const char* name) {
      return c10::make_intrusive<c10d::PrefixStore>(meeting.prefix + name, store);
    };
    const auto make_gloo = [&](const char* name, std::chrono::milliseconds timeout) {
      auto gloo = c10d::ProcessGroupGloo::Options::create(timeout);
      gloo->devices.push_back(open_network(meeting));
      return c10::make_intrusive<c10d::ProcessGroupGloo>(room(name), rank_, world_, gloo);
    };
    guarded(fmt::format("the others to come to {}", place), patience,
            [&] { patient_ = make_gloo("weft/patient/", patience); });
    check_devices(meeting);
    guarded("the others to open a second connection", timeout_, [&] {
      prompt_ = make_gloo("weft/prompt/", timeout_);
      tensors_ = meeting.cuda ? make_nccl(room("weft/tensors/"), meeting) : prompt_;
    });
    store_ = std::move(store);
  }

  int rank() const override { return rank_; }
  int world() const override { return world_; }

  std::string share(std::string_view text, std::string_view what) override { return gather(text, what)[0]; }

  std::vector<std::string> gather(std::string_view text, std::string_view what) override {
    std::vector<double> sizes(index(world_));
    sizes[index(rank_)] = static_cast<double>(text.size());
    sum(sizes, Pace::kOwn, what);
    const auto longest = static_cast<std::int64_t>(*std::ranges::max_element(sizes));
    at::Tensor own = at::zeros({std::max<std::int64_t>(longest, 1)}, at::kByte);
    std::ranges::copy(text, static_cast<char*>(own.data_ptr()));
    std::vector<std::vector<at::Tensor>> all(1);
    for (int i = 0; i < world_; ++i) all[0].push_back(at::empty_like(own));
    std::vector<at::Tensor> in = {own};
    guarded(what, 10 * timeout_, [&] { patient_->allgather(all, in)->wait(); });
    std::vector<std::string> texts;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      texts.emplace_back(static_cast<const char*>(all[0][i].data_ptr()), static_cast<std::size_t>(sizes[i]));
    }
    return texts;
  }

  void sum(std::span<double> values, Pace pace, std::string_view what) override {
    if (values.empty()) return;
    std::vector<at::Tensor> tensors = {
        at::from_blob(values.data(), {static_cast<std::int64_t>(values.size())}, at::kDouble)};
    const bool step = pace == Pace::kStep;
    guarded(what, step ? timeout_ : 10 * timeout_, [&] { (step ? prompt_ : patient_)->allreduce(tensors)->wait(); });
  }

  Wait begin_sum(const at::Tensor& tensor, std::string_view what) override {
    std::vector<at::Tensor> tensors = {tensor};
    return guarded(what, timeout_, [&]() -> Wait {
      return [this, work = tensors_->allreduce(tensors), waited_for = std::string(what)] {
        guarded(waited_for, timeout_, [&] { work->wait(); });
      };
    });
  }

  void copy_from_first(const at::Tensor& tensor, std::string_view what) override {
    if (tensor.numel() == 0) return;
    std::vector<at::Tensor> tensors = {tensor};
    guarded(what, timeout_, [&] { tensors_->broadcast(tensors)->wait(); });
  }

 private:
  static std::size_t index(int i) { return static_cast<std::size_t>(i); }

  static std::string line_of(const std::exception& error) {
    const auto* const own = dynamic_cast<const c10::Error*>(&error);
    const std::string_view text = own != nullptr ? own->what_without_backtrace() : error.what();
    return printable(text.substr(0, text.find('\n')), 300);
  }

  // One line for whatever Gloo and NCCL throw.
  template <class F>
  std::invoke_result_t<F> guarded(std::string_view what, std::chrono::milliseconds limit, F&& f) const {
    try {
      return f();
    } catch (const Error&) {
      throw;
    } catch (const std::exception& error) {
      fail<Error>(kPlace,
                  "rank {} of {} waited for {}, at most {} s: {}; a process was probably lost: see what each of them "
                  "said last, and go on with `weft train --resume`",
                  rank_, world_, what, std::chrono::duration<double>(limit).count(), line_of(error));
    }
  }

  void check_devices(const Meeting& meeting) {
    std::array<double, 1> on_cuda = {meeting.cuda ? 1.0 : 0.0};
    sum(on_cuda, Pace::kOwn, "the others to say which device they have");
    require<ConfigError>(on_cuda[0] == 0 || on_cuda[0] == world_, kPlace,
                         "{} of {} processes are on CUDA devices; give all the same --device", on_cuda[0], world_);
  }

  int rank_;
  int world_;
  std::chrono::milliseconds timeout_;
  c10::intrusive_ptr<c10d::Store> store_;
  c10::intrusive_ptr<Group> patient_, prompt_;  // on the CPU: few numbers, and texts
  c10::intrusive_ptr<Group> tensors_;
};

Processes* meet(const Meeting& meeting) { return new C10d(meeting); }

#else

Processes* meet(const Meeting&) {
#ifdef USE_C10D_GLOO
  fail<UnsupportedError>(kPlace,
                         "this build of weft cannot train in several processes: it was built without the headers of "
                         "Gloo; install libgloo-dev and build it again");
#else
  fail<UnsupportedError>(kPlace,
                         "libtorch {} was built without c10d's Gloo and cannot train in several processes; install "
                         "Debian's libtorch-dev or an official libtorch, and libgloo-dev, and build weft again",
                         TORCH_VERSION);
#endif
}

#endif

}  // namespace
}  // namespace weft::torch_engine

extern "C" __attribute__((visibility("default"))) weft::Processes* weft_make_torch_processes(
    const char* version, const weft::Meeting& meeting) {
  weft::torch_engine::check_version(version);
  return weft::torch_engine::translated([&] { return weft::torch_engine::meet(meeting); });
}
