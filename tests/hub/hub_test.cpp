// The hub's client against a server on the loopback device that misbehaves.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "base/error.hpp"
#include "hub/fetch.hpp"
#include "hub_server.hpp"

namespace mxlm::hub {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
namespace fs = std::filesystem;

constexpr const char* kRepo = "tester/tiny";
constexpr const char* kToken = "hf_aVerySecretToken";

std::string random_bytes(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>(random());
  return out;
}

std::string slurp(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream out;
  out << file.rdbuf();
  return out.str();
}

std::map<std::string, std::string> tiny_model() {
  return {{"config.json", "{\"model_type\":\"llama\"}"},
          {"tokenizer.json", "{}"},
          {"README.md", "# read me"},
          {"flax_model.msgpack", "no"},
          {"model.safetensors", random_bytes(1'000'000, 1)},
          {"pytorch_model.bin", "never fetched"}};
}

class Hub : public testing::Test {
 protected:
  Hub() : hub_(kRepo, tiny_model()) {
    std::string name = (fs::temp_directory_path() / "mxlm_hub_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    folder_ = name;
    options_.cache = folder_ / "hub";
    options_.endpoint = hub_.url();
    options_.token = kToken;
    options_.first_delay = std::chrono::milliseconds(1);
    options_.longest_delay = std::chrono::seconds(2);
    options_.stall = std::chrono::seconds(5);
  }
  ~Hub() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  Repo repo(const std::string& revision = "main") const {
    return {.kind = RepoKind::model, .id = kRepo, .revision = revision};
  }
  Snapshot fetch_it(const std::string& revision = "main") { return fetch_model(options_, repo(revision), nullptr); }
  fs::path repo_folder() const { return options_.cache / "models--tester--tiny"; }
  fs::path blob(const std::string& etag) const { return repo_folder() / "blobs" / etag; }
  std::string weights() const { return hub_.file("model.safetensors"); }
  fs::path partial() const { return blob(lfs_hash(weights()) + ".incomplete"); }

  void expect_whole(const Snapshot& snapshot) {
    EXPECT_EQ(snapshot.commit, hub_.commit());
    EXPECT_EQ(slurp(snapshot.folder / "model.safetensors"), weights());
    EXPECT_EQ(slurp(snapshot.folder / "config.json"), hub_.file("config.json"));
    for (const auto& entry : fs::directory_iterator(repo_folder() / "blobs")) {
      EXPECT_THAT(entry.path().string(), Not(HasSubstr("incomplete")));
    }
  }
  /// The message of the failure, which must be of this kind, hold a sentence, and no secret.
  std::string failure(HubError::Kind kind) {
    try {
      fetch_it();
    } catch (const HubError& error) {
      EXPECT_EQ(error.kind, kind) << error.what();
      EXPECT_THAT(error.what(), Not(HasSubstr("Secret")));
      EXPECT_THAT(error.what(), Not(HasSubstr("signature")));
      EXPECT_THAT(error.what(), testing::EndsWith("."));
      return error.what();
    }
    ADD_FAILURE() << "nothing failed";
    return "";
  }
  /// Twists the answers for the weights' bytes.
  void twist_weights(std::function<void(const Seen&, Reply&)> how) {
    hub_.twist([how = std::move(how)](const Seen& seen, bool cdn, Reply& reply) {
      if (cdn && seen.method == "GET") how(seen, reply);
    });
  }

  FakeHub hub_;
  fs::path folder_;
  Options options_;
};

TEST_F(Hub, WritesTheLayoutOfTheCache) {
  const Snapshot snapshot = fetch_it();
  expect_whole(snapshot);
  EXPECT_EQ(snapshot.folder, repo_folder() / "snapshots" / hub_.commit());
  EXPECT_EQ(slurp(repo_folder() / "refs" / "main"), hub_.commit());
  EXPECT_EQ(fs::read_symlink(snapshot.folder / "model.safetensors"), fs::path("../../blobs") / lfs_hash(weights()));
  EXPECT_EQ(fs::read_symlink(snapshot.folder / "config.json"),
            fs::path("../../blobs") / git_hash(hub_.file("config.json")));
  EXPECT_FALSE(fs::exists(snapshot.folder / "README.md"));
  EXPECT_FALSE(fs::exists(snapshot.folder / "pytorch_model.bin"));
}

TEST_F(Hub, AsksForNothingThatIsThere) {
  fetch_it();
  const size_t before = hub_.cdn().seen().size();
  ASSERT_TRUE(find_model(options_, repo(), true).has_value());
  const size_t hub_before = hub_.hub().seen().size();
  fetch_it();
  EXPECT_EQ(hub_.cdn().seen().size(), before);
  EXPECT_EQ(hub_.hub().seen().size(), hub_before + 1);  // the list alone
  hub_.set_commit("ffffffffffffffffffffffffffffffffffffffff");
  const Snapshot next = fetch_it();  // another commit of the same files
  expect_whole(next);
  EXPECT_EQ(hub_.cdn().seen().size(), before);
}

TEST_F(Hub, TheTokenStaysWithTheHub) {
  fetch_it();
  for (const Seen& seen : hub_.hub().seen()) EXPECT_EQ(seen.header("authorization"), std::string("Bearer ") + kToken);
  ASSERT_FALSE(hub_.cdn().seen().empty());
  for (const Seen& seen : hub_.cdn().seen()) EXPECT_EQ(seen.header("authorization"), "");
}

TEST_F(Hub, RevisionsAndTheirRefs) {
  fetch_it("refs/pr/1");
  EXPECT_EQ(slurp(repo_folder() / "refs" / "refs" / "pr" / "1"), hub_.commit());
  EXPECT_TRUE(find_model(options_, repo("refs/pr/1"), true));
  EXPECT_FALSE(find_model(options_, repo("main"), true));
  EXPECT_TRUE(find_model(options_, repo(hub_.commit()), true));
}

TEST_F(Hub, ResumesWhatBreaks) {
  std::atomic<int> asked{0};
  twist_weights([&](const Seen&, Reply& reply) {
    // Every answer but the ninth breaks after 100,000 bytes: more breaks than there are retries.
    if (++asked < 9) reply.drop_after = 100'000;
  });
  expect_whole(fetch_it());
  EXPECT_EQ(asked, 9);
  EXPECT_EQ(hub_.cdn().seen().back().header("range"), "bytes=800000-");
}

TEST_F(Hub, ResumesWhatAnEarlierRunLeft) {
  fs::create_directories(repo_folder() / "blobs");
  std::ofstream(partial(), std::ios::binary) << weights().substr(0, 654'321);
  expect_whole(fetch_it());
  ASSERT_EQ(hub_.cdn().seen().size(), 1);
  EXPECT_EQ(hub_.cdn().seen().front().header("range"), "bytes=654321-");
}

TEST_F(Hub, WritesThroughNoLink) {
  const fs::path outside = folder_ / "outside";
  std::ofstream(outside) << "precious";
  fs::create_directories(repo_folder() / "blobs");
  fs::create_symlink(outside, partial());
  EXPECT_THROW(fetch_it(), Error);
  EXPECT_EQ(slurp(outside), "precious");
}

TEST_F(Hub, StartsOverWhereRangesAreIgnored) {
  fs::create_directories(repo_folder() / "blobs");
  std::ofstream(partial(), std::ios::binary) << weights().substr(0, 654'321);
  twist_weights([&](const Seen&, Reply& reply) {
    reply.status = 200;
    reply.headers.erase("Content-Range");
    reply.body = weights();
  });
  expect_whole(fetch_it());
}

TEST_F(Hub, StartsOverWhereWhatIsLeftIsDamagedOrTooLong) {
  fs::create_directories(repo_folder() / "blobs");
  std::ofstream(partial(), std::ios::binary) << random_bytes(654'321, 2);
  expect_whole(fetch_it());
  fs::remove_all(options_.cache);
  fs::create_directories(repo_folder() / "blobs");
  std::ofstream(partial(), std::ios::binary) << random_bytes(1'654'321, 2);
  expect_whole(fetch_it());
}

TEST_F(Hub, RefusesAnotherRange) {
  fs::create_directories(repo_folder() / "blobs");
  std::ofstream(partial(), std::ios::binary) << weights().substr(0, 1000);
  twist_weights([](const Seen&, Reply& reply) { reply.headers["Content-Range"] = "bytes 999-999999/1000000"; });
  EXPECT_THAT(failure(HubError::Kind::damaged), HasSubstr("another part"));
}

TEST_F(Hub, WrongHash) {
  twist_weights([](const Seen&, Reply& reply) { reply.body[5] ^= 1; });
  EXPECT_THAT(failure(HubError::Kind::damaged), HasSubstr("hash"));
  EXPECT_FALSE(fs::exists(blob(lfs_hash(weights()))));
  EXPECT_FALSE(fs::exists(partial()));
  EXPECT_FALSE(find_model(options_, repo(), true));
  EXPECT_FALSE(fs::exists(repo_folder() / "refs" / "main"));
}

TEST_F(Hub, WrongHashOfASmallFile) {
  hub_.twist([](const Seen& seen, bool, Reply& reply) {
    if (seen.method == "GET" && seen.target.ends_with("/config.json")) reply.body[0] ^= 1;
  });
  EXPECT_THAT(failure(HubError::Kind::damaged), HasSubstr("config.json"));
}

TEST_F(Hub, WrongLengths) {
  twist_weights([](const Seen& seen, Reply& reply) {  // short, and it says that this is all
    if (seen.header("range").empty()) reply.body.resize(500'000);
    if (seen.header("range") == "bytes=500000-") reply.body.clear();
  });
  EXPECT_THAT(failure(HubError::Kind::damaged), HasSubstr("500000 bytes"));
  fs::remove_all(options_.cache);
  twist_weights([](const Seen&, Reply& reply) { reply.body += "more"; });
  EXPECT_THAT(failure(HubError::Kind::damaged), HasSubstr("more than the 1000000 bytes"));
}

TEST_F(Hub, NoHashNoDownload) {
  hub_.twist([](const Seen&, bool, Reply& reply) {
    for (const char* name : {"ETag", "X-Linked-Etag"}) {
      if (reply.headers.contains(name)) reply.headers[name] = "\"../../../etc/passwd\"";
    }
  });
  EXPECT_THAT(failure(HubError::Kind::damaged), HasSubstr("no hash"));
}

TEST_F(Hub, BusyServersAreWaitedFor) {
  std::atomic<int> asked{0};
  hub_.twist([&](const Seen&, bool, Reply& reply) {
    const int n = ++asked;
    if (n == 1) reply = FakeHub::error(500, "", "");
    if (n == 2) {
      reply = FakeHub::error(429, "", "");
      reply.headers["Retry-After"] = "1";
    }
    if (n == 5) reply = FakeHub::error(503, "", "");
  });
  const auto start = std::chrono::steady_clock::now();
  expect_whole(fetch_it());
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
}

TEST_F(Hub, TooBusyServersAreNot) {
  hub_.twist([](const Seen&, bool, Reply& reply) {
    reply = FakeHub::error(429, "", "");
    reply.headers["Retry-After"] = "3600";
  });
  EXPECT_THAT(failure(HubError::Kind::unreachable), HasSubstr("3600 s"));
  EXPECT_EQ(hub_.hub().seen().size(), 1);
  hub_.twist([](const Seen&, bool, Reply& reply) { reply = FakeHub::error(500, "", ""); });
  EXPECT_THAT(failure(HubError::Kind::unreachable), HasSubstr("500"));
  EXPECT_EQ(hub_.hub().seen().size(), 1 + 6);
}

TEST_F(Hub, ExplainsRefusals) {
  const auto answer = [this](int status, const std::string& code, const std::string& message) {
    hub_.twist([=](const Seen&, bool, Reply& reply) { reply = FakeHub::error(status, code, message); });
  };
  answer(403, "GatedRepo", "Access to model is restricted");
  EXPECT_THAT(failure(HubError::Kind::refused), HasSubstr("accept its conditions at " + hub_.url() + "/tester/tiny"));
  options_.token.clear();
  answer(401, "GatedRepo", "Access to model is restricted");
  EXPECT_THAT(failure(HubError::Kind::refused), HasSubstr("HF_TOKEN"));
  answer(401, "", "");  // as the hub says to strangers of what is not there, private or gated
  EXPECT_THAT(failure(HubError::Kind::missing), HasSubstr("private or gated"));
  answer(404, "RepoNotFound", "");
  EXPECT_THAT(failure(HubError::Kind::missing), HasSubstr("tester/tiny"));
  answer(404, "RevisionNotFound", "");
  EXPECT_THAT(failure(HubError::Kind::missing), HasSubstr("revision"));
  answer(403, "", "Forbidden\r\nX: y");
  EXPECT_THAT(failure(HubError::Kind::refused), HasSubstr("Forbidden"));
  options_.token = kToken;
  answer(401, "", "Invalid credentials in Authorization header");
  EXPECT_THAT(failure(HubError::Kind::refused), HasSubstr("does not accept the token"));
}

TEST_F(Hub, AFileThatWentAway) {
  hub_.twist([](const Seen& seen, bool, Reply& reply) {
    if (seen.target.ends_with("model.safetensors")) reply = FakeHub::error(404, "EntryNotFound", "");
  });
  EXPECT_THAT(failure(HubError::Kind::missing), HasSubstr("model.safetensors"));
}

TEST_F(Hub, NobodyThere) {
  options_.endpoint = "http://127.0.0.1:1";
  EXPECT_THAT(failure(HubError::Kind::unreachable), HasSubstr("127.0.0.1:1"));
  options_.offline = true;
  EXPECT_THAT(failure(HubError::Kind::offline), HasSubstr("HF_HUB_OFFLINE"));
}

TEST_F(Hub, RedirectsThatLeadAstray) {
  const auto redirect = [this](const std::string& to) {
    hub_.twist([=](const Seen&, bool, Reply& reply) {
      reply = {.status = 302, .headers = {{"Location", to}}, .body = ""};
    });
  };
  redirect("/again");
  EXPECT_THAT(failure(HubError::Kind::unreachable), HasSubstr("circles"));
  redirect("file:///etc/passwd");
  EXPECT_THROW(fetch_it(), Error);
  redirect("ftp://127.0.0.1/x");
  EXPECT_THROW(fetch_it(), Error);
  redirect("");
  EXPECT_THROW(fetch_it(), Error);
}

TEST_F(Hub, ARenamedRepositoryIsFollowedWithinTheHub) {
  // Renamed: the hub answers with a relative redirect, token and all.
  hub_.twist([](const Seen& seen, bool cdn, Reply& reply) {
    if (cdn || seen.target.find("/resolve/") == std::string::npos || seen.target.find("x=1") != std::string::npos)
      return;
    if (!seen.target.ends_with("config.json")) return;
    reply = {.status = 307, .headers = {{"Location", "/moved"}}, .body = "moved"};
  });
  EXPECT_THROW(fetch_it(), HubError);
  EXPECT_EQ(hub_.hub().seen().back().header("authorization"), std::string("Bearer ") + kToken);
}

TEST_F(Hub, NamesThatLeadOutside) {
  for (const char* name : {"../evil.safetensors", "/etc/x.safetensors", "a/../../x.safetensors", "a//b", ".."}) {
    hub_.twist([name](const Seen& seen, bool, Reply& reply) {
      if (seen.target.starts_with("/api/")) {
        reply.body = std::string(R"({"sha":"0123456789abcdef0123456789abcdef01234567","siblings":[{"rfilename":")") +
                     name + "\"}]}";
      }
    });
    EXPECT_THROW(fetch_it(), Error) << name;
  }
  EXPECT_FALSE(fs::exists(options_.cache));
}

TEST_F(Hub, ShardsOfTheIndexAlone) {
  FakeHub sharded(
      kRepo, {{"config.json", "{}"},
              {"tokenizer.json", "{}"},
              {"model.safetensors.index.json",
               R"({"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}})"},
              {"model-00001-of-00002.safetensors", random_bytes(300'000, 3)},
              {"model-00002-of-00002.safetensors", random_bytes(200'000, 4)},
              {"model-fp16.safetensors", "another precision"},
              {"consolidated.safetensors", "another layout"},
              {"original/consolidated.pth", "yet another"}});
  options_.endpoint = sharded.url();
  const Snapshot snapshot = fetch_it();
  EXPECT_EQ(slurp(snapshot.folder / "model-00002-of-00002.safetensors"),
            sharded.file("model-00002-of-00002.safetensors"));
  EXPECT_FALSE(fs::exists(snapshot.folder / "model-fp16.safetensors"));
  EXPECT_FALSE(fs::exists(snapshot.folder / "consolidated.safetensors"));
  fs::remove(snapshot.folder / "model-00001-of-00002.safetensors");
  EXPECT_EQ(missing_model_file(snapshot.folder, true), "model-00001-of-00002.safetensors");
  EXPECT_FALSE(find_model(options_, repo(), true));
}

// Shards in a folder below, an index with more than JSON allows, and the vocabulary of a model without tokenizer.json.
TEST_F(Hub, ShardsInAFolderAndAVocabularyOfItsOwn) {
  FakeHub sharded(kRepo, {{"config.json", "{}"},
                          {"tokenizer.model", "a vocabulary"},
                          {"tokenizer_config.json", "{}"},
                          {"model.safetensors.index.json",
                           R"({"metadata":{"total_size":1000000000000000019884624838656,"x":NaN},)"
                           R"("weight_map":{"a":"./part/model-1.safetensors","b":"model-2.safetensors"}})"},
                          {"part/model-1.safetensors", random_bytes(3'000, 3)},
                          {"model-2.safetensors", random_bytes(2'000, 4)},
                          {"model-3.safetensors", "of no index"}});
  options_.endpoint = sharded.url();
  const Snapshot snapshot = fetch_it();
  EXPECT_EQ(slurp(snapshot.folder / "part/model-1.safetensors"), sharded.file("part/model-1.safetensors"));
  EXPECT_EQ(slurp(snapshot.folder / "tokenizer.model"), "a vocabulary");
  EXPECT_FALSE(fs::exists(snapshot.folder / "model-3.safetensors"));
  EXPECT_TRUE(find_model(options_, repo(), true));
  fs::remove(snapshot.folder / "part/model-1.safetensors");
  EXPECT_EQ(missing_model_file(snapshot.folder, true), "part/model-1.safetensors");
}

TEST_F(Hub, AnIndexThatLeadsOutside) {
  FakeHub sharded(kRepo, {{"config.json", "{}"},
                          {"model.safetensors.index.json", R"({"weight_map":{"a":"../../../evil.safetensors"}})"}});
  options_.endpoint = sharded.url();
  EXPECT_THROW(fetch_it(), Error);
}

TEST(ModelFiles, SafetensorsBeforePyTorch) {
  const auto pick = [](const std::vector<std::string>& names) {
    std::vector<ListedFile> files;
    for (const std::string& name : names) files.push_back({.name = name, .size = {}});
    return model_files(files);
  };
  EXPECT_THAT(pick({"config.json", "pytorch_model.bin", "tokenizer.json", "training_args.bin"}),
              ElementsAre("config.json", "tokenizer.json", "pytorch_model.bin"));
  EXPECT_THAT(pick({"config.json", "pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin", "x.py"}),
              ElementsAre("config.json", "pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin"));
  EXPECT_THAT(pick({"config.json", "weights.safetensors"}), ElementsAre("config.json", "weights.safetensors"));
  EXPECT_THAT(pick({"config.json", "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"}),
              ElementsAre("config.json", "model.safetensors"));
  EXPECT_THAT(pick({"config.json", "consolidated.safetensors", "pytorch_model.bin"}),
              ElementsAre("config.json", "pytorch_model.bin"));
  EXPECT_THAT(pick({"config.json", "onnx/model.safetensors"}), ElementsAre("config.json"));
  // Other kinds of tokenizers where there is no tokenizer.json.
  EXPECT_THAT(pick({"added_tokens.json", "config.json", "merges.txt", "model.safetensors", "vocab.json"}),
              ElementsAre("config.json", "added_tokens.json", "vocab.json", "merges.txt", "model.safetensors"));
  EXPECT_THAT(pick({"config.json", "model.safetensors", "tokenizer.json", "tokenizer.model"}),
              ElementsAre("config.json", "tokenizer.json", "model.safetensors"));
  EXPECT_THAT(pick({"config.json", "model.safetensors", "vocab.json"}),
              ElementsAre("config.json", "model.safetensors"));
}

TEST_F(Hub, ADamagedRefIsAnError) {
  fetch_it();
  std::ofstream(repo_folder() / "refs" / "main") << "../../../somewhere";
  EXPECT_THROW(find_model(options_, repo(), true), Error);
}

// Parts of a cache on another disk, each as huggingface_hub follows them: the repository's folder, its blobs, its
// snapshots, its refs, one snapshot, one file, one blob, the cache itself.
TEST_F(Hub, LinksToAnotherDiskAreFollowed) {
  const std::string commit = fetch_it().commit;
  const fs::path disk = folder_ / "another disk";
  fs::create_directories(disk);
  const fs::path repository = fs::path("models--tester--tiny");
  const auto parts = {fs::path(),
                      repository,
                      repository / "blobs",
                      repository / "refs",
                      repository / "refs" / "main",
                      repository / "snapshots",
                      repository / "snapshots" / commit,
                      repository / "snapshots" / commit / "config.json",
                      repository / "blobs" / lfs_hash(weights())};
  for (const fs::path& part : parts) {
    const fs::path original = part.empty() ? options_.cache : options_.cache / part;
    const fs::path moved = disk / "moved", kept = folder_ / "kept";
    fs::copy(original, moved, fs::copy_options::recursive);  // links within it become files
    fs::rename(original, kept);
    fs::create_symlink(moved, original);
    const auto found = find_model(options_, repo(), true);
    ASSERT_TRUE(found) << part;
    EXPECT_EQ(slurp(found->folder / "model.safetensors"), weights()) << part;
    EXPECT_EQ(RepoCache(options_.cache, repo()).files(commit).size(), 3U) << part;
    fs::remove(original);
    fs::rename(kept, original);
    fs::remove_all(moved);
  }
}

TEST_F(Hub, FoldersInASnapshotMayBeLinksThatLeadBack) {
  const Snapshot snapshot = fetch_it();
  fs::create_directories(folder_ / "elsewhere");
  std::ofstream(folder_ / "elsewhere" / "more.json") << "{}";
  fs::create_directory_symlink(folder_ / "elsewhere", snapshot.folder / "original");
  fs::create_directory_symlink(snapshot.folder, folder_ / "elsewhere" / "back");
  fs::create_symlink("nowhere", snapshot.folder / "broken");
  const auto files = RepoCache(options_.cache, repo()).files(snapshot.commit);
  EXPECT_THAT(files, testing::Contains("original/more.json"));
  EXPECT_EQ(files.size(), 4U);
}

TEST_F(Hub, BlobsInAStoreThatRepositoriesShare) {
  const Snapshot snapshot = fetch_it();
  const fs::path shared = options_.cache / "blobs" / "ab";
  fs::create_directories(shared);
  const std::string etag = lfs_hash(weights());
  fs::rename(blob(etag), shared / etag);
  fs::create_symlink("../../blobs/ab/" + etag, blob(etag));
  EXPECT_TRUE(find_model(options_, repo(), true));
}

TEST_F(Hub, AnotherProcessIsWaitedFor) {
  // As huggingface_hub does: flock on .locks/REPO/ETAG.lock. What it downloads meanwhile is not asked for.
  const fs::path lock = options_.cache / ".locks" / "models--tester--tiny" / (lfs_hash(weights()) + ".lock");
  fs::create_directories(lock.parent_path());
  const int fd = open(lock.c_str(), O_RDWR | O_CREAT, 0666);
  ASSERT_EQ(flock(fd, LOCK_EX), 0);
  std::jthread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    fs::create_directories(repo_folder() / "blobs");
    std::ofstream(blob(lfs_hash(weights())), std::ios::binary) << weights();
    close(fd);
  });
  expect_whole(fetch_it());
  EXPECT_EQ(hub_.cdn().seen().size(), 0);
}

TEST_F(Hub, TwoAtOnce) {
  twist_weights([](const Seen&, Reply& reply) { reply.pause = std::chrono::milliseconds(5); });
  std::jthread other([this] { fetch_it(); });
  expect_whole(fetch_it());
  other.join();
  EXPECT_EQ(hub_.cdn().count("GET", "model.safetensors"), 1);
}

TEST_F(Hub, ReportsProgress) {
  uint64_t last = 0, total = 0;
  twist_weights([](const Seen&, Reply& reply) { reply.pause = std::chrono::milliseconds(10); });
  int calls = 0;
  fetch_model(options_, repo(), [&](const FetchProgress& progress) {
    ++calls;
    EXPECT_GE(progress.bytes, last);
    last = progress.bytes;
    total = progress.total_bytes;
  });
  EXPECT_GT(calls, 2);
  EXPECT_EQ(last, total);
  EXPECT_GE(last, weights().size());
}

TEST_F(Hub, AStalledConnectionIsDropped) {
  options_.stall = std::chrono::seconds(1);
  std::atomic<int> asked{0};
  twist_weights([&](const Seen&, Reply& reply) {
    if (++asked == 1) reply.pause = std::chrono::seconds(2);
  });
  expect_whole(fetch_it());
  EXPECT_EQ(asked, 2);
}

TEST(PrintableUrl, HidesSecrets) {
  EXPECT_EQ(printable_url("https://user:pass@host/a?sig=1#x"), "https://host/a");
  EXPECT_EQ(printable_url("https://host/a@b"), "https://host/a@b");
}

TEST(ParseRepo, Forms) {
  EXPECT_EQ(parse_repo("org/name", RepoKind::model)->id, "org/name");
  EXPECT_EQ(parse_repo("org/name@refs/pr/1", RepoKind::model)->revision, "refs/pr/1");
  for (const char* bad : {"name", "/org/name", "./name", "../name", "org/", "a/b/c", "org/na me", "org/name@",
                          "org/x..y", "org/name@../x", "org/--x", "~/name"}) {
    EXPECT_FALSE(parse_repo(bad, RepoKind::model)) << bad;
  }
}

}  // namespace
}  // namespace mxlm::hub
