#include "base/quote.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <string>

namespace mxlm {
namespace {

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
