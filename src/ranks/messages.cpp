#include "ranks/messages.hpp"

#include <bit>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>

namespace mxlm {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "messages between ranks are little-endian");

std::vector<std::byte> packed(const json& value) {
  const std::vector<uint8_t> bytes = json::to_msgpack(value);
  const auto* const begin = reinterpret_cast<const std::byte*>(bytes.data());
  return {begin, begin + bytes.size()};
}

json unpacked(std::span<const std::byte> bytes) {
  const auto* const begin = reinterpret_cast<const uint8_t*>(bytes.data());
  return json::from_msgpack(begin, begin + bytes.size());
}

json seconds_json(const std::vector<VariantSeconds>& seconds) {
  json out = json::array();
  for (const VariantSeconds& s : seconds) out.push_back({s.forward, s.prepare, s.head});
  return out;
}

std::vector<VariantSeconds> seconds_of(const json& value) {
  std::vector<VariantSeconds> out;
  for (const json& s : value) {
    out.push_back({.forward = s.at(0).get<double>(), .prepare = s.at(1).get<double>(), .head = s.at(2).get<double>()});
  }
  return out;
}

template <typename T>
void append(std::vector<uint8_t>& out, const T* values, size_t count) {
  const auto* const begin = reinterpret_cast<const uint8_t*>(values);
  out.insert(out.end(), begin, begin + count * sizeof(T));
}

std::vector<uint8_t> packed_windows(std::span<const Window> windows) {
  std::vector<uint8_t> out;
  for (const Window& window : windows) {
    const int32_t numbers[] = {static_cast<int32_t>(window.tokens.size()), window.score_begin, window.next,
                               window.keys};
    append(out, numbers, std::size(numbers));
    append(out, window.tokens.data(), window.tokens.size());
  }
  return out;
}

std::vector<Window> unpacked_windows(std::span<const uint8_t> bytes) {
  std::vector<Window> out;
  const auto take = [&bytes](void* to, size_t size) {
    if (bytes.size() < size) throw std::runtime_error("a list of windows between ranks is incomplete");
    std::memcpy(to, bytes.data(), size);
    bytes = bytes.subspan(size);
  };
  while (!bytes.empty()) {
    int32_t numbers[4];
    take(numbers, sizeof(numbers));
    Window& window = out.emplace_back();
    window.tokens.resize(static_cast<size_t>(numbers[0]));
    window.score_begin = numbers[1];
    window.next = numbers[2];
    window.keys = numbers[3];
    take(window.tokens.data(), window.tokens.size() * sizeof(int32_t));
  }
  return out;
}

}  // namespace

void say(Ranks& ranks, int to, TeamTalk kind, const Envelope& envelope, std::span<const std::byte> body) {
  std::vector<std::byte> bytes(sizeof(Envelope) + body.size());
  std::memcpy(bytes.data(), &envelope, sizeof(Envelope));
  if (!body.empty()) std::memcpy(bytes.data() + sizeof(Envelope), body.data(), body.size());
  ranks.send(to, static_cast<int>(kind), bytes);
}

std::optional<TeamMessage> hear(Ranks& ranks) {
  auto message = ranks.receive();
  if (!message) return std::nullopt;
  TeamMessage out{.from = message->from, .kind = static_cast<TeamTalk>(message->kind), .envelope = {}, .body = {}};
  if (message->bytes.size() < sizeof(Envelope)) throw std::runtime_error("a message between ranks is incomplete");
  std::memcpy(&out.envelope, message->bytes.data(), sizeof(Envelope));
  out.body.assign(message->bytes.begin() + sizeof(Envelope), message->bytes.end());
  return out;
}

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::vector<std::byte> encode(const ModelNews& news) {
  // Names are paths, so they may hold any bytes.
  const auto binary = [](const std::string& text) {
    return json::binary(std::vector<uint8_t>(text.begin(), text.end()));
  };
  return packed({{"name", binary(news.name)}, {"adapter", binary(news.adapter)}, {"float32", news.float32}});
}

void decode(std::span<const std::byte> bytes, ModelNews& news) {
  const json value = unpacked(bytes);
  const auto& name = value.at("name").get_binary();
  const auto& adapter = value.at("adapter").get_binary();
  news.name.assign(name.begin(), name.end());
  news.adapter.assign(adapter.begin(), adapter.end());
  news.float32 = value.at("float32").get<bool>();
}

std::vector<std::byte> encode(const ReadyNews& news) {
  return packed({{"error", news.error},
                 {"host", news.host},
                 {"backend", news.backend.description},
                 {"libraries", news.backend.libraries},
                 {"config", news.config_sha256},
                 {"sha256", news.sha256},
                 {"memory", news.memory_limit},
                 {"device", news.device_limit},
                 {"workers", news.workers}});
}

void decode(std::span<const std::byte> bytes, ReadyNews& news) {
  const json value = unpacked(bytes);
  value.at("error").get_to(news.error);
  value.at("host").get_to(news.host);
  value.at("backend").get_to(news.backend.description);
  value.at("libraries").get_to(news.backend.libraries);
  value.at("config").get_to(news.config_sha256);
  value.at("sha256").get_to(news.sha256);
  value.at("memory").get_to(news.memory_limit);
  value.at("device").get_to(news.device_limit);
  value.at("workers").get_to(news.workers);
}

std::vector<std::byte> encode(const JobNews& news, std::span<const Window> windows) {
  return packed({{"variants", news.variants},
                 {"reversed", news.reversed},
                 {"kind", static_cast<int>(news.kind)},
                 {"jensen_shannon", news.jensen_shannon},
                 {"kept", static_cast<int>(news.kept)},
                 {"rounds", news.rounds},
                 {"windows", json::binary(packed_windows(windows))}});
}

void decode(std::span<const std::byte> bytes, JobNews& news) {
  const json value = unpacked(bytes);
  value.at("variants").get_to(news.variants);
  value.at("reversed").get_to(news.reversed);
  news.kind = static_cast<ScoreKind>(value.at("kind").get<int>());
  news.jensen_shannon = value.at("jensen_shannon").get<bool>();
  news.kept = static_cast<KeptForm>(value.at("kept").get<int>());
  value.at("rounds").get_to(news.rounds);
  news.windows = unpacked_windows(value.at("windows").get_binary());
}

std::vector<std::byte> encode(const ReportNews& news) {
  json outcomes = json::array(), devices = json::array();
  for (const auto& [report, routes] : news.outcomes) {
    outcomes.push_back({{"rounds", report.rounds},
                        {"positions", report.positions},
                        {"seconds", seconds_json(report.seconds)},
                        {"round_seconds", report.round_seconds},
                        {"memory", {report.memory.limit, report.memory.used, report.memory.peak}},
                        {"counts", {report.routes.products, report.routes.rows, report.routes.fell_back}},
                        {"routes", routes}});
  }
  for (const DeviceUse& use : news.devices) {
    devices.push_back({{"index", use.index},
                       {"name", use.name},
                       {"peak", use.peak_memory_bytes},
                       {"joules", use.energy_joules ? json(*use.energy_joules) : json()},
                       {"rounds", use.rounds}});
  }
  return packed({{"outcomes", outcomes}, {"devices", devices}});
}

void decode(std::span<const std::byte> bytes, ReportNews& news) {
  const json value = unpacked(bytes);
  for (const json& one : value.at("outcomes")) {
    WorkerOutcome& outcome = news.outcomes.emplace_back();
    WorkerReport& report = outcome.report;
    report.device = kElsewhere;
    one.at("rounds").get_to(report.rounds);
    one.at("positions").get_to(report.positions);
    report.seconds = seconds_of(one.at("seconds"));
    one.at("round_seconds").get_to(report.round_seconds);
    const json &memory = one.at("memory"), &counts = one.at("counts");
    report.memory = {.limit = memory.at(0).get<uint64_t>(),
                     .used = memory.at(1).get<uint64_t>(),
                     .peak = memory.at(2).get<uint64_t>()};
    report.routes = {.products = counts.at(0).get<int64_t>(),
                     .rows = counts.at(1).get<int64_t>(),
                     .fell_back = counts.at(2).get<int64_t>()};
    one.at("routes").get_to(outcome.routes);
  }
  for (const json& one : value.at("devices")) {
    DeviceUse& use = news.devices.emplace_back();
    one.at("index").get_to(use.index);
    one.at("name").get_to(use.name);
    one.at("peak").get_to(use.peak_memory_bytes);
    if (const json& joules = one.at("joules"); joules.is_number()) use.energy_joules = joules.get<double>();
    one.at("rounds").get_to(use.rounds);
  }
}

}  // namespace mxlm
