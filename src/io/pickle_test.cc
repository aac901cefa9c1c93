#include "io/pickle.h"

#include <gtest/gtest.h>

#include <deque>
#include <string>

#include "io/testing/files.h"
#include "io/testing/torch_writer.h"

namespace weft::pickle {
namespace {

using testing::as_file;
using testing::refuses;
namespace pickled = testing::pickled;

// The document's texts point into the bytes, which live as long as the tests.
Document parse(std::string_view text) {
  static std::deque<std::string> files;
  return read(as_file(files.emplace_back(text)).bytes, "x");
}

template <class T>
T get(const Document& document) {
  const T* value = std::get_if<T>(&document.root);
  EXPECT_NE(value, nullptr) << "another type: alternative " << document.root.index();
  return value == nullptr ? T{} : *value;
}

std::string text_of(const std::string& pickle) { return std::string(get<Text>(parse(pickle)).value); }

using std::string_literals::operator""s;

TEST(Pickle, ReadsTheScalarsOfEveryProtocol) {
  EXPECT_EQ(get<std::int64_t>(parse("I-42\n.")), -42);
  EXPECT_EQ(get<std::int64_t>(parse("L-42L\n.")), -42);
  EXPECT_EQ(get<std::int64_t>(parse("J\xfe\xff\xff\xff.")), -2);
  EXPECT_EQ(get<std::int64_t>(parse("K\xfe.")), 254);
  EXPECT_EQ(get<std::int64_t>(parse("M\x01\xff.")), 0xFF01);
  EXPECT_EQ(get<std::int64_t>(parse("\x8a\x00."s)), 0);
  EXPECT_EQ(get<std::int64_t>(parse("\x8a\x02\x00\xff."s)), -256);
  EXPECT_EQ(get<std::int64_t>(parse("\x8b\x01\x00\x00\x00\x7f."s)), 127);
  EXPECT_EQ(text_of("\x8a\x09\x01\x02\x03\x04\x05\x06\x07\x08\x09."), "0x090807060504030201");
  EXPECT_EQ(text_of("L123456789012345678901L\n."), "123456789012345678901");
  EXPECT_EQ(get<double>(parse("F-1.5e3\n.")), -1500);
  EXPECT_EQ(get<double>(parse("G\x3f\xf8\x00\x00\x00\x00\x00\x00."s)), 1.5);
  EXPECT_TRUE(get<bool>(parse("I01\n.")));
  EXPECT_FALSE(get<bool>(parse("\x89.")));
  EXPECT_TRUE(get<bool>(parse("\x80\x05\x95\x02\x00\x00\x00\x00\x00\x00\x00\x88."s)));
  get<None>(parse("N."));
  EXPECT_EQ(text_of("X\x02\x00\x00\x00\xc3\xa9."s), "é");
  EXPECT_EQ(text_of("\x8c\x01"
                    "a."),
            "a");
  EXPECT_EQ(text_of("\x8d\x01\x00\x00\x00\x00\x00\x00\x00"
                    "a."s),
            "a");
  EXPECT_EQ(text_of("V\\u00e9\xe9\\U0001f600\\n\n."), "éé😀\\n");
  EXPECT_EQ(text_of("S'a\\n\\'\\x41'\n."), "a\n'A");
  EXPECT_EQ(text_of("U\x01"
                    "a."),
            "a");
  EXPECT_EQ(get<Bytes>(parse("U\x01\xff.")).value, "\xff");
  EXPECT_EQ(get<Bytes>(parse("C\x02\x00\xff."s)).value, "\x00\xff"s);
}

TEST(Pickle, ReadsContainersMarksAndTheMemo) {
  const std::string one = "K\x01", two = "K\x02";
  for (const std::string& text :
       {"(" + one + two + "t.", "(" + one + two + "l.", "](" + one + two + "e.", "]" + one + "a" + two + "a.",
        one + two + "\x86.", "\x8f(" + one + two + "\x90.", "(" + one + two + "\x91.",
        one + "q\x07" + "0h\x07" + two + "\x86.", one + "p300\n0g300\n" + two + "\x86.",
        one + "\x94" + "0j\x00\x00\x00\x00"s + two + "\x86.", "NN(NN10(" + one + two + "t."}) {
    const Document d = parse(text);
    const auto* items = get<Sequence*>(d);
    ASSERT_NE(items, nullptr);
    ASSERT_EQ(items->items.size(), 2U) << text;
    EXPECT_EQ(std::get<std::int64_t>(items->items[0]), 1);
    EXPECT_EQ(std::get<std::int64_t>(items->items[1]), 2);
  }
  const std::string entry = pickled::text("a") + "K\x05";
  for (const std::string& text : {"}" + entry + "s.", "(" + entry + "d.", "}(" + entry + "u."}) {
    const Document d = parse(text);
    const Value* value = get<Dict*>(d)->find("a");
    ASSERT_NE(value, nullptr);
    EXPECT_EQ(std::get<std::int64_t>(*value), 5);
  }
}

TEST(Pickle, LastEntryWithAKeyCounts) {
  const Document d = parse(pickled::document(pickled::dict({{"a", "K\x01"}, {"a", "K\x02"}})));
  EXPECT_EQ(std::get<std::int64_t>(*get<Dict*>(d)->find("a")), 2);
  EXPECT_EQ(get<Dict*>(d)->find("b"), nullptr);
}

TEST(Pickle, DescribesTensorsInEveryWayThatTorchWritesThem) {
  using namespace pickled;
  const std::string view = tensor({.elements = 12, .offset = 2, .sizes = {2, 3}, .strides = {1, 4}});
  const std::string untyped = call(global("torch._utils", "_rebuild_tensor_v3"),
                                   {storage("UntypedStorage", "0", 48), integer(2), integers({2, 3}), integers({1, 4}),
                                    "\x89", "}", global("torch", "float32")});
  const std::string first = call(global("torch._utils", "_rebuild_tensor"),
                                 {storage("FloatStorage", "0", 12), integer(2), integers({2, 3}), integers({1, 4})});
  const std::string parameter = call(global("torch._utils", "_rebuild_parameter"), {view, "\x88", "}"});
  const std::string subclass =
      call(global("torch._tensor", "_rebuild_from_type_v2"),
           {global("torch._utils", "_rebuild_tensor_v2"), global("torch.nn.parameter", "Parameter"),
            tuple({storage("FloatStorage", "0", 12), integer(2), call(global("torch", "Size"), {integers({2, 3})}),
                   integers({1, 4}), "\x89", "}"}),
            "}"});
  for (const std::string& text : {view, untyped, first, parameter, subclass}) {
    const Document d = parse(document(text));
    const auto* t = get<const TensorRef*>(d);
    ASSERT_NE(t, nullptr);
    EXPECT_EQ(t->storage->key, "0");
    EXPECT_EQ(t->dtype, DType::kF32);
    EXPECT_EQ(t->offset, 2);
    EXPECT_EQ(t->sizes, (std::vector<std::int64_t>{2, 3}));
    EXPECT_EQ(t->strides, (std::vector<std::int64_t>{1, 4}));
  }
}

TEST(Pickle, MakesPlainDataOfKnownClasses) {
  using namespace pickled;
  const std::string state = dict({{"lr", "K\x05"}});
  const auto lr = [](const std::string& text) {
    const Document d = parse(document(text));
    const Value* value = get<Dict*>(d)->find("lr");
    return value == nullptr ? -1 : std::get<std::int64_t>(*value);
  };
  EXPECT_EQ(lr(global("argparse", "Namespace") + ")R" + state + "b"), 5);
  EXPECT_EQ(lr(global("argparse", "Namespace") + ")\x81" + state + "b"), 5);
  EXPECT_EQ(lr(global("argparse", "Namespace") + ")}\x92" + state + "b"), 5);
  EXPECT_EQ(lr(global("copy_reg", "_reconstructor") + "(" + global("argparse", "Namespace") +
               global("__builtin__", "object") + "NtR" + state + "b"),
            5);
  EXPECT_EQ(lr("(iargparse\nNamespace\n" + state + "b"), 5);
  EXPECT_EQ(lr("(" + global("argparse", "Namespace") + "o" + state + "b"), 5);
  EXPECT_EQ(
      lr(global("yacs.config", "CfgNode") + ")\x81(" + text("lr") + "K\x05u" + dict({{"__immutable__", "\x88"}}) + "b"),
      5);
  EXPECT_EQ(lr(global("mmcv.utils.config", "ConfigDict") + ")\x81q\x01(" + text("lr") +
               "K\x05uh\x01"
               "b"),
            5);
  EXPECT_EQ(lr(call(global("collections", "OrderedDict"), {list({list({text("lr"), "K\x05"})})})), 5);
  EXPECT_EQ(lr(call(global("collections", "defaultdict"), {global("__builtin__", "list")}) + text("lr") + "K\x05s"), 5);
  EXPECT_EQ(text_of(document(call(global("pathlib", "PosixPath"), {text("/"), text("a"), text("b")}))), "/a/b");
  EXPECT_EQ(text_of(document(call(global("torch", "device"), {text("cuda"), "K\x01"}))), "cuda:1");
  EXPECT_EQ(text_of(document(text("numpy\nscalar"))), "numpy\nscalar");
}

TEST(Pickle, ReadsNumPyScalars) {
  using namespace pickled;
  const auto scalar = [](const char* module, const char* code, const std::string& data) {
    const std::string dtype =
        call(global("numpy", "dtype"), {text(code), "\x89", "\x88"}) + tuple({"K\x03", text("<"), "N", "N", "N"}) + "b";
    return document(call(global(module, "scalar"), {dtype, data}));
  };
  const std::string encoded = call(global("_codecs", "encode"), {text("\xc3\xb8?"), text("latin1")});  // bytes F8 3F
  EXPECT_EQ(
      get<double>(parse(scalar("numpy.core.multiarray", "f8", "C\x08" + testing::bytes_of(std::vector<double>{0.25})))),
      0.25);
  EXPECT_EQ(get<std::int64_t>(parse(
                scalar("numpy._core.multiarray", "i8", "C\x08" + testing::bytes_of(std::vector<std::int64_t>{-7})))),
            -7);
  EXPECT_EQ(get<std::int64_t>(parse(scalar("numpy.core.multiarray", "u2", encoded))), 0x3FF8);
  EXPECT_TRUE(get<bool>(parse(scalar("numpy.core.multiarray", "b1", "C\x01\x01"))));
}

TEST(Pickle, RefusesEveryCallThatIsNotInTheTable) {
  using namespace pickled;
  const std::string why =
      "[x] pickle wants to call os.system: expected only tensors and plain data; the file may be "
      "malicious, or was saved with a whole Python object: save model.state_dict() instead";
  for (const std::string& text : {"cos\nsystem\n(S'true'\ntR."s, document(call(global("os", "system"), {text("true")})),
                                  "\x80\x04\x8c\x02os\x8c\x06system\x93."s, "(S'true'\nios\nsystem\n."s,
                                  document(list({dict({{"a", global("os", "system")}})}))}) {
    EXPECT_TRUE(refuses([&] { parse(text); }, why));
  }
  for (const auto& [module, name] :
       std::vector<std::pair<std::string, std::string>>{{"builtins", "eval"},
                                                        {"builtins", "getattr"},
                                                        {"torch", "load"},
                                                        {"subprocess", "Popen"},
                                                        {"collections", "OrderedDict.update"},
                                                        {"collections.OrderedDict", "update"},
                                                        {"", ""},
                                                        {"models.vit", "VisionTransformer"},
                                                        {"a\x1b[31m", "b"}}) {
    EXPECT_TRUE(refuses([&] { parse(document(global(module, name))); }, "pickle wants to call ")) << module;
  }
  EXPECT_TRUE(refuses([] { parse(document(global("torch", "ComplexFloatStorage"))); }, "expected dense tensors"));
  EXPECT_TRUE(refuses([] { parse(document(global("torch._utils", "_rebuild_sparse_tensor"))); }, "dense tensors"));
  // Names of the table that are no functions, used as such, and values used as functions.
  EXPECT_TRUE(refuses([] { parse(document(call(global("torch", "float32"), {}))); }, "it calls torch.float32"));
  EXPECT_TRUE(refuses([] { parse(document(call(text("os.system"), {}))); }, "expected a function or class"));
  EXPECT_TRUE(refuses([] { parse(document(global("argparse", "Namespace") + "}b")); }, "sets the state of a class"));
}

TEST(Pickle, RefusesDamagedPicklesWithOneLine) {
  const auto check = [](const std::string& text, std::string_view why) {
    EXPECT_TRUE(refuses([&] { parse(text); }, why)) << text;
  };
  check("", "cut short");
  check("N", "cut short");
  check(
      "X\xff\xff\xff\xff"
      "a.",
      "cut short");
  check(
      "\x8d\xff\xff\xff\xff\xff\xff\xff\xff"
      "a.",
      "cut short");
  check("Sabc", "cut short");
  check(".", "stack is empty");
  check("(.", "stack is empty");
  check("N(0.", "stack is empty");
  check("Nt.", "there is no mark");
  check("h\x05.", "there is no memo 5");
  check("gx\n.", "'x' is no memo");
  check("Kx}s.", "stack is empty");
  check("](NNu.", "expected a dictionary");
  check("}(Nu.", "a key has no value");
  check("NNa.", "expected a list");
  check("NNR.", "expected a tuple");
  check("\xff.", "unknown opcode 0xff at byte 0");
  check("\x82\x01.", "unknown opcode 0x82");
  check("\x80\x09N.", "protocol 9");
  check("NQ.", "not that of a torch storage");
  check("I1x\n.", "'1x' is no integer");
  check("F1.5x\n.", "is no number");
  check("X\x01\x00\x00\x00\xff."s, "is not UTF-8");
  check("X\x03\x00\x00\x00\xed\xa0\x80."s, "is not UTF-8");
  check("V\\ud800\n.", "is not UTF-8");
  check("V\\u00g0\n.", "a bad escape");
  check("S'a\n.", "is not quoted");
  using namespace pickled;
  check(document(call(global("torch._utils", "_rebuild_tensor_v2"), {})),
        "argument 0 of torch._utils._rebuild_tensor_v2");
  check(document(tensor({.sizes = {1, 2}, .strides = {1}})), "2 sizes but 1 strides");
  check(document(tensor({.sizes = std::vector<std::int64_t>(65, 1), .strides = {}})), "65 axes: expected at most 64");
  const std::string whole = document(dict({{"a", tensor({.elements = 2, .sizes = {2}, .strides = {1}})}}));
  for (std::size_t size = 0; size < whole.size(); ++size) check(whole.substr(0, size), "damaged pickle");
}

TEST(Pickle, BoundsStepsAndCopies) {
  EXPECT_TRUE(refuses([] { parse(std::string(kMaxPickleSteps + 1, ')')); }, "more than 8388608 steps"));
  // One list of a thousand items, copied again and again.
  std::string copies = "]q\x01(" + std::string(1000, 'N') + "e0";
  for (int i = 0; i < 10'000; ++i) copies += pickled::global("torch", "Size") + "(h\x01tR0";
  EXPECT_TRUE(refuses([&] { parse(copies + "N."); }, "copies more data"));
  std::string merges = pickled::global("argparse", "Namespace") + ")R}q\x01(" + std::string(2000, 'N') + "ub";
  for (int i = 0; i < 10'000; ++i)
    merges +=
        "h\x01"
        "b";
  EXPECT_TRUE(refuses([&] { parse(merges + "."); }, "copies more data"));
}

TEST(Pickle, FreesDeepAndCyclicValuesWithoutRecursion) {
  std::string deep(2'000'000, ']');
  deep += std::string(1'999'999, 'a') + ".";
  EXPECT_NE(get<Sequence*>(parse(deep)), nullptr);
  EXPECT_NE(get<Sequence*>(parse("]q\x01h\x01"
                                 "a.")),
            nullptr);
}

}  // namespace
}  // namespace weft::pickle
