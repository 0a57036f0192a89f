#include "io/parquet.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/quote.hpp"
#include "io/descriptor.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kLongestText = uint64_t{256} << 20;  // as for lines
constexpr uint64_t kLongestOther = uint64_t{1} << 20;

// The reader's process; destroyed, it ends.
class Process {
 public:
  // Runs `program` with one argument, `input` as its stdin and `output` as its stdout.
  Process(const fs::path& program, const std::string& argument, int input, int output) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    std::string name = program.native(), copy = argument;
    std::array<char*, 3> arguments{name.data(), copy.data(), nullptr};
    const int error = posix_spawn(&pid_, name.c_str(), &actions, nullptr, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) fail_errno("run", name, error);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() {
    if (pid_ < 0) return;
    kill(pid_, SIGKILL);
    wait();
  }

  // Waits for its end and returns the status as waitpid has it.
  int wait() {
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return status;
  }

 private:
  pid_t pid_ = -1;
};

// What the reader writes; src/parquet/main.cpp says how.
class Pieces {
 public:
  Pieces(Descriptor pipe, std::string file) : pipe_(std::move(pipe)), file_(std::move(file)), buffer_(kBuffer) {}

  // The kind and content of the next piece; nothing if the reader ended before it was whole.
  std::optional<char> next(std::string& content) {
    std::array<std::byte, 9> head{};
    if (!fill(head)) return std::nullopt;
    const auto kind = std::to_integer<char>(head[0]);
    uint64_t size = 0;
    for (size_t i = 0; i < 8; ++i) size |= std::to_integer<uint64_t>(head[1 + i]) << (8 * i);
    // Arrow may have been led astray by the file, so nothing that its process says is believed.
    if (size > (kind == 'T' ? kLongestText : kLongestOther)) {
      fail("The Parquet file {} could not be read: mxlm-parquet said something impossible; get the file again.", file_);
    }
    content.resize(size);
    if (!fill(std::as_writable_bytes(std::span(content)))) return std::nullopt;
    return kind;
  }

 private:
  static constexpr size_t kBuffer = size_t{64} << 10;

  bool fill(std::span<std::byte> out) {
    while (!out.empty()) {
      if (begin_ == end_) {
        begin_ = 0;
        ssize_t got = 0;
        do {
          throw_if_interrupted();
          got = read(pipe_.get(), buffer_.data(), buffer_.size());
        } while (got < 0 && errno == EINTR);
        if (got < 0) fail_errno("read", "the pipe from mxlm-parquet", errno);
        end_ = static_cast<size_t>(got);
        if (got == 0) return false;
      }
      const size_t size = std::min(out.size(), end_ - begin_);
      std::memcpy(out.data(), buffer_.data() + begin_, size);
      begin_ += size;
      out = out.subspan(size);
    }
    return true;
  }

  Descriptor pipe_;
  std::string file_;  // quoted
  std::vector<std::byte> buffer_;
  size_t begin_ = 0, end_ = 0;
};

[[noreturn]] void fail_ended(Process& process, const std::string& file) {
  throw_if_interrupted();  // Ctrl-C reaches both
  const int status = process.wait();
  fail("The Parquet file {} could not be read: mxlm-parquet ended with {} {}; get the file again.", file,
       WIFSIGNALED(status) ? "signal" : "code", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

}  // namespace

fs::path parquet_reader() {
#ifdef MXLM_PARQUET_READER
  std::error_code error;
  const auto beside = fs::read_symlink("/proc/self/exe", error).parent_path() / "mxlm-parquet";
  return !error && fs::exists(beside, error) ? beside : fs::path(MXLM_PARQUET_READER);
#else
  return {};
#endif
}

void read_parquet(const std::string& path, const std::string& field,
                  const std::function<bool(std::string_view, std::string_view)>& take, const fs::path& reader) {
  const std::string name = quote(path);
  const Descriptor file = open_for_reading(path, /*wait=*/false);
  struct stat info {};
  if (fstat(file.get(), &info) != 0) fail_errno("inspected", path, errno);
  if (!S_ISREG(info.st_mode)) fail("{} is not a regular file; name a Parquet file on disk.", name);
  if (reader.empty()) {
    fail(
        "{} is a Parquet file, and this program was built without Apache Arrow, which reads them; install it (python3 "
        "-m "
        "pip install pyarrow, or the packages libarrow-dev and libparquet-dev) and build again.",
        name);
  }
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) fail_errno("made", "a pipe", errno);
  Pieces pieces(Descriptor{ends[0]}, name);
  std::optional<Descriptor> output(std::in_place, ends[1]);
  Process process(reader, field, file.get(), output->get());
  output.reset();  // so that the reader's end of it is the last

  std::string content, subset;
  for (;;) {
    const auto kind = pieces.next(content);
    if (!kind) fail_ended(process, name);
    switch (*kind) {
      case 'S':
        subset = content;
        break;
      case 'T':
        if (!take(content, subset)) return;
        subset.clear();
        break;
      case 'E':
        // It may quote the file.
        for (char& c : content) c = static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
        fail("The Parquet file {} {}.", name, content);
      case 'D':
        return;
      default:
        fail("The Parquet file {} could not be read: mxlm-parquet said something unknown; build all of mxlm again.",
             name);
    }
  }
}

}  // namespace mxlm
