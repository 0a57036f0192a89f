// The journal: what is written is read back to the bit, nothing that was finished is lost whatever the disk does, and
// bytes that are damaged cost their own round alone.
#include "journal/journal.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr size_t kWindows = 6, kVariants = 2;
using Windows = std::vector<uint32_t>;

/// A result that its window and a seed decide, with all kinds of numbers in it.
WindowResult some_window(uint32_t window, uint32_t seed = 0) {
  std::mt19937 random(window * 7919 + seed);
  WindowResult out;
  for (size_t v = 0; v < kVariants; ++v) {
    auto& tokens = out.scores.emplace_back().tokens;
    tokens.resize(random() % 5);
    for (TokenScore& token : tokens) {
      token.nll = std::bit_cast<double>((uint64_t{random()} << 32) | random());  // NaN and Inf, too
      token.kld = static_cast<double>(random()) / 3;
      token.p = static_cast<float>(random()) / 7;
      token.entropy = -0.0F;
      token.kld_reverse = static_cast<float>(random()) / 11;
      token.jensen_shannon = static_cast<float>(random()) / 13;
      token.top1 = static_cast<int32_t>(random());
      token.finite = random() % 2 == 0;
    }
  }
  for (size_t v = 0; v < kVariants; ++v) {
    auto& steps = out.layer_errors.emplace_back(3);
    for (ErrorSums& sums : steps)
      sums = {std::numeric_limits<double>::denorm_min(), 2.5, static_cast<double>(random())};
  }
  return out;
}

RoundResult some_round(const Windows& windows) {
  RoundResult out;
  for (const uint32_t w : windows) out.windows.push_back(some_window(w));
  out.seconds.assign(kVariants, {.forward = 0.5, .prepare = 0.25, .head = 0.125});
  out.positions = 10;
  return out;
}

/// Every bit of a window.
std::vector<uint64_t> bits(const WindowResult& window) {
  std::vector<uint64_t> out;
  for (const WindowScores& scores : window.scores) {
    out.push_back(scores.tokens.size());
    for (const TokenScore& t : scores.tokens) {
      for (const double x : {t.nll, t.kld}) out.push_back(std::bit_cast<uint64_t>(x));
      for (const float x : {t.p, t.entropy, t.kld_reverse, t.jensen_shannon}) out.push_back(std::bit_cast<uint32_t>(x));
      out.push_back(static_cast<uint32_t>(t.top1));
      out.push_back(t.finite ? 1 : 0);
    }
  }
  for (const auto& steps : window.layer_errors) {
    for (const ErrorSums& s : steps) {
      for (const double x : {s.reference, s.other, s.difference}) out.push_back(std::bit_cast<uint64_t>(x));
    }
  }
  return out;
}

/// Ends the "process": everything that was written before stays, nothing after happens.
struct Crash {};

/// The system's calls until the call of that number, which fails in a certain way; afterwards they all work again,
/// unless the fault is a crash.
class FaultyCalls final : public FileCalls {
 public:
  enum class Fault : uint8_t { none, error, short_then_error, crash_before, crash_half_way, short_write };
  FaultyCalls(Fault fault, int at, int error = ENOSPC) : fault_(fault), at_(at), error_(error) {}

  int open(const char* path, int flags, mode_t mode) override {
    return strike() ? refuse() : FileCalls::open(path, flags, mode);
  }
  ssize_t write(int fd, const void* data, size_t size) override {
    if (after_short_) return after_short_ = false, refuse();
    ++calls;
    if (calls != at_ || fault_ == Fault::none) return FileCalls::write(fd, data, size);
    if (fault_ == Fault::error || fault_ == Fault::crash_before) return refuse();
    const ssize_t written = FileCalls::write(fd, data, size / 2);
    if (fault_ == Fault::crash_half_way) throw Crash();
    after_short_ = fault_ == Fault::short_then_error;
    return written;
  }
  int fsync(int fd) override { return strike() ? refuse() : FileCalls::fsync(fd); }
  int ftruncate(int fd, off_t size) override { return strike() ? refuse() : FileCalls::ftruncate(fd, size); }
  int rename(const char* from, const char* to) override { return strike() ? refuse() : FileCalls::rename(from, to); }

  int calls = 0;

 private:
  /// Calls other than write are never short.
  bool strike() { return ++calls == at_ && fault_ != Fault::none && fault_ != Fault::short_write; }
  int refuse() const {
    if (fault_ == Fault::crash_before || fault_ == Fault::crash_half_way) throw Crash();
    return errno = error_, -1;
  }
  Fault fault_;
  int at_, error_;
  bool after_short_ = false;
};

class JournalTest : public testing::Test {
 protected:
  JournalTest() {
    std::string name = (fs::temp_directory_path() / "mxlm_journal_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    root_ = name;
    folder_ = root_ / "journal";
  }
  ~JournalTest() override {
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }

  [[nodiscard]] std::unique_ptr<Journal> open(FileCalls& calls = system_calls()) const {
    return std::make_unique<Journal>(folder_, Journal::Open::resume, facts_, kWindows, calls);
  }
  /// Three rounds of two windows each, those that the journal does not hold.
  static void run(Journal& journal) {
    const size_t pass = journal.passes().empty() ? journal.add_pass({"", "mlp=mxfp4_e2m1"}) : 0;
    for (uint32_t w = 0; w < kWindows; w += 2) {
      const Windows windows{w, w + 1};
      if (!journal.known(pass, false)[w]) journal.append(pass, false, windows, some_round(windows));
      journal.flush();
    }
  }
  static size_t count(const Journal& journal) {
    const auto known = journal.known(0, false);
    return static_cast<size_t>(std::count_if(known.begin(), known.end(), [](const auto& w) { return w.has_value(); }));
  }
  static void expect_right(const Journal& journal) {
    const auto known = journal.known(0, false);
    for (uint32_t w = 0; w < kWindows; ++w) {
      if (!known[w]) continue;
      EXPECT_EQ(bits(*known[w]), bits(some_window(w))) << w;
    }
  }
  [[nodiscard]] std::string rounds() const {
    std::ifstream file(folder_ / "rounds.mxj", std::ios::binary);
    std::ostringstream out;
    out << file.rdbuf();
    return out.str();
  }
  void write_rounds(const std::string& bytes) const {
    std::ofstream(folder_ / "rounds.mxj", std::ios::binary | std::ios::trunc) << bytes;
  }
  [[nodiscard]] std::string error_of_opening(const std::vector<JournalFact>& facts,
                                             Journal::Open how = Journal::Open::resume) const {
    try {
      const Journal journal(folder_, how, facts, kWindows);
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  }

  fs::path root_, folder_;
  std::vector<JournalFact> facts_{{"model", "abc"}, {"data", "def"}};
};

TEST_F(JournalTest, GivesBackEveryBit) {
  run(*open());
  const auto journal = open();
  EXPECT_EQ(journal->passes(), (std::vector<std::vector<std::string>>{{"", "mlp=mxfp4_e2m1"}}));
  EXPECT_TRUE(journal->complete(0, false));
  EXPECT_FALSE(journal->complete(0, true));
  EXPECT_EQ(count(*journal), kWindows);
  expect_right(*journal);
  EXPECT_EQ(journal->times(0, false).positions, 30);
  EXPECT_EQ(journal->times(0, false).seconds[1].head, 0.375);
}

TEST_F(JournalTest, AFolderThatGoesIsMadeAgainWithAllThatItHeld) {
  const Windows first{0, 1}, second{2, 3}, third{4, 5};
  const auto away = [&] { fs::rename(folder_, root_ / "away"); };
  const auto removed = [&] { fs::remove_all(folder_); };
  const auto emptied = [&] { fs::remove(folder_ / "rounds.mxj"); };
  for (const std::function<void()>& gone : std::vector<std::function<void()>>{away, removed, emptied}) {
    {
      const auto journal = open();
      const size_t pass = journal->add_pass({"", "mlp=mxfp4_e2m1"});
      journal->append(pass, false, first, some_round(first));
      gone();
      journal->append(pass, false, second, some_round(second));
      removed();
      journal->append(pass, false, third, some_round(third));
      EXPECT_FALSE(journal->failure()) << *journal->failure();
    }
    const auto journal = open();
    EXPECT_EQ(count(*journal), kWindows);
    expect_right(*journal);
    fs::remove_all(folder_);
  }
}

TEST_F(JournalTest, AFolderThatAnotherRunHasTakenIsLeftToIt) {
  const auto journal = open();
  const size_t pass = journal->add_pass({"", "mlp=mxfp4_e2m1"});
  const Windows first{0, 1}, second{2, 3};
  journal->append(pass, false, first, some_round(first));
  fs::remove_all(folder_);
  const std::vector<JournalFact> others{{"model", "other"}, {"data", "def"}};
  Journal(folder_, Journal::Open::resume, others, kWindows).add_pass({"", "mlp=mxint8"});
  journal->append(pass, false, second, some_round(second));
  ASSERT_TRUE(journal->failure());
  EXPECT_THAT(*journal->failure(), HasSubstr("now holds the journal of another run"));
  EXPECT_EQ(count(*std::make_unique<Journal>(folder_, Journal::Open::resume, others, kWindows)), 0U);
}

TEST_F(JournalTest, EveryFaultOfTheDiskCostsWhatItHitAlone) {
  using Fault = FaultyCalls::Fault;
  FaultyCalls none(Fault::none, 0);
  run(*open(none));
  EXPECT_EQ(count(*open()), kWindows);
  const int calls = none.calls;
  ASSERT_GT(calls, 12);
  for (const Fault fault :
       {Fault::error, Fault::short_then_error, Fault::crash_before, Fault::crash_half_way, Fault::short_write}) {
    for (int at = 1; at <= calls; ++at) {
      for (const int error : {ENOSPC, EIO}) {
        fs::remove_all(folder_);
        FaultyCalls faulty(fault, at, error);
        const std::string where = "fault " + std::to_string(static_cast<int>(fault)) + " at " + std::to_string(at);
        size_t promised = 0;  // windows of which the journal said that they are on the disk
        try {
          const auto journal = open(faulty);
          const size_t pass = journal->add_pass({"", "mlp=mxfp4_e2m1"});
          for (uint32_t w = 0; w < kWindows; w += 2) {
            journal->append(pass, false, {w, w + 1}, some_round({w, w + 1}));
            journal->flush();
            if (!journal->failure()) promised += 2;
          }
          EXPECT_TRUE(fault != Fault::short_write || !journal->failure()) << where;
        } catch (const Crash&) {
        } catch (const Error& e) {
          EXPECT_THAT(e.what(), HasSubstr("journal")) << where;  // before anything was computed
          EXPECT_EQ(promised, 0U);
        }
        const auto resumed = open();
        if (resumed->passes().empty()) {
          EXPECT_EQ(promised, 0U) << where;
        } else {
          EXPECT_GE(count(*resumed), promised) << where;
          expect_right(*resumed);
        }
        run(*resumed);
        EXPECT_FALSE(resumed->failure().has_value());
      }
      const auto whole = open();
      EXPECT_EQ(count(*whole), kWindows);
      expect_right(*whole);
    }
  }
}

TEST_F(JournalTest, ALargeRoundIsSeveralRecords) {
  // A record's length has 32 bits, and damage costs one record: what the figures of layers take counts, too.
  RoundResult round;
  round.seconds.resize(kVariants);
  round.positions = 3;
  for (int w = 0; w < 3; ++w) {
    WindowResult& window = round.windows.emplace_back();
    window.scores.resize(kVariants);
    window.layer_errors.assign(kVariants, std::vector<ErrorSums>(400'000));
  }
  {
    const auto journal = open();
    journal->append(journal->add_pass({"", "mlp=mxfp4_e2m1"}), false, {1, 2, 3}, round);
    EXPECT_FALSE(journal->failure().has_value());
  }
  const std::string bytes = rounds();
  const JournalScan scan = scan_journal(std::as_bytes(std::span(bytes)));
  ASSERT_EQ(scan.rounds.size(), 3U);
  for (const JournalRound& record : scan.rounds) {
    EXPECT_EQ(record_size(record), encode_record(record).size());
    EXPECT_LT(record_size(record), kMostRecordBytes / 100);
  }
  EXPECT_EQ(open()->times(0, false).positions, 3);
}

TEST_F(JournalTest, RecordsThatHoldOtherTokensAreDoneAgain) {
  run(*open());
  const auto journal = open();
  std::vector<size_t> scored;
  for (uint32_t w = 0; w < kWindows; ++w) scored.push_back(some_window(w).scores[0].tokens.size());
  size_t misfits = 0;
  for (uint32_t w = 0; w < kWindows; ++w) misfits += some_window(w).scores[1].tokens.size() != scored[w] ? 1 : 0;
  ASSERT_GT(misfits, 0U);
  EXPECT_EQ(journal->drop_misfits(scored), misfits);
  EXPECT_EQ(count(*journal), kWindows - misfits);
  EXPECT_FALSE(journal->complete(0, false));
}

TEST_F(JournalTest, AnEarlierProgramsPieceOfAPlanIsReplaced) {
  fs::create_directory(folder_);
  std::ofstream(root_ / "precious") << "x";
  fs::create_symlink(root_ / "precious", folder_ / "plan.json.new");
  run(*open());
  EXPECT_EQ(fs::file_size(root_ / "precious"), 1U);
  EXPECT_FALSE(fs::exists(folder_ / "plan.json.new"));
  EXPECT_FALSE(fs::is_symlink(folder_ / "plan.json"));
}

TEST_F(JournalTest, IsNotRemovedUnderAnother) {
  run(*open());
  const auto other = open();
  remove_journal(folder_);
  EXPECT_TRUE(holds_journal(folder_));
}

TEST_F(JournalTest, TheNamesOfItsFilesAreMadeDurable) {
  // After a loss of power a file is there if its folder was put on the disk after it was made.
  class Watching final : public FileCalls {
   public:
    int open(const char* path, int flags, mode_t mode) override {
      const int fd = FileCalls::open(path, flags, mode);
      if ((flags & O_DIRECTORY) != 0) folders[fd] = path;
      return fd;
    }
    int fsync(int fd) override {
      if (folders.contains(fd)) synced.insert(folders[fd]);
      return FileCalls::fsync(fd);
    }
    std::map<int, std::string> folders;
    std::set<std::string> synced;
  } calls;
  EXPECT_TRUE(open(calls)->passes().empty());
  EXPECT_EQ(calls.synced, (std::set<std::string>{root_.native(), folder_.native()}));
}

TEST_F(JournalTest, ATornEndIsDropped) {
  run(*open());
  const std::string whole = rounds();
  const size_t record = (whole.size() - 8) / 3;
  for (size_t size = 0; size < whole.size(); size += size < 40 ? 1 : 7) {
    write_rounds(whole.substr(0, size));
    const auto journal = open();
    EXPECT_GE(count(*journal) + 2, 2 * (size / (record + 40)));
    expect_right(*journal);
    run(*journal);
    EXPECT_FALSE(journal->failure().has_value());
  }
  EXPECT_EQ(count(*open()), kWindows);
}

TEST_F(JournalTest, DamageCostsItsOwnRound) {
  run(*open());
  const std::string whole = rounds();
  std::mt19937 random(5);
  for (int trial = 0; trial < 300; ++trial) {
    std::string bytes = whole;
    const size_t at = 8 + random() % (bytes.size() - 8);
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
    write_rounds(bytes);
    auto journal = open();
    EXPECT_EQ(count(*journal), kWindows - 2) << at;
    expect_right(*journal);
    if (trial >= 20) continue;
    run(*journal);
    journal.reset();
    EXPECT_EQ(count(*open()), kWindows);
  }
  write_rounds("not a journal at all");
  EXPECT_THAT(error_of_opening(facts_), HasSubstr("is not a file of a journal"));
}

TEST_F(JournalTest, AnotherRunIsRefusedWithWhatDiffers) {
  run(*open());
  EXPECT_THAT(error_of_opening({{"model", "abc"}, {"data", "other"}}), HasSubstr("data: 'def' there, 'other' now"));
  EXPECT_THAT(error_of_opening({{"model", "abc"}, {"data", "def"}, {"noise", "x"}}),
              HasSubstr("noise: nothing there, 'x' now"));
  EXPECT_THAT(error_of_opening(facts_, Journal::Open::fresh), HasSubstr("--resume"));
  for (const char* plan : {"", "{", "[]", R"({"schema": "mxlm.journal/2"})", R"({"schema": "mxlm.journal/1"})",
                           R"({"schema": "mxlm.journal/1", "facts": {}, "segments": [[3]]})",
                           R"({"schema": "mxlm.journal/1", "facts": {}, "segments": [[]]})",
                           R"({"schema": "mxlm.journal/1", "facts": {}, "segments": [["mlp=mxfp4_e2m1", ""]]})",
                           R"({"schema": "mxlm.journal/1", "facts": {"model": 3}, "segments": []})"}) {
    std::ofstream(folder_ / "plan.json", std::ios::trunc) << plan;
    EXPECT_NE(error_of_opening({}), "") << plan;
  }
  fs::remove(folder_ / "plan.json");
  EXPECT_THAT(error_of_opening(facts_), HasSubstr("no plan.json"));
}

// Plans as version 0.1.0 wrote them, without `written_by`.
TEST_F(JournalTest, AJournalOfAnotherVersionIsReadOrNamed) {
  run(*open());
  const auto write_plan = [this](const char* facts) {
    std::ofstream(folder_ / "plan.json", std::ios::trunc)
        << R"({"schema": "mxlm.journal/1", "windows": 6, "segments": [["", "mlp=mxfp4_e2m1"]], "facts": )" << facts
        << '}';
  };
  facts_ = {{"version", "0.1.0"}, {"records", "MXLMJRN2"}, {"model", "abc"}};
  write_plan(R"({"version": "0.1.0", "records": "MXLMJRN2", "model": "abc"})");
  EXPECT_EQ(error_of_opening(facts_), "");
  expect_right(*open());
  // The records of the released 0.1.0 had no reverse KL divergence, and its plan did not name their layout.
  write_plan(R"({"version": "0.1.0", "model": "abc"})");
  EXPECT_THAT(error_of_opening(facts_),
              AllOf(HasSubstr("written by mxlm '0.1.0'"), HasSubstr("finish that run with mxlm '0.1.0'"),
                    HasSubstr("records: nothing there, 'MXLMJRN2' now")));
  write_plan(R"({"version": "0.3.0", "records": "MXLMJRN2", "model": "abc"}, "written_by": "0.4.0")");
  EXPECT_THAT(error_of_opening(facts_), HasSubstr("written by mxlm '0.4.0'"));
  write_plan(R"({"model": "abc"}, "written_by": 3)");
  EXPECT_THAT(error_of_opening(facts_), HasSubstr("version"));
}

TEST_F(JournalTest, TheSecondIsToldWhoHoldsIt) {
  const auto first = open();
  EXPECT_TRUE(journal_in_use(folder_));
  const std::string error = error_of_opening(facts_);
  EXPECT_THAT(error, HasSubstr("in use by 'process " + std::to_string(getpid())));
}

TEST_F(JournalTest, IsPrivateAndGoesWithItsFiles) {
  run(*open());
  EXPECT_EQ(fs::status(folder_).permissions(), fs::perms::owner_all);
  for (const char* name : {"plan.json", "rounds.mxj", "lock"}) {
    EXPECT_EQ(fs::status(folder_ / name).permissions(), fs::perms::owner_read | fs::perms::owner_write) << name;
  }
  EXPECT_FALSE(journal_in_use(folder_));
  std::ofstream(folder_ / "mine") << "x";
  remove_journal(folder_);
  EXPECT_FALSE(holds_journal(folder_));
  EXPECT_TRUE(fs::exists(folder_ / "mine"));
  // A link in the place of a file is not followed.
  std::ofstream(root_ / "precious") << "x";
  fs::create_symlink(root_ / "precious", folder_ / "rounds.mxj");
  EXPECT_NE(error_of_opening(facts_), "");
  EXPECT_EQ(fs::file_size(root_ / "precious"), 1U);
}

}  // namespace
}  // namespace mxlm
