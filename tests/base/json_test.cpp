#include "base/json.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "base/error.hpp"

namespace mxlm {
namespace {

namespace dom = simdjson::dom;

class PythonJson : public testing::Test {
 protected:
  /// The value of the member "x"; an element of its own parser.
  dom::element x(const std::string& value) {
    dom::element out;
    const dom::element root = parse_json(parser_, R"({"x": )" + value + "}", "file.json", "The text");
    EXPECT_TRUE(last_member(dom::object(root), "x", out)) << value;
    return out;
  }
  bool accepts(const std::string& json) {
    dom::element root;
    return parse_python_json(parser_, json, root) == simdjson::SUCCESS;
  }

  dom::parser parser_;
};

// Expected values are those of json.loads of CPython 3.13.
TEST_F(PythonJson, NumbersBeyond64BitsAreTheNearestFloat) {
  EXPECT_EQ(double(x("1000000000000000019884624838656")), 1e30);
  EXPECT_EQ(double(x("-1000000000000000019884624838656")), -1e30);
  EXPECT_EQ(double(x("18446744073709551616")), 18446744073709551616.0);
  EXPECT_EQ(double(x("-9223372036854775809")), -9223372036854775808.0);
  EXPECT_EQ(double(x("123456789012345678901234567890e-20")), 123456789012345678901234567890e-20);
  EXPECT_EQ(double(x("1e-999")), 0);
  EXPECT_EQ(double(x("[1e999, 1e-999]").at(1)), 0);
}

TEST_F(PythonJson, IntegersOf64BitsStayIntegersBesideThem) {
  const dom::element list = x("[1e999, 18446744073709551615, 9223372036854775807, -9223372036854775808, 7]");
  EXPECT_EQ(uint64_t(list.at(1)), 18446744073709551615U);
  EXPECT_EQ(int64_t(list.at(2)), INT64_MAX);
  EXPECT_EQ(int64_t(list.at(3)), INT64_MIN);
  EXPECT_EQ(int64_t(list.at(4)), 7);
}

TEST_F(PythonJson, WhatIsNotFiniteHasNoTypeThatAReaderAsksFor) {
  for (const char* value : {"NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1E+400"}) {
    const dom::element element = x(value);
    EXPECT_FALSE(element.is_number() || element.is_string() || element.is_bool() || element.is_object()) << value;
    EXPECT_FALSE(element.is_null()) << value;  // null means that there is none
  }
  EXPECT_FALSE(x(std::string(400, '9')).is_number());
}

TEST_F(PythonJson, WordsInsideStringsStay) {
  const dom::element list = x(R"(["NaN", "\"NaN, 1e999", "a\\", NaN, "Infinity 100000000000000000000"])");
  EXPECT_EQ(std::string_view(list.at(0)), "NaN");
  EXPECT_EQ(std::string_view(list.at(1)), "\"NaN, 1e999");
  EXPECT_EQ(std::string_view(list.at(2)), "a\\");
  EXPECT_EQ(std::string_view(list.at(4)), "Infinity 100000000000000000000");
}

TEST_F(PythonJson, TheLastOfSeveralMembersCounts) {
  const dom::element root = parse_json(parser_, R"({"a": 1, "b": 2, "a": 3})", "file.json", "The text");
  dom::element value;
  ASSERT_TRUE(last_member(dom::object(root), "a", value));
  EXPECT_EQ(int64_t(value), 3);
  EXPECT_FALSE(last_member(dom::object(root), "c", value));
}

TEST_F(PythonJson, AByteOrderMarkIsSkipped) {
  EXPECT_TRUE(accepts("\xef\xbb\xbf{}"));
  EXPECT_FALSE(accepts("\xef\xbb\xbf\xef\xbb\xbf{}"));
  EXPECT_FALSE(accepts("\xef\xbb\xbf"));
}

// Python's json refuses each of these, too.
TEST_F(PythonJson, WhatPythonRefusesIsRefused) {
  for (const char* value : {"nan",
                            "-NaN",
                            "+Infinity",
                            "inf",
                            "NaN1",
                            "01e999",
                            "1e999.0",
                            "1.e999",
                            ".5",
                            "+1",
                            "0x10",
                            "--Infinity",
                            "099999999999999999999",
                            "100000000000000000000f",
                            "1e",
                            "99999999999999999999999-1",
                            "[NaN",
                            "\"NaN",
                            "NaN]",
                            "\"a\nNaN\"",
                            "[1e999 1e999]",
                            "'NaN'",
                            "{NaN: 1}",
                            "\"\\",
                            "[NaN, \"\\\"]"}) {
    EXPECT_FALSE(accepts(value)) << value;
  }
}

TEST_F(PythonJson, NestingIsBounded) {
  const auto nested = [](size_t depth) { return std::string(depth, '[') + "1e999" + std::string(depth, ']'); };
  EXPECT_TRUE(accepts(nested(60)));
  EXPECT_FALSE(accepts(nested(1000000)));
  EXPECT_FALSE(accepts(std::string(1000000, '[')));
}

TEST_F(PythonJson, MessagesNameTheFile) {
  try {
    parse_json(parser_, "{", "folder/config.json", "The text");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("The text of 'folder/config.json' is not valid JSON"), std::string::npos);
  }
}

}  // namespace
}  // namespace mxlm
