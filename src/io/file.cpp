#include "io/file.hpp"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <optional>
#include <system_error>
#include <utility>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/quote.hpp"
#include "io/cut_files.hpp"
#include "io/descriptor.hpp"
#include "io/file_stamp.hpp"
#include "io/output_file.hpp"
#include "io/sha256.hpp"

namespace mxlm {

struct FileView::State {
  /// A file as it was when it was mapped. The descriptor stays open, because another file may get the name.
  struct Mapping {
    Descriptor file;
    FileStamp stamp;
    std::string shown, sha256;  // "" = not known
    std::mutex mutex;           // for `stamp` and `sha256`
    ExplainedMapping explained;

    Mapping(Descriptor f, const struct stat& info, std::span<const std::byte> bytes, const std::string& name)
        : file(std::move(f)), stamp(info), shown(quote(name)), explained(bytes, file.get(), shown.c_str()) {}
  };

  std::string name;
  std::span<const std::byte> bytes;
  std::unique_ptr<Mapping> mapping;  // null: memory
  std::vector<std::byte> owned;

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (!mapping) return;
    mapping.reset();
    munmap(const_cast<std::byte*>(bytes.data()), bytes.size());
  }

  void will_need(size_t offset, size_t size) const;
  void release(size_t offset, size_t size) const;
  [[nodiscard]] std::string hash() const;
  [[nodiscard]] bool changed() const;

  void advise(size_t begin, size_t end, int advice) const {
    // Advice is a hint: a refusal of the kernel changes nothing.
    if (begin < end) madvise(const_cast<std::byte*>(bytes.data()) + begin, end - begin, advice);
  }
};

namespace {

size_t page_size() {
  static const auto size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

}  // namespace

/// The watched files.
struct FileView::Watched {
  std::mutex mutex;
  std::vector<std::weak_ptr<const State>> files;

  static Watched& get() {
    static Watched it;
    return it;
  }
};

FileView FileView::map(const std::filesystem::path& path) {
  Descriptor file = open_for_reading(path, /*wait=*/false);
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
  state->name = path.string();
  state->mapping = std::make_unique<State::Mapping>(std::move(file), info, state->bytes, state->name);
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

void FileView::State::will_need(size_t offset, size_t size) const {
  if (!mapping) return;
  const size_t length = bytes.size();
  const size_t begin = std::min(offset, length);
  const size_t end = begin + std::min(size, length - begin);
  advise(begin / page_size() * page_size(), end, MADV_WILLNEED);
}

void FileView::State::release(size_t offset, size_t size) const {
  if (!mapping) return;
  const size_t length = bytes.size();
  const size_t begin = std::min(offset, length);
  const size_t end = begin + std::min(size, length - begin);
  // The last page of the file holds nothing else, so it is dropped with the last byte.
  const size_t inner_end = end == length ? end : end / page_size() * page_size();
  advise((begin + page_size() - 1) / page_size() * page_size(), inner_end, MADV_DONTNEED);
}

std::string FileView::State::hash() const {
  constexpr size_t kHashedAtOnce = size_t{16} << 20;
  Sha256 hash;
  for (size_t offset = 0; offset < bytes.size(); offset += kHashedAtOnce) {
    throw_if_interrupted();
    const size_t size = std::min(kHashedAtOnce, bytes.size() - offset);
    will_need(offset + size, kHashedAtOnce);
    hash.update(bytes.subspan(offset, size));
    release(offset, size);
  }
  return hash.hex();
}

bool FileView::State::changed() const {
  if (!mapping) return false;
  const std::lock_guard lock(mapping->mutex);
  while (true) {
    const auto now = FileStamp::of(mapping->file.get());
    if (!now || static_cast<size_t>(now->size) != bytes.size()) return true;
    if (*now == mapping->stamp) return false;
    // A rename, a new link, a new mode and `touch` leave the bytes as they are; only the hash can tell.
    if (mapping->sha256.empty()) return !now->same_content(mapping->stamp);
    if (hash() != mapping->sha256) return true;
    if (FileStamp::of(mapping->file.get()) != now) continue;  // somebody wrote to it meanwhile
    mapping->stamp = *now;
    return false;
  }
}

void FileView::will_need(size_t offset, size_t size) const {
  if (state_) state_->will_need(offset, size);
}

void FileView::release(size_t offset, size_t size) const {
  if (state_) state_->release(offset, size);
}

std::string FileView::sha256() const {
  if (!state_) return sha256_hex({});
  if (!state_->mapping) return state_->hash();
  State::Mapping& mapping = *state_->mapping;
  const std::lock_guard lock(mapping.mutex);
  if (!mapping.sha256.empty()) return mapping.sha256;
  std::string hash = state_->hash();
  // What was read before may belong to other bytes than the hashed ones.
  if (FileStamp::of(mapping.file.get()) != mapping.stamp) {
    fail("{} was changed while it was read; wait until nothing writes to it, and start again.", mapping.shown);
  }
  return mapping.sha256 = hash;
}

void FileView::watch() const {
  if (!state_ || !state_->mapping) return;
  const std::lock_guard lock(Watched::get().mutex);
  auto& files = Watched::get().files;
  std::erase_if(files, [](const auto& file) { return file.expired(); });
  files.push_back(state_);
}

FilesChanged::FilesChanged(const std::vector<std::string>& names)
    : Error(fmt::format("{} {} changed during the run, and nothing that was read after that counts; run again once "
                        "nothing writes to {}.",
                        fmt::join(names, ", "), names.size() == 1 ? "was" : "were",
                        names.size() == 1 ? "it" : "them")) {}

void FileView::throw_if_changed() {
  std::vector<std::shared_ptr<const State>> files;
  {
    const std::lock_guard lock(Watched::get().mutex);
    for (const auto& file : Watched::get().files) {
      if (auto held = file.lock()) files.push_back(std::move(held));
    }
  }
  std::vector<std::string> names;
  for (const auto& file : files) {
    if (file->changed()) names.push_back(file->mapping->shown);
  }
  if (!names.empty()) throw FilesChanged(names);
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
