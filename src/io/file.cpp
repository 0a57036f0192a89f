#include "io/file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "base/error.hpp"
#include "base/quote.hpp"
#include "io/descriptor.hpp"
#include "io/output_file.hpp"

namespace mxlm {

struct FileView::State {
  std::string name;
  std::span<const std::byte> bytes;
  bool mapped = false;
  std::vector<std::byte> owned;

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (mapped) munmap(const_cast<std::byte*>(bytes.data()), bytes.size());
  }

  void advise(size_t begin, size_t end, int advice) const {
    // Advice is a hint: a kernel that refuses it changes nothing.
    if (begin < end) madvise(const_cast<std::byte*>(bytes.data()) + begin, end - begin, advice);
  }
};

namespace {

size_t page_size() {
  static const auto size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

}  // namespace

FileView FileView::map(const std::filesystem::path& path) {
  const Descriptor file = open_for_reading(path, /*wait=*/false);
  struct stat info {};
  if (fstat(file.get(), &info) != 0) fail_errno("inspected", path.native(), errno);
  if (!S_ISREG(info.st_mode)) {
    fail("{} is not a regular file and cannot be mapped; name a file on disk.", quote(path.native()));
  }
  if (info.st_size == 0) fail("The file {} is empty; it may not have been copied whole.", quote(path.native()));
  const auto size = static_cast<size_t>(info.st_size);
  void* memory = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (memory == MAP_FAILED) fail_errno("mapped", path.native(), errno);
  auto state = std::make_shared<State>();
  state->bytes = {static_cast<const std::byte*>(memory), size};
  state->mapped = true;
  state->name = path.string();
  FileView view;
  view.state_ = std::move(state);
  return view;
}

FileView FileView::from_memory(std::string name, std::span<const std::byte> bytes) {
  auto state = std::make_shared<State>();
  state->name = std::move(name);
  state->bytes = bytes;
  FileView view;
  view.state_ = std::move(state);
  return view;
}

FileView FileView::from_owned(std::string name, std::vector<std::byte> bytes) {
  auto state = std::make_shared<State>();
  state->name = std::move(name);
  state->owned = std::move(bytes);
  state->bytes = state->owned;
  FileView view;
  view.state_ = std::move(state);
  return view;
}

std::span<const std::byte> FileView::bytes() const { return state_ ? state_->bytes : std::span<const std::byte>{}; }

std::string_view FileView::text() const {
  const auto all = bytes();
  return {reinterpret_cast<const char*>(all.data()), all.size()};
}

const std::string& FileView::name() const {
  static const std::string none;
  return state_ ? state_->name : none;
}

void FileView::will_need(size_t offset, size_t size) const {
  if (!state_ || !state_->mapped) return;
  const size_t length = state_->bytes.size();
  const size_t begin = std::min(offset, length);
  const size_t end = begin + std::min(size, length - begin);
  state_->advise(begin / page_size() * page_size(), end, MADV_WILLNEED);
}

void FileView::release(size_t offset, size_t size) const {
  if (!state_ || !state_->mapped) return;
  const size_t length = state_->bytes.size();
  const size_t begin = std::min(offset, length);
  const size_t end = begin + std::min(size, length - begin);
  // The last page of the file holds nothing else, so it goes with the last byte.
  const size_t inner_end = end == length ? end : end / page_size() * page_size();
  state_->advise((begin + page_size() - 1) / page_size() * page_size(), inner_end, MADV_DONTNEED);
}

void write_file(const std::filesystem::path& path, std::string_view bytes) {
  OutputFile file(path);
  std::string shown;
  if (path == "-" && isatty(STDOUT_FILENO) == 1) {
    shown = printable_lines(bytes);
    bytes = shown;
  }
  file.write(std::as_bytes(std::span(bytes)));
  file.commit();
}

}  // namespace mxlm
