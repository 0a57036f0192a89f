#include "report/svg.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "report/html.hpp"

namespace mxlm::report {
namespace {

std::vector<std::string> labels(const Scale& scale, size_t most) {
  std::vector<std::string> out;
  for (const auto& [value, label] : scale.ticks(most)) out.push_back(label);
  return out;
}

TEST(Scale, TicksAreRound) {
  using testing::ElementsAre;
  EXPECT_THAT(labels({4.0, 16.2, 0, 1, false}, 6), ElementsAre("5", "10", "15"));
  EXPECT_THAT(labels({22.5, 22.9, 0, 1, false}, 6), ElementsAre("22.5", "22.6", "22.7", "22.8", "22.9"));
  EXPECT_THAT(labels({-900, 2100, 0, 1, false}, 6), ElementsAre("\u2212500", "0", "500", "1,000", "1,500", "2,000"));
  EXPECT_THAT(labels({0.8, 400, 0, 1, true}, 6), ElementsAre("1", "3", "10", "30", "100", "300"));
  EXPECT_THAT(labels({1e-7, 1, 0, 1, true}, 5).size(), testing::AllOf(testing::Ge(2U), testing::Le(5U)));
}

TEST(Scale, StandsWhateverTheRange) {
  for (const bool logarithmic : {false, true}) {
    for (const auto& [low, high] : std::vector<std::pair<double, double>>{
             {1e-300, 1e300}, {1, 1 + 1e-12}, {1e15, 1e15 + 1}, {5e-324, 1e-323}, {1, 2}, {0.999, 1001}}) {
      const Scale scale(low, high, 10, 20, logarithmic);
      EXPECT_LE(scale.ticks(6).size(), 8U) << low << " " << high;
      EXPECT_EQ(scale(low), 10);
      EXPECT_NEAR(scale(high), 20, 1e-6);
      EXPECT_EQ(scale(-1e308), 10);
      EXPECT_EQ(scale(std::nan("")), 10);
    }
  }
}

TEST(LabelPlacer, LabelsNeverOverlap) {
  // All at one point; on a line; and in a corner.
  for (const int kind : {0, 1, 2}) {
    LabelPlacer placer({0, 0, 400, 300});
    std::vector<Box> boxes;
    for (int i = 0; i < 25; ++i) {
      const double x = kind == 0 ? 200 : kind == 1 ? 20 + 2 * i : 398, y = kind == 0 ? 150 : kind == 1 ? 100 : 1;
      const auto place = placer.place(x, y, 15, 13);
      ASSERT_TRUE(place) << kind << " " << i;
      for (const Box& other : boxes) EXPECT_FALSE(other.overlaps(place->box));
      EXPECT_TRUE(place->box.x >= 0 && place->box.x + 15 <= 400 && place->box.y >= 0 && place->box.y + 13 <= 300);
      boxes.push_back(place->box);
    }
  }
}

TEST(Box, MeetsALine) {
  const Box box{10, 10, 10, 10};
  EXPECT_TRUE(box.meets(0, 0, 30, 30));
  EXPECT_TRUE(box.meets(15, 0, 15, 12));
  EXPECT_TRUE(box.meets(12, 12, 13, 13));
  EXPECT_FALSE(box.meets(0, 0, 9, 9));
  EXPECT_FALSE(box.meets(0, 25, 25, 25));
  EXPECT_FALSE(box.meets(5, 0, 5, 30));
}

TEST(Html, Escapes) {
  EXPECT_EQ(escape("<a href=\"x\">&'</a>"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;&lt;/a&gt;");
  EXPECT_EQ(escape("a\x01\x7f\tb"), "a\uFFFD\uFFFD\tb");
  EXPECT_EQ(escape("a\u202eb\u2066"), "a\uFFFDb\uFFFD");
  EXPECT_EQ(escape("a\xc2\x9b\xff<"), "a\uFFFD\uFFFD&lt;");
  EXPECT_EQ(escape("\u2014\u540d"), "\u2014\u540d");
  EXPECT_EQ(breakable("a=b,c"), "a=<wbr class=\"eq\">b,<wbr>c");
  EXPECT_EQ(breakable(""), "");
  EXPECT_EQ(breakable("<,>"), "&lt;,<wbr>&gt;");
}

TEST(Html, Shortens) {
  EXPECT_EQ(shorten("abc", 3), "abc");
  EXPECT_EQ(shorten("abcd", 3), "ab…");
  EXPECT_EQ(shorten("\u540d\u540d\u540d\u540d", 3), "\u540d\u540d…");
  EXPECT_EQ(shorten("", 3), "");
}

}  // namespace
}  // namespace mxlm::report
