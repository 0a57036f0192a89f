// What a run must never do: use the network unasked, or let a secret or a file out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "../hub/hub_server.hpp"
#include "run_mxlm.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

const std::string kTwoWindows = " --device cpu --context 32 --max-windows 2 ";

/// Makes the kernel end this process, and all that it starts, as soon as one asks for a socket of the Internet's.
bool forbid_network() {
  constexpr auto kNumber = static_cast<uint32_t>(offsetof(seccomp_data, nr));
  constexpr auto kFamily = static_cast<uint32_t>(offsetof(seccomp_data, args[0]));  // little-endian: the low half
  std::array<sock_filter, 7> filter{{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNumber),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 4),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kFamily),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET6, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  const sock_fprog program{.len = filter.size(), .filter = filter.data()};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/// The exit code of mxlm where a socket ends it (with 128 + SIGSYS); -1 where the kernel has no such filter.
int run_without_network(const std::string& arguments) {
  const pid_t child = fork();
  if (child == 0) {
    if (!forbid_network()) _exit(255);
    const Outcome outcome = run_mxlm(arguments);
    if (outcome.code != 0) fprintf(stderr, "%s: %d\n%s", arguments.c_str(), outcome.code, outcome.err.c_str());
    _exit(outcome.code);
  }
  int status = 0;
  waitpid(child, &status, 0);
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return code == 255 ? -1 : code;
}

TEST(Safety, NoNetworkUnlessSomethingOfTheHubIsNamed) {
  const Folder folder;
  const std::string text = folder.file("text.txt", "Alice was beginning to get very tired of sitting by her sister.\n");
  const std::string lines = folder.file("data.jsonl", "{\"text\": \"Alice was beginning to get very tired.\"}\n");
  const std::string result = folder / "out.json";
  // The control: a name of the hub does ask for it.
  const int asked = run_without_network("fetch tester/booklet");
  if (asked == -1) GTEST_SKIP() << "no seccomp filters here";
  EXPECT_EQ(asked, 128 + SIGSYS);
  for (const std::string& arguments : {
           "eval" + kTwoWindows + "--json '" + result + "' --csv '" + (folder / "out.csv") + "' --html '" +
               (folder / "out.html") + "'",
           "eval '" + kModel + "'" + kTwoWindows + "--no-variants --text '" + text + "'",
           "eval '" + kModel + "'" + kTwoWindows + "--no-variants --data '" + lines + "'",
           "sweep" + kTwoWindows + "--formats mxfp4",
           "inspect '" + kModel + "'",
           "tokenize '" + kModel + "' --text '" + text + "'",
           "cast '" + kModel + "/model.safetensors' --format mxfp4 -o '" + (folder / "cast.safetensors") + "'",
           "report '" + result + "' -o '" + (folder / "report.html") + "'",
           std::string("formats"),
           std::string("models"),
           std::string("man"),
           std::string("completion bash"),
       }) {
    EXPECT_EQ(run_without_network(arguments), 0) << arguments;
  }
}

/// The names of all files under a folder that hold a text.
std::vector<std::string> files_with(const fs::path& folder, const std::string& text) {
  std::vector<std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file() && slurp(entry.path()).find(text) != std::string::npos) out.push_back(entry.path());
  }
  return out;
}

TEST(Safety, TheTokenIsInNothingThatIsWritten) {
  std::map<std::string, std::string> files;
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"})
    files[name] = slurp(kModel + "/" + name);
  hub::FakeHub server("tester/booklet", files);
  const Folder folder;
  const auto run = [&](const std::string& arguments) {
    const Outcome outcome =
        run_mxlm(arguments, "cd '" + folder.path().string() +
                                "'; env -u HF_HUB_CACHE -u HF_HUB_OFFLINE -u http_proxy HF_HOME='" + folder / "hf" +
                                "' HF_ENDPOINT='" + server.url() + "' HF_TOKEN=" + kToken);
    EXPECT_THAT(outcome.out, Not(HasSubstr("Secret")));
    EXPECT_THAT(outcome.err, Not(HasSubstr("Secret")));
    return outcome;
  };
  const Outcome whole = run("eval tester/booklet" + kTwoWindows +
                            "--journal journal --json out.json --csv out.csv --html out.html --log-file log");
  ASSERT_EQ(whole.code, 0) << whole.err;
  EXPECT_EQ(server.hub().seen().back().header("authorization"), std::string("Bearer ") + kToken);
  for (const char* name : {"journal/plan.json", "journal/rounds.mxj", "out.json", "out.csv", "out.html", "log"}) {
    EXPECT_TRUE(fs::exists(folder.path() / name)) << name;
  }
  // Refused, and where the answer repeats what it was sent.
  server.twist([](const hub::Seen& seen, bool, hub::Reply& reply) {
    reply.status = 403;
    reply.body = seen.header("authorization");
    reply.headers["X-Error-Message"] = seen.header("authorization");
  });
  EXPECT_EQ(run("eval tester/another" + kTwoWindows + "--log-file refused").code, 1);
  EXPECT_EQ(files_with(folder.path(), "Secret"), std::vector<std::string>());
}

TEST(Safety, FilesHaveTheModesTheyShould) {
  const Folder folder;
  const auto mode = [&](const std::string& name) {
    struct stat info {};
    EXPECT_EQ(stat((folder / name).c_str(), &info), 0) << name;
    return info.st_mode & 07777U;
  };
  const std::string journal = "--journal '" + folder / "journal" + "' ",
                    result = "--json '" + folder / "out.json" + "' ";
  ASSERT_EQ(run_mxlm("eval --no-variants" + kTwoWindows + journal + result, "umask 0; ").code, 0);
  // What holds figures of each token of somebody's text is the user's alone, whatever the umask.
  EXPECT_EQ(mode("journal"), 0700U);
  for (const char* name : {"journal/plan.json", "journal/rounds.mxj", "journal/lock"}) EXPECT_EQ(mode(name), 0600U);
  EXPECT_EQ(mode("out.json"), 0666U);
  ASSERT_EQ(run_mxlm("eval --no-variants --no-journal" + kTwoWindows + result, "umask 027; ").code, 0);
  EXPECT_EQ(mode("out.json"), 0640U);
}

}  // namespace
}  // namespace mxlm
