#include "io/pickle.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io_helpers.hpp"
#include "zip_helpers.hpp"

namespace mxlm {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using std::string_literals::operator""s;

// Pieces of pickles, by the names of their opcodes.
const std::string kProto = "\x80\x02"s;
std::string unicode(const std::string& text) { return "X"s + little(text.size(), 4) + text; }
std::string global(const std::string& module, const std::string& name) { return "c"s + module + "\n" + name + "\n"; }
const std::string kOrderedDict = global("collections", "OrderedDict") + ")R";

std::string storage(const std::string& type = "FloatStorage", const std::string& count = "K\x06"s,
                    const std::string& module = "torch") {
  return "("s + unicode("storage") + global(module, type) + unicode("7") + unicode("cpu") + count + "tQ";
}

std::string tensor(const std::string& shape = "K\x02K\x03\x86", const std::string& strides = "K\x03K\x01\x86",
                   const std::string& offset = "K\0"s, const std::string& from = storage()) {
  return global("torch._utils", "_rebuild_tensor_v2") + "(" + from + offset + shape + strides + "\x89" + kOrderedDict +
         "tR";
}

std::vector<PickledTensor> read(const std::string& pickle) { return read_state_dict(pickle, "x.bin"); }

std::string refusal(const std::string& body) {
  std::string text = message_of([&] { read(kProto + body); });
  EXPECT_THAT(text, HasSubstr("'x.bin'"));
  return text;
}

// A state dict of one member.
std::string dict_of(const std::string& value) { return "}("s + unicode("w") + value + "u."; }

TEST(Pickle, ReadsATensor) {
  const auto tensors = read(kProto + dict_of(tensor()));
  ASSERT_THAT(tensors, SizeIs(1));
  EXPECT_EQ(tensors[0].name, "w");
  EXPECT_EQ(tensors[0].type, DType::f32);
  EXPECT_EQ(tensors[0].storage, "7");
  EXPECT_EQ(tensors[0].storage_bytes, 24);
  EXPECT_EQ(tensors[0].offset, 0);
  EXPECT_THAT(tensors[0].shape, ElementsAre(2, 3));
  EXPECT_THAT(tensors[0].strides, ElementsAre(3, 1));
}

TEST(Pickle, ReadsNumbersOfEverySize) {
  const auto with = [](const std::string& number) {
    return read(kProto + dict_of(tensor("K\x01\x85", "K\x01\x85", number)))[0].offset;
  };
  EXPECT_EQ(with("K\xff"), 255);
  EXPECT_EQ(with("M\xff\xff"), 65535);
  EXPECT_EQ(with("J\xff\xff\xff\xff"), -1);
  EXPECT_EQ(with("J\xff\xff\xff\x7f"), 0x7fffffff);
  EXPECT_EQ(with("\x8a\0"s), 0);
  EXPECT_EQ(with("\x8a\x05\0\0\0\0\x01"s), int64_t{1} << 32);
  EXPECT_EQ(with("\x8a\x02\0\xff"s), -256);
  EXPECT_EQ(with("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"s), std::numeric_limits<int64_t>::max());
}

TEST(Pickle, ReadsAnEmptyStateDictAndOneInAnother) {
  EXPECT_THAT(read(kProto + "}."), IsEmpty());
  EXPECT_THAT(read(kProto + kOrderedDict + "."), IsEmpty());
  EXPECT_THAT(read(kProto + "}" + unicode("state_dict") + "}" + unicode("w") + tensor() + "ss."), SizeIs(1));
}

TEST(Pickle, RefusesEveryOtherOpcodeByNameAndPlace) {
  const std::string known = "().JKMNQRXabcehjqrstu}]G\x80\x85\x86\x87\x88\x89\x8a\x8c\x8d\x93\x94\x95";
  for (int opcode = 0; opcode < 256; ++opcode) {
    const auto c = static_cast<char>(opcode);
    if (known.find(c) != std::string::npos) continue;
    EXPECT_THAT(refusal("}"s + c), AllOf(HasSubstr(fmt::format("{:#04x}", opcode)), HasSubstr("at byte 3")));
  }
  EXPECT_THAT(refusal("(i"), HasSubstr("the opcode INST (0x69) at byte 3"));
  EXPECT_THAT(refusal("\x81"), HasSubstr("the opcode NEWOBJ (0x81) at byte 2"));
  EXPECT_THAT(refusal("\x05"), HasSubstr("the opcode unknown (0x05)"));
}

TEST(Pickle, RefusesEveryOtherGlobalByNameAndPlace) {
  EXPECT_THAT(refusal("}"s + global("os", "system")), AllOf(HasSubstr("the global 'os.system' at byte 3")));
  EXPECT_THAT(refusal(unicode("builtins") + unicode("eval") + "\x93"), HasSubstr("'builtins.eval' at byte 24"));
  EXPECT_THAT(refusal(global("torch", "_utils._rebuild_tensor_v2")), HasSubstr("the global"));
  EXPECT_THAT(refusal(global("torch.", "FloatStorage")), HasSubstr("the global"));
  EXPECT_THAT(refusal(global("collections\0"s, "OrderedDict")), HasSubstr("the global"));
  // Known ones are no functions of the pickle's choice either.
  EXPECT_THAT(refusal(global("torch", "FloatStorage") + ")R."), HasSubstr("torch.FloatStorage is called"));
  EXPECT_THAT(refusal(global("torch", "uint16") + ")R."), HasSubstr("torch.uint16 is called"));
  EXPECT_THAT(refusal(global("collections", "OrderedDict") + "]\x85R."), HasSubstr("is made from something"));
}

TEST(Pickle, RefusesWhatIsNoStateDict) {
  EXPECT_THAT(refusal("N."), HasSubstr("holds None instead of a state dict"));
  EXPECT_THAT(refusal("]."), HasSubstr("holds a list"));
  EXPECT_THAT(refusal(tensor() + "."), HasSubstr("holds a tensor instead"));
  EXPECT_THAT(refusal(dict_of("K\x01")), HasSubstr("holds an int under the name 'w'"));
  EXPECT_THAT(refusal(dict_of("}")), HasSubstr("holds a dict under the name 'w'"));
  EXPECT_THAT(refusal("}K\x01"s + tensor() + "s."), HasSubstr("an int as a key"));
  EXPECT_THAT(refusal("}("s + unicode("w") + tensor() + unicode("w") + tensor() + "u."), HasSubstr("two tensors"));
  EXPECT_THAT(refusal("}"s + unicode("state_dict") + "}" + unicode("state_dict") + "}ss."), HasSubstr("a dict under"));
}

TEST(Pickle, RefusesBrokenStacksAndMemos) {
  EXPECT_THAT(message_of([] { read(""); }), HasSubstr("ends in the middle"));
  EXPECT_THAT(message_of([] { read("}."); }), HasSubstr("does not begin with a protocol number"));
  EXPECT_THAT(message_of([] { read("\x80\x01}."); }), HasSubstr("protocol is 1"));
  EXPECT_THAT(message_of([] { read("\x80\x06}."); }), HasSubstr("protocol is 6"));
  EXPECT_THAT(refusal(""), HasSubstr("ends in the middle"));
  EXPECT_THAT(refusal("."), HasSubstr("takes a value from an empty stack"));
  EXPECT_THAT(refusal("}}."), HasSubstr("more than one value"));
  EXPECT_THAT(refusal("}(."), AllOf(HasSubstr("byte 4"), HasSubstr("takes a value")));
  EXPECT_THAT(refusal("}(\x85"), HasSubstr("takes a value"));
  EXPECT_THAT(refusal("t"), HasSubstr("without a mark"));
  EXPECT_THAT(refusal("u"), HasSubstr("without a mark"));
  EXPECT_THAT(refusal("(u"), HasSubstr("takes a value"));
  EXPECT_THAT(refusal("}(Nu"), HasSubstr("a key has no value"));
  EXPECT_THAT(refusal("N(NNu"), HasSubstr("what is filled is None instead of a dict"));
  EXPECT_THAT(refusal("NNNs"), HasSubstr("what is filled is None"));
  EXPECT_THAT(refusal("}Na"), HasSubstr("appended to is a dict instead of a list"));
  EXPECT_THAT(refusal("}Nb"), HasSubstr("a state is None"));
  EXPECT_THAT(refusal("]}b"), HasSubstr("what gets a state is a list"));
  EXPECT_THAT(refusal("h\0"s), HasSubstr("refers to value 0 of 0"));
  EXPECT_THAT(refusal("}q\0h\x01"s), HasSubstr("refers to value 1 of 1"));
  EXPECT_THAT(refusal("}q\x01"), HasSubstr("memoizes value 1 after 0 values"));
  EXPECT_THAT(refusal("}r\xff\xff\xff\xff"), HasSubstr("memoizes value 4294967295"));
  EXPECT_THAT(refusal("q\0"s), HasSubstr("memoizes a value from an empty stack"));
  EXPECT_THAT(refusal("\x94"), HasSubstr("memoizes a value from an empty stack"));
  EXPECT_THAT(refusal("j\xff\xff\xff\xff"), HasSubstr("refers to value 4294967295"));
  EXPECT_THAT(refusal("NN\x93"), HasSubstr("the name of a global is None"));
  EXPECT_THAT(refusal("}NR"), HasSubstr("called with is None"));
  EXPECT_THAT(refusal("N)R"), HasSubstr("what is called is None"));
  EXPECT_THAT(refusal("NQ"), HasSubstr("a persistent id is None"));
}

TEST(Pickle, RefusesLengthsThatLie) {
  EXPECT_THAT(refusal("X\xff\xff\xff\xff"
                      "abc"),
              HasSubstr("ends in the middle"));
  EXPECT_THAT(refusal("\x8c\x05"
                      "abc"),
              HasSubstr("ends in the middle"));
  EXPECT_THAT(refusal("\x8d"s + std::string(8, '\xff') + "abc"), HasSubstr("ends in the middle"));
  EXPECT_THAT(refusal("\x95"s + std::string(8, '\xff') + "}."), HasSubstr("frame"));
  EXPECT_THAT(refusal("\x8a\xff"s + std::string(255, '\0') + "."), HasSubstr("255 bytes where at most 8"));
  EXPECT_THAT(refusal("cos\nsystem"), HasSubstr("a name does not end"));
  EXPECT_THAT(refusal("X\x01\0\0\0\xff"s), HasSubstr("not valid UTF-8"));
}

TEST(Pickle, RefusesTensorsThatMakeNoSense) {
  const auto bad = [](const std::string& value) { return refusal(dict_of(value)); };
  EXPECT_THAT(bad("}Q"), HasSubstr("a persistent id is a dict"));
  EXPECT_THAT(bad(")Q"), HasSubstr("not that of a storage"));
  EXPECT_THAT(bad(storage("float8_e5m2")), HasSubstr("has no storage type"));
  EXPECT_THAT(bad(storage("FloatStorage", "J\xff\xff\xff\xff")), HasSubstr("a storage has -1 elements"));
  EXPECT_THAT(bad(storage("FloatStorage", "N")), HasSubstr("not that of a storage"));
  EXPECT_THAT(bad(storage("ComplexFloatStorage")), HasSubstr("'torch.ComplexFloatStorage'"));
  EXPECT_THAT(bad(tensor("K\x02K\x03\x86", "K\x03\x85")), HasSubstr("2 extents and 1 strides"));
  EXPECT_THAT(bad(tensor("N")), HasSubstr("the shape of a tensor is None"));
  EXPECT_THAT(bad(tensor("N\x85", "K\x01\x85")), HasSubstr("the shape of a tensor is None"));
  EXPECT_THAT(bad(tensor("K\x01\x85", "K\x01\x85", "N")), HasSubstr("the offset of a tensor is None"));
  EXPECT_THAT(bad(tensor("K\x01\x85", "K\x01\x85", "K\0"s, "N")), HasSubstr("the storage of a tensor is None"));
  EXPECT_THAT(bad(tensor("K\x01\x85", "K\x01\x85", "K\0"s,
                         storage("FloatStorage", "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"))),
              HasSubstr("the size of a storage overflows"));
  const std::string many = "("s + std::string(65, 'N') + "t";
  EXPECT_THAT(bad(tensor(many, many)), HasSubstr("65 entries where at most 64"));
  EXPECT_THAT(bad(tensor("K\x01\x85", "K\x01\x85", "K\0"s, storage("UntypedStorage", "K\x04", "torch.storage"))),
              HasSubstr("do not agree on a type"));
  EXPECT_THAT(bad(global("torch._utils", "_rebuild_tensor_v2") + ")R"), HasSubstr("has 0 arguments"));
  EXPECT_THAT(bad(global("torch._utils", "_rebuild_parameter") + "NNN\x87R"), HasSubstr("content of a parameter"));
  EXPECT_THAT(bad(global("torch._utils", "_rebuild_parameter") + ")R"), HasSubstr("has 0 arguments"));
}

TEST(Pickle, ListsThatHoldThemselvesAndDeepNestingCostNothing) {
  EXPECT_THAT(refusal("]q\0h\0a."s), HasSubstr("holds a list"));
  EXPECT_THAT(refusal("}q\0"s + unicode("a") + "h\0s."s), HasSubstr("holds a dict under the name 'a'"));
  EXPECT_THAT(refusal(")"s + std::string(1'000'000, '\x85') + "."), HasSubstr("holds a tuple"));
  EXPECT_THAT(refusal(std::string(1'000'000, '(')), HasSubstr("ends in the middle"));
}

TEST(Pickle, RefusesMoreValuesThanAllowed) {
  std::string appended = "]";
  for (size_t i = 0; i < size_t{1} << 24; ++i) appended += "Na";
  EXPECT_THAT(refusal(appended), HasSubstr("more than 16777216 values"));
}

}  // namespace
}  // namespace mxlm
