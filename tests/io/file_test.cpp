#include "io/file.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <array>
#include <chrono>
#include <csignal>
#include <fstream>

#include "base/error.hpp"
#include "io/byte_source.hpp"
#include "io/output_file.hpp"
#include "io_helpers.hpp"

namespace mxlm {
namespace {

using testing::AllOf;
using testing::HasSubstr;
namespace fs = std::filesystem;

TEST(FileView, MapsAFileAndKeepsItAcrossCopies) {
  const TemporaryFolder folder;
  FileView copy;
  {
    const FileView view = FileView::map(folder.file("a", "hello"));
    copy = view;
  }
  EXPECT_EQ(copy.text(), "hello");
  EXPECT_EQ(copy.bytes().size(), 5U);
  EXPECT_EQ(copy.name(), (folder.path() / "a").string());
}

TEST(FileView, DefaultAndMemoryViews) {
  EXPECT_TRUE(FileView().bytes().empty());
  EXPECT_EQ(FileView().name(), "");
  static constexpr std::string_view kText = "static";
  const FileView view = FileView::from_memory("built in", std::as_bytes(std::span(kText)));
  EXPECT_EQ(view.text(), "static");
  EXPECT_EQ(view.name(), "built in");
  EXPECT_EQ(FileView::from_owned("mine", to_bytes("own")).text(), "own");
}

/// What FileView::throw_if_changed says, or "".
std::string said_of_changes() {
  try {
    FileView::throw_if_changed();
    return "";
  } catch (const FilesChanged& changed) {
    return changed.what();
  }
}

TEST(WatchedFiles, AreNamedOnceTheirBytesAreOthers) {
  const TemporaryFolder folder;
  const fs::path path = folder.file("weights", "these bytes");
  const auto write = [&](std::string_view bytes) { std::ofstream(path, std::ios::binary | std::ios::in) << bytes; };
  for (const bool hashed : {true, false}) {
    const FileView view = FileView::map(path);
    view.watch();
    if (hashed) {
      EXPECT_EQ(view.sha256(), sha256_hex(view.bytes()));
    }
    EXPECT_EQ(said_of_changes(), "");
    write("other");
    EXPECT_THAT(said_of_changes(), HasSubstr("weights' was changed during the run"));
    write("these");
    // With its hash known, the same bytes again are no change; without, nothing tells.
    EXPECT_EQ(said_of_changes().empty(), hashed);
  }
  EXPECT_EQ(said_of_changes(), "");  // nobody holds it any more

  // A change that keeps size and mtime shows in the ctime.
  const FileView view = FileView::map(path);
  view.watch();
  EXPECT_FALSE(view.sha256().empty());
  const auto date = fs::last_write_time(path);
  write("thosE");
  fs::last_write_time(path, date);
  EXPECT_NE(said_of_changes(), "");
  write("these");
  EXPECT_EQ(said_of_changes(), "");
  fs::resize_file(path, 3);
  EXPECT_NE(said_of_changes(), "");
}

TEST(WatchedFiles, MayGetNewNamesLinksModesAndDates) {
  const TemporaryFolder folder;
  const fs::path path = folder.file("weights", "these bytes");
  const FileView view = FileView::map(path);
  view.watch();
  const std::string hash = view.sha256();
  fs::last_write_time(path, fs::file_time_type::clock::now() - std::chrono::hours(10));
  EXPECT_EQ(said_of_changes(), "");
  fs::create_hard_link(path, folder.path() / "link");
  fs::permissions(path, fs::perms::owner_read);
  EXPECT_EQ(said_of_changes(), "");
  fs::rename(folder.file("new", "quite other bytes"), path);
  EXPECT_EQ(said_of_changes(), "");
  EXPECT_EQ(view.text(), "these bytes");
  fs::remove(folder.path() / "link");
  EXPECT_EQ(said_of_changes(), "");
  EXPECT_EQ(view.sha256(), hash);
}

TEST(WatchedFiles, AHashOfAFileThatChangesIsNone) {
  const TemporaryFolder folder;
  const fs::path path = folder.file("weights", "these bytes");
  const FileView view = FileView::map(path);
  std::ofstream(path, std::ios::binary | std::ios::app) << "more";
  EXPECT_THAT([&] { static_cast<void>(view.sha256()); },
              testing::ThrowsMessage<Error>(HasSubstr("was changed while it was read")));
}

TEST(ByteSource, APlainFileThatIsWrittenToWhileItIsReadIsRefused) {
  const TemporaryFolder folder;
  const fs::path path = folder.file("text", std::string(100, 'x'));
  const auto source = open_plain(path);
  std::array<std::byte, 10> buffer{};
  EXPECT_EQ(source->read(buffer), 10U);
  std::ofstream(path, std::ios::binary | std::ios::app) << "more";
  EXPECT_THAT([&] { source->read(buffer); }, testing::ThrowsMessage<Error>(HasSubstr("was changed while it was read")));
}

TEST(CheckOutput, SaysBeforehandWhatCannotBeWrittenAndLeavesNothing) {
  const TemporaryFolder folder;
  EXPECT_NO_THROW(check_output(folder.path() / "new"));
  EXPECT_NO_THROW(check_output(folder.file("old", "x")));
  EXPECT_NO_THROW(check_output("/dev/null"));
  EXPECT_NO_THROW(check_output("-"));
  ASSERT_EQ(mkfifo((folder.path() / "pipe").c_str(), 0600), 0);
  EXPECT_NO_THROW(check_output(folder.path() / "pipe"));  // without waiting for a reader
  EXPECT_THROW(check_output(folder.path()), Error);
  EXPECT_THROW(check_output(folder.path() / "none" / "new"), Error);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 2);
}

TEST(FileView, AdviceChangesNothing) {
  const TemporaryFolder folder;
  std::string content;
  for (int i = 0; i < 100'000; ++i) content += static_cast<char>(i * 7);
  const FileView view = FileView::map(folder.file("a", content));
  constexpr size_t kHuge = std::numeric_limits<size_t>::max();
  for (const auto& [offset, size] : std::vector<std::pair<size_t, size_t>>{{0, content.size()},
                                                                           {5000, 9000},
                                                                           {4096, 4096},
                                                                           {4097, 10},
                                                                           {99'999, 1},
                                                                           {0, kHuge},
                                                                           {7, kHuge},
                                                                           {kHuge, kHuge}}) {
    view.will_need(offset, size);
    view.release(offset, size);
    ASSERT_EQ(view.text(), content);
  }
  // Memory that is no file must not be dropped: its pages would come back as zeros.
  const FileView owned = FileView::from_owned("mine", to_bytes(content));
  owned.release(0, content.size());
  EXPECT_EQ(owned.text(), content);
}

TEST(FileView, RefusesWhatCannotBeMapped) {
  const TemporaryFolder folder;
  const auto refusal = [](const fs::path& path) { return message_of([&] { FileView::map(path); }); };
  EXPECT_THAT(refusal(folder.path() / "missing"), AllOf(HasSubstr("missing"), HasSubstr("No such file")));
  EXPECT_THAT(refusal(folder.path()), HasSubstr("is a folder"));
  EXPECT_THAT(refusal(folder.file("empty", "")), HasSubstr("is empty"));
  EXPECT_THAT(refusal(folder.path() / "empty" / "below"), HasSubstr("Not a directory"));
  EXPECT_THAT(refusal("/dev/zero"), HasSubstr("not a regular file"));
  EXPECT_THAT(refusal(""), HasSubstr("empty"));
  if (geteuid() != 0) {  // root may read everything
    const auto path = folder.file("secret", "x");
    chmod(path.c_str(), 0);
    EXPECT_THAT(refusal(path), HasSubstr("Permission denied"));
  }
}

TEST(FileView, RefusesAPipeWithoutWaitingForAWriter) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "pipe";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_THAT(message_of([&] { FileView::map(path); }), HasSubstr("not a regular file"));
}

TEST(WriteFile, WritesReplacesAndLeavesNoTemporaryFile) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "a.json";
  write_file(path, "one");
  EXPECT_EQ(read_all(path), "one");
  const std::string large(3'000'000, 'x');
  write_file(path, large);
  EXPECT_EQ(read_all(path), large);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1);
}

TEST(WriteFile, WritesThroughALink) {
  const TemporaryFolder folder;
  const auto target = folder.file("target", "old");
  fs::create_symlink("target", folder.path() / "link");
  write_file(folder.path() / "link", "new");
  EXPECT_TRUE(fs::is_symlink(folder.path() / "link"));
  EXPECT_EQ(read_all(target), "new");
}

TEST(WriteFile, RefusesPlacesThatCannotBeWritten) {
  const TemporaryFolder folder;
  const auto refusal = [](const fs::path& path) { return message_of([&] { write_file(path, "text"); }); };
  EXPECT_THAT(refusal(folder.path()), HasSubstr("is a folder"));
  EXPECT_THAT(refusal(folder.path() / "no" / "where"), AllOf(HasSubstr("where"), HasSubstr("No such file")));
  EXPECT_THAT(refusal("/dev/full"), AllOf(HasSubstr("'/dev/full'"), HasSubstr("No space left"), HasSubstr("free")));
  EXPECT_THAT(refusal(""), HasSubstr("empty"));
  write_file("/dev/null", "text");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST(WriteFile, AFullDiskKeepsTheOldFile) {
  const TemporaryFolder folder;
  const auto path = folder.file("a", "old");
  std::string message;
  const pid_t child = fork();
  if (child == 0) {
    // A limit on file size fails as a full disk does: in the middle of the write.
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100'000, 100'000};
    setrlimit(RLIMIT_FSIZE, &limit);
    int result = 1;
    try {
      write_file(path, std::string(3'000'000, 'x'));
    } catch (const Error& error) {
      result = std::string(error.what()).find("could not be written") != std::string::npos ? 0 : 2;
    }
    _exit(result);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(read_all(path), "old");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1);
}

// Runs write_file("-") with stdout at `fd` and returns what it failed with ("" if nothing).
std::string write_to_stdout(int fd, std::string_view text) {
  const int saved = dup(STDOUT_FILENO);
  dup2(fd, STDOUT_FILENO);
  std::string message;
  try {
    write_file("-", text);
  } catch (const Error& error) {
    message = error.what();
  }
  dup2(saved, STDOUT_FILENO);
  close(saved);
  return message;
}

TEST(WriteFile, DashIsStdout) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "out";
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT, 0600);
  EXPECT_EQ(write_to_stdout(fd, "to stdout"), "");
  close(fd);
  EXPECT_EQ(read_all(path), "to stdout");
}

TEST(WriteFile, AClosedPipeIsAnError) {
  const auto before = signal(SIGPIPE, SIG_IGN);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  close(ends[0]);
  EXPECT_THAT(write_to_stdout(ends[1], "nobody reads"), AllOf(HasSubstr("'stdout'"), HasSubstr("Broken pipe")));
  close(ends[1]);
  signal(SIGPIPE, before);
}

TEST(Sha256, KnownDigests) {
  // FIPS 180-2, appendix B.
  EXPECT_EQ(sha256_hex({}), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex(to_bytes("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(to_bytes(std::string(1'000'000, 'a'))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

}  // namespace
}  // namespace mxlm
