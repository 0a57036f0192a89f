#include "base/quote.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/log.hpp"

namespace mxlm {
namespace {

/// Characters that must never stand raw on a terminal, each alone.
const std::vector<std::string> kDisrupting = {"\x1b",         std::string(1, '\0'), "\r",           "\x07",
                                              "\x7f",         "\xc2\x80",           "\xc2\x9b",     "\x9b",
                                              "\xff",         "\xe2\x80\xa8",       "\xe2\x80\xa9", "\xe2\x80\xaa",
                                              "\xe2\x80\xae", "\xe2\x81\xa6",       "\xe2\x81\xa9", "\xe2\x80\x8e",
                                              "\xe2\x80\x8f", "\xd8\x9c",           "\xef\xbb\xbf"};

TEST(Printable, TakesOutWhatATerminalWouldObey) {
  for (const std::string& text : kDisrupting) {
    EXPECT_EQ(printable_text("a" + text + "b"), "a?b") << testing::PrintToString(text);
    EXPECT_EQ(printable_lines("a" + text + "b"), "a?b") << testing::PrintToString(text);
    EXPECT_EQ(quote(text), "'?'") << testing::PrintToString(text);
    EXPECT_EQ(message_text(text + "."), "?.") << testing::PrintToString(text);
  }
  EXPECT_EQ(printable_text("a\nb\tc"), "a?b?c");
  EXPECT_EQ(printable_lines("a\nb\tc"), "a\nb\tc");
}

TEST(Printable, LeavesWhatNamesHold) {
  // The neighbours of what is taken out, and the first and last character of each length.
  for (const std::string text :
       {" ~", "\xc2\xa0", "\xe2\x80\xa7", "\xe2\x80\xaf", "\xe2\x81\xa5", "\xe2\x81\xaa", "\xe2\x80\x8d",
        "\xe2\x80\x90", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbd", "\xf0\x90\x80\x80",
        "\xf4\x8f\xbf\xbf", "\xef\xbb\xbe"}) {
    EXPECT_EQ(printable_text(text), text) << testing::PrintToString(text);
  }
}

TEST(Printable, AByteThatBeginsNothingIsOneQuestionMark) {
  EXPECT_EQ(printable_text("\xc3"), "?");
  EXPECT_EQ(printable_text("\xc3("), "?(");
  EXPECT_EQ(printable_text("\xc0\xaf"), "??");               // an overlong '/'
  EXPECT_EQ(printable_text("\xe0\x82\x9b"), "???");          // an overlong U+009B
  EXPECT_EQ(printable_text("\xed\xa0\x80"), "???");          // half of a surrogate pair
  EXPECT_EQ(printable_text("\xf4\x90\x80\x80"), "????");     // beyond U+10FFFF
  EXPECT_EQ(printable_text("\xe2\x82\x1b[31m"), "???[31m");  // ESC inside a sequence
}

TEST(Printable, LongTextsAreCutBetweenCharacters) {
  std::string umlauts;
  for (int i = 0; i < 3000; ++i) umlauts += "\xc3\xa4";
  EXPECT_EQ(quote("x" + umlauts), "'x" + umlauts.substr(0, 118) + "...'");
  EXPECT_EQ(message_text("x" + umlauts), "x" + umlauts.substr(0, 4094) + "...");
}

TEST(Printable, MessagesOfFailAreOneLine) {
  try {
    fail("a file says {}", "\x1b]0;title\x07\nmxlm: error: fake");
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "a file says ?]0;title??mxlm: error: fake");
  }
  std::string line;
  send_log_to([&line](auto, std::string_view text) { line = text; });
  log_warn("a file says {}", "\x1b[31m\n");
  send_log_to(nullptr);
  EXPECT_EQ(line, "a file says ?[31m?");
}

TEST(ShellQuote, OnlyWhatNeedsIt) {
  EXPECT_EQ(shell_quote("--mx"), "--mx");
  EXPECT_EQ(shell_quote("attention=mxfp8,mlp=mxfp4/mxfp8@block=16"), "attention=mxfp8,mlp=mxfp4/mxfp8@block=16");
  EXPECT_EQ(shell_quote("a b"), "'a b'");
  EXPECT_EQ(shell_quote(""), "''");
  EXPECT_EQ(shell_quote("it's"), "'it'\\''s'");
}

TEST(ShellQuote, AShellReadsItBack) {
  for (const std::string text : {"model.layers.*=mxint8", "$HOME `id` \"x\" \\n", "a\nb", "'; id #", "~x", "=ls",
                                 "{a,b}", "[a-z]?", "caf\xc3\xa9", "!!"}) {
    FILE* shell = popen(("printf %s " + shell_quote(text)).c_str(), "r");
    ASSERT_NE(shell, nullptr);
    std::array<char, 256> out{};
    const size_t size = fread(out.data(), 1, out.size(), shell);
    EXPECT_EQ(pclose(shell), 0);
    EXPECT_EQ(std::string(out.data(), size), text);
  }
}

}  // namespace
}  // namespace mxlm
