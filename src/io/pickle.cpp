#include "io/pickle.hpp"

#include <simdjson.h>

#include <array>
#include <bit>
#include <set>
#include <utility>

#include "base/error.hpp"
#include "base/quote.hpp"

namespace mxlm {
namespace {

// A tensor takes about 300 bytes of a pickle and makes about 40 values. Every value takes at least one byte of the
// pickle and up to a few hundred bytes here.
constexpr size_t kLongestPickle = size_t{256} << 20;
constexpr size_t kMostValues = size_t{1} << 24;
constexpr size_t kMostTensors = 1'000'000;
constexpr size_t kMostDimensions = 64;  // as in torch

// The opcodes that torch.save writes for a state dict; names and values as in Python's pickletools.
enum Opcode : uint8_t {
  kMark = '(',
  kStop = '.',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kNone = 'N',
  kBinPersid = 'Q',
  kReduce = 'R',
  kBinUnicode = 'X',
  kAppend = 'a',
  kBuild = 'b',
  kGlobal = 'c',
  kAppends = 'e',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kSetItem = 's',
  kTuple = 't',
  kSetItems = 'u',
  kEmptyDict = '}',
  kEmptyList = ']',
  kEmptyTuple = ')',
  kBinFloat = 'G',
  kProto = 0x80,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8a,
  kShortBinUnicode = 0x8c,
  kBinUnicode8 = 0x8d,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
};

// The names of the other opcodes, for messages.
constexpr std::array<std::pair<uint8_t, std::string_view>, 32> kRefusedNames{{
    {'0', "POP"},
    {'1', "POP_MARK"},
    {'2', "DUP"},
    {'F', "FLOAT"},
    {'I', "INT"},
    {'L', "LONG"},
    {'P', "PERSID"},
    {'S', "STRING"},
    {'T', "BINSTRING"},
    {'U', "SHORT_BINSTRING"},
    {'V', "UNICODE"},
    {'B', "BINBYTES"},
    {'C', "SHORT_BINBYTES"},
    {'d', "DICT"},
    {'g', "GET"},
    {'i', "INST"},
    {'l', "LIST"},
    {'o', "OBJ"},
    {'p', "PUT"},
    {0x81, "NEWOBJ"},
    {0x82, "EXT1"},
    {0x83, "EXT2"},
    {0x84, "EXT4"},
    {0x8b, "LONG4"},
    {0x8e, "BINBYTES8"},
    {0x8f, "EMPTY_SET"},
    {0x90, "ADDITEMS"},
    {0x91, "FROZENSET"},
    {0x92, "NEWOBJ_EX"},
    {0x96, "BYTEARRAY8"},
    {0x97, "NEXT_BUFFER"},
    {0x98, "READONLY_BUFFER"},
}};

// The meaning of a known global.
enum class Role : uint8_t { ordered_dict, rebuild_v2, rebuild_v3, rebuild_parameter, storage, untyped_storage, dtype };

struct Global {
  std::string_view module, name;
  Role role;
  DType type = DType::u8;  // of a storage or dtype
};

constexpr std::array kGlobals{
    Global{"collections", "OrderedDict", Role::ordered_dict},
    Global{"torch._utils", "_rebuild_tensor_v2", Role::rebuild_v2},
    Global{"torch._utils", "_rebuild_tensor_v3", Role::rebuild_v3},
    Global{"torch._utils", "_rebuild_parameter", Role::rebuild_parameter},
    Global{"torch", "DoubleStorage", Role::storage, DType::f64},
    Global{"torch", "FloatStorage", Role::storage, DType::f32},
    Global{"torch", "HalfStorage", Role::storage, DType::f16},
    Global{"torch", "BFloat16Storage", Role::storage, DType::bf16},
    Global{"torch", "LongStorage", Role::storage, DType::i64},
    Global{"torch", "IntStorage", Role::storage, DType::i32},
    Global{"torch", "ShortStorage", Role::storage, DType::i16},
    Global{"torch", "CharStorage", Role::storage, DType::i8},
    Global{"torch", "ByteStorage", Role::storage, DType::u8},
    Global{"torch", "BoolStorage", Role::storage, DType::boolean},
    // Tensors of types that are newer than typed storages name their type separately, and their storage counts bytes.
    Global{"torch.storage", "UntypedStorage", Role::untyped_storage},
    Global{"torch", "uint64", Role::dtype, DType::u64},
    Global{"torch", "uint32", Role::dtype, DType::u32},
    Global{"torch", "uint16", Role::dtype, DType::u16},
    Global{"torch", "float8_e4m3fn", Role::dtype, DType::f8_e4m3},
    Global{"torch", "float8_e5m2", Role::dtype, DType::f8_e5m2},
    Global{"torch", "float8_e8m0fnu", Role::dtype, DType::f8_e8m0},
};

enum class Kind : uint8_t { none, boolean, integer, real, text, tuple, list, dict, global, storage, tensor };

constexpr std::string_view kind_name(Kind kind) {
  constexpr std::array<std::string_view, 11> kNames{"None",   "a bool", "an int",   "a float",   "a string", "a tuple",
                                                    "a list", "a dict", "a global", "a storage", "a tensor"};
  return kNames[static_cast<size_t>(kind)];
}

// Containers are indices, so a value that occurs twice, or contains itself, costs nothing.
struct Value {
  Kind kind = Kind::none;
  int64_t number = 0;     // an integer or bool; otherwise the index among values of its kind
  std::string_view text;  // points into the pickle
};

struct Storage {
  std::string_view key;
  const Global* global = nullptr;
  int64_t count = 0;  // elements, of bytes if it is untyped
};

class Machine {
 public:
  Machine(std::string_view pickle, const std::string& file) : pickle_(pickle), file_(quote(file)) {}

  std::vector<PickledTensor> run() {
    if (pickle_.size() > kLongestPickle) {
      fail("The pickle in {} has {} bytes where at most {} are allowed; convert the checkpoint to safetensors.", file_,
           pickle_.size(), kLongestPickle);
    }
    for (;;) {
      begin_ = at_;
      const auto opcode = static_cast<uint8_t>(take(1)[0]);
      if (begin_ == 0 && opcode != kProto) broken("it does not begin with a protocol number");
      if (opcode == kStop) break;
      step(opcode);
    }
    return result();
  }

 private:
  template <typename... Args>
  [[noreturn]] void broken(fmt::format_string<Args...> text, Args&&... args) const {
    fail(
        "The pickle in {} cannot be read: at byte {}, {}; get the file again, or convert the checkpoint to "
        "safetensors.",
        file_, begin_, fmt::format(text, std::forward<Args>(args)...));
  }

  [[noreturn]] void refuse_opcode(uint8_t opcode) const {
    std::string_view name = "unknown";
    for (const auto& [value, text] : kRefusedNames) {
      if (value == opcode) name = text;
    }
    fail(
        "The pickle in {} has the opcode {} ({:#04x}) at byte {}, which no state dict of tensors needs; convert the "
        "checkpoint to safetensors where you trust it.",
        file_, name, opcode, begin_);
  }

  // --- input

  std::string_view take(uint64_t size) {
    if (size > pickle_.size() - at_) broken("it ends in the middle of an opcode");
    const auto bytes = pickle_.substr(at_, size);
    at_ += size;
    return bytes;
  }

  // A little-endian number.
  uint64_t take_number(size_t size) {
    uint64_t value = 0;
    const auto bytes = take(size);
    for (size_t i = 0; i < size; ++i) value |= uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
    return value;
  }

  std::string_view take_line() {
    const size_t end = pickle_.find('\n', at_);
    if (end == std::string_view::npos) broken("a name does not end");
    const auto line = pickle_.substr(at_, end - at_);
    at_ = end + 1;
    return line;
  }

  // Two's complement of `size` bytes.
  int64_t take_long(size_t size) {
    if (size > 8) broken("a whole number has {} bytes where at most 8 are supported", size);
    if (size == 0) return 0;
    const uint64_t value = take_number(size);
    const int shift = static_cast<int>(64 - 8 * size);
    return static_cast<int64_t>(value << shift) >> shift;
  }

  std::string_view take_text(uint64_t size) {
    const auto text = take(size);
    if (!simdjson::validate_utf8(text)) broken("a string is not valid UTF-8");
    return text;
  }

  // --- stack and memo

  void count_value() {
    if (++values_ > kMostValues) broken("it makes more than {} values", kMostValues);
  }

  void push(Value value) {
    count_value();
    stack_.push_back(value);
  }

  // Values below the last mark belong to a container that is still incomplete.
  [[nodiscard]] size_t bottom() const { return marks_.empty() ? 0 : marks_.back(); }

  Value pop() {
    if (stack_.size() <= bottom()) broken("it takes a value from an empty stack");
    const Value value = stack_.back();
    stack_.pop_back();
    return value;
  }

  Value pop(Kind kind, const char* what) {
    const Value value = pop();
    if (value.kind != kind) broken("{} is {} instead of {}", what, kind_name(value.kind), kind_name(kind));
    return value;
  }

  Value top(Kind kind, const char* what) {
    const Value value = pop(kind, what);
    stack_.push_back(value);
    return value;
  }

  // The values above the last mark.
  std::vector<Value> pop_to_mark() {
    if (marks_.empty()) broken("it collects values without a mark");
    const auto begin = stack_.begin() + static_cast<ptrdiff_t>(marks_.back());
    std::vector<Value> values(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return values;
  }

  // torch's writer numbers memoized values in order.
  void put(uint64_t index) {
    if (stack_.size() <= bottom()) broken("it memoizes a value from an empty stack");
    if (index > memo_.size()) broken("it memoizes value {} after {} values", index, memo_.size());
    count_value();
    if (index == memo_.size()) memo_.emplace_back();
    memo_[index] = stack_.back();
  }

  void get(uint64_t index) {
    if (index >= memo_.size()) broken("it refers to value {} of {}", index, memo_.size());
    push(memo_[index]);
  }

  void push_tuple(std::vector<Value> items) {
    tuples_.push_back(std::move(items));
    push({Kind::tuple, static_cast<int64_t>(tuples_.size()) - 1, {}});
  }

  void push_tuple_of(size_t count) {
    std::vector<Value> items(count);
    for (size_t i = count; i-- > 0;) items[i] = pop();
    push_tuple(std::move(items));
  }

  void push_dict() {
    dicts_.emplace_back();
    push({Kind::dict, static_cast<int64_t>(dicts_.size()) - 1, {}});
  }

  void push_global(std::string_view module, std::string_view name) {
    for (size_t i = 0; i < kGlobals.size(); ++i) {
      if (kGlobals[i].module == module && kGlobals[i].name == name) {
        push({Kind::global, static_cast<int64_t>(i), {}});
        return;
      }
    }
    fail(
        "The pickle in {} names the global {} at byte {}, which does not build tensors and could run any "
        "code; convert the checkpoint to safetensors where you trust it.",
        file_, quote(fmt::format("{}.{}", module, name)), begin_);
  }

  // --- opcodes

  void step(uint8_t opcode) {
    switch (opcode) {
      case kProto: {
        const auto version = take_number(1);
        if (version < 2 || version > 5) broken("its protocol is {} where 2 to 5 are known", version);
        return;
      }
      case kFrame:
        if (take_number(8) > pickle_.size() - at_) broken("a frame is longer than the pickle");
        return;
      case kMark:
        count_value();
        marks_.push_back(stack_.size());
        return;
      case kNone:
        return push({Kind::none, 0, {}});
      case kNewTrue:
        return push({Kind::boolean, 1, {}});
      case kNewFalse:
        return push({Kind::boolean, 0, {}});
      case kBinInt:
        return push({Kind::integer, take_long(4), {}});
      case kBinInt1:
        return push({Kind::integer, static_cast<int64_t>(take_number(1)), {}});
      case kBinInt2:
        return push({Kind::integer, static_cast<int64_t>(take_number(2)), {}});
      case kLong1:
        return push({Kind::integer, take_long(take_number(1)), {}});
      case kBinFloat:
        take(8);
        return push({Kind::real, 0, {}});
      case kShortBinUnicode:
        return push({Kind::text, 0, take_text(take_number(1))});
      case kBinUnicode:
        return push({Kind::text, 0, take_text(take_number(4))});
      case kBinUnicode8:
        return push({Kind::text, 0, take_text(take_number(8))});
      case kBinPut:
        return put(take_number(1));
      case kLongBinPut:
        return put(take_number(4));
      case kMemoize:
        return put(memo_.size());
      case kBinGet:
        return get(take_number(1));
      case kLongBinGet:
        return get(take_number(4));
      case kEmptyTuple:
        return push_tuple({});
      case kTuple1:
        return push_tuple_of(1);
      case kTuple2:
        return push_tuple_of(2);
      case kTuple3:
        return push_tuple_of(3);
      case kTuple:
        return push_tuple(pop_to_mark());
      case kEmptyDict:
        return push_dict();
      case kEmptyList:
        return push({Kind::list, 0, {}});  // lists occur only in parts that are skipped
      case kAppend:
        pop();
        top(Kind::list, "what is appended to");
        return;
      case kAppends:
        pop_to_mark();
        top(Kind::list, "what is appended to");
        return;
      case kSetItem: {
        const Value value = pop();
        const Value key = pop();
        dict(top(Kind::dict, "what is filled")).emplace_back(key, value);
        return;
      }
      case kSetItems: {
        const auto items = pop_to_mark();
        auto& members = dict(top(Kind::dict, "what is filled"));
        if (items.size() % 2 != 0) broken("a key has no value");
        for (size_t i = 0; i < items.size(); i += 2) members.emplace_back(items[i], items[i + 1]);
        return;
      }
      case kBuild:  // the attributes of an OrderedDict: `_metadata`, the versions of modules
        pop(Kind::dict, "a state");
        top(Kind::dict, "what gets a state");
        return;
      case kGlobal: {
        const auto module = take_line();
        return push_global(module, take_line());
      }
      case kStackGlobal: {
        const auto name = pop(Kind::text, "the name of a global").text;
        return push_global(pop(Kind::text, "the module of a global").text, name);
      }
      case kBinPersid:
        return push_storage();
      case kReduce:
        return reduce();
      default:
        refuse_opcode(opcode);
    }
  }

  std::vector<std::pair<Value, Value>>& dict(const Value& value) { return dicts_[static_cast<size_t>(value.number)]; }
  [[nodiscard]] const std::vector<Value>& tuple(const Value& value) const {
    return tuples_[static_cast<size_t>(value.number)];
  }
  [[nodiscard]] static const Global& global(const Value& value) { return kGlobals[static_cast<size_t>(value.number)]; }

  void expect(const Value& value, Kind kind, const char* what) const {
    if (value.kind != kind) broken("{} is {} instead of {}", what, kind_name(value.kind), kind_name(kind));
  }

  // A persistent id is ("storage", type, key, location, elements).
  void push_storage() {
    const auto& id = tuple(pop(Kind::tuple, "a persistent id"));
    if (id.size() != 5 || id[0].kind != Kind::text || id[0].text != "storage" || id[1].kind != Kind::global ||
        id[2].kind != Kind::text || id[3].kind != Kind::text || id[4].kind != Kind::integer) {
      broken("a persistent id is not that of a storage");
    }
    const Global& type = global(id[1]);
    if (type.role != Role::storage && type.role != Role::untyped_storage) broken("a storage has no storage type");
    if (id[4].number < 0) broken("a storage has {} elements", id[4].number);
    storages_.push_back({id[2].text, &type, id[4].number});
    push({Kind::storage, static_cast<int64_t>(storages_.size()) - 1, {}});
  }

  void reduce() {
    const auto& arguments = tuple(pop(Kind::tuple, "what a global is called with"));
    const Global& called = global(pop(Kind::global, "what is called"));
    switch (called.role) {
      case Role::ordered_dict:
        if (!arguments.empty()) broken("an OrderedDict is made from something");
        return push_dict();
      case Role::rebuild_v2:
        return push_tensor(arguments, /*type_at=*/0, /*metadata_at=*/6);
      case Role::rebuild_v3:
        return push_tensor(arguments, /*type_at=*/6, /*metadata_at=*/7);
      case Role::rebuild_parameter:
        // (tensor, requires_grad, backward_hooks)
        if (arguments.size() != 3) broken("a parameter has {} arguments instead of 3", arguments.size());
        expect(arguments[0], Kind::tensor, "the content of a parameter");
        return push(arguments[0]);
      default:
        broken("{}.{} is called", called.module, called.name);
    }
  }

  // (storage, offset, shape, strides, requires_grad, backward_hooks[, dtype][, metadata]); 0 for `type_at`: the storage
  // has the type.
  void push_tensor(const std::vector<Value>& arguments, size_t type_at, size_t metadata_at) {
    if (arguments.size() != metadata_at && arguments.size() != metadata_at + 1) {
      broken("a tensor has {} arguments instead of {}", arguments.size(), metadata_at);
    }
    expect(arguments[0], Kind::storage, "the storage of a tensor");
    expect(arguments[1], Kind::integer, "the offset of a tensor");
    const auto& storage = storages_[static_cast<size_t>(arguments[0].number)];
    PickledTensor tensor;
    tensor.storage = storage.key;
    tensor.offset = arguments[1].number;
    tensor.shape = numbers(arguments[2], "the shape of a tensor");
    tensor.strides = numbers(arguments[3], "the strides of a tensor");
    if (tensor.shape.size() != tensor.strides.size()) {
      broken("a tensor has {} extents and {} strides", tensor.shape.size(), tensor.strides.size());
    }
    if (storage.global->role == Role::storage && type_at == 0) {
      tensor.type = storage.global->type;
    } else if (storage.global->role == Role::untyped_storage && type_at != 0) {
      expect(arguments[type_at], Kind::global, "the type of a tensor");
      if (global(arguments[type_at]).role != Role::dtype) broken("the type of a tensor is not a dtype");
      tensor.type = global(arguments[type_at]).type;
    } else {
      broken("a tensor and its storage do not agree on a type");
    }
    // The metadata says whether the numbers are to be conjugated or negated; stored weights never are.
    if (arguments.size() > metadata_at && arguments[metadata_at].kind != Kind::none &&
        !(arguments[metadata_at].kind == Kind::dict && dict(arguments[metadata_at]).empty())) {
      broken("a tensor has metadata");
    }
    const auto size = static_cast<int64_t>(dtype_size(storage.global->type));
    if (__builtin_mul_overflow(storage.count, size, &tensor.storage_bytes)) broken("the size of a storage overflows");
    if (tensors_.size() == kMostTensors) broken("it makes more than {} tensors", kMostTensors);
    tensors_.push_back(std::move(tensor));
    push({Kind::tensor, static_cast<int64_t>(tensors_.size()) - 1, {}});
  }

  std::vector<int64_t> numbers(const Value& value, const char* what) {
    expect(value, Kind::tuple, what);
    const auto& items = tuple(value);
    if (items.size() > kMostDimensions) {
      broken("{} has {} entries where at most {} are allowed", what, items.size(), kMostDimensions);
    }
    std::vector<int64_t> out;
    for (const auto& item : items) {
      expect(item, Kind::integer, what);
      out.push_back(item.number);
    }
    return out;
  }

  // --- the end

  std::vector<PickledTensor> result() {
    const Value root = pop();
    if (!stack_.empty() || !marks_.empty()) broken("it ends with more than one value");
    if (root.kind != Kind::dict) {
      fail("{} holds {} instead of a state dict; save model.state_dict() with torch.save.", file_,
           kind_name(root.kind));
    }
    const auto* members = &dict(root);
    if (members->size() == 1 && members->front().first.text == "state_dict" &&
        members->front().second.kind == Kind::dict) {
      members = &dict(members->front().second);
    }
    std::vector<PickledTensor> out;
    std::set<std::string_view> seen;
    if (members->size() > kMostTensors) {
      fail("The state dict in {} has {} members where at most {} are allowed; convert the checkpoint to safetensors.",
           file_, members->size(), kMostTensors);
    }
    out.reserve(members->size());
    for (const auto& [key, value] : *members) {
      if (key.kind != Kind::text) {
        fail("The state dict in {} has {} as a key; save model.state_dict() with torch.save.", file_,
             kind_name(key.kind));
      }
      if (value.kind != Kind::tensor) {
        fail("{} holds {} under the name {} instead of a tensor; save model.state_dict() alone with torch.save.", file_,
             kind_name(value.kind), quote(key.text));
      }
      if (!seen.insert(key.text).second) {
        fail("The state dict in {} has two tensors of the name {}; get the file again.", file_, quote(key.text));
      }
      out.push_back(tensors_[static_cast<size_t>(value.number)]);
      out.back().name = key.text;
    }
    return out;
  }

  std::string_view pickle_;
  std::string file_;  // quoted
  size_t at_ = 0;     // the next byte to read
  size_t begin_ = 0;  // of the current opcode
  size_t values_ = 0;
  std::vector<Value> stack_, memo_;
  std::vector<size_t> marks_;
  std::vector<std::vector<Value>> tuples_;
  std::vector<std::vector<std::pair<Value, Value>>> dicts_;
  std::vector<Storage> storages_;
  std::vector<PickledTensor> tensors_;
};

}  // namespace

std::vector<PickledTensor> read_state_dict(std::string_view pickle, const std::string& file) {
  return Machine(pickle, file).run();
}

}  // namespace mxlm
