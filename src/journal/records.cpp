#include "journal/records.hpp"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>
#include <type_traits>

namespace mxlm {
namespace {

static_assert(std::endian::native == std::endian::little, "a journal's numbers are little-endian");

constexpr uint32_t kMagic = 0x524a584d;  // "MXJR"
constexpr size_t kFrame = 12;            // magic, length, CRC
constexpr size_t kToken = 2 * sizeof(double) + 4 * sizeof(float) + sizeof(int32_t) + 1;
constexpr size_t kStep = 3 * sizeof(double);
constexpr size_t kRoundHead = sizeof(uint32_t) + 1 + sizeof(int64_t) + 2 * sizeof(uint32_t);
// A record ends with the window that makes it this large, which limits the loss when a record is damaged.
constexpr size_t kRecordBytes = size_t{16} << 20;

uint32_t crc(std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

class Writer {
 public:
  template <typename T>
  void put(T value) {
    static_assert(std::is_arithmetic_v<T>);
    const auto* const from = reinterpret_cast<const std::byte*>(&value);
    bytes.insert(bytes.end(), from, from + sizeof(T));
  }
  void count(size_t n) { put(static_cast<uint32_t>(n)); }
  std::vector<std::byte> bytes;
};

/// Becomes bad, and stays bad, when a caller reads beyond the end.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  template <typename T>
  T get() {
    T value{};
    if (bytes_.size() < sizeof(T)) {
      good_ = false;
      return value;
    }
    std::memcpy(&value, bytes_.data(), sizeof(T));
    bytes_ = bytes_.subspan(sizeof(T));
    return value;
  }
  /// Reads a number of elements; each element takes at least `size` bytes, so a larger number is bad.
  size_t count(size_t size) {
    const auto n = get<uint32_t>();
    if (n > bytes_.size() / size) good_ = false;
    return good_ ? n : 0;
  }
  [[nodiscard]] bool good() const { return good_; }
  [[nodiscard]] bool finished() const { return good_ && bytes_.empty(); }

 private:
  std::span<const std::byte> bytes_;
  bool good_ = true;
};

void put_window(Writer& out, const WindowResult& window) {
  for (const WindowScores& scores : window.scores) {
    out.count(scores.tokens.size());
    for (const TokenScore& token : scores.tokens) {
      out.put(token.nll);
      out.put(token.kld);
      out.put(token.p);
      out.put(token.entropy);
      out.put(token.kld_reverse);
      out.put(token.jensen_shannon);
      out.put(token.top1);
      out.put(static_cast<uint8_t>(token.finite ? 1 : 0));
    }
  }
  for (const auto& steps : window.layer_errors) {
    out.count(steps.size());
    for (const ErrorSums& sums : steps) {
      for (const double x : {sums.reference, sums.other, sums.difference}) out.put(x);
    }
  }
}

WindowResult get_window(Reader& in, size_t variants) {
  WindowResult window;
  for (size_t v = 0; v < variants && in.good(); ++v) {
    std::vector<TokenScore>& tokens = window.scores.emplace_back().tokens;
    tokens.resize(in.count(kToken));
    for (TokenScore& token : tokens) {
      token.nll = in.get<double>();
      token.kld = in.get<double>();
      token.p = in.get<float>();
      token.entropy = in.get<float>();
      token.kld_reverse = in.get<float>();
      token.jensen_shannon = in.get<float>();
      token.top1 = in.get<int32_t>();
      token.finite = in.get<uint8_t>() != 0;
    }
  }
  for (size_t v = 0; v < variants && in.good(); ++v) {
    auto& steps = window.layer_errors.emplace_back(in.count(kStep));
    for (ErrorSums& sums : steps) sums = {in.get<double>(), in.get<double>(), in.get<double>()};
  }
  return window;
}

/// The number of bytes that a check of a record at `at` reads.
size_t summed_at(std::span<const std::byte> file, size_t at) {
  if (file.size() - at < kFrame) return kFrame;
  uint32_t length = 0;
  std::memcpy(&length, file.data() + at + sizeof(kMagic), sizeof(length));
  return kFrame + (length > file.size() - at - kFrame ? 0 : length);
}

/// The payload of the record at `at`; nullopt if the record is incomplete or damaged.
std::optional<std::span<const std::byte>> record_at(std::span<const std::byte> file, size_t at) {
  if (file.size() - at < kFrame) return std::nullopt;
  Reader frame(file.subspan(at, kFrame));
  const auto magic = frame.get<uint32_t>(), length = frame.get<uint32_t>(), sum = frame.get<uint32_t>();
  if (magic != kMagic || length > file.size() - at - kFrame) return std::nullopt;
  const auto payload = file.subspan(at + kFrame, length);
  if (crc(payload) != sum) return std::nullopt;
  return payload;
}

/// The start of the next good record after `at`, or the size of the file. Reads at most about `budget` bytes, so that a
/// hostile file cannot cost quadratic time.
size_t next_record(std::span<const std::byte> file, size_t at, size_t& budget) {
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  const std::string_view magic(reinterpret_cast<const char*>(&kMagic), sizeof(kMagic));
  while ((at = text.find(magic, at + 1)) != std::string_view::npos && budget > 0) {
    if (record_at(file, at)) return at;
    budget -= std::min(budget, summed_at(file, at));
  }
  return file.size();
}

}  // namespace

std::vector<std::byte> journal_header() {
  const auto bytes = std::as_bytes(std::span(kJournalHeader));
  return {bytes.begin(), bytes.end()};
}

size_t record_size(const WindowResult& window) {
  size_t size = sizeof(uint32_t) * (1 + window.scores.size() + window.layer_errors.size());
  for (const WindowScores& scores : window.scores) size += scores.tokens.size() * kToken;
  for (const auto& steps : window.layer_errors) size += steps.size() * kStep;
  return size;
}

size_t record_size(const JournalRound& round) {
  size_t size = kFrame + kRoundHead + round.result.seconds.size() * 3 * sizeof(double);
  for (const WindowResult& window : round.result.windows) size += record_size(window);
  return size;
}

std::vector<std::byte> encode_record(const JournalRound& round) {
  Writer out;
  out.bytes.reserve(record_size(round));
  out.put(kMagic);
  out.put(uint32_t{0});
  out.put(uint32_t{0});
  out.put(round.pass);
  out.put(static_cast<uint8_t>(round.reversed ? 1 : 0));
  out.put(round.result.positions);
  out.count(round.result.seconds.size());
  for (const VariantSeconds& s : round.result.seconds) {
    for (const double x : {s.forward, s.prepare, s.head}) out.put(x);
  }
  out.count(round.windows.size());
  for (const uint32_t window : round.windows) out.put(window);
  for (const WindowResult& window : round.result.windows) put_window(out, window);
  const std::span<const std::byte> payload = std::span(out.bytes).subspan(kFrame);
  const auto length = static_cast<uint32_t>(payload.size());
  const uint32_t sum = crc(payload);
  std::memcpy(out.bytes.data() + 4, &length, sizeof(length));
  std::memcpy(out.bytes.data() + 8, &sum, sizeof(sum));
  return std::move(out.bytes);
}

std::optional<JournalRound> decode_payload(std::span<const std::byte> payload) {
  Reader in(payload);
  JournalRound round;
  round.pass = in.get<uint32_t>();
  round.reversed = in.get<uint8_t>() != 0;
  round.result.positions = in.get<int64_t>();
  round.result.seconds.resize(in.count(3 * sizeof(double)));
  for (VariantSeconds& s : round.result.seconds) {
    s.forward = in.get<double>();
    s.prepare = in.get<double>();
    s.head = in.get<double>();
  }
  const size_t variants = round.result.seconds.size();
  if (variants == 0) return std::nullopt;
  round.windows.resize(in.count(sizeof(uint32_t) * (1 + 2 * variants)));
  for (uint32_t& window : round.windows) window = in.get<uint32_t>();
  for (size_t w = 0; w < round.windows.size() && in.good(); ++w) {
    round.result.windows.push_back(get_window(in, variants));
  }
  if (!in.finished()) return std::nullopt;
  return round;
}

std::optional<JournalRound> decode_record(std::span<const std::byte> record) {
  const auto payload = record_at(record, 0);
  if (!payload || kFrame + payload->size() != record.size()) return std::nullopt;
  return decode_payload(*payload);
}

void each_record(uint32_t pass, bool reversed, std::span<const uint32_t> windows, const RoundResult& result,
                 const std::function<void(std::span<const std::byte>)>& take) {
  JournalRound round{.pass = pass, .reversed = reversed, .windows = {}, .result = {}};
  round.result.positions = result.positions;
  round.result.seconds = result.seconds;
  size_t bytes = 0;
  for (size_t w = 0; w < windows.size(); ++w) {
    round.windows.push_back(windows[w]);
    round.result.windows.push_back(result.windows[w]);
    bytes += record_size(result.windows[w]);
    if (bytes < kRecordBytes && w + 1 < windows.size()) continue;
    take(encode_record(round));
    round.windows.clear();
    round.result.windows.clear();
    // Only the first record of a shard holds the times, so sums over records count them once.
    round.result.positions = 0;
    std::fill(round.result.seconds.begin(), round.result.seconds.end(), VariantSeconds());
    bytes = 0;
  }
}

JournalScan scan_journal(std::span<const std::byte> file) {
  JournalScan scan;
  const auto header = journal_header();
  if (file.size() < header.size() || !std::equal(header.begin(), header.end(), file.begin())) {
    // A file that holds a part of the header is torn; any other file is foreign.
    scan.foreign = !std::equal(
        file.begin(), file.begin() + static_cast<std::ptrdiff_t>(std::min(file.size(), header.size())), header.begin());
    scan.torn = !file.empty();
    return scan;
  }
  scan.end = header.size();
  size_t budget = 16 * file.size();
  for (size_t at = header.size(), number = 1; at < file.size(); ++number) {
    if (const auto payload = record_at(file, at)) {
      auto round = decode_payload(*payload);
      if (round) {
        scan.rounds.push_back(std::move(*round));
      } else {
        scan.damaged.push_back(fmt::format("record {} (byte {})", number, at));
      }
      at += kFrame + payload->size();
      scan.end = at;
      continue;
    }
    const size_t next = next_record(file, at, budget);
    if (next == file.size()) {
      scan.torn = true;
      break;
    }
    scan.damaged.push_back(fmt::format("record {} (byte {})", number, at));
    at = next;
  }
  return scan;
}

}  // namespace mxlm
