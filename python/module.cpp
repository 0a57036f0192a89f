// mxlm._core: the library's API for Python. mxlm/__init__.py makes it pleasant.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "mxlm/mxlm.hpp"

namespace nb = nanobind;

namespace mxlm::api {
namespace {

/// Runs `work` in a thread of its own while this one, without the GIL, waits and looks for signals. After Ctrl-C, or
/// whatever else a signal's handler raises, the work is called off, and once it has ended the exception goes on.
template <typename Work>
auto interruptibly(const Work& work) {
  std::atomic<bool> cancelled{false};
  auto result = std::async(std::launch::async, [&] { return work(cancelled); });
  std::optional<nb::python_error> raised;
  for (;;) {
    bool done = false;
    {
      const nb::gil_scoped_release release;
      done = result.wait_for(std::chrono::milliseconds(50)) == std::future_status::ready;
    }
    if (done) break;
    if (PyErr_CheckSignals() != 0) {
      cancelled = true;
      nb::python_error error;
      if (!raised) raised.emplace(std::move(error));
    }
  }
  if (raised) {
    result.wait();
    throw nb::python_error(std::move(*raised));
  }
  return result.get();
}

Cancelled asks(const std::atomic<bool>& flag) {
  return [&flag] { return flag.load(std::memory_order_relaxed); };
}

using InArray = nb::ndarray<nb::ro, nb::device::cpu, nb::c_contig>;
using OutArray = nb::ndarray<nb::device::cpu, nb::c_contig>;

ValueType type_of(nb::dlpack::dtype type) {
  if (type == nb::dtype<float>()) return ValueType::float32;
  if (type.lanes == 1 && type.bits == 16) {
    if (type.code == static_cast<uint8_t>(nb::dlpack::dtype_code::Float)) return ValueType::float16;
    if (type.code == static_cast<uint8_t>(nb::dlpack::dtype_code::Bfloat)) return ValueType::bfloat16;
  }
  throw nb::type_error("values are float32, float16 or bfloat16; convert the array to one of these");
}

void quantize_into(const InArray& in, const std::string& spec, const OutArray& out, int threads) {
  const ValueType in_type = type_of(in.dtype()), out_type = type_of(out.dtype());
  if (in.size() != out.size() || in.ndim() != out.ndim()) throw nb::value_error("the result has another shape");
  const auto cols = static_cast<int64_t>(in.ndim() == 0 ? 1 : in.shape(in.ndim() - 1));
  const auto rows = cols == 0 ? 0 : static_cast<int64_t>(in.size()) / cols;
  const auto work = [&](const std::atomic<bool>& cancelled) {
    quantize(spec, in_type, in.data(), out_type, out.data(), rows, cols,
             {.threads = threads, .cancelled = asks(cancelled)});
  };
  constexpr size_t kSoon = size_t{1} << 22;  // values that take a few milliseconds
  if (in.size() > kSoon) {
    interruptibly([&](const std::atomic<bool>& cancelled) {
      work(cancelled);
      return true;
    });
  } else {
    const nb::gil_scoped_release release;
    work(false);
  }
}

using Row = Option<EvaluateOptions>;

/// The word of its type in Python.
struct TypeName {
  const char* operator()(bool EvaluateOptions::*) const { return "bool"; }
  const char* operator()(int EvaluateOptions::*) const { return "int"; }
  const char* operator()(int64_t EvaluateOptions::*) const { return "int"; }
  const char* operator()(double EvaluateOptions::*) const { return "float"; }
  const char* operator()(std::string EvaluateOptions::*) const { return "str"; }
  const char* operator()(std::filesystem::path EvaluateOptions::*) const { return "Union[str, os.PathLike[str]]"; }
  const char* operator()(std::vector<int> EvaluateOptions::*) const { return "Sequence[int]"; }
  const char* operator()(std::vector<std::string> EvaluateOptions::*) const { return "Union[str, Sequence[str]]"; }
  const char* operator()(const Choice<EvaluateOptions>&) const { return "str"; }
};

nb::object get(const EvaluateOptions& options, const Row& row) {
  return std::visit(
      [&]<typename Member>(const Member& member) -> nb::object {
        if constexpr (std::is_same_v<Member, Choice<EvaluateOptions>>) {
          return nb::cast(member.words.at(member.get(options)));
        } else if constexpr (std::is_same_v<Member, std::filesystem::path EvaluateOptions::*>) {
          return nb::cast((options.*member).native());
        } else {
          return nb::cast(options.*member);
        }
      },
      row.member);
}

void set(EvaluateOptions& options, const Row& row, const nb::handle& value) {
  std::visit(
      [&]<typename Member>(const Member& member) {
        if constexpr (std::is_same_v<Member, Choice<EvaluateOptions>>) {
          member.set(options, place_of_word(nb::cast<std::string>(value), member.words, row.command_line_flag()));
        } else {
          using Value = std::remove_cvref_t<decltype(options.*member)>;
          if constexpr (std::is_same_v<Value, std::vector<std::string>>) {
            if (nb::isinstance<nb::str>(value)) {
              options.*member = {nb::cast<std::string>(value)};
              return;
            }
          }
          options.*member = nb::cast<Value>(value);
        }
      },
      row.member);
}

/// The options of a dict by their names; None leaves the default.
EvaluateOptions options_of(const nb::dict& values) {
  EvaluateOptions options;
  for (const Row& row : option_table()) {
    const nb::object value = values.attr("get")(row.name);
    if (value.is_none()) continue;
    try {
      set(options, row, value);
    } catch (const nb::cast_error&) {
      throw nb::type_error((row.name + " should be " + std::visit(TypeName(), row.member) + ", not " +
                            nb::cast<std::string>(nb::repr(value)))
                               .c_str());
    }
  }
  return options;
}

/// All options of an evaluation that is asked for so.
nb::dict resolved_options(const nb::dict& values) {
  const EvaluateOptions options = options_of(values);
  check_options(options);
  nb::dict out;
  for (const Row& row : option_table()) out[row.name.c_str()] = get(options, row);
  return out;
}

/// The table, a dict a row.
nb::list options_list() {
  nb::list out;
  const EvaluateOptions standard;
  for (const Row& row : option_table()) {
    const auto* const choice = std::get_if<Choice<EvaluateOptions>>(&row.member);
    nb::dict entry;
    entry["group"] = row.group;
    entry["name"] = row.name;
    entry["flag"] = row.command_line_flag();
    entry["type"] = std::visit(TypeName(), row.member);
    entry["default"] = get(standard, row);
    entry["help"] = row.help;
    entry["least"] = row.least;
    entry["most"] = row.most;
    entry["words"] = choice == nullptr ? std::vector<std::string>() : choice->words;
    entry["former"] = row.former;
    out.append(entry);
  }
  return out;
}

std::string evaluate_json(const Model& model, const Data& data, const nb::dict& values, const nb::object& progress) {
  EvaluateOptions options = options_of(values);
  std::optional<nb::python_error> raised;
  std::atomic<bool> stop{false};
  if (!progress.is_none()) {
    options.on_progress = [&](const Progress& p) {
      if (stop) return;
      const nb::gil_scoped_acquire acquire;
      try {
        progress(p.done, p.total);
      } catch (nb::python_error& error) {
        raised.emplace(std::move(error));
        stop = true;
      }
    };
  }
  std::optional<Evaluation> result;
  try {
    result = interruptibly([&](const std::atomic<bool>& cancelled) {
      options.cancelled = [&] { return cancelled.load() || stop.load(); };
      return evaluate(model, data, options);
    });
  } catch (const Interrupted&) {
    if (!raised) throw;
  }
  if (raised) throw nb::python_error(std::move(*raised));
  return result->json;
}

Data data_of_texts(const std::vector<nb::bytes>& texts) {
  std::vector<std::string> copies;
  copies.reserve(texts.size());
  for (const nb::bytes& text : texts) copies.emplace_back(text.c_str(), text.size());
  return Data::texts(std::move(copies));
}

nb::list formats_list() {
  nb::list out;
  for (const Format& f : formats()) {
    nb::dict entry;
    entry["name"] = f.name;
    entry["aliases"] = f.aliases;
    entry["bits"] = f.bits;
    entry["exponent_bits"] = f.exponent_bits;
    entry["mantissa_bits"] = f.mantissa_bits;
    entry["emax"] = f.emax;
    entry["largest"] = f.largest;
    entry["smallest"] = f.smallest;
    entry["note"] = f.note;
    out.append(entry);
  }
  return out;
}

/// To Python's logging, by whatever thread. Holds no Python object, for it outlives the interpreter.
void log_to_python(LogLevel level, std::string_view line) {
  if (!Py_IsInitialized()) return;
  const nb::gil_scoped_acquire acquire;
  try {
    const nb::object logger = nb::module_::import_("logging").attr("getLogger")("mxlm");
    const char* const method = level == LogLevel::error ? "error" : level == LogLevel::warning ? "warning" : "info";
    logger.attr(method)("%s", nb::str(line.data(), line.size()));
  } catch (nb::python_error& error) {
    error.discard_as_unraisable("the log of mxlm");
  }
}

}  // namespace
}  // namespace mxlm::api

NB_MODULE(_core, m) {
  using namespace mxlm::api;
  auto error = nb::exception<mxlm::Error>(m, "Error", PyExc_RuntimeError);
  const nb::object bases = nb::make_tuple(error, nb::handle(PyExc_ValueError));
  nb::exception<mxlm::UsageError>(m, "UsageError", bases);
  nb::exception<mxlm::Interrupted>(m, "Interrupted", PyExc_RuntimeError);
  m.attr("__version__") = version();
  set_log(log_to_python);

  nb::class_<Model>(m, "Model")
      .def_prop_ro("name", &Model::name)
      .def_prop_ro("family", &Model::family)
      .def_prop_ro("dtype", &Model::dtype)
      .def_prop_ro("parameters", &Model::parameters)
      .def_prop_ro("max_positions", &Model::max_positions);
  nb::class_<Data>(m, "Data");

  m.def("load", [](const std::string& model, const std::string& adapter) {
    return interruptibly(
        [&](const std::atomic<bool>& cancelled) { return Model::load(model, asks(cancelled), adapter); });
  });
  m.def("embedded_data", [] { return Data::embedded(); });
  m.def("text_data", &data_of_texts);
  m.def("read_data", [](const std::string& name, const nb::dict& values) {
    EvaluateOptions options = options_of(values);
    return interruptibly([&](const std::atomic<bool>& cancelled) {
      options.cancelled = asks(cancelled);
      return Data::read(name, options);
    });
  });
  m.def("quantize_into", &quantize_into, nb::arg("array").noconvert(), nb::arg("spec"), nb::arg("out").noconvert(),
        nb::arg("threads"));
  m.def("formats", &formats_list);
  m.def("cast_file", [](const std::filesystem::path& input, const std::filesystem::path& output,
                        const std::string& spec, bool packed, int threads) {
    interruptibly([&](const std::atomic<bool>& cancelled) {
      cast_file({.input = input,
                 .output = output,
                 .spec = spec,
                 .packed = packed,
                 .threads = threads,
                 .cancelled = asks(cancelled)});
      return true;
    });
  });

  m.def("options", &options_list);
  m.def("resolved_options", &resolved_options);
  m.def("evaluate", &evaluate_json, nb::arg("model"), nb::arg("data"), nb::arg("options"), nb::arg("progress").none());
}
