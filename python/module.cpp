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
#include <utility>
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

struct Arguments {
  EvaluateOptions options;
  std::string bos = "template", dtype = "auto", gemm = "exact";
};

template <typename T>
T one_of(const char* what, const std::string& text, std::initializer_list<std::pair<const char*, T>> values) {
  std::string names;
  for (const auto& [name, value] : values) {
    if (text == name) return value;
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  throw UsageError(std::string(what) + " '" + text + "' is not known; it is one of " + names + ".");
}

std::string evaluate_json(const Model& model, const Data& data, Arguments arguments, const nb::object& progress) {
  EvaluateOptions& options = arguments.options;
  options.bos = one_of<Bos>("bos", arguments.bos,
                            {{"template", Bos::from_template}, {"always", Bos::always}, {"never", Bos::never}});
  options.dtype = one_of<ComputeType>(
      "dtype", arguments.dtype,
      {{"auto", ComputeType::automatic}, {"float32", ComputeType::float32}, {"bfloat16", ComputeType::bfloat16}});
  options.gemm = one_of<Gemm>("gemm", arguments.gemm, {{"exact", Gemm::exact}, {"fast", Gemm::fast}});
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
  m.def("read_data", [](const std::string& name, const std::string& field, int64_t max_documents, bool wikitext_rows) {
    return interruptibly([&](const std::atomic<bool>& cancelled) {
      return Data::read(name, {.field = field,
                               .max_documents = max_documents,
                               .wikitext_rows = wikitext_rows,
                               .cancelled = asks(cancelled)});
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

  nb::class_<Arguments>(m, "Arguments")
      .def(nb::init<>())
      .def_prop_rw(
          "variants", [](const Arguments& a) { return a.options.variants; },
          [](Arguments& a, std::vector<std::string> v) { a.options.variants = std::move(v); })
#define MXLM_OPTION(name)                                       \
  .def_prop_rw(                                                 \
      #name, [](const Arguments& a) { return a.options.name; }, \
      [](Arguments& a, decltype(EvaluateOptions::name) v) { a.options.name = std::move(v); })
      // clang-format off
      MXLM_OPTION(protocol) MXLM_OPTION(context) MXLM_OPTION(stride) MXLM_OPTION(max_windows)
      MXLM_OPTION(windows)
      MXLM_OPTION(allow_long_context) MXLM_OPTION(device) MXLM_OPTION(threads) MXLM_OPTION(batch_windows)
      MXLM_OPTION(round_tokens) MXLM_OPTION(stream) MXLM_OPTION(noise) MXLM_OPTION(jensen_shannon)
      MXLM_OPTION(linear_errors) MXLM_OPTION(exponents) MXLM_OPTION(journal) MXLM_OPTION(resume)
  // clang-format on
#undef MXLM_OPTION
      .def_rw("bos", &Arguments::bos)
      .def_rw("dtype", &Arguments::dtype)
      .def_rw("gemm", &Arguments::gemm);
  m.def("evaluate", &evaluate_json, nb::arg("model"), nb::arg("data"), nb::arg("arguments"),
        nb::arg("progress").none());
}
